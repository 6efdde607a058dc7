"""Where the values of a JSON text stand, so that one of them can be replaced and all else stays byte for byte."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from json.decoder import JSONDecodeError, JSONDecoder
from typing import Any

_SPACE = re.compile(r"[ \t\n\r]*")
_DECODER = JSONDecoder()


@dataclass(frozen=True)
class Span:
    """The value that stands at text[start:end]."""

    value: Any
    start: int
    end: int


def parse(text: str) -> Span:
    """The one value of a JSON text. Raises JSONDecodeError."""
    span = _value(text, _after_space(text, 0))
    rest = _after_space(text, span.end)
    if rest != len(text):
        raise JSONDecodeError("Extra data", text, rest)
    return span


def members(text: str, span: Span) -> dict[str, Span]:
    """The members of the object at the span. Of equal keys the last counts, as for every reader of JSON."""
    return dict(_members(text, span))


def elements(text: str, span: Span) -> list[Span]:
    """The elements of the array at the span."""
    found = []
    position = _after_space(text, span.start + 1)
    while text[position] != "]":
        element = _value(text, position)
        found.append(element)
        position = _after_comma(text, element.end)
    return found


def _members(text: str, span: Span) -> Iterator[tuple[str, Span]]:
    position = _after_space(text, span.start + 1)
    while text[position] != "}":
        key = _value(text, position)
        colon = _after_space(text, key.end)
        member = _value(text, _after_space(text, colon + 1))
        yield key.value, member
        position = _after_comma(text, member.end)


def _value(text: str, position: int) -> Span:
    value, end = _DECODER.raw_decode(text, position)
    return Span(value, position, end)


def _after_space(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return match.end() if match else position


def _after_comma(text: str, position: int) -> int:
    position = _after_space(text, position)
    return _after_space(text, position + 1) if text[position] == "," else position
