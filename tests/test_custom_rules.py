"""Rules of plugins and of projects: the public interface, trust, `memlint rule new`, `memlint test`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """\
import torch


def train(step, loader: torch.utils.data.DataLoader):
    for batch in loader:
        step(batch)
        torch.cuda.synchronize()
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project that names rules of its own, and a user without configuration."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.chdir(project)
    (project / "pyproject.toml").write_text('[tool.memlint]\nlocal-rules = ["memlint_rules"]\n')
    (project / "train.py").write_text(CODE)
    assert memlint("rule", "new", "waits-for-device").returncode == 0
    return project


def memlint(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own: rules are loaded once a process."""
    command = [sys.executable, "-c", "from memlint.cli.main import main; main()", *arguments]
    env = {**os.environ, **environment}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env)


def found(*arguments: str, **environment: str) -> list[str]:
    done = memlint("check", "train.py", "--output-format", "json", *arguments, **environment)
    return [finding["code"] for finding in json.loads(done.stdout)]


def rule_file(project: Path) -> Path:
    return project / "memlint_rules" / "waits_for_device.py"


def test_a_new_rule_works_and_its_fixture_holds(project: Path) -> None:
    assert found("--allow-local-rules") == ["ACME001"]
    tested = memlint("test", "--allow-local-rules", "memlint_rules")
    assert (tested.returncode, tested.stdout) == (0, "2 cases passed.\n")
    (project / "train.py").write_text(CODE.replace("synchronize()", "synchronize()  # noqa: ACME001"))
    assert found("--allow-local-rules") == []


def test_the_projects_file_alone_runs_nothing(project: Path) -> None:
    (project / "memlint_rules" / "trap.py").write_text("raise SystemExit('I ran')\n")
    done = memlint("check", "train.py")
    assert (done.returncode, done.stdout) == (0, "No findings in 1 file.\n")
    assert done.stderr == "note: the project's own rules (memlint_rules) are not loaded: `--allow-local-rules` does\n"


def test_the_users_configuration_trusts_folders(project: Path, tmp_path: Path) -> None:
    config = tmp_path / "config" / "memlint"
    config.mkdir(parents=True)
    (config / "memlint.toml").write_text(f'trust-local-rules = ["{tmp_path / "elsewhere"}"]\n')
    assert found() == []
    (config / "memlint.toml").write_text(f'trust-local-rules = ["{project.parent}"]\n')
    assert found() == ["ACME001"]
    page = memlint("rule", "waits-for-device")
    assert page.stdout.startswith("# waits-for-device (ACME001)\n\n*custom, on by default, since 1.0*\n")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('trust-local-rules = ["projects"]', 'must hold absolute paths, not "projects"'),
        ('trust = ["/"]', 'there is no option "trust"'),
        ("trust-local-rules = 1", "must be a list of strings"),
    ],
)
def test_an_unusable_configuration_of_the_user_is_trouble(
    project: Path, tmp_path: Path, content: str, message: str
) -> None:
    config = tmp_path / "config" / "memlint"
    config.mkdir(parents=True)
    (config / "memlint.toml").write_text(content)
    done = memlint("check")
    assert done.returncode == 2
    assert message in done.stderr


def test_a_project_cannot_allow_its_own_rules(project: Path) -> None:
    (project / "pyproject.toml").write_text(
        '[tool.memlint]\nallow-local-rules = true\nlocal-rules = ["memlint_rules"]\n'
    )
    done = memlint("check")
    assert done.returncode == 2
    assert 'there is no option "allow-local-rules"' in done.stderr


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("MEMLINT_API = 1\n", "", "does not say for which version of memlint.api; here it is MEMLINT_API = 1"),
        ("MEMLINT_API = 1", "MEMLINT_API = 2", "is written for version 2 of memlint.api"),
        ('code = "ACME001"', 'code = "MEM999"', "'MEM999' is no code such as ACME001 (codes that begin with MEM are"),
        ('name = "waits-for-device"', 'name = "Waits For"', "'Waits For' is no name such as"),
        ('    since = "1.0"\n', "", "WaitsForDevice has no `since`"),
        (
            "class WaitsForDevice",
            "1 / 0\n\n\nclass WaitsForDevice",
            "cannot be loaded: ZeroDivisionError: division by zero",
        ),
        (
            "class WaitsForDevice",
            "import nothing_there\n\n\nclass WaitsForDevice",
            "cannot be loaded: ModuleNotFoundError",
        ),
    ],
)
def test_rules_that_cannot_be_used_are_trouble_that_names_them(project: Path, old: str, new: str, message: str) -> None:
    text = rule_file(project).read_text()
    assert old in text
    rule_file(project).write_text(text.replace(old, new))
    done = memlint("check", "--allow-local-rules")
    assert done.returncode == 2
    assert "waits_for_device.py" in done.stderr
    assert message in done.stderr


def test_two_rules_of_one_code_are_trouble(project: Path) -> None:
    (project / "memlint_rules" / "twin.py").write_text(rule_file(project).read_text())
    done = memlint("check", "--allow-local-rules")
    assert done.returncode == 2
    assert "has a rule ACME001 too" in done.stderr


def test_a_rule_that_crashes_is_named_and_takes_no_other_along(project: Path) -> None:
    text = rule_file(project).read_text().replace("        for call in", "        1 / 0\n        for call in")
    rule_file(project).write_text(text)
    (project / "train.py").write_text(CODE.replace("synchronize", "empty_cache") + "\n\ntorch.cuda.synchronize()\n")
    assert sorted(found("--allow-local-rules")) == ["MEM004", "MEM701"]


def test_a_plugin_is_found_by_its_entry_point(project: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    package = site / "acme_memlint"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "waiting.py").write_text(rule_file(project).read_text())
    metadata = site / "acme_memlint-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-memlint\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[memlint.rules]\nacme = acme_memlint\n")
    assert found(PYTHONPATH=str(site)) == ["ACME001"]
    assert found("--ignore", "custom", PYTHONPATH=str(site)) == []


# --- memlint test ---


def test_a_case_that_does_not_hold_is_shown(project: Path) -> None:
    fixture = project / "memlint_rules" / "waits-for-device.md"
    fixture.write_text(fixture.read_text().replace('  # error: ACME001 "waits for the device"', ""))
    done = memlint("test", "--allow-local-rules", "memlint_rules")
    assert done.returncode == 1
    assert "unexpected ACME001" in done.stdout
    assert done.stdout.endswith("1 case passed, 1 failed.\n")


def test_rules_that_nobody_has_named_are_not_tested_and_that_is_said(project: Path) -> None:
    (project / "pyproject.toml").write_text("")
    done = memlint("test", "--allow-local-rules", "memlint_rules")
    assert done.returncode == 1
    assert done.stderr == "note: no rules of the project are named: `local-rules` in [tool.memlint] does\n"


def test_a_fixture_that_cannot_be_read_is_trouble(project: Path) -> None:
    (project / "broken.md").write_text("## A heading\n\n```python\nx = 1\n")
    assert "this block never ends" in memlint("test", "broken.md").stderr
    assert memlint("test", "broken.md").returncode == 2
    (project / "empty.md").write_text("# Nothing\n")
    assert "no cases were found" in memlint("test", "empty.md").stderr


# --- memlint rule new ---


def test_nothing_is_overwritten(project: Path) -> None:
    done = memlint("rule", "new", "waits-for-device")
    assert done.returncode == 2
    assert "is there already" in done.stderr


def test_a_name_must_say_something(project: Path) -> None:
    assert "is no name for a rule" in memlint("rule", "new", "Bad").stderr
