"""The cells of a notebook as one Python program, and the way back from its lines to the cells."""

from __future__ import annotations

import io
import re
import tokenize
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from memlint.source.lines import Position

# Their cell is Python that runs as it stands.
_PYTHON_CELL_MAGICS = frozenset({"time", "capture", "prun"})
# Their cell is no Python, and writes to no Python object.
_OTHER_LANGUAGES = frozenset(
    """! HTML SVG bash cmd html javascript js latex markdown perl ruby script sh svg sx system sql writefile file
    cuda cython julia R""".split()
)
# What follows them is Python, which may write to anything in view.
_CODE_MAGICS = frozenset("time timeit prun memit mprun lprun run exec debug macro rerun recall load".split())
_MAGIC_LINE = re.compile(r"[ \t]*(?:%(?P<name>\w+)|[!?])")
_ASSIGNED_MAGIC = re.compile(r"[ \t]*(?P<target>[\w.,\[\]\"' ]+?)=[ \t]*[%!]")
_HELP_LINE = re.compile(r"[ \t]*[%\w.*]+\?{1,2}[ \t]*(?:#.*)?$")
_CELL_MAGIC = re.compile(r"%%(!|\w+)")
_LINE = re.compile(r"[^\n]*\n|[^\n]+$")
_INDENT = re.compile(r"[ \t]*")


# Unknown code that may change anything.
_ANY_CODE = 'exec("")'
_BETWEEN_STATEMENTS = frozenset({tokenize.NL, tokenize.COMMENT, tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING})


class CellsChanged(ValueError):  # noqa: N818 - says what happened
    """A program's text no longer shows where its cells begin, or where a magic stood."""


class CellPlace(NamedTuple):
    """A place in a notebook: the cell's number (1-based, all cells counted), and the position in its source."""

    cell: int
    position: Position


@dataclass(frozen=True)
class CellIndex:
    """For each cell of a program, in order: its number, and the program's line that comes before its first.

    `file_lines` gives for each line of the program (by its 1-based number less one) the line of the notebook's file.
    """

    numbers: tuple[int, ...]
    before: tuple[int, ...]
    file_lines: tuple[int, ...] = ()

    def place(self, position: Position) -> CellPlace:
        """Where a position of the program is. The head of the program belongs to its first cell."""
        index = max(0, bisect_right(self.before, position.line - 1) - 1)
        line = max(1, position.line - self.before[index])
        return CellPlace(self.numbers[index], Position(line, position.column))

    def file_line(self, position: Position) -> int:
        """The line of the notebook's file that holds a line of the program."""
        return self.file_lines[min(position.line, len(self.file_lines)) - 1] if self.file_lines else 1


@dataclass(frozen=True)
class Cell:
    """A Python cell: its number (1-based, all cells of the notebook counted) and its source."""

    number: int
    source: str


@dataclass(frozen=True)
class Masked:
    """A line that is no Python, and the indentation of what stands for it."""

    line: str
    indent: str


@dataclass(frozen=True)
class Program:
    """Cells put one after another, each behind a line that marks its start.

    What is no Python (magics, shell lines, requests for help) is masked by a statement on a line of its own that ends
    with a mark too.
    """

    text: str
    index: CellIndex
    token: str
    masked: tuple[Masked, ...] = ()

    def sources(self, text: str) -> list[str]:
        """The sources of the cells in an edited text of the program, in order, with what was masked put back.

        A last line without a newline has one here.

        Raises:
            CellsChanged: a mark is missing or doubled, or a masked line was changed.
        """
        head, *pieces = re.split(rf"^# {self.token} cell \d+\n", text, flags=re.MULTILINE)
        if len(pieces) != len(self.index.numbers):
            raise CellsChanged("the start of a cell is not where it was")
        pieces[:1] = [head + piece for piece in pieces[:1]]  # an import may have been put before all else
        waiting = iter(enumerate(self.masked))
        sources = ["".join(self._restored(line, waiting) for line in _LINE.findall(piece)) for piece in pieces]
        if next(waiting, None) is not None:
            raise CellsChanged("a magic is gone")
        return sources

    def _restored(self, line: str, waiting: Iterator[tuple[int, Masked]]) -> str:
        if self.token not in line:
            return line
        match = re.fullmatch(rf"([ \t]*)[^#]*# {self.token} (\d+)\n", line)
        number, masked = next(waiting, (None, None))
        if match is None or masked is None or int(match[2]) != number or not match[1].endswith(masked.indent):
            raise CellsChanged("a magic is not where it was")
        added = match[1].removesuffix(masked.indent)
        return f"{added}{masked.line}\n"


def program_of(cells: Sequence[Cell], file_lines: Sequence[Sequence[int]] = ()) -> Program:
    """The cells as one program. `file_lines` holds, for each cell, the file's line of each line of its source."""
    token = _unused_token(cells)
    masked: list[Masked] = []
    lines: list[str] = []
    before: list[int] = []
    origins: list[int] = []
    for index, cell in enumerate(cells):
        lines.append(f"# {token} cell {cell.number}\n")
        before.append(len(lines))
        body = _masked_lines(cell.source, token, masked)
        lines += body
        if file_lines:
            known = file_lines[index] or [1]
            origins += [known[0], *(known[min(number, len(known) - 1)] for number in range(len(body)))]
    numbers = tuple(cell.number for cell in cells)
    return Program("".join(lines), CellIndex(numbers, tuple(before), tuple(origins)), token, tuple(masked))


def _unused_token(cells: Sequence[Cell]) -> str:
    number = 0
    while any(f"memlint{number}" in cell.source for cell in cells):
        number += 1
    return f"memlint{number}"


def _masked_lines(source: str, token: str, masked: list[Masked]) -> list[str]:
    """The lines of a cell, each with its newline, those that are no Python masked."""
    result = []
    lines = [line if line.endswith("\n") else f"{line}\n" for line in _LINE.findall(source)]
    stand_ins = _stand_ins(lines)
    for number, line in enumerate(lines):
        if number not in stand_ins:
            result.append(line)
            continue
        indent, statement = stand_ins[number]
        result.append(f"{indent}{statement}  # {token} {len(masked)}\n")
        masked.append(Masked(line.removesuffix("\n"), indent))
    return result


def _stand_ins(lines: Sequence[str]) -> dict[int, tuple[str, str]]:
    """Indentation and statement to put for each line that is no Python, by its number from 0."""
    whole = _cell_magic(lines)
    if whole is not None:
        return {number: ("", "pass" if number else whole) for number in range(len(lines))}
    found: dict[int, tuple[str, str]] = {}
    for number, line in enumerate(lines):
        if number - 1 in found and lines[number - 1].rstrip().endswith("\\"):
            found[number] = (found[number - 1][0], "pass")  # a shell command goes on
        elif (statement := _stand_in(line)) is not None:
            found[number] = (_indent(line), statement)
    if not found:
        return {}
    text = "".join(f"{''.join(found[number])}\n" if number in found else line for number, line in enumerate(lines))
    starts = _statement_starts(text)
    # Within a string or a bracket, `%` and `!` are Python's.
    return {number: stand_in for number, stand_in in found.items() if starts is None or number + 1 in starts}


def _indent(line: str) -> str:
    match = _INDENT.match(line)
    return match.group() if match else ""


def _cell_magic(lines: Sequence[str]) -> str | None:
    """What stands for the first line of a cell that is not read at all; None for a cell that is."""
    match = _CELL_MAGIC.match(lines[0]) if lines else None
    if match is None or match[1] in _PYTHON_CELL_MAGICS:
        return None
    return "pass" if match[1] in _OTHER_LANGUAGES else _ANY_CODE


def _stand_in(line: str) -> str | None:
    """The statement that stands for a line of IPython; None for one of Python."""
    assigned = _ASSIGNED_MAGIC.match(line)
    if assigned is not None:
        return f"{assigned['target'].strip()} = get_ipython()"
    if _HELP_LINE.match(line) or line.startswith("%%"):
        return "pass"
    match = _MAGIC_LINE.match(line)
    if match is None:
        return None
    return _ANY_CODE if match["name"] in _CODE_MAGICS else "pass"


def _statement_starts(text: str) -> frozenset[int] | None:
    """The 1-based lines on which a statement starts; None where Python's tokenizer gives up."""
    starts: set[int] = set()
    is_start = True
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.NEWLINE:
                is_start = True
            elif is_start and token.type not in _BETWEEN_STATEMENTS:
                starts.add(token.start[0])
                is_start = False
    except (tokenize.TokenError, SyntaxError):
        return None
    return frozenset(starts)
