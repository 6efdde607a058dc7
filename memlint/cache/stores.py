"""The stores of a run, each opened when it is asked first; the run goes on without one that cannot be used."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from memlint.cache.store import FOLDER, Damaged, Store, Unusable, remove_database
from memlint.cache.texts import UNREADABLE
from memlint.cache.tool import fingerprint, plugin_fingerprint
from memlint.project.files import ROOT_MARKERS

_Answer = TypeVar("_Answer")


def folder_for(root: Path) -> Path:
    """Where the results of a project are stored: in it. Files without a project share a store in the current folder."""
    cwd = Path.cwd()
    has_project_file = any((root / marker).exists() for marker in ROOT_MARKERS)
    return (cwd if not has_project_file and cwd in root.parents else root) / FOLDER


class Stores:
    def __init__(self, say: Callable[[str], object]) -> None:
        """`say` is told, once, that a store cannot be used."""
        self._say = say
        self._tool = fingerprint()
        self._stores: dict[Path, Store | None] = {}
        self._told: set[Path] = set()

    def of(self, folder: Path) -> Store | None:
        """The store in a folder, which is made; None where it cannot be used."""
        if folder not in self._stores:
            self._stores[folder] = None
            self._stores[folder] = self.guarded(folder, lambda: self._opened(folder), None)
        return self._stores[folder]

    def ask(self, folder: Path, work: Callable[[Store], _Answer], otherwise: _Answer) -> _Answer:
        """The answer of the store in a folder, or the other one where there is none that can be used."""
        store = self.of(folder) if folder.exists() else None
        return otherwise if store is None else self.guarded(folder, lambda: work(store), otherwise)

    def guarded(self, folder: Path, work: Callable[[], _Answer], otherwise: _Answer) -> _Answer:
        """The answer, or the other one where the store in the folder fails: then nobody asks it again."""
        try:
            return work()
        except (Unusable, OSError, *UNREADABLE) as error:
            self._tell(folder, str(error))
            self._forsake(folder, is_damaged=not isinstance(error, Unusable) or isinstance(error, Damaged))
            return otherwise

    def has(self, folder: Path) -> bool:
        """Whether the store in a folder is open, and can be used."""
        return self._stores.get(folder) is not None

    def close(self) -> None:
        """All, until one is asked again."""
        for store in self._stores.values():
            if store is not None:
                store.close()
        self._stores = {folder: None for folder, store in self._stores.items() if store is None}

    def _opened(self, folder: Path) -> Store:
        try:
            return Store(folder, self._tool, plugin_fingerprint)
        except Damaged as error:
            self._tell(folder, str(error))
            remove_database(folder)
            return Store(folder, self._tool, plugin_fingerprint)

    def _forsake(self, folder: Path, *, is_damaged: bool) -> None:
        store = self._stores.get(folder)
        if store is not None:
            store.close()
        self._stores[folder] = None
        if is_damaged:
            with suppress(OSError):
                remove_database(folder)

    def _tell(self, folder: Path, reason: str) -> None:
        if folder not in self._told:
            self._told.add(folder)
            self._say(f"the cache {folder} cannot be used ({reason}): everything is checked anew")
