"""Which files a project has, and their text."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT_MARKERS = ("pyproject.toml", "setup.cfg", "setup.py", ".git")
# A repository of dotfiles makes a whole home folder one project: past this many files nothing is proven any more.
MAX_FILES = 20_000
# Installed packages and build results are not the project's own text.
_NOT_OURS = frozenset({"site-packages", "node_modules", "build", "dist", "venv", "env", "__pycache__"})


@cache
def project_root(folder: Path) -> Path:
    """The nearest folder, upwards, that holds a project file or a repository.

    Where there is none, the folder that the file's outermost package lies in.
    """
    for candidate in (folder, *folder.parents):
        if any((candidate / marker).exists() for marker in ROOT_MARKERS):
            return candidate
    while (folder / "__init__.py").exists():
        folder = folder.parent  # an unpacked package: its outermost folder
    return folder


@cache
def project_mentions(root: str, texts: tuple[str, ...]) -> bool:
    """Whether a Python file of the project contains one of the texts. A file that cannot be read counts as one.

    Without a project file the project is the folder itself and the packages in it, not all that lies below.
    """
    wanted = [text.encode() for text in texts]
    for count, path in enumerate(python_files(root)):
        if count == MAX_FILES:
            return True
        try:
            content = path.read_bytes()
        except OSError:
            return True
        if any(text in content for text in wanted):
            return True
    return False


def forget_files() -> None:
    """What was found on disk is looked for anew."""
    project_root.cache_clear()
    project_mentions.cache_clear()


def python_files(root: str) -> Iterator[Path]:
    """Every Python file of the project, in no order."""
    if not any(Path(root, marker).exists() for marker in ROOT_MARKERS):
        yield from Path(root).glob("*.py")
        for package in Path(root).glob("*/__init__.py"):
            yield from package.parent.rglob("*.py")
        return
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name not in _NOT_OURS and not name.startswith(".")]
        yield from (Path(folder, name) for name in files if name.endswith(".py"))
