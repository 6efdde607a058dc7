"""What of a project an answer was worked out from, so that a stored answer is known to hold as long as that stays."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Literal, NamedTuple, TypeVar

try:
    # The same function. hashlib brings OpenSSL along, which takes longer to load than a thousand digests.
    from _blake2 import blake2b
except ImportError:
    from hashlib import blake2b

_Key = TypeVar("_Key")
_Answer = TypeVar("_Answer")


class Read(NamedTuple):
    """One thing that was looked at: what a file says, or its surface alone; what a folder holds; where a word, or a
    piece of text, stands; or every file.
    """

    kind: Literal["file", "surface", "folder", "word", "piece", "all"]
    name: str = ""


Memo = dict[_Key, tuple[_Answer, frozenset[Read]]]
"""Answers by question, each with all that it rests on."""


class Reads:
    """Notes what is read. An answer that is there already rests on what it rested on when it was worked out."""

    def __init__(self) -> None:
        self._open: list[set[Read]] = [set()]

    def note(self, *reads: Read) -> None:
        self._open[-1].update(reads)

    @contextmanager
    def collected(self) -> Iterator[set[Read]]:
        """What is read within the block; it counts for the blocks around it too."""
        found: set[Read] = set()
        self._open.append(found)
        try:
            yield found
        finally:
            self._open.pop()
            self._open[-1] |= found

    def resting(self, work: Callable[[], _Answer]) -> tuple[_Answer, frozenset[Read]]:
        """What the work gives, and what was read for it."""
        with self.collected() as found:
            answer = work()
        return answer, frozenset(found)

    def once(self, memo: Memo[_Key, _Answer], key: _Key, work: Callable[[], _Answer]) -> _Answer:
        """The answer to a question, worked out at the first time."""
        known = memo.get(key)
        if known is None:
            memo[key] = known = self.resting(work)
        else:
            self._open[-1] |= known[1]
        return known[0]


UNREADABLE = "-"
"""In place of the digest of a file that cannot be read, or is not there."""


def digest_of(content: bytes) -> str:
    """A name for a content that no other content has."""
    return blake2b(content, digest_size=16).hexdigest()


def digest_of_names(names: Iterable[str]) -> str:
    """A name for a set of names, in whatever order they come."""
    return digest_of("\0".join(sorted(names)).encode(errors="surrogateescape"))


def digest_of_texts(digests: Mapping[str, str]) -> str:
    """A name for all texts of a project, by the digest of each file."""
    return digest_of_names(f"{file}\n{digest}" for file, digest in digests.items())


def meaningful(entries: Collection[str]) -> Iterator[str]:
    """Of what a folder holds (folders end in a slash), that by which imports are followed."""
    return (entry for entry in entries if entry.endswith((".py", "/")))
