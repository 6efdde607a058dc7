"""Which memlint has found what is stored."""

from __future__ import annotations

import importlib.util
import inspect
import os
import sys
from collections.abc import Iterable, Iterator
from operator import attrgetter
from pathlib import Path

import memlint
from memlint.project.reads import digest_of

# What decides about findings, and in which files they are looked for. The others only show them.
_DECIDING = ("source", "project", "semantics", "linting", "rules", "cache", "config", "cli")


def fingerprint() -> str:
    """A digest of the version, of the code that is installed, of Python, of LibCST, and of what else is installed.

    The code counts because who works on a rule changes it without changing the version; what else is installed, because
    it may be a plugin with rules.
    """
    parts = [memlint.__version__, sys.version, *_files_of(_package("libcst"), deep=False), *_distributions()]
    for name in _DECIDING:
        parts += _files_of(_package(f"memlint.{name}"), deep=True)
    return _digest(parts)


def plugin_fingerprint() -> str:
    """A digest of the code of the plugins, which may be worked on where it lies; empty without plugins."""
    from memlint.linting.custom import BadRules, plugin_rules

    try:
        rules = plugin_rules()
    except BadRules as error:
        return str(error)  # whoever wants the rules will say so
    folders = {Path(inspect.getfile(rule)).parent for rule in rules}
    return _digest(part for folder in sorted(folders) for part in _files_of(folder, deep=True)) if folders else ""


def local_rules_fingerprint(paths: Iterable[str]) -> str:
    """A digest of the project's own rules, empty without any."""
    parts: list[str] = []
    for path in map(Path, paths):
        files = sorted(path.rglob("*.py")) if path.is_dir() else [path]
        parts += (f"{file} {digest_of(file.read_bytes())}" for file in files)
    return _digest(parts) if parts else ""


def _digest(parts: Iterable[str]) -> str:
    return digest_of("\n".join(parts).encode(errors="surrogateescape"))


def _distributions() -> Iterator[str]:
    """Name, version and time of installation of everything that is installed."""
    for folder in sys.path:
        try:
            with os.scandir(folder or ".") as entries:
                found = [entry for entry in entries if entry.name.endswith((".dist-info", ".egg-info", ".egg-link"))]
            yield from sorted(f"{entry.path} {entry.stat().st_mtime_ns}" for entry in found)
        except OSError:
            continue  # a path that leads nowhere, or into an archive


def _package(name: str) -> Path | None:
    """Where a package lies, without importing it."""
    found = importlib.util.find_spec(name)
    return Path(found.origin).parent if found is not None and found.origin is not None else None


def _files_of(folder: Path | str | None, *, deep: bool) -> Iterator[str]:
    if folder is None:
        return
    with os.scandir(folder) as found:
        entries = sorted(found, key=attrgetter("name"))
    for entry in entries:
        name = entry.name
        if name.endswith(".py"):
            stat = entry.stat()
            yield f"{entry.path} {stat.st_size} {stat.st_mtime_ns}"
        elif deep and not name.startswith(("_", ".")) and entry.is_dir():
            yield from _files_of(entry.path, deep=True)
