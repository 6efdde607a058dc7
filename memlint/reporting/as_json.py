"""The findings as a JSON array. The format is an interface: docs/json-output.md says what each key means."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict

from memlint.linting.finding import Cost, Edit, Finding, Fix, Related
from memlint.reporting.report import Report
from memlint.source.lines import Position


def render(report: Report) -> Iterator[str]:
    yield json.dumps([finding_object(finding) for finding in report.findings], indent=2)


def finding_object(finding: Finding) -> dict[str, object]:
    return {
        "code": finding.code,
        "name": finding.name,
        "message": finding.message,
        "path": finding.path,
        "cell": finding.cell,
        "line": finding.start.line,
        "column": finding.start.column,
        "end_line": finding.end.line,
        "end_column": finding.end.column,
        "confidence": finding.confidence.value,
        "cost": _cost(finding.cost),
        "related": [_related(related) for related in finding.related],
        "fix": _fix(finding.fix),
        "measured": None if finding.measured is None else asdict(finding.measured),
        "url": None,
    }


def _cost(cost: Cost | None) -> dict[str, object] | None:
    return None if cost is None else {"class": cost.cost_class.value, "formula": cost.formula}


def _related(related: Related) -> dict[str, object]:
    return {"path": related.path, "cell": related.cell, **_position(related.position), "message": related.message}


def _fix(fix: Fix | None) -> dict[str, object] | None:
    if fix is None:
        return None
    return {
        "applicability": fix.applicability.value,
        "message": fix.message,
        "edits": [_edit(edit) for edit in fix.edits],
    }


def _edit(edit: Edit) -> dict[str, object]:
    return {
        "cell": edit.cell,
        "start": _position(edit.start),
        "end": _position(edit.end),
        "content": edit.content,
    }


def _position(position: Position) -> dict[str, int]:
    return {"line": position.line, "column": position.column}
