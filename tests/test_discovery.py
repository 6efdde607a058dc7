"""From paths on the command line to files."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pathspec import GitIgnoreSpec

from memlint.config.discovery import find_files
from memlint.config.errors import ConfigError
from memlint.config.ignoring import PathPatterns
from memlint.config.load import SettingsResolver
from memlint.config.options import Options


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "project"
    root.mkdir()
    (root / ".git").mkdir()
    monkeypatch.chdir(root)
    return root


def make(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("", "utf-8")


def found(
    *paths: str,
    exclude: tuple[str, ...] | None = None,
    extend_exclude: tuple[str, ...] = (),
    force_exclude: bool | None = None,
) -> list[str]:
    overrides = Options("the command line", exclude=exclude, extend_exclude=extend_exclude, force_exclude=force_exclude)
    return [file.shown for file in find_files(paths, SettingsResolver(overrides)).files]


def test_without_paths_the_python_files_of_the_current_folder(project: Path) -> None:
    make(project, "b.py", "a.pyw", "sub/c.py", "stub.pyi", "notes.txt", "script", ".hidden/d.py")
    assert found() == [".hidden/d.py", "a.pyw", "b.py", "sub/c.py"]
    assert found(".") == found()


def test_files_come_in_the_order_of_their_paths(project: Path) -> None:
    make(project, "a/z.py", "a-b.py", "a.py")
    assert found("a.py", "a", "a-b.py") == ["a-b.py", "a.py", "a/z.py"]


def test_a_file_named_itself_needs_no_suffix(project: Path) -> None:
    make(project, "script")
    assert found("script") == ["script"]


def test_overlapping_paths_give_each_file_once(project: Path) -> None:
    make(project, "src/a.py")
    assert found("src/a.py", "src", ".", "./src/../src/a.py", str(project / "src")) == ["src/a.py"]


def test_paths_outside_the_current_folder_are_shown_as_given(project: Path) -> None:
    make(project.parent, "other/a.py")
    assert found("../other") == ["../other/a.py"]
    assert found(str(project.parent / "other")) == [str(project.parent / "other" / "a.py")]
    assert found(str(project)) == []


def test_a_path_that_does_not_exist_is_an_error(project: Path) -> None:
    make(project, "a.py")
    with pytest.raises(ConfigError, match=r"^`srcc`, `b.py` do not exist$"):
        found("srcc", "a.py", "b.py")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_named_pipe_is_never_opened(project: Path) -> None:
    os.mkfifo(project / "pipe.py")
    assert found() == []
    with pytest.raises(ConfigError, match="neither a file nor a folder"):
        found("pipe.py")


# --- exclude ---


def test_environments_and_builds_are_left_out_by_default(project: Path) -> None:
    make(project, "a.py", ".venv/b.py", "venv/lib/c.py", "sub/build/d.py", "x/site-packages/e.py", "__pycache__/f.py")
    make(project, "m.egg-info/g.py", "rebuild/h.py")
    assert found() == ["a.py", "rebuild/h.py"]


def test_exclude_replaces_the_default_and_extend_exclude_adds(project: Path) -> None:
    make(project, "a.py", "build/b.py", "gen/c.py", "gen/keep/d.py")
    assert found(exclude=("gen",)) == ["a.py", "build/b.py"]
    assert found(extend_exclude=("gen/*.py",)) == ["a.py", "gen/keep/d.py"]


def test_patterns_of_a_file_are_relative_to_it_and_those_of_options_to_the_current_folder(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(project, "src/gen/a.py", "src/src/gen/b.py", "src/c.py")
    (project / "memlint.toml").write_text('extend-exclude = ["src/gen"]\n', "utf-8")
    monkeypatch.chdir(project / "src")
    assert found() == ["c.py", "src/gen/b.py"]
    assert found(extend_exclude=("src/gen", "c.py")) == []


def test_a_file_named_itself_is_checked_though_excluded_unless_forced(project: Path) -> None:
    make(project, "build/a.py", "b.py")
    assert found("build/a.py") == ["build/a.py"]
    assert found("build/a.py", "b.py", force_exclude=True) == ["b.py"]


def test_an_excluded_folder_named_itself_is_searched_unless_forced(project: Path) -> None:
    make(project, "build/lib/a.py", "build/.venv/b.py")
    assert found("build") == ["build/lib/a.py"]
    assert found("build/lib") == ["build/lib/a.py"]
    assert found("build", force_exclude=True) == []


def test_force_exclude_can_come_from_the_file(project: Path) -> None:
    make(project, "gen/a.py")
    (project / "memlint.toml").write_text('force-exclude = true\nextend-exclude = ["gen"]\n', "utf-8")
    assert found("gen/a.py") == []
    assert found("gen/a.py", force_exclude=False) == ["gen/a.py"]


def test_folders_above_the_project_exclude_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "build/venv/project/a.py")
    monkeypatch.chdir(tmp_path / "build" / "venv" / "project")
    assert found() == ["a.py"]


def test_a_pattern_that_is_none_is_an_error(project: Path) -> None:
    make(project, "a.py")
    with pytest.raises(ConfigError, match=r'^the command line: "!" is not a path pattern'):
        found(extend_exclude=("!",))


# --- .gitignore ---


def test_gitignore_files_hold_for_their_folder_and_below(project: Path) -> None:
    make(project, "a.py", "gen/b.py", "sub/gen.py", "sub/c.py", "sub/keep.py", "sub/deep/c.py", "c.py")
    (project / ".gitignore").write_text("/gen/\nkeep.py\n", "utf-8")
    (project / "sub" / ".gitignore").write_text("c.py\n!keep.py\n", "utf-8")
    assert found() == ["a.py", "c.py", "sub/gen.py", "sub/keep.py"]


def test_gitignore_files_above_count_up_to_the_repository_root(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(project, "sub/a.py", "sub/gen.py", "sub/out.py")
    (project.parent / ".gitignore").write_text("*.py\n", "utf-8")
    (project / ".gitignore").write_text("gen.py\n", "utf-8")
    (project / ".git" / "info").mkdir()
    (project / ".git" / "info" / "exclude").write_text("out.py\n", "utf-8")
    assert found("sub") == ["sub/a.py"]
    monkeypatch.chdir(project / "sub")
    assert found() == ["a.py"]


def test_a_file_or_folder_named_itself_is_looked_at_though_git_ignores_it(project: Path) -> None:
    make(project, "gen/a.py", "gen/b.py", "c.py")
    (project / ".gitignore").write_text("gen/\nc.py\n", "utf-8")
    assert found("gen/a.py", "c.py") == ["c.py", "gen/a.py"]
    assert found("gen") == ["gen/a.py", "gen/b.py"]


def test_gitignore_agrees_with_git(project: Path) -> None:
    (project / ".git").rmdir()
    subprocess.run(["git", "init", "-q", "."], cwd=project, check=True)
    make(project, "a/x.py", "a/keep/y.py", "b/c/d.py", "b/e.py", "logs/l.py", "data1.py", "dataX.py", "z [1].py")
    make(project, "deep/a/b/c/f.py", "keep/logs/m.py", "#hash.py", "b/c/keep.py")
    (project / ".gitignore").write_text(
        "# a comment\n\na/*\n!a/keep/\n**/c/*\n!keep.py\nlogs\n!keep/logs\ndata[0-9].py\n\\#hash.py\nz\\ *\n", "utf-8"
    )
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--others", "--exclude-standard", "*.py"],
        cwd=project,
        check=True,
        capture_output=True,
        text=True,
    )
    assert found() == sorted(listed.stdout.split("\0")[:-1])


def test_lines_of_a_gitignore_that_git_passes_over_are_no_error(project: Path) -> None:
    make(project, "a.py", "b.py")
    (project / ".gitignore").write_bytes(b"!\n/\n\xff\xfe\nb.py\n")
    assert found() == ["a.py"]


# --- links ---


def test_loops_of_links_end_and_each_file_is_visited_once(project: Path) -> None:
    make(project, "src/a.py")
    (project / "src" / "loop").symlink_to(project / "src", target_is_directory=True)
    (project / "src" / "self.py").symlink_to(project / "src" / "self.py")
    (project / "a_link.py").symlink_to(project / "src" / "a.py")
    assert found() == ["src/a.py"]
    assert found("a_link.py") == ["a_link.py"]


def test_a_link_to_a_folder_is_followed_when_named_itself(project: Path) -> None:
    make(project.parent, "elsewhere/a.py")
    (project / "link").symlink_to(project.parent / "elsewhere", target_is_directory=True)
    assert found() == []
    assert found("link") == ["link/a.py"]


def test_a_folder_that_cannot_be_read_is_reported_and_the_others_are_searched(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(project, "a.py", "locked/b.py")
    scan = os.scandir

    def scandir(path: str) -> object:
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    result = find_files([], SettingsResolver(Options("the command line")))
    assert [file.shown for file in result.files] == ["a.py"]
    assert [(folder.shown, folder.reason) for folder in result.unreadable] == [("locked", "Permission denied")]


NAMES = st.sampled_from(["a", "b.py", "build", "x.pyc", "keep", ".git"])
PATTERNS = st.builds(
    "{}{}{}{}".format,
    st.sampled_from(["", "!", "/", "!/", "#", "\\"]),
    st.sampled_from(["", "a/", "b.py/", "*/", "**/"]),
    st.sampled_from(["a", "build", "*.pyc", "*c", "*", "k?ep", "[ab]", "keep", "a.", "**"]),
    st.sampled_from(["", "/", "/**", " "]),
)


@settings(deadline=None)
@given(st.lists(PATTERNS, max_size=4), st.lists(NAMES, min_size=1, max_size=3), st.booleans())
def test_patterns_that_are_decided_by_names_match_as_pathspec_does(
    lines: list[str], names: list[str], folder: bool
) -> None:
    lines = [line for line in lines if is_pattern(line)]
    path = "/".join(names) + "/" * folder
    include, _ = PathPatterns(lines).decide(path)
    assert include == GitIgnoreSpec.from_lines(lines).check_file(path).include


def is_pattern(line: str) -> bool:
    try:
        GitIgnoreSpec.from_lines([line])
    except ValueError:
        return False
    return True
