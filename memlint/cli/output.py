"""Prints what a run found, and turns it into an exit status."""

from __future__ import annotations

import importlib
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TextIO

import click

from memlint.cli.errors import Trouble, say_error
from memlint.config.options import OutputFormat
from memlint.linting.finding import FileResult
from memlint.reporting import text
from memlint.reporting.colour import Palette, wants_colour
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
    lines = _counted(report, output_format) if statistics else _rendered(report, output_format, stream)
    _print(lines, stream)
    if output_format in FOR_PEOPLE and not statistics and _is_github_action():
        from memlint.reporting import github

        # GitHub reads annotations anywhere in the output and shows them at the lines of the pull request.
        _print(github.render(report), stream)


def _print(lines: Iterable[str], stream: TextIO) -> None:
    """Together: to write each line for itself takes longer than to make it."""
    together = list(lines)
    if together:
        click.echo("\n".join(together), file=stream, color=True)


def write_report(report: Report, output_format: OutputFormat, path: Path, *, statistics: bool = False) -> None:
    """Write the report to a file, at once or not at all. Raises Trouble."""
    from memlint.source.file import write_atomically

    stream = io.StringIO()
    print_report(report, output_format, stream, statistics=statistics)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, stream.getvalue().encode(errors="backslashreplace"))
    except OSError as error:
        raise Trouble(f"cannot write {path}: {error.strerror or error}") from None


def _is_github_action() -> bool:
    return os.environ.get("GITHUB_ACTIONS") == "true"


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
    if output_format in _MODULES:
        module = importlib.import_module(f"memlint.reporting.{_MODULES[output_format]}")
        lines: Iterator[str] = module.render(report)
        return lines
    return text.render(report, palette=Palette(wants_colour(stream)), width=_width(stream))


def _counted(report: Report, output_format: OutputFormat) -> Iterator[str]:
    from memlint.reporting import counts

    return counts.render_json(report) if output_format is OutputFormat.JSON else counts.render(report)


def _width(stream: TextIO) -> int:
    """The terminal's; a file gets lines that fit most screens."""
    if not stream.isatty():
        return text.DEFAULT_WIDTH
    import shutil

    return shutil.get_terminal_size((text.DEFAULT_WIDTH, 24)).columns
