"""One JSON object a line: the elements of the JSON array."""

from __future__ import annotations

import json
from collections.abc import Iterator

from memlint.reporting.as_json import finding_object
from memlint.reporting.report import Report


def render(report: Report) -> Iterator[str]:
    for finding in report.findings:
        yield json.dumps(finding_object(finding))
