"""GitHub Actions workflow commands: each finding is shown at its line of the pull request."""

from __future__ import annotations

from collections.abc import Iterator

from memlint.linting.finding import Finding
from memlint.reporting.report import Report, headline


def render(report: Report) -> Iterator[str]:
    for finding in report.findings:
        properties = ",".join(f"{key}={_property(value)}" for key, value in _properties(finding, report).items())
        yield f"::error {properties}::{_data(headline(finding))}"


def _properties(finding: Finding, report: Report) -> dict[str, str]:
    title = f"memlint ({finding.code})"
    if finding.cell is not None:
        return {"title": title, "file": finding.path, "line": str(report.file_line(finding))}
    return {
        "title": title,
        "file": finding.path,
        "line": str(finding.start.line),
        "col": str(finding.start.column),
        "endLine": str(finding.end.line),
        "endColumn": str(finding.end.column),
    }


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
