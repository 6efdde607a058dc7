"""Which line of a text a line of its edited version was."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from difflib import SequenceMatcher


@dataclass(frozen=True)
class LineMap:
    """From the lines of an edited text to those of the original, both 1-based.

    Indentation does not count: a line that was put under a new `with` is still that line. A line that was put in stands
    for the original line that it was put before, or for the last one.
    """

    spans: tuple[tuple[int, int, int], ...]
    """(line, original line, how many lines on from there correspond one to one; 0: all stand for the one)."""

    @classmethod
    def between(cls, original: str, edited: str) -> LineMap:
        before = [line.strip() for line in original.splitlines()]
        after = [line.strip() for line in edited.splitlines()]
        matcher = SequenceMatcher(None, before, after, autojunk=False)
        spans = []
        for _, start, end, new_start, new_end in matcher.get_opcodes():
            if new_end > new_start:
                same = min(end - start, new_end - new_start)
                spans.append((new_start + 1, min(start, len(before) - 1) + 1, same))
        return cls(tuple(spans))

    def original(self, line: int) -> int:
        """The original line of a line of the edited text."""
        index = bisect_right(self.spans, line, key=lambda span: span[0]) - 1
        if index < 0:
            return line
        first, original, same = self.spans[index]
        return original + min(line - first, max(same - 1, 0))
