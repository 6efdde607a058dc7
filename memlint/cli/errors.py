"""How the command line gives up."""

from __future__ import annotations

import sys
from typing import IO, Any

import click

from memlint.reporting.colour import wants_colour


class Trouble(click.ClickException):
    """The run cannot go on. Exit status 2; 1 is for findings."""

    exit_code = 2

    def show(self, file: IO[Any] | None = None) -> None:
        say_error(self.message, file)


def say_error(message: str, file: IO[Any] | None = None) -> None:
    stream = file or sys.stderr
    label = "\x1b[1;31merror:\x1b[0m" if wants_colour(stream) else "error:"
    click.echo(f"{label} {message}", file=stream, color=True)
