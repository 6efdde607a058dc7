"""What an editor shows: documents and notebooks, as the core reads them, and places in them as the protocol counts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

from lsprotocol import types
from pygls.workspace import PositionCodec

from memlint.linting.finding import Edit, Finding
from memlint.source.file import encoded
from memlint.source.lines import LineIndex, Position


@dataclass(frozen=True)
class Part:
    """A document, or a Python cell of a notebook."""

    uri: str
    version: int | None
    text: str

    @cached_property
    def lines(self) -> LineIndex:
        return LineIndex(self.text)


@dataclass(frozen=True)
class Text:
    """What is checked as one file. `parts` are its cells in order; a document has itself as its one part."""

    uri: str
    path: Path
    parts: tuple[Part, ...]
    is_notebook: bool
    codec: PositionCodec

    @cached_property
    def content(self) -> bytes:
        """The file's bytes, as if it had been saved. Raises UndecodableFile."""
        if not self.is_notebook:
            return encoded(self.parts[0].text)
        cells = [{"cell_type": "code", "source": part.text} for part in self.parts]
        return json.dumps({"cells": cells}).encode()

    @property
    def analysed_path(self) -> str:
        """The core tells notebooks by their name; one that was never saved may have none."""
        return f"{self.path}.ipynb" if self.is_notebook and self.path.suffix != ".ipynb" else str(self.path)

    def part(self, cell: int | None) -> Part:
        return self.parts[0 if cell is None else cell - 1]

    def part_of(self, uri: str) -> Part | None:
        return next((part for part in self.parts if part.uri == uri), None)

    def range(self, finding: Finding | Edit) -> types.Range:
        part = self.part(finding.cell)
        return types.Range(self.position(finding.start, part), self.position(finding.end, part))

    def position(self, position: Position, part: Part) -> types.Position:
        """The place as the client counts: from 0, in its code units. A place outside of the text is moved into it."""
        line = min(position.line, part.lines.line_count)
        before = part.lines.line_text(line)[: position.column - 1]
        return types.Position(line - 1, self.codec.client_num_units(before))

    def offset(self, position: types.Position, part: Part) -> int:
        """The code point that a place of the client stands before."""
        line = min(position.line + 1, part.lines.line_count)
        units = 0
        text = part.lines.line_text(line)
        for column, character in enumerate(text):
            if units >= position.character:
                return part.lines.line_start(line) + column
            units += self.codec.client_num_units(character)
        return part.lines.line_start(line) + len(text)


def edits_between(before: Part, after: str, text: Text) -> list[types.TextEdit]:
    """Edits of whole lines that make one text of the other, so that cursors and marks elsewhere stay."""
    from difflib import SequenceMatcher

    old, new = _lines(before.lines, before.text), _lines(LineIndex(after), after)
    matcher = SequenceMatcher(None, old, new, autojunk=False)
    return [
        types.TextEdit(
            types.Range(_line_start(first, before, text), _line_start(last, before, text)), "".join(new[start:end])
        )
        for kind, first, last, start, end in matcher.get_opcodes()
        if kind != "equal"
    ]


def _line_start(index: int, part: Part, text: Text) -> types.Position:
    if index < part.lines.line_count:
        return types.Position(index, 0)
    last = part.lines.line_count
    return text.position(Position(last, len(part.lines.line_text(last)) + 1), part)


def _lines(index: LineIndex, text: str) -> Sequence[str]:
    """The lines with their newlines."""
    starts = [*(index.line_start(number) for number in range(1, index.line_count + 1)), len(text)]
    return [text[start:end] for start, end in pairwise(starts)]
