"""From the paths on the command line to the files to check."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from memlint.config.errors import ConfigError
from memlint.config.ignoring import Excluder, GitIgnores, Matched
from memlint.config.load import SettingsResolver
from memlint.config.paths import absolute, relative_to
from memlint.config.settings import Settings
from memlint.project.files import note_names

# Stubs (.pyi) hold no code that runs.
SUFFIXES = (".py", ".pyw", ".ipynb")


class SourcePath(NamedTuple):
    """A file to check: its absolute path, and the path as the user sees it."""

    # As text: thousands of Path objects take longer than the search that finds the files.
    path: str
    shown: str
    is_link: bool = False


@dataclass(frozen=True)
class Unreadable:
    """A folder that could not be read."""

    shown: str
    reason: str


@dataclass(frozen=True)
class Found:
    """Each file once, ordered by the shown path."""

    files: tuple[SourcePath, ...]
    unreadable: tuple[Unreadable, ...] = ()


def find_files(paths: Sequence[str], resolver: SettingsResolver) -> Found:
    """The Python files that the paths name or hold; without paths, those of the current folder.

    Folders are searched without following links to folders. A file is checked even where a pattern excludes it,
    when it is named itself and the settings have no `force-exclude`.

    Raises:
        ConfigError: a path that does not exist, or settings that cannot be used.
    """
    _require_existing(paths)
    files: list[SourcePath] = []
    unreadable: list[Unreadable] = []
    for argument in paths or ["."]:
        path = absolute(argument)
        named = SourcePath(str(path), _shown_argument(argument, path), path.is_symlink())
        if _is_excluded_by_force(path, resolver):
            continue
        if path.is_dir():
            files.extend(_Walk(named, resolver, unreadable))
        else:
            files.append(named)
    may_repeat = len(paths) > 1 or any(file.is_link for file in files)
    found = _each_once(files) if may_repeat else files
    return Found(tuple(sorted(found, key=lambda file: file.shown)), tuple(unreadable))


def excluder_of(settings: Settings) -> Excluder:
    return Excluder([settings.exclude, *settings.extend_exclude])


def exclusion_of(path: Path, resolver: SettingsResolver) -> Matched | str | None:
    """Why a search of the project would pass over this file: a pattern, the words "a .gitignore file", or None."""
    matched = excluder_of(resolver.for_folder(path.parent)).match(path)
    if matched is not None:
        return matched
    ignores = GitIgnores.above(path.parent).inside(path.parent)
    return "a .gitignore file" if ignores.ignores(path) or _is_in_ignored_folder(path) else None


def _is_in_ignored_folder(path: Path) -> bool:
    for folder in path.parents:
        if (folder / ".git").exists():
            return False
        if GitIgnores.above(folder.parent).inside(folder.parent).ignores(folder, folder=True):
            return True
    return False


def _require_existing(paths: Sequence[str]) -> None:
    # lexists: a link to nowhere is reported with the reason why it cannot be opened, when it is opened.
    missing = [path for path in paths if not os.path.lexists(path)]
    if missing:
        names = ", ".join(f"`{path}`" for path in missing)
        raise ConfigError(f"{names} {'does' if len(missing) == 1 else 'do'} not exist")
    for path in paths:
        if Path(path).exists() and not (Path(path).is_file() or Path(path).is_dir()):
            raise ConfigError(f"`{path}` is neither a file nor a folder; for standard input say `-`")


def _is_excluded_by_force(path: Path, resolver: SettingsResolver) -> bool:
    settings = resolver.for_folder(path if path.is_dir() else path.parent)
    return settings.force_exclude and excluder_of(settings).match(path, folder=path.is_dir()) is not None


def _shown_argument(argument: str, path: Path) -> str:
    inside = relative_to(path, Path.cwd())
    return os.path.normpath(argument if inside is None else inside)


def _each_once(files: Sequence[SourcePath]) -> Iterator[SourcePath]:
    """Each file under one path: its own before that of a link to it."""
    seen: set[str] = set()
    folders: dict[str, str] = {}
    for file in sorted(files, key=lambda file: file.is_link):
        folder, name = os.path.split(file.path)
        if folder not in folders:
            folders[folder] = os.path.realpath(folder)
        # To follow the links of each file on its own takes longer than to find it.
        identity = os.path.realpath(file.path) if file.is_link else f"{folders[folder]}{os.sep}{name}"
        if identity not in seen:
            seen.add(identity)
            yield file


def _is_file(entry: os.DirEntry[str]) -> bool:
    """Also through a link. False for a link that leads nowhere, as editors leave for their locks, or to itself."""
    try:
        return entry.is_file()
    except OSError:
        return False


class _Walk:
    """The files below one folder."""

    def __init__(self, top: SourcePath, resolver: SettingsResolver, unreadable: list[Unreadable]) -> None:
        self._top = top
        self._resolver = resolver
        self._unreadable = unreadable
        self._excluders: dict[int, Excluder] = {}

    def __iter__(self) -> Iterator[SourcePath]:
        folders = [(self._top.path, self._top.shown, GitIgnores.above(Path(self._top.path)))]
        while folders:
            folder, shown_folder, outer = folders.pop()
            entries = self._entries(folder, shown_folder)
            excluder = self._excluder(Path(folder))
            ignores = outer.inside(Path(folder))
            before = "" if shown_folder == "." else f"{shown_folder}{os.sep}"
            for entry in entries:
                name, is_folder = entry.name, entry.is_dir(follow_symlinks=False)
                if not is_folder and not (name.endswith(SUFFIXES) and _is_file(entry)):
                    continue
                # Nearly all files: their names alone tell.
                is_clear = not is_folder and excluder.passes(name) and ignores.passes(name)
                if not is_clear and (
                    excluder.match(entry.path, folder=is_folder) or ignores.ignores(entry.path, folder=is_folder)
                ):
                    continue
                shown = before + name
                if is_folder:
                    folders.append((entry.path, shown, ignores))
                else:
                    yield SourcePath(entry.path, shown, entry.is_symlink())

    def _excluder(self, folder: Path) -> Excluder:
        settings = self._resolver.for_folder(folder)
        if id(settings) not in self._excluders:
            self._excluders[id(settings)] = excluder_of(settings).without(Path(self._top.path))
        return self._excluders[id(settings)]

    def _entries(self, folder: str, shown: str) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(folder) as found:
                entries = list(found)
        except OSError as error:
            self._unreadable.append(Unreadable(shown, error.strerror or str(error)))
            return []
        note_names(folder, [entry.name for entry in entries])
        return entries
