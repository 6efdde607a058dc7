"""What several test files need."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def source_copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what a build needs of the tree, so that builds leave nothing in it."""
    copy = tmp_path_factory.mktemp("source") / "memlint"
    copy.mkdir()
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE", ".pre-commit-hooks.yaml"):
        shutil.copy(ROOT / name, copy / name)
    for name in ("memlint", "rules"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


@pytest.fixture(autouse=True)
def outside_github_actions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where CI is a GitHub Action, the text output has annotations too."""
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
