"""JUnit's XML: a test suite a file, a failing test case a finding. A clean run is one test that passed."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from xml.etree import ElementTree

from memlint.linting.finding import Finding
from memlint.reporting.report import Report, headline, message, place, visible


def render(report: Report) -> Iterator[str]:
    suites = ElementTree.Element("testsuites", _counted(len(report.findings), name="memlint"))
    for path, group in groupby(report.findings, key=lambda finding: finding.path):
        findings = list(group)
        suite = ElementTree.SubElement(suites, "testsuite", _counted(len(findings), name=visible(path)))
        for finding in findings:
            suite.append(_case(finding, report))
    if not report.findings:
        suite = ElementTree.SubElement(suites, "testsuite", {"name": "memlint", "tests": "1", "failures": "0"})
        ElementTree.SubElement(suite, "testcase", {"name": "no findings", "classname": "memlint"})
    ElementTree.indent(suites)
    yield '<?xml version="1.0" encoding="UTF-8"?>'
    yield ElementTree.tostring(suites, encoding="unicode")


def _counted(failures: int, *, name: str) -> dict[str, str]:
    return {"name": name, "tests": str(max(failures, 1)), "failures": str(failures)}


def _case(finding: Finding, report: Report) -> ElementTree.Element:
    case = ElementTree.Element(
        "testcase",
        {
            "name": f"{finding.code} {visible(place(finding.path, finding.start, finding.cell))}",
            "classname": finding.name,
            "file": visible(finding.path),
            "line": str(report.file_line(finding)),
        },
    )
    failure = ElementTree.SubElement(case, "failure", {"message": visible(message(finding)), "type": finding.code})
    failure.text = headline(finding)
    return case
