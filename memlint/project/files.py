"""Which files a project has, and their text."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT_MARKERS = ("pyproject.toml", "setup.cfg", "setup.py", ".git")
# A repository of dotfiles makes a whole home folder one project: past this many files nothing is proven any more.
MAX_FILES = 20_000
# A project with more text than this is not searched for words.
MAX_TEXT_BYTES = 256 * 2**20
# Installed packages and build results are not the project's own text.
_NOT_OURS = frozenset({"site-packages", "node_modules", "build", "dist", "venv", "env", "__pycache__"})


@cache
def project_root(folder: Path) -> Path:
    """The nearest folder, upwards, that holds a project file or a repository.

    Where there is none, the folder that the file's outermost package lies in.
    """
    marked = _marked_folder(folder)
    if marked is not None:
        return marked
    while holds(folder, "__init__.py"):
        folder = folder.parent  # an unpacked package: its outermost folder
    return folder


@cache
def _marked_folder(folder: Path) -> Path | None:
    if any(holds(folder, marker) for marker in ROOT_MARKERS):
        return folder
    return _marked_folder(folder.parent) if folder.parent != folder else None


_names: dict[str, frozenset[str]] = {}
"""Of folders that have been listed: what lies in them."""


def note_names(folder: str, names: Iterable[str]) -> None:
    """Say what lies in a folder: a dozen files are looked for in each, nearly always in vain."""
    _names[folder] = frozenset(names)


_looked_for: dict[str, bool] = {}
_read: dict[str, bool] = {}
"""What else has been looked for, by its path, and whether it was there; and what is read where it is there."""


class Looked(NamedTuple):
    """What a search for files and their settings has looked at, by its path: whether it was there."""

    for_itself: dict[str, bool]
    """That it is there, or is not, is all that matters."""
    to_be_read: dict[str, bool]
    listed: dict[str, frozenset[str]]
    """Folders, and what lay in them."""


def looked_at() -> Looked:
    """Since the process began, or files were forgotten."""
    return Looked(dict(_looked_for), dict(_read), dict(_names))


def holds(folder: Path | str, name: str) -> bool:
    """Whether a folder has this in it."""
    path = f"{folder}{os.sep}{name}"
    if not _may_hold(folder, name):
        return False
    found = _looked_for[path] = os.path.exists(path)  # noqa: PTH110 - asked of every folder; pathlib takes thrice as long
    return found


def holds_file(folder: Path | str, name: str) -> bool:
    """Whether a folder has a file of this name in it, which is going to be read."""
    path = f"{folder}{os.sep}{name}"
    if not _may_hold(folder, name):
        return False
    found = _read[path] = os.path.isfile(path)  # noqa: PTH113
    return found


def _may_hold(folder: Path | str, name: str) -> bool:
    names = _names.get(str(folder))
    return names is None or name in names


def names_in(folder: Path) -> frozenset[str]:
    """What lies in a folder; nothing in one that cannot be read."""
    if str(folder) not in _names:
        try:
            note_names(str(folder), os.listdir(folder))  # noqa: PTH208 - as names
        except OSError:
            _read[str(folder)] = False
            return frozenset()
    return _names[str(folder)]


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
    _marked_folder.cache_clear()
    project_mentions.cache_clear()
    _names.clear()
    _looked_for.clear()
    _read.clear()


def python_files(root: str) -> Iterator[Path]:
    """Every Python file of the project, in no order."""
    for folder, entries in folders_of(root):
        yield from (Path(root, folder, entry.name) for entry in entries if is_python(entry))


def folders_of(root: str) -> Iterator[tuple[str, list[os.DirEntry[str]]]]:
    """Each folder of the project, by its path from the root with slashes, and what lies in it.

    Links to folders are not followed, and a folder that cannot be read is empty.
    """
    has_project_file = any(holds(root, marker) for marker in ROOT_MARKERS)
    pending = [""]
    while pending:
        folder = pending.pop()
        try:
            with os.scandir(f"{root}/{folder}") as found:
                entries = list(found)
        except OSError:
            entries = []
        yield folder, entries
        for entry in entries:
            inner = f"{folder}/{entry.name}" if folder else entry.name
            if entry.name in _NOT_OURS or entry.name.startswith(".") or not entry.is_dir(follow_symlinks=False):
                continue
            if folder or has_project_file or Path(root, inner, "__init__.py").exists():
                pending.append(inner)


def is_python(entry: os.DirEntry[str]) -> bool:
    """A folder is none, and neither is a pipe or a device: reading it may never end."""
    try:
        return entry.name.endswith(".py") and (entry.is_file() or not Path(entry).exists())
    except OSError:
        return True  # a link that leads to itself
