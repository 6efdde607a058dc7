"""What every output format is made from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from memlint.linting.finding import Edit, FileResult, Finding, Fix, Measured, Related
from memlint.source.lines import Position

if TYPE_CHECKING:
    from memlint.source.cells import CellIndex

Spot = tuple[str, int | None]
"""A file, or a cell of a notebook."""


@dataclass(frozen=True)
class Report:
    """The findings of a run, in their order, those of notebooks placed in their cells.

    `lines` holds the source lines that they name, by file or cell and 1-based number, `file_lines` for each line of a
    cell the line of the notebook's file, and `troubles` what could not be checked, and why.
    """

    findings: tuple[Finding, ...]
    lines: Mapping[Spot, Mapping[int, str]] = field(default_factory=dict)
    file_lines: Mapping[tuple[str, int, int], int] = field(default_factory=dict)
    troubles: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, results: Iterable[FileResult]) -> Report:
        findings: list[Finding] = []
        lines: dict[Spot, dict[int, str]] = {}
        file_lines: dict[tuple[str, int, int], int] = {}
        troubles: list[tuple[str, str]] = []
        for result in results:
            if result.trouble is not None:
                troubles.append((result.path, result.trouble))
            if result.cells is None:
                findings += result.findings
                lines[result.path, None] = result.lines
                continue
            findings += (_placed(finding, result.cells) for finding in result.findings)
            for number, text in result.lines.items():
                cell, position = result.cells.place(Position(number, 1))
                lines.setdefault((result.path, cell), {})[position.line] = text
                file_lines[result.path, cell, position.line] = result.cells.file_line(Position(number, 1))
        return cls(tuple(sorted(findings, key=lambda finding: finding.sort_key)), lines, file_lines, tuple(troubles))

    def line(self, path: str, number: int, cell: int | None = None) -> str | None:
        return self.lines.get((path, cell), {}).get(number)

    def file_line(self, finding: Finding) -> int:
        """The line of the file itself, where a finding starts: of a notebook, of its JSON text."""
        if finding.cell is None:
            return finding.start.line
        return self.file_lines.get((finding.path, finding.cell, finding.start.line), 1)


def _placed(finding: Finding, cells: CellIndex) -> Finding:
    cell, start = cells.place(finding.start)
    return replace(
        finding,
        start=start,
        end=cells.place(finding.end).position,
        related=tuple(_placed_related(related, finding.path, cells) for related in finding.related),
        fix=None if finding.fix is None else _placed_fix(finding.fix, cells),
        cell=cell,
    )


def _placed_related(related: Related, path: str, cells: CellIndex) -> Related:
    if related.path != path:
        return related
    cell, position = cells.place(related.position)
    return replace(related, position=position, cell=cell)


def _placed_fix(fix: Fix, cells: CellIndex) -> Fix:
    return replace(fix, edits=tuple(_placed_edit(edit, cells) for edit in fix.edits))


def _placed_edit(edit: Edit, cells: CellIndex) -> Edit:
    cell, start = cells.place(edit.start)
    return replace(edit, start=start, end=cells.place(edit.end).position, cell=cell)


def place(path: str, position: Position, cell: int | None) -> str:
    """`train.py:14:5`, `train.ipynb:cell 3:14:5`."""
    within = "" if cell is None else f"cell {cell}:"
    return f"{path}:{within}{position.line}:{position.column}"


def headline(finding: Finding) -> str:
    """The finding in one line."""
    where = place(visible(finding.path), finding.start, finding.cell)
    return f"{where}: {finding.code} [{finding.name}] {visible(message(finding))}"


def message(finding: Finding) -> str:
    """What is wrong, and in brackets what that was measured to cost."""
    return finding.message if finding.measured is None else f"{finding.message} [{price(finding.measured)}]"


def price(measured: Measured) -> str:
    """In a line; with a warning where it is that of another state of the file."""
    return f"before this file changed: {measured.summary}" if measured.changed_since else measured.summary


def within_cell(finding: Finding) -> str:
    """`cell 3, line 14: ` for what formats without cells show of a finding in a notebook; else nothing."""
    return "" if finding.cell is None else f"cell {finding.cell}, line {finding.start.line}: "


def visible(text: str) -> str:
    """The text with control characters shown as pictures: a report is one line a line, and moves no cursor."""
    # Nearly all texts: to look up each character takes five times as long.
    return text if text.isascii() and text.isprintable() else text.translate(_PICTURES)


_PICTURES = {code: chr(0x2400 + code) for code in range(0x20)} | {0x7F: "\u2421"}
_PICTURES |= dict.fromkeys(
    [*range(0x80, 0xA0), 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A)], "\ufffd"
)
