"""Offsets and positions in a text, as Python's tokenizer counts lines: `\\n`, `\\r\\n` and a lone `\\r` end one."""

from __future__ import annotations

import re
from bisect import bisect_right
from typing import NamedTuple

_NEWLINE = re.compile(r"\r\n|\r|\n")


class Position(NamedTuple):
    """A place in a text: 1-based line, 1-based column in code points."""

    line: int
    column: int


class LineIndex:
    """Converts between 0-based code-point offsets and positions."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._starts = [0, *(match.end() for match in _NEWLINE.finditer(text))]

    def position(self, offset: int) -> Position:
        line = bisect_right(self._starts, offset)
        return Position(line, offset - self._starts[line - 1] + 1)

    def offset(self, position: Position) -> int:
        return self._starts[position.line - 1] + position.column - 1

    def line_start(self, line: int) -> int:
        """The offset of the first character of the 1-based line."""
        return self._starts[line - 1]

    def line_text(self, line: int) -> str:
        """The text of the 1-based line, without its newline."""
        end = self._starts[line] if line < len(self._starts) else len(self._text)
        return self._text[self._starts[line - 1] : end].rstrip("\r\n")

    @property
    def line_count(self) -> int:
        return len(self._starts)
