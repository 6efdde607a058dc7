"""Azure Pipelines logging commands: each finding is an issue of the build."""

from __future__ import annotations

from collections.abc import Iterator

from memlint.reporting.report import Report, message, visible, within_cell

# As agents unescape them: microsoft/azure-pipelines-agent, docs/preview/outputvariable and CommandStringConvertor.cs.
_ESCAPES = {"%": "%AZP25", ";": "%3B", "\r": "%0D", "\n": "%0A", "]": "%5D"}


def render(report: Report) -> Iterator[str]:
    for finding in report.findings:
        properties = {
            "type": "error",
            "sourcepath": finding.path,
            "linenumber": str(report.file_line(finding)),
            "columnnumber": str(finding.start.column if finding.cell is None else 1),
            "code": finding.code,
        }
        written = "".join(f"{key}={_escaped(value)};" for key, value in properties.items())
        yield f"##vso[task.logissue {written}]{within_cell(finding)}[{finding.name}] {visible(message(finding))}"


def _escaped(text: str) -> str:
    return "".join(_ESCAPES.get(character, character) for character in text)
