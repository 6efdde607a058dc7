"""A source line as printed, with marks below it that stand under the right characters."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from memlint.reporting.report import visible

_TAB = "    "
_CUT = "…"


@dataclass(frozen=True)
class Span:
    """Where to put a mark below a printed line: cells from its left, and how many."""

    offset: int
    length: int


class PrintedLine:
    """A source line cut to `width` terminal cells around its 1-based column `focus`, tabs expanded."""

    def __init__(self, text: str, *, focus: int, width: int) -> None:
        text = text.rstrip()
        # _edges[i] is the cell in which character i starts.
        characters: Sequence[str]
        self._edges: Sequence[int]
        if text.isascii() and text.isprintable():
            characters, self._edges = text, range(len(text) + 1)
        else:
            characters = [_TAB if character == "\t" else visible(character) for character in text]
            self._edges = [0, *accumulate(_cells(character) for character in characters)]
        first, last = self._window(focus - 1, width)
        self._first, self._last = first, last
        self._shift = self._edges[first] - (len(_CUT) if first else 0)
        cut_left, cut_right = _CUT * (first > 0), _CUT * (last < len(characters))
        self.text = cut_left + "".join(characters[first:last]) + cut_right

    def _window(self, focus: int, width: int) -> tuple[int, int]:
        """The characters to print: all of them, or as many as fit with a third of the width before the focus."""
        count = len(self._edges) - 1
        if self._edges[-1] <= width:
            return 0, count
        room = width - 2 * len(_CUT)
        start = self._edges[min(max(focus, 0), count)] - width // 3
        # Near the right end the window slides left, so that the width is used.
        start = min(start, self._edges[-1] - room)
        first = bisect_left(self._edges, start) if start > 0 else 0
        last = bisect_right(self._edges, self._edges[first] + room) - 1
        return first, min(last, count)

    def span(self, column: int, end_column: int) -> Span:
        """The cells of the characters from one 1-based column up to another; at least one cell."""
        start = self._edge(column - 1)
        return Span(start - self._shift, max(1, self._edge(end_column - 1) - start))

    def _edge(self, index: int) -> int:
        return self._edges[min(max(index, self._first), self._last)]


def _cells(text: str) -> int:
    if text.isascii():
        return len(text)
    return sum(_width(character) for character in text)


def _width(character: str) -> int:
    import unicodedata  # few lines have such characters

    if unicodedata.combining(character) or unicodedata.category(character) in {"Mn", "Me", "Cf"}:
        return 0
    return 2 if unicodedata.east_asian_width(character) in {"W", "F"} else 1
