"""Colours of a terminal."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import IO, Any

_RESET = "\x1b[0m"


def wants_colour(stream: IO[Any]) -> bool:
    """Whether to colour what goes to the stream: on terminals, unless NO_COLOR (no-color.org) or FORCE_COLOR says."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return stream.isatty() and os.environ.get("TERM") != "dumb"


@dataclass(frozen=True)
class Palette:
    """Paints text by its role; paints nothing where `on` is false."""

    on: bool = False

    def path(self, text: str) -> str:
        return self._paint("1", text)

    def code(self, text: str) -> str:
        return self._paint("1;31", text)

    def main(self, text: str) -> str:
        return self._paint("1;31", text)

    def gutter(self, text: str) -> str:
        return self._paint("34", text)

    def related(self, text: str) -> str:
        return self._paint("36", text)

    def faint(self, text: str) -> str:
        return self._paint("2", text)

    def cost(self, text: str) -> str:
        return self._paint("33", text)

    def help(self, text: str) -> str:
        return self._paint("32", text)

    def _paint(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}{_RESET}" if self.on and text else text
