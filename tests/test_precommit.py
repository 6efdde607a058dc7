"""The hooks, run by pre-commit itself on a scratch repository."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

LEAKY = """\
from torch import nn


def train(net: nn.Module, loader, optimizer):
    criterion = nn.CrossEntropyLoss()
    total = 0.0
    for images, labels in loader:
        loss = criterion(net(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss
    print(total / len(loader))
"""


@dataclass(frozen=True)
class Hooks:
    """memlint as a repository of hooks, and the environment to run commands in."""

    repository: Path
    revision: str
    environment: dict[str, str]

    def git(self, *arguments: str, cwd: Path) -> str:
        command = ["git", "-c", "commit.gpgsign=false", *arguments]
        return subprocess.run(
            command, cwd=cwd, env=self.environment, check=True, capture_output=True, text=True
        ).stdout.strip()

    def scratch(self, folder: Path, files: dict[str, str]) -> Path:
        """A repository that uses the hooks, with `files` staged."""
        folder.mkdir(exist_ok=True)
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(content, encoding="utf-8")
        uses = {"repo": str(self.repository), "rev": self.revision, "hooks": [{"id": "memlint"}, {"id": "memlint-fix"}]}
        (folder / ".pre-commit-config.yaml").write_text(json.dumps({"repos": [uses]}), encoding="utf-8")
        self.git("init", "--quiet", cwd=folder)
        self.git("add", "--all", cwd=folder)
        return folder

    def run(self, hook: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pre_commit", "run", "--all-files", "--verbose", hook]
        return subprocess.run(command, cwd=cwd, env=self.environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def hooks(source_copy: Path, tmp_path_factory: pytest.TempPathFactory) -> Hooks:
    # A hook of an outer repository may be what runs these tests: its GIT_* variables are not for the inner ones.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    for role in ("AUTHOR", "COMMITTER"):
        environment |= {f"GIT_{role}_NAME": "memlint tests", f"GIT_{role}_EMAIL": "tests@example.org"}
    environment["PRE_COMMIT_HOME"] = str(tmp_path_factory.mktemp("pre-commit-home"))
    unborn = Hooks(source_copy, "", environment)
    unborn.git("init", "--quiet", cwd=source_copy)
    unborn.git("add", "--all", cwd=source_copy)
    unborn.git("commit", "--quiet", "--message", "hooks", cwd=source_copy)
    return Hooks(source_copy, unborn.git("rev-parse", "HEAD", cwd=source_copy), environment)


def test_the_check_hook_fails_with_the_finding(hooks: Hooks, tmp_path: Path) -> None:
    scratch = hooks.scratch(tmp_path / "scratch", {"train.py": LEAKY, "notes.txt": "total += loss\n"})
    ran = hooks.run("memlint", scratch)
    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert "train.py:12:" in ran.stdout
    assert "MEM101" in ran.stdout
    assert (scratch / "train.py").read_text(encoding="utf-8") == LEAKY


def test_the_check_hook_passes_on_clean_files(hooks: Hooks, tmp_path: Path) -> None:
    scratch = hooks.scratch(tmp_path / "scratch", {"train.py": LEAKY.replace("+= loss", "+= loss.item()")})
    ran = hooks.run("memlint", scratch)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_the_project_s_excludes_hold_for_files_that_pre_commit_names(hooks: Hooks, tmp_path: Path) -> None:
    settings = '[tool.memlint]\nextend-exclude = ["vendored"]\n'
    scratch = hooks.scratch(tmp_path / "scratch", {"vendored/train.py": LEAKY, "pyproject.toml": settings})
    ran = hooks.run("memlint", scratch)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_the_fix_hook_writes_the_fix_and_then_passes(hooks: Hooks, tmp_path: Path) -> None:
    scratch = hooks.scratch(tmp_path / "scratch", {"train.py": LEAKY})
    first = hooks.run("memlint-fix", scratch)
    assert first.returncode == 1, first.stdout + first.stderr
    assert "files were modified by this hook" in first.stdout
    assert (scratch / "train.py").read_text(encoding="utf-8") == LEAKY.replace("+= loss", "+= loss.detach()")
    second = hooks.run("memlint-fix", scratch)
    assert second.returncode == 0, second.stdout + second.stderr


def test_200_files_are_one_run(hooks: Hooks, tmp_path: Path) -> None:
    names = [f"experiments/run_{number:03}.py" for number in range(200)]
    scratch = hooks.scratch(tmp_path / "scratch", dict.fromkeys(names, LEAKY))
    ran = hooks.run("memlint", scratch)
    assert ran.returncode == 1, ran.stdout + ran.stderr
    found = [line.split(":")[0] for line in ran.stdout.splitlines() if line.startswith("experiments/")]
    assert found == names  # each once, and in order: one process had them all
