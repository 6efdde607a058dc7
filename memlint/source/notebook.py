"""Jupyter notebooks (nbformat 4): a JSON text whose Python cells are read, and edited, as one program."""

from __future__ import annotations

import json
import re
from codecs import BOM_UTF8
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from json.decoder import JSONDecodeError
from typing import Any

from memlint.source.cells import Cell, CellIndex, CellsChanged, Program, program_of
from memlint.source.file import SourceFile, UndecodableFile
from memlint.source.json_spans import Span, elements, members, parse
from memlint.source.lines import LineIndex, Position

_SOURCE_LINE = re.compile(r"[^\n]*\n|[^\n]+")
_ESCAPED = re.compile(r"\\u[0-9a-fA-F]{4}")


@dataclass(frozen=True)
class _Source:
    """Where the source of a Python cell stands in the JSON text: a string, or a list of strings."""

    number: int
    span: Span

    @property
    def text(self) -> str:
        return self.span.value if isinstance(self.span.value, str) else "".join(self.span.value)


@dataclass(frozen=True)
class Notebook(SourceFile):
    """A notebook: `text` is the program that its Python cells make, `raw` the file."""

    json_text: str
    sources: tuple[_Source, ...]
    program: Program

    @classmethod
    def decode(cls, path: str, raw: bytes) -> Notebook:
        """Raises UndecodableFile: it is no JSON in UTF-8, or not of a notebook's shape."""
        has_bom = raw.startswith(BOM_UTF8)
        text = _decoded(raw.removeprefix(BOM_UTF8))
        sources = tuple(_sources(text))
        lines = LineIndex(text)
        cells = [Cell(source.number, source.text) for source in sources]
        program = program_of(cells, [_file_lines(source, text, lines) for source in sources])
        return cls(path, raw, program.text, "utf-8", has_bom, True, text, sources, program)

    def encode(self, text: str) -> bytes:
        """The notebook with the cells of an edited program; what did not change stays byte for byte.

        Raises:
            CellsChanged: the text no longer shows where its cells begin.
        """
        pieces: list[str] = []
        position = 0
        for source, new in zip(self.sources, self._trimmed(text), strict=True):
            if new == source.text:
                continue
            pieces += (self.json_text[position : source.span.start], self._written(source.span, new))
            position = source.span.end
        pieces.append(self.json_text[position:])
        return (BOM_UTF8 if self.has_bom else b"") + "".join(pieces).encode()

    def can_hold(self, text: str) -> bool:
        try:
            self.encode(text)
        except CellsChanged:
            return False
        return True

    @property
    def cells(self) -> CellIndex:
        return self.program.index

    def _trimmed(self, text: str) -> Iterator[str]:
        """The cells' sources, without the newline that the program adds to a cell that has none at its end."""
        for source, new in zip(self.sources, self.program.sources(text), strict=True):
            yield new if source.text.endswith("\n") else new.removesuffix("\n")

    def _written(self, span: Span, new: str) -> str:
        """The new source in the style of the old one."""
        old = self.json_text[span.start : span.end]
        if isinstance(span.value, str):
            return self._string(new, old)
        items = elements(self.json_text, span)
        known = {item.value: self.json_text[item.start : item.end] for item in items}
        first = self.json_text[span.start + 1 : items[0].start]
        between = self.json_text[items[0].end : items[1].start] if len(items) > 1 else f",{first}"
        last = self.json_text[items[-1].end : span.end]
        lines = _SOURCE_LINE.findall(new)
        return f"[{first}{between.join(known.get(line) or self._string(line, old) for line in lines)}{last}"

    def _string(self, value: str, old: str) -> str:
        return json.dumps(value, ensure_ascii=self._escapes if old.isascii() else False)

    @cached_property
    def _escapes(self) -> bool:
        """Whether the file writes characters beyond ASCII as escapes."""
        return self.json_text.isascii() and _ESCAPED.search(self.json_text) is not None


def _decoded(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        before = body[: error.start].decode(errors="replace")
        position = LineIndex(before).position(len(before))
        raise UndecodableFile(position, f"a notebook is JSON in UTF-8 ({error.reason})") from error


def _sources(text: str) -> Iterator[_Source]:
    try:
        notebook = parse(text)
    except JSONDecodeError as error:
        raise UndecodableFile(Position(error.lineno, error.colno), f"not a notebook: {error.msg}") from error
    except RecursionError as error:
        raise UndecodableFile(Position(1, 1), "not a notebook: nested too deeply") from error
    if not isinstance(notebook.value, dict):
        raise UndecodableFile(Position(1, 1), "not a notebook: no JSON object")
    fields = members(text, notebook)
    cells = fields.get("cells")
    if cells is None or not isinstance(cells.value, list) or not _is_python(notebook.value):
        return
    for number, cell in enumerate(elements(text, cells), start=1):
        if _is_python_cell(cell.value):
            source = members(text, cell).get("source")
            if source is not None and _is_source(source.value):
                yield _Source(number, source)


def _is_python(notebook: dict[str, Any]) -> bool:
    """Whether the notebook's language is Python, or it names none."""
    named = [
        _at(notebook, "metadata", "language_info", "name"),
        _at(notebook, "metadata", "kernelspec", "language"),
    ]
    return all(not isinstance(name, str) or name.lower() in {"python", "ipython"} for name in named)


def _is_python_cell(cell: Any) -> bool:
    if _at(cell, "cell_type") != "code":
        return False
    language = _at(cell, "metadata", "vscode", "languageId")
    return language is None or language == "python"


def _at(value: Any, *keys: str) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _is_source(value: Any) -> bool:
    """Not empty, and a string or strings: an empty list shows no style to write in."""
    if isinstance(value, str):
        return bool(value)
    return isinstance(value, list) and bool(value) and all(isinstance(line, str) for line in value)


def _file_lines(source: _Source, text: str, lines: LineIndex) -> Sequence[int]:
    """The file's line of each line of a cell's source."""
    if isinstance(source.span.value, str):
        return [lines.position(source.span.start).line]
    found: list[int] = []
    for item in elements(text, source.span):
        line = lines.position(item.start).line
        found += [line] * max(1, len(_SOURCE_LINE.findall(item.value)))
    return found
