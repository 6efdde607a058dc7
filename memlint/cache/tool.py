"""Which memlint has found what is stored."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import memlint
from memlint.project.reads import digest_of

# What decides about findings. The others only show them, or look for files.
_DECIDING = ("source", "project", "semantics", "linting", "rules", "cache")


def fingerprint() -> str:
    """A digest of the version, of the code that is installed, of Python and of LibCST.

    The code counts because who works on a rule changes it without changing the version.
    """
    parts = [memlint.__version__, sys.version, *_files_of(_package("libcst"), deep=False)]
    for name in _DECIDING:
        parts += _files_of(_package(f"memlint.{name}"), deep=True)
    return digest_of("\n".join(parts).encode(errors="surrogateescape"))


def _package(name: str) -> Path | None:
    """Where a package lies, without importing it."""
    found = importlib.util.find_spec(name)
    return Path(found.origin).parent if found is not None and found.origin is not None else None


def _files_of(folder: Path | None, *, deep: bool) -> Iterator[str]:
    if folder is None:
        return
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.name.endswith(".py"):
            stat = entry.stat()
            yield f"{entry.path} {stat.st_size} {stat.st_mtime_ns}"
        elif deep and entry.is_dir() and not entry.name.startswith(("_", ".")):
            yield from _files_of(Path(entry.path), deep=True)
