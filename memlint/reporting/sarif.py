"""SARIF 2.1.0 (docs.oasis-open.org/sarif/sarif/v2.1.0), as GitHub's and others' code scanning reads it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import PurePath, PurePosixPath
from urllib.parse import quote

from memlint import __version__
from memlint.linting.finding import Applicability, Edit, Finding, Fix, Related
from memlint.linting.registry import RuleInfo, all_rules
from memlint.reporting.fingerprint import fingerprints, posix
from memlint.reporting.report import Report, message, within_cell
from memlint.source.lines import Position

_SCHEMA = "https://json.schemastore.org/sarif-2.1.0-rtm.5.json"
_FINGERPRINT = "memlint/v1"


def render(report: Report) -> Iterator[str]:
    yield json.dumps({"$schema": _SCHEMA, "version": "2.1.0", "runs": [_run(report)]}, indent=2)


def _run(report: Report) -> dict[str, object]:
    known = {rule.code: rule for rule in all_rules()}
    names = {finding.code: finding.name for finding in report.findings}
    codes = sorted(names)
    # A project's own rules are known where they run only.
    rules = [_rule(known[code]) if code in known else {"id": code, "name": names[code]} for code in codes]
    index = {code: number for number, code in enumerate(codes)}
    pairs = zip(report.findings, fingerprints(report), strict=True)
    return {
        "tool": {"driver": {"name": "memlint", "version": __version__, "rules": rules}},
        "columnKind": "unicodeCodePoints",
        "invocations": [
            {
                "executionSuccessful": not report.troubles,
                "toolExecutionNotifications": [_notification(path, text) for path, text in report.troubles],
            }
        ],
        "results": [_result(finding, fingerprint, index[finding.code], report) for finding, fingerprint in pairs],
    }


def _rule(rule: RuleInfo) -> dict[str, object]:
    return {
        "id": rule.code,
        "name": rule.name,
        "shortDescription": {"text": rule.summary},
        "help": {"text": rule.page, "markdown": rule.page},
        "defaultConfiguration": {"level": "error" if rule.family == "memlint" else "warning"},
        "properties": {"tags": [rule.family]},
    }


def _notification(path: str, text: str) -> dict[str, object]:
    where = {"physicalLocation": {"artifactLocation": {"uri": _uri(path)}}}
    return {"level": "error", "message": {"text": text}, "locations": [where]}


def _result(finding: Finding, fingerprint: str, rule_index: int, report: Report) -> dict[str, object]:
    result: dict[str, object] = {
        "ruleId": finding.code,
        "ruleIndex": rule_index,
        "level": "error" if finding.cost is None else "warning",
        "message": {"text": f"{within_cell(finding)}{message(finding)}"},
        "locations": [_place(finding, report)],
        "partialFingerprints": {_FINGERPRINT: fingerprint},
        "properties": {
            "confidence": finding.confidence.value,
            "cost": None if finding.cost is None else finding.cost.cost_class.value,
        },
    }
    if finding.related and finding.cell is None:
        result["relatedLocations"] = [_related(*pair) for pair in enumerate(finding.related, start=1)]
    if finding.fix is not None and _is_appliable(finding, finding.fix):
        result["fixes"] = [_fix(finding.fix, finding.path)]
    return result


def _is_appliable(finding: Finding, fix: Fix) -> bool:
    """Whether the file's text may be edited as the fix says; that of a notebook's cell is escaped."""
    return finding.cell is None and bool(fix.edits) and fix.applicability is not Applicability.DISPLAY_ONLY


def _related(number: int, related: Related) -> dict[str, object]:
    location = _location(related.path, _region(related.position, None))
    return {"id": number, **location, "message": {"text": related.message}}


def _place(finding: Finding, report: Report) -> dict[str, object]:
    """Of a finding in a notebook, the line of the JSON text."""
    whole_line = {"startLine": report.file_line(finding)}
    return _location(finding.path, whole_line if finding.cell is not None else _region(finding.start, finding.end))


def _location(path: str, region: dict[str, int]) -> dict[str, object]:
    return {"physicalLocation": {"artifactLocation": {"uri": _uri(path)}, "region": region}}


def _region(start: Position, end: Position | None) -> dict[str, int]:
    region = {"startLine": start.line, "startColumn": start.column}
    return region if end is None else {**region, "endLine": end.line, "endColumn": end.column}


def _fix(fix: Fix, path: str) -> dict[str, object]:
    changes = {"artifactLocation": {"uri": _uri(path)}, "replacements": [_replacement(edit) for edit in fix.edits]}
    return {"description": {"text": f"{fix.message} ({fix.applicability.value} fix)"}, "artifactChanges": [changes]}


def _replacement(edit: Edit) -> dict[str, object]:
    return {"deletedRegion": _region(edit.start, edit.end), "insertedContent": {"text": edit.content}}


def _uri(path: str) -> str:
    """Relative to the folder of the run where the path is, else a `file:` URI."""
    if PurePath(path).is_absolute():
        return PurePath(path).as_uri()
    return quote(str(PurePosixPath(posix(path))), errors="surrogatepass")
