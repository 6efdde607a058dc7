"""What a check says: made once, and said again by the runs that find all as it was."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import NamedTuple, TextIO

import click

from memlint.cli.errors import Trouble
from memlint.reporting.looks import Looks, looks_for


class Said(NamedTuple):
    """The report, the line for people beside it, and the exit status."""

    report: str
    summary: str
    status: int


class Manner(NamedTuple):
    """How a check is told to say what it found."""

    statistics: bool
    exit_zero: bool
    is_to_file: bool
    looks: Looks


def manner(*, statistics: bool, exit_zero: bool, output_file: Path | None) -> Manner:
    stream = sys.stdout if output_file is None else io.StringIO()
    return Manner(statistics, exit_zero, output_file is not None, looks_for(stream))


def say(said: Said, output_file: Path | None) -> int:
    """Print or write it; return the exit status. Raises Trouble."""
    if output_file is None:
        print_text(said.report, sys.stdout)
    else:
        _write(said.report, output_file)
    if said.summary:
        click.echo(said.summary)
    return said.status


def print_text(text: str, stream: TextIO) -> None:
    """At once: to write each line for itself takes longer than to make it."""
    if text:
        click.echo(text, file=stream, nl=False, color=True)


def _write(report: str, path: Path) -> None:
    """At once or not at all."""
    from memlint.source.file import write_atomically

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, report.encode(errors="backslashreplace"))
    except OSError as error:
        raise Trouble(f"cannot write {path}: {error.strerror or error}") from None
