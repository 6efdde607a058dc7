"""What a safe fix asks of the project's other files."""

from __future__ import annotations

from pathlib import Path

from memlint.project.files import project_mentions, project_root

DIFFERENTIATES = ("autograd.grad",)


def test_the_root_is_the_nearest_folder_with_a_project_file(tmp_path: Path) -> None:
    inner = tmp_path / "package" / "models"
    inner.mkdir(parents=True)
    (tmp_path / "pyproject.toml").touch()
    assert project_root(inner) == tmp_path


def test_a_mention_anywhere_in_the_project_counts(tmp_path: Path) -> None:
    (tmp_path / "setup.py").touch()
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "forces.py").write_text("f = torch.autograd.grad(e, x)\n")
    assert project_mentions(str(tmp_path), DIFFERENTIATES)


def test_installed_packages_are_not_the_projects_text(tmp_path: Path) -> None:
    (tmp_path / "setup.cfg").touch()
    for folder in (".venv/lib", "build/lib", "lib/site-packages/torch"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "autograd.py").write_text("autograd.grad\n")
    assert not project_mentions(str(tmp_path), DIFFERENTIATES)


def test_a_folder_without_a_project_file_is_not_searched_below(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "forces.py").write_text("autograd.grad\n")
    assert not project_mentions(str(tmp_path), DIFFERENTIATES)
    (tmp_path / "beside.py").write_text("autograd.grad\n")
    project_mentions.cache_clear()
    assert project_mentions(str(tmp_path), DIFFERENTIATES)
