"""All text of a project, to be searched for words and pieces of code."""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property

_NAME_BYTES = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")
_WORD = re.compile(rb"[A-Za-z0-9_]+")
# To list the words of all files takes as long as some hundred searches of their text.
SEARCHES_WITHOUT_INDEX = 100


class Texts:
    """The files of a project with what they say, in the order in which they are given."""

    def __init__(self, contents: Iterable[tuple[str, bytes]]) -> None:
        parts: list[bytes] = []
        files: list[str] = []
        starts = [0]
        for file, content in contents:
            parts += (content, b"\n")
            files.append(file)
            starts.append(starts[-1] + len(content) + 1)
        self._text = b"".join(parts)
        self._files = files
        self._starts = starts
        """Where each file begins, and last where all end."""
        self._searches = 0

    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        for index, file in enumerate(self._files):
            yield file, self._text[self._starts[index] : self._starts[index + 1] - 1]

    def files_with(self, piece: str) -> list[str]:
        """The files in which a word, or a piece of code, stands: not within a longer word."""
        self._searches += 1
        needle = piece.encode()
        words = _WORD.findall(needle)
        if self._searches <= SEARCHES_WITHOUT_INDEX or not words:
            return [self._files[index] for index in self._search(needle, 0, len(self._files))]
        candidates = self._files_with_all(words)
        if words != [needle]:
            candidates = [index for index in candidates if [*self._search(needle, index, index + 1)]]
        return [self._files[index] for index in candidates]

    def _search(self, needle: bytes, first: int, end: int) -> Iterator[int]:
        """The files from the first up to the end that have the needle, by their place."""
        text, starts, stop = self._text, self._starts, self._starts[end]
        at = text.find(needle, starts[first], stop)
        while at >= 0:
            behind = at + len(needle)
            if not self._is_whole(at, behind):
                at = text.find(needle, behind, stop)
                continue
            index = bisect.bisect_right(starts, at) - 1
            yield index
            at = text.find(needle, starts[index + 1], stop)

    def _is_whole(self, start: int, end: int) -> bool:
        text = self._text
        begins = text[start] not in _NAME_BYTES or start == 0 or text[start - 1] not in _NAME_BYTES
        return begins and (text[end - 1] not in _NAME_BYTES or end == len(text) or text[end] not in _NAME_BYTES)

    def _files_with_all(self, words: Sequence[bytes]) -> list[int]:
        found = [self._index.get(word, ()) for word in words]
        return sorted(set(found[0]).intersection(*found[1:]))

    @cached_property
    def _index(self) -> dict[bytes, list[int]]:
        """Each word, and the places of the files that have it. In a large project, each search would take its time."""
        index: dict[bytes, list[int]] = {}
        for place in range(len(self._files)):
            for word in set(_WORD.findall(self._text, self._starts[place], self._starts[place + 1])):
                index.setdefault(word, []).append(place)
        return index
