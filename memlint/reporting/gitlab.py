"""GitLab's Code Quality report: a subset of Code Climate's issues (docs.gitlab.com/ci/testing/code_quality)."""

from __future__ import annotations

import json
from collections.abc import Iterator

from memlint.linting.finding import CostClass, Finding
from memlint.reporting.fingerprint import fingerprints, posix
from memlint.reporting.report import Report, message, within_cell

_SEVERITY = {
    CostClass.GROWS_ON_DEVICE: "critical",
    CostClass.RAISES_PEAK: "major",
    CostClass.GROWS_ON_HOST: "major",
    CostClass.CONSTANT: "minor",
}


def render(report: Report) -> Iterator[str]:
    pairs = zip(report.findings, fingerprints(report), strict=True)
    issues = [_issue(finding, fingerprint, report) for finding, fingerprint in pairs]
    yield json.dumps(issues, indent=2)


def _issue(finding: Finding, fingerprint: str, report: Report) -> dict[str, object]:
    begin = report.file_line(finding)
    end = finding.end.line if finding.cell is None else begin
    return {
        "description": f"{within_cell(finding)}{message(finding)}",
        "check_name": f"{finding.code} {finding.name}",
        "fingerprint": fingerprint,
        "severity": "blocker" if finding.cost is None else _SEVERITY[finding.cost.cost_class],
        "location": {
            "path": posix(finding.path),
            "lines": {"begin": begin, "end": end},
        },
    }
