"""What a report depends on besides the findings: where it is going to be read."""

from __future__ import annotations

import os
from typing import NamedTuple, TextIO

from memlint.reporting.colour import wants_colour

DEFAULT_WIDTH = 120


class Looks(NamedTuple):
    """`width` in cells. `annotates`: GitHub reads annotations anywhere in the output of an action."""

    colour: bool
    width: int
    annotates: bool


def looks_for(stream: TextIO) -> Looks:
    """A terminal has its width; a file gets lines that fit most screens."""
    return Looks(wants_colour(stream), width_of(stream), os.environ.get("GITHUB_ACTIONS") == "true")


def width_of(stream: TextIO) -> int:
    if not stream.isatty():
        return DEFAULT_WIDTH
    import shutil

    return shutil.get_terminal_size((DEFAULT_WIDTH, 24)).columns
