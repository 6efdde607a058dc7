"""Results as JSON and back. Whatever does not fit raises what is in UNREADABLE: what is stored may be damaged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from memlint.cache.texts import decoded, encoded
from memlint.linting.finding import (
    Applicability,
    Confidence,
    Cost,
    CostClass,
    Edit,
    FileResult,
    Finding,
    Fix,
    Related,
)
from memlint.source.lines import Position

if TYPE_CHECKING:
    from memlint.source.cells import CellIndex


def result_to_text(result: FileResult) -> str:
    """The result without its path; the empty text for a file in which nothing was found."""
    if not result.findings and not result.lines and result.cells is None:
        return ""
    cells = result.cells
    return encoded(
        [
            [_plain_finding(finding) for finding in result.findings],
            list(result.lines.items()),
            None if cells is None else [cells.numbers, cells.before, cells.file_lines],
        ]
    )


def result_from_text(path: str, text: str) -> FileResult:
    if not text:
        return FileResult(path)
    findings, lines, cells = decoded(text)
    return FileResult(
        path,
        tuple(_finding(path, *parts) for parts in findings),
        {int(line): str(content) for line, content in lines},
        cells=None if cells is None else _cells(cells),
    )


def _cells(parts: Sequence[Sequence[int]]) -> CellIndex:
    from memlint.source.cells import CellIndex  # of notebooks alone

    return CellIndex(*(tuple(int(number) for number in part) for part in parts))


def _plain_finding(finding: Finding) -> list[object]:
    cost, fix = finding.cost, finding.fix
    return [
        finding.code,
        finding.name,
        finding.message,
        finding.start,
        finding.end,
        finding.confidence.value,
        None if cost is None else [cost.cost_class.value, cost.formula],
        [[related.path, related.position, related.message, related.cell] for related in finding.related],
        None
        if fix is None
        else [fix.applicability.value, fix.message, [[e.start, e.end, e.content, e.cell] for e in fix.edits]],
        finding.cell,
    ]


def _finding(  # noqa: PLR0913, PLR0917 - one for each field
    path: str,
    code: str,
    name: str,
    message: str,
    start: Sequence[int],
    end: Sequence[int],
    confidence: str,
    cost: Sequence[Any] | None,
    related: Sequence[Sequence[Any]],
    fix: Sequence[Any] | None,
    cell: int | None,
) -> Finding:
    return Finding(
        code,
        name,
        message,
        path,
        Position(*start),
        Position(*end),
        Confidence(confidence),
        None if cost is None else Cost(CostClass(cost[0]), cost[1]),
        tuple(Related(where, Position(*position), text, inside) for where, position, text, inside in related),
        None if fix is None else _fix(*fix),
        cell,
    )


def _fix(applicability: str, message: str, edits: Sequence[Sequence[Any]]) -> Fix:
    return Fix(
        Applicability(applicability),
        message,
        tuple(Edit(Position(*start), Position(*end), content, cell) for start, end, content, cell in edits),
    )
