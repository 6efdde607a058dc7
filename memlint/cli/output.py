"""Turns what a run found into what is printed, and into an exit status."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Sequence
from typing import TextIO

from memlint.cli.errors import say_error
from memlint.cli.said import print_text
from memlint.config.options import OutputFormat
from memlint.linting.finding import FileResult
from memlint.reporting import text
from memlint.reporting.colour import Palette
from memlint.reporting.looks import Looks, looks_for
from memlint.reporting.report import Report

NO_FILES = "note: no Python files were found"

_INTERNAL_ERROR = "MEM004"

# These formats are for people: a summary may follow the findings.
FOR_PEOPLE = frozenset({OutputFormat.TEXT, OutputFormat.CONCISE})


# Each has a module in memlint.reporting; text is the one that needs the terminal.
_MODULES = {
    OutputFormat.CONCISE: "concise",
    OutputFormat.JSON: "as_json",
    OutputFormat.JSON_LINES: "json_lines",
    OutputFormat.GITHUB: "github",
    OutputFormat.GITLAB: "gitlab",
    OutputFormat.AZURE: "azure",
    OutputFormat.JUNIT: "junit",
    OutputFormat.RDJSON: "rdjson",
    OutputFormat.SARIF: "sarif",
}


def print_report(report: Report, output_format: OutputFormat, stream: TextIO, *, statistics: bool = False) -> None:
    print_text(report_text(report, output_format, looks_for(stream), statistics=statistics), stream)


def report_text(report: Report, output_format: OutputFormat, looks: Looks, *, statistics: bool = False) -> str:
    """What is printed; empty where there is nothing to print."""
    lines = list(_counted(report, output_format) if statistics else _rendered(report, output_format, looks))
    if output_format in FOR_PEOPLE and not statistics and looks.annotates:
        from memlint.reporting import github

        lines += github.render(report)  # GitHub shows them at the lines of the pull request
    return "".join(f"{line}\n" for line in lines)


def print_troubles(results: Iterable[FileResult]) -> None:
    for result in results:
        if result.trouble is not None:
            say_error(f"{result.path}: {result.trouble}")


def exit_status(results: Sequence[FileResult], *, exit_zero: bool = False) -> int:
    """2: something could not be checked for a reason of ours or of the file system; 1: findings; 0: neither."""
    if any(result.trouble is not None for result in results):
        return 2
    findings = [finding for result in results for finding in result.findings]
    if any(finding.code == _INTERNAL_ERROR for finding in findings):
        return 2
    return 1 if findings and not exit_zero else 0


def _rendered(report: Report, output_format: OutputFormat, looks: Looks) -> Iterator[str]:
    if output_format in _MODULES:
        module = importlib.import_module(f"memlint.reporting.{_MODULES[output_format]}")
        lines: Iterator[str] = module.render(report)
        return lines
    return text.render(report, palette=Palette(looks.colour), width=looks.width)


def _counted(report: Report, output_format: OutputFormat) -> Iterator[str]:
    from memlint.reporting import counts

    return counts.render_json(report) if output_format is OutputFormat.JSON else counts.render(report)
