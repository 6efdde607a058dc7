"""How often each rule was found, instead of the findings: `--statistics`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from memlint.linting.finding import Applicability
from memlint.reporting.report import Report


@dataclass(frozen=True)
class RuleCount:
    """`fixable` counts the findings with a fix that can be applied, `safely_fixable` those with a safe one."""

    code: str
    name: str
    count: int
    fixable: int
    safely_fixable: int


def counts(report: Report) -> list[RuleCount]:
    """The most frequent rule first."""
    found = Counter((finding.code, finding.name) for finding in report.findings)
    appliable: Counter[str] = Counter()
    safe: Counter[str] = Counter()
    for finding in report.findings:
        if finding.fix is not None and finding.fix.applicability is not Applicability.DISPLAY_ONLY:
            appliable[finding.code] += 1
            safe[finding.code] += finding.fix.applicability is Applicability.SAFE
    ordered = sorted(found.items(), key=lambda entry: (-entry[1], entry[0]))
    return [RuleCount(code, name, count, appliable[code], safe[code]) for (code, name), count in ordered]


def render(report: Report) -> Iterator[str]:
    rows = counts(report)
    width = max((len(str(row.count)) for row in rows), default=0)
    name_width = max((len(row.name) for row in rows), default=0)
    for row in rows:
        yield f"{row.count:>{width}}  {row.code}  {row.name:<{name_width}}  {_fixable(row)}".rstrip()


def render_json(report: Report) -> Iterator[str]:
    rows = [
        {
            "code": row.code,
            "name": row.name,
            "count": row.count,
            "fixable": row.fixable,
            "safely_fixable": row.safely_fixable,
        }
        for row in counts(report)
    ]
    yield json.dumps(rows, indent=2)


def _fixable(row: RuleCount) -> str:
    if not row.fixable:
        return ""
    unsafe = row.fixable - row.safely_fixable
    parts = [f"{row.safely_fixable} safe"] * bool(row.safely_fixable) + [f"{unsafe} unsafe"] * bool(unsafe)
    return f"fixable: {', '.join(parts)}"
