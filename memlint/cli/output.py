"""Prints what a run found, and turns it into an exit status."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from typing import TextIO

import click

from memlint.cli.errors import say_error
from memlint.config.options import OutputFormat
from memlint.linting.finding import FileResult
from memlint.reporting import as_json, concise, counts, github, text
from memlint.reporting.colour import Palette, wants_colour
from memlint.reporting.report import Report

NO_FILES = "note: no Python files were found"

_INTERNAL_ERROR = "MEM004"

# These formats are for people: a summary may follow the findings.
FOR_PEOPLE = frozenset({OutputFormat.TEXT, OutputFormat.CONCISE})


def print_report(report: Report, output_format: OutputFormat, stream: TextIO, *, statistics: bool = False) -> None:
    lines = _counted(report, output_format) if statistics else _rendered(report, output_format, stream)
    for line in lines:
        click.echo(line, file=stream, color=True)


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


def _rendered(report: Report, output_format: OutputFormat, stream: TextIO) -> Iterator[str]:
    if output_format is OutputFormat.JSON:
        return as_json.render(report)
    if output_format is OutputFormat.GITHUB:
        return github.render(report)
    if output_format is OutputFormat.CONCISE:
        return concise.render(report)
    return text.render(report, palette=Palette(wants_colour(stream)), width=_width(stream))


def _counted(report: Report, output_format: OutputFormat) -> Iterator[str]:
    return counts.render_json(report) if output_format is OutputFormat.JSON else counts.render(report)


def _width(stream: TextIO) -> int:
    """The terminal's; a file gets lines that fit most screens."""
    return shutil.get_terminal_size((text.DEFAULT_WIDTH, 24)).columns if stream.isatty() else text.DEFAULT_WIDTH
