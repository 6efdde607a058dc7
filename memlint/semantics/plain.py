"""Answers about a project as what JSON can say, and back.

What JSON has no word for is an object with one key, which names it: `{"set": [...]}`, `{"Kind": "module"}`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, NamedTuple

from memlint.semantics.callers import Literals, Site
from memlint.semantics.summaries import FunctionSummary, ParameterEffects, Result
from memlint.semantics.values import Grad, Kind, Mode


class SiteNumber(NamedTuple):
    """Stands for a call site: the number of it among those of a function."""

    function: str
    number: int


# Longer ones would be taken for an attack when they are read as decimals.
_LONGEST_INT = 64

_ENUMS: tuple[type[Enum], ...] = (Kind, Mode, Grad)
_CLASSES = (SiteNumber, Site, Literals, FunctionSummary, ParameterEffects, Result)
STORABLE = frozenset({type(None), bool, int, float, str, bytes, tuple, frozenset, *_ENUMS, *_CLASSES})
"""What an answer may be made of."""
_FIELDS: dict[type, tuple[str, ...]] = {cls: cls.__match_args__ for cls in _CLASSES}


def to_plain(value: object) -> Any:
    """Raises TypeError for what is no answer."""
    kind = type(value)
    if value is None or kind in (str, bool, float) or (isinstance(value, int) and value.bit_length() <= _LONGEST_INT):
        return value
    if kind in _FIELDS:
        return {kind.__name__: [to_plain(getattr(value, name)) for name in _FIELDS[kind]]}
    if isinstance(value, tuple):
        return [to_plain(item) for item in value]
    if isinstance(value, frozenset):
        return {"set": sorted((to_plain(item) for item in value), key=repr)}
    if kind in _ENUMS:
        assert isinstance(value, Enum)
        return {kind.__name__: value.value}
    if isinstance(value, Mapping):
        return {"map": [[key, to_plain(item)] for key, item in value.items()]}
    return _constant(value)


def _constant(value: object) -> dict[str, Any]:
    """The rarer literals of Python."""
    if isinstance(value, int):
        return {"int": hex(value)}
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    if isinstance(value, complex):
        return {"complex": [value.real, value.imag]}
    if value is Ellipsis:
        return {"...": None}
    raise TypeError(f"{type(value).__name__} is no answer")


_FORMS: dict[str, Callable[[Any], Any]] = {
    "set": lambda items: frozenset(map(from_plain, items)),
    "map": lambda pairs: {key: from_plain(item) for key, item in pairs},
    "int": lambda digits: int(digits, 16),
    "bytes": bytes.fromhex,
    "complex": lambda parts: complex(*parts),
    "...": lambda _: Ellipsis,
    **{kind.__name__: kind for kind in _ENUMS},
}
_NAMED = {cls.__name__: cls for cls in _CLASSES}


def from_plain(value: Any) -> Any:
    """Raises ValueError, KeyError or TypeError for what `to_plain` has not made."""
    if isinstance(value, list):
        return tuple(map(from_plain, value))
    if not isinstance(value, dict):
        return value
    ((name, content),) = value.items()
    cls = _NAMED.get(name)
    return _FORMS[name](content) if cls is None else cls(*map(from_plain, content))
