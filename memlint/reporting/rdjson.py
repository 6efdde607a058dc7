"""Reviewdog's Diagnostic Format (reviewdog/reviewdog, proto/rdf). Its columns count the bytes of the line in UTF-8."""

from __future__ import annotations

import json
from collections.abc import Iterator

from memlint.linting.finding import Applicability, Finding
from memlint.reporting.fingerprint import posix
from memlint.reporting.report import Report, message, within_cell
from memlint.source.lines import Position


def render(report: Report) -> Iterator[str]:
    diagnostics = [_diagnostic(finding, report) for finding in report.findings]
    yield json.dumps({"source": {"name": "memlint"}, "severity": "WARNING", "diagnostics": diagnostics}, indent=2)


def _diagnostic(finding: Finding, report: Report) -> dict[str, object]:
    found: dict[str, object] = {
        "message": f"{within_cell(finding)}[{finding.name}] {message(finding)}",
        "location": {"path": posix(finding.path), "range": _place(finding, report)},
        "code": {"value": finding.code},
    }
    suggestions = _suggestions(finding, report)
    return {**found, "suggestions": suggestions} if suggestions else found


def _suggestions(finding: Finding, report: Report) -> list[dict[str, object]]:
    """The fix, where it is one edit: each suggestion is applied alone, and half a fix breaks code."""
    fix = finding.fix
    if fix is None or fix.applicability is Applicability.DISPLAY_ONLY or len(fix.edits) != 1:
        return []
    if finding.cell is not None:
        return []  # its text is escaped in the file
    edit = fix.edits[0]
    if None in (report.line(finding.path, edit.start.line), report.line(finding.path, edit.end.line)):
        return []  # its columns cannot be counted in bytes
    return [{"range": _range(edit.start, edit.end, finding.path, report), "text": edit.content}]


def _place(finding: Finding, report: Report) -> dict[str, object]:
    if finding.cell is not None:
        return {"start": {"line": report.file_line(finding)}}
    return _range(finding.start, finding.end, finding.path, report)


def _range(start: Position, end: Position, path: str, report: Report) -> dict[str, object]:
    return {"start": _position(start, path, report), "end": _position(end, path, report)}


def _position(position: Position, path: str, report: Report) -> dict[str, int]:
    line = report.line(path, position.line)
    if line is None:
        return {"line": position.line}
    return {"line": position.line, "column": len(line[: position.column - 1].encode(errors="surrogatepass")) + 1}
