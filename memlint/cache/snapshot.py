"""A project as it lies on the disk: what its files say and its folders hold, as digests."""

from __future__ import annotations

import os
import re
import stat
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from memlint.project.files import MAX_FILES, MAX_TEXT_BYTES, folders_of
from memlint.project.reads import UNREADABLE, digest_of, digest_of_names, digest_of_texts

# Whether a file has changed is seen by its times. One that was written so shortly before it was read may be written
# again with the same times: file systems count in steps of up to 2 s. (git calls such entries racy.)
_STEP_NANOSECONDS = 2_000_000_000

# As texts: what is compiled here is needed where something has changed.
_WORD = rb"[A-Za-z0-9_]+"
# `.step(` is searched for as it stands there: a file that mentions the name by another way need not call it.
_CALL = rb"\.[A-Za-z0-9_]+\("


Known = dict[str, list[Any]]
"""File -> what tells without reading it that it is the same (size, times of modification and of change, inode), and
last the digest of what it said then.
"""


Status = list[int]


def _status(seen: os.stat_result) -> Status:
    return [seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_ino]


class Digests:
    """The digests of files, read only where their status says that they may have changed."""

    def __init__(self, root: str, known: Known, when_read: Callable[[str, bytes], object]) -> None:
        """`when_read` gets the digest and the content of each file that is read."""
        self._root = root
        self._known = known
        self._seen: dict[str, str] = {}
        self._settled: Known = {}
        self._when_read = when_read
        self._now = time.time_ns()
        self.have_changed = False
        """Whether what is to be kept differs from what was known."""

    def of(self, file: str, seen: os.stat_result | None = None) -> str:
        """The digest of a file by its path from the root."""
        found = self._seen.get(file)
        if found is None:
            found = self._seen[file] = self._look(file, seen)
        return found

    def _look(self, file: str, seen: os.stat_result | None) -> str:
        try:
            status = _status(seen or os.stat(f"{self._root}/{file}"))  # noqa: PTH116 - as below
            known = self._known.get(file)
            if known is not None and known[:-1] == status:
                return str(known[-1])
            with open(f"{self._root}/{file}", "rb") as stream:  # noqa: PTH123 - thousands of Path objects take their time
                content = stream.read()
        except OSError:
            return UNREADABLE
        digest = digest_of(content)
        self._when_read(digest, content)
        if _is_settled(status, self._now):
            self._settled[file] = [*status, digest]
        self.have_changed = True
        return digest

    def to_keep(self) -> Known:
        """What the next run should know."""
        kept = {file: known for file, known in self._known.items() if self._seen.get(file, known[-1]) == known[-1]}
        return kept | self._settled


def status_of(path: str) -> Status | None:
    """What tells that a file, or what lies in a folder, is the same; None where there is neither."""
    try:
        return _status(os.stat(path))  # noqa: PTH116 - as above
    except OSError:
        return None


def settled(paths: Mapping[str, bool], since: int) -> dict[str, Status | None] | None:
    """The status of files and folders, by their absolute paths; None for one that is not there.

    None in all where one may have changed since then, or has come or gone: `paths` says which were there.
    """
    found = {path: status_of(path) for path in paths}
    are_as_they_were = all(
        (status is not None) == paths[path] and (status is None or _is_settled(status, since))
        for path, status in found.items()
    )
    return found if are_as_they_were else None


def _is_settled(status: Status, now: int) -> bool:
    """Whether a change from now on must show in the times."""
    _, modified, changed, _ = status
    return max(modified, changed) + _STEP_NANOSECONDS < now


def listing_of(folder: str) -> str:
    """A digest of what lies in a folder, by name and kind: the times of folders are not kept everywhere."""
    try:
        with os.scandir(folder) as entries:
            return digest_of_names(entry.name + _kind(entry) for entry in entries)
    except OSError:
        return UNREADABLE


def _kind(entry: os.DirEntry[str]) -> str:
    if entry.is_symlink():
        return f"@{_is_folder(entry)}{_stat(entry) is None}"
    return "/" if entry.is_dir(follow_symlinks=False) else ""


@dataclass(frozen=True)
class Snapshot:
    """The Python files of a project and its folders, by their paths from the root."""

    files: Mapping[str, str]
    folders: Mapping[str, str]
    is_searched: bool
    """Small enough for all its text to be searched."""

    @cached_property
    def texts(self) -> str:
        """A digest of all that is searched, as `Callers.text_digest`."""
        return digest_of_texts(self.files if self.is_searched else {})

    @cached_property
    def id(self) -> str:
        folders = digest_of_texts(self.folders)
        return digest_of(f"{digest_of_texts(self.files)} {folders} {self.is_searched}".encode())


@dataclass(frozen=True)
class Changes:
    """What differs between two snapshots."""

    files: frozenset[str] = frozenset()
    folders: frozenset[str] = frozenset()
    gained_or_lost: frozenset[str] = frozenset()
    """Words and method calls that a file has and had not, or had and has not."""
    in_changed_files: frozenset[str] = frozenset()
    """Words of the files that changed, before or after."""
    any_word: bool = False
    """What was searched for cannot be told."""

    def may_move(self, text: str) -> bool:
        """Whether other files than before may hold a word, or a piece of code."""
        if self.any_word or text in self.gained_or_lost:
            return True
        words = _words_of(text)
        is_noted = words == [text] or re.fullmatch(_CALL, text.encode()) is not None
        return not is_noted and self.in_changed_files.issuperset(words)

    def may_hold(self, text: str) -> bool:
        """Whether other files than before may hold a text, be it within a word."""
        return self.any_word or all(any(word in longer for longer in self.in_changed_files) for word in _words_of(text))


def _words_of(text: str) -> list[str]:
    return [word.decode() for word in re.findall(_WORD, text.encode())]


def take(root: str, digests: Digests) -> Snapshot:
    """Look at a project."""
    files: dict[str, str] = {}
    folders: dict[str, str] = {}
    size = 0
    for folder, entries in folders_of(root):
        names = []
        within = f"{folder}/" if folder else ""
        for entry in entries:
            name = entry.name
            if not name.endswith(".py"):
                if _is_folder(entry):
                    names.append(f"{name}/")
                continue
            seen = _stat(entry)
            if seen is not None and stat.S_ISDIR(seen.st_mode):
                names.append(f"{name}/")
                continue
            names.append(name)
            # As `is_python` has it: no pipe and no device, but a link that leads nowhere.
            if seen is None or stat.S_ISREG(seen.st_mode):
                size += seen.st_size + 1 if seen is not None else 1
                files[within + name] = digests.of(within + name, seen)
        folders[folder] = digest_of_names(names)
    return Snapshot(files, folders, len(files) <= MAX_FILES and size <= MAX_TEXT_BYTES)


def changes(before: Snapshot, after: Snapshot, words_of: Callable[[str], frozenset[str] | None]) -> Changes:
    """`words_of` gives the words of a text by its digest; None where nobody knows them any more."""
    files = _differing(before.files, after.files)
    gained_or_lost: set[str] = set()
    in_changed_files: set[str] = set()
    any_word = before.is_searched != after.is_searched
    for file in files:
        old, new = (_words(snapshot.files.get(file), words_of) for snapshot in (before, after))
        if old is None or new is None:
            any_word = True
            continue
        gained_or_lost |= old ^ new
        in_changed_files |= old | new
    folders = _differing(before.folders, after.folders)
    return Changes(files, folders, frozenset(gained_or_lost), frozenset(in_changed_files), any_word)


def words_in(content: bytes) -> bytes:
    """The words of a text and its method calls, packed."""
    return zlib.compress(b" ".join(sorted({*re.findall(_WORD, content), *re.findall(_CALL, content)})), 1)


def unpacked(words: bytes) -> frozenset[str]:
    """Raises ValueError for what is damaged."""
    try:
        return frozenset(zlib.decompress(words).decode("ascii").split(" "))
    except zlib.error as error:
        raise ValueError(str(error)) from None


def _words(digest: str | None, words_of: Callable[[str], frozenset[str] | None]) -> frozenset[str] | None:
    return frozenset() if digest is None else words_of(digest)


def _differing(before: Mapping[str, str], after: Mapping[str, str]) -> frozenset[str]:
    """The keys that only one has, or of which both have different values."""
    return frozenset(key for key, _ in before.items() ^ after.items())


def _stat(entry: os.DirEntry[str]) -> os.stat_result | None:
    try:
        return entry.stat()
    except OSError:
        return None


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False
