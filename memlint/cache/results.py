"""The results of earlier runs: which of them still hold, and what this run adds."""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

from memlint.cache.encoding import result_from_text, result_to_text
from memlint.cache.snapshot import (
    Changes,
    Digests,
    Snapshot,
    Status,
    changes,
    listing_of,
    settled,
    take,
    unpacked,
    words_in,
)
from memlint.cache.store import KnownRule, Store, Stored, Unusable
from memlint.cache.stores import Stores, folder_for
from memlint.cache.texts import decoded, encoded
from memlint.cache.tool import local_rules_fingerprint
from memlint.cache.whole import Said, Whole, are_as_before, put
from memlint.linting.earlier import Earlier, Examined, Grounds
from memlint.linting.finding import Confidence, FileResult
from memlint.linting.policy import Policy
from memlint.project.files import looked_at
from memlint.project.reads import Read, digest_of, digest_of_names, meaningful

# A rule that crashed may be about to be mended.
_INTERNAL_ERROR = "MEM004"
# To look up a file's results by themselves takes so many times as long as to read them with all others.
_TIMES_SLOWER = 8

Wanted = tuple[str, Policy]
"""A file as the user sees it, and what is wanted of it."""
Known = FileResult | Earlier | None
_Key = tuple[str, str]
"""A file by its path in the project, and a digest of what is wanted of it."""


class Results:
    """Every method works whatever the state of the stores: without one, nothing is known and nothing is kept."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        self._projects: dict[str, _Project | None] = {}
        self._began = time.time_ns()

    def rules(self, root: Path) -> list[KnownRule]:
        """All rules, as an earlier run in this project has found them; nothing where none has."""
        return self._stores.ask(folder_for(root), _rules_in, [])

    def find(self, wanted: Sequence[Wanted]) -> list[Known]:
        """What is known of each file: its findings; those of which it is not known whether they still hold; nothing."""
        of_projects: dict[str | None, list[int]] = {}
        for index, (_, policy) in enumerate(wanted):
            of_projects.setdefault(policy.project if policy.file is not None else None, []).append(index)
        known: list[Known] = [None] * len(wanted)
        for indices in of_projects.values():
            for index, found in zip(indices, self._find([wanted[index] for index in indices]), strict=True):
                known[index] = found
        return known

    def _find(self, wanted: list[Wanted]) -> list[Known]:
        """The same for files of one project."""
        project, nothing = self._project(wanted[0][1]), list[Known]([None] * len(wanted))
        if project is None:
            return nothing
        return self._stores.guarded(project.folder, lambda: project.find(wanted), nothing)

    def keep(self, policy: Policy, examined: Examined) -> None:
        project = self._project(policy)
        if project is not None:
            project.keep(policy, examined)

    def save(self) -> None:
        """Write down what was kept."""
        for project in self._projects.values():
            if project is not None and self._stores.has(project.folder):
                self._stores.guarded(project.folder, project.save, None)
        self._stores.close()

    def keep_whole(self, root: Path, run: str, said: Said, files: int) -> None:
        """Store what this run, which is saved, says of so many files; it was begun in the project in `root`.

        `run` is a digest of what it was told.
        """
        project = next(iter(self._projects.values()), None)
        whole = project.whole(self._began) if project is not None and len(self._projects) == 1 else None
        if project is None or whole is None or project.files != files:
            return
        store = self._stores.of(folder_for(root))
        if store is not None:
            with suppress(Unusable):  # the next run takes a little longer: nothing to speak of
                put(store, run, said, whole)
        self._stores.close()

    def _project(self, policy: Policy) -> _Project | None:
        root = policy.project
        if root is None:
            return None
        if root not in self._projects:
            self._projects[root] = None
            folder = folder_for(Path(root))
            store = self._stores.of(folder)
            if store is not None:
                self._projects[root] = self._stores.guarded(folder, lambda: _Project(store, folder, root), None)
        project = self._projects[root]
        return project if project is not None and self._stores.has(project.folder) else None


class _Run:
    """The results of a run that are certain to hold as long as the project is as it is: they are stored together too,
    and looked up at once.
    """

    def __init__(self, keys: Sequence[_Key], snapshot: Snapshot) -> None:
        """`keys`: the files, and what is wanted of each."""
        self.id = digest_of("\n".join(chain([snapshot.id], *keys)).encode(errors="surrogatepass"))
        self._keys = keys
        self._snapshot = snapshot
        self._texts: dict[_Key, str] = {}

    def note(self, row: Stored) -> None:
        """`row` has been found to hold."""
        if row.is_certain and row.file in self._snapshot.files:
            self._texts[row.file, row.demand] = row.result

    @property
    def files(self) -> int:
        return len(self._keys)

    @property
    def is_certain(self) -> bool:
        """Of each file."""
        return self._texts.keys() >= set(self._keys)

    def to_text(self) -> str:
        texts = [self._texts.get(key) for key in self._keys]
        found = {index: text for index, text in enumerate(texts) if text}
        return encoded([found, [index for index, text in enumerate(texts) if text is None]])

    def recall(self, text: str) -> list[int]:
        """Take up what an earlier run has written down; return the places of the files that it was not certain of."""
        found, others = decoded(text)
        self._texts = {key: found.get(str(index), "") for index, key in enumerate(self._keys)}
        for index in others:
            del self._texts[self._keys[index]]
        return list(others)

    def results(self, names: Iterable[str]) -> list[Known]:
        """What is certain of each file, by the names in which they are shown."""
        texts = (self._texts.get(key) for key in self._keys)
        return [None if text is None else result_from_text(name, text) for name, text in zip(names, texts, strict=True)]


class _Project:
    """One project of a run. Methods raise Unusable, and what a damaged text raises."""

    def __init__(self, store: Store, folder: Path, root: str) -> None:
        self.folder = folder
        self._store = store
        self._root = root
        # A project that is moved takes its store along.
        self._name = os.path.relpath(root, folder.parent)
        self._words: dict[str, bytes] = {}
        statuses = store.statuses(self._name)
        self._digests = Digests(root, decoded(statuses) if statuses else {}, self._note_words)
        self._snapshot = take(root, self._digests)
        self._changes: dict[str, Changes | None] = {}
        self._other_folders: dict[str, str] = {}
        self._kept: dict[_Key, tuple[Stored, Examined]] = {}
        self._still_holding: list[_Key] = []
        self._run = _Run([], self._snapshot)

    @property
    def files(self) -> int:
        """Of which this run has asked."""
        return self._run.files

    # --- what holds ---

    def find(self, wanted: Sequence[Wanted]) -> list[Known]:
        keys = [(self._file(policy), _demand(shown, policy)) for shown, policy in wanted]
        self._run = _Run(keys, self._snapshot)
        together = self._store.run(self._name, self._run.id)
        others = range(len(keys)) if together is None else self._run.recall(together)
        known = self._run.results(shown for shown, _ in wanted)
        rows = self._rows([keys[index][0] for index in others])
        for index in others:
            known[index] = self._find(wanted[index][0], rows.get(keys[index]))
        return known

    def _rows(self, files: Sequence[str]) -> dict[_Key, Stored]:
        """What is stored of these files. To read all is faster unless they are few of many."""
        store, name = self._store, self._name
        are_few = _TIMES_SLOWER * len(files) < len(self._snapshot.files)
        rows = chain.from_iterable(store.results_of(name, file) for file in files) if are_few else store.results(name)
        return {(row.file, row.demand): row for row in rows}

    def _find(self, shown: str, row: Stored | None) -> Known:
        if row is None:
            return None
        file, demand = row.file, row.demand
        result, is_same = result_from_text(shown, row.result), row.content == self._digest(file)
        if is_same and row.snapshot == self._snapshot.id and row.is_certain:
            self._run.note(row)
            return result
        stored = self._store.grounds(self._name, file, demand)
        if stored is None:
            return None
        grounds, asked = stored
        moved = self._moved(row.snapshot, decoded(grounds))
        if is_same and not moved:
            self._still_holding.append((file, demand))
            self._run.note(row)
            return result
        return Earlier(row.content, result, asked, moved)

    def _moved(self, snapshot: str, grounds: dict[str, Any]) -> frozenset[Read]:
        """Of what was read, all that may have another outcome by now."""
        changed = self._changes_since(snapshot)
        files = {file for file, digest in grounds["other_files"].items() if self._digest(file) != digest}
        folders = {
            folder for folder, digest in grounds["other_folders"].items() if self._digest_of_folder(folder) != digest
        }
        files.update(file for file in grounds["files"] if changed is None or file in changed.files)
        folders.update(folder for folder in grounds["folders"] if changed is None or folder in changed.folders)
        words = [word for word in grounds["words"] if changed is None or changed.may_move(word)]
        pieces = [piece for piece in grounds["pieces"] if changed is None or changed.may_hold(piece)]
        found = {Read("file", file) for file in files} | {Read("surface", file) for file in files}
        found |= {Read("folder", folder) for folder in folders}
        found |= {Read("word", word) for word in words} | {Read("piece", piece) for piece in pieces}
        if grounds["all_files"] and (changed is None or changed.files):
            found.add(Read("all"))
        return frozenset(found)

    def _changes_since(self, id_: str) -> Changes | None:
        """None where nobody knows any more how the project was."""
        if id_ == self._snapshot.id:
            return _NOTHING_CHANGED
        if id_ not in self._changes:
            stored = self._store.snapshot(self._name, id_)
            before = None if stored is None else _unpacked_snapshot(stored)
            self._changes[id_] = None if before is None else changes(before, self._snapshot, self._words_of)
        return self._changes[id_]

    def _words_of(self, digest: str) -> frozenset[str] | None:
        packed = self._words.get(digest) or self._store.words(digest)
        return None if packed is None else unpacked(packed)

    # --- what is new ---

    def keep(self, policy: Policy, examined: Examined) -> None:
        result = examined.result
        if result.trouble is not None or any(finding.code == _INTERNAL_ERROR for finding in result.findings):
            return
        if not self._agrees(examined.grounds):
            return
        file, demand = self._file(policy), _demand(result.path, policy)
        is_certain = not self._others(examined.grounds.files, self._snapshot.files) and not self._others(
            examined.grounds.folders, self._snapshot.folders
        )
        stored = Stored(file, demand, examined.content, self._snapshot.id, is_certain, result_to_text(result))
        self._kept[file, demand] = stored, examined
        if examined.content == self._digest(file):
            self._run.note(stored)

    def _agrees(self, grounds: Grounds) -> bool:
        """Whether the run has read what the snapshot shows: a file may have changed in between."""
        files, folders = self._snapshot.files, self._snapshot.folders
        return (
            all(digest in ("", files.get(file, digest)) for file, digest in grounds.files.items())
            and all(digest in ("", folders.get(folder, digest)) for folder, digest in grounds.folders.items())
            and grounds.texts in ("", self._snapshot.texts)
        )

    @staticmethod
    def _others(read: dict[str, str], seen: Mapping[str, str]) -> dict[str, str]:
        """What was read outside of the snapshot."""
        return {name: digest for name, digest in read.items() if name not in seen}

    def save(self) -> None:
        """Write what this run adds, if anything."""
        if not (self._kept or self._still_holding or self._digests.have_changed):
            return
        with self._store.writing():
            if not self._store.rules():
                self._store.put_rules(encoded(list(_all_rules())))
            self._store.put_statuses(self._name, encoded(self._digests.to_keep()))
            self._store.put_words(self._words.items())
            self._store.put_snapshot(self._name, self._snapshot.id, _packed_snapshot(self._snapshot))
            for stored, examined in self._kept.values():
                self._store.put_result(self._name, stored, self._grounds_to_text(examined.grounds), examined.asked)
            self._store.put_snapshot_of(self._name, self._snapshot.id, self._still_holding)
            self._store.put_run(self._name, self._run.id, self._run.to_text())
            self._store.forget(self._name, self._gone())
            self._store.forget_snapshots(self._name)
            self._store.keep_words_of(self._snapshot.files.values())

    def _gone(self) -> list[str]:
        files = self._store.files_with_results(self._name)
        unseen = (file for file in files if file not in self._snapshot.files)
        return [file for file in unseen if not os.path.exists(f"{self._root}/{file}")]  # noqa: PTH110

    def _grounds_to_text(self, grounds: Grounds) -> str:
        other_files = {
            file: digest or self._digest(file)
            for file, digest in self._others(grounds.files, self._snapshot.files).items()
        }
        other_folders = {
            folder: digest or self._digest_of_folder(folder)
            for folder, digest in self._others(grounds.folders, self._snapshot.folders).items()
        }
        return encoded(
            {
                "files": [file for file in grounds.files if file not in other_files],
                "folders": [folder for folder in grounds.folders if folder not in other_folders],
                "words": sorted(grounds.words),
                "pieces": sorted(grounds.pieces),
                "all_files": grounds.all_files,
                "other_files": other_files,
                "other_folders": other_folders,
            }
        )

    def whole(self, began: int) -> Whole | None:
        """All of this run; None where something that it looked at may change unseen, or has changed since it began."""
        known = self._digests.to_keep()
        if not self._run.is_certain or not known.keys() >= self._snapshot.files.keys():
            return None
        looked = looked_at()
        folders = {*looked.listed, *(os.path.normpath(f"{self._root}/{folder}") for folder in self._snapshot.folders)}
        read, seen = settled(looked.to_be_read, began), settled(dict.fromkeys(folders, True), began)
        if read is None or seen is None or not are_as_before(looked.for_itself):
            return None
        files: dict[str, Status | None] = {f"{self._root}/{file}": known[file][:-1] for file in self._snapshot.files}
        listings = {folder: listing_of(folder) for folder in sorted(folders)}
        return Whole({**read, **files}, listings, looked.for_itself)

    # --- files ---

    def _file(self, policy: Policy) -> str:
        # The root is the file's own: it lies below.
        return str(policy.file)[len(self._root) :].lstrip(os.sep).replace(os.sep, "/")

    def _digest(self, file: str) -> str:
        return self._snapshot.files.get(file) or self._digests.of(file)

    def _digest_of_folder(self, folder: str) -> str:
        """The digest of a folder that is not part of the snapshot."""
        if folder not in self._other_folders:
            try:
                with os.scandir(f"{self._root}/{folder}") as entries:
                    names = [entry.name + ("/" if entry.is_dir() else "") for entry in entries]
            except OSError:
                names = []
            self._other_folders[folder] = digest_of_names(meaningful(names))
        return self._other_folders[folder]

    def _note_words(self, digest: str, content: bytes) -> None:
        self._words[digest] = words_in(content)


def _rules_in(store: Store) -> list[KnownRule]:
    text = store.rules()
    return [KnownRule(*rule) for rule in decoded(text)] if text else []


def _all_rules() -> Iterator[KnownRule]:
    from memlint.linting.registry import all_rules

    for rule in all_rules():
        triggers = sorted(rule.triggers)
        yield KnownRule(rule.code, rule.name, rule.family, rule.on_by_default, rule.module, triggers)


_NOTHING_CHANGED = Changes()


def _demand(shown: str, policy: Policy) -> str:
    """What is wanted of a file, and under which name."""
    return f"{_wanted(policy.codes, policy.confidence, policy.target_torch, policy.local_rules)} {shown}"


@lru_cache(maxsize=64)
def _wanted(
    codes: frozenset[str], confidence: Confidence, target_torch: tuple[int, int] | None, local_rules: tuple[str, ...]
) -> str:
    wanted = (sorted(codes), confidence.value, target_torch, local_rules_fingerprint(local_rules))
    return digest_of(repr(wanted).encode())


def _packed_snapshot(snapshot: Snapshot) -> bytes:
    parts = [dict(snapshot.files), dict(snapshot.folders), snapshot.is_searched]
    return zlib.compress(encoded(parts).encode(), 1)


def _unpacked_snapshot(packed: bytes) -> Snapshot:
    try:
        files, folders, is_searched = decoded(zlib.decompress(packed).decode())
    except zlib.error as error:
        raise ValueError(str(error)) from None
    return Snapshot(files, folders, is_searched)
