"""One line a finding."""

from __future__ import annotations

from collections.abc import Iterator

from memlint.reporting.report import Report, headline


def render(report: Report) -> Iterator[str]:
    for finding in report.findings:
        yield headline(finding)
