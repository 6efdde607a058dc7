"""Dataclasses whose methods are compiled when they are called first.

`dataclasses` writes and compiles up to six methods of a class when the class is defined. LibCST and memlint have 360
such classes, and a run calls a fifth of the methods: the others cost a third of the time that all imports take.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any


def compile_methods_late() -> None:
    """From now on, in this process. From Python 3.13 on `dataclasses` works otherwise, and is left alone."""
    if _create is not None:
        dataclasses._create_fn = _create_late  # type: ignore[attr-defined]


_create: Callable[..., Any] | None = getattr(dataclasses, "_create_fn", None)


def _create_late(name: str, *given: Any, **named: Any) -> Any:
    """Stands in for `dataclasses._create_fn`: the method that it would make, made at the first call."""
    made: list[Callable[..., Any]] = []

    def method(self: object, *args: Any, **kwargs: Any) -> Any:
        if not made:
            assert _create is not None
            made.append(_create(name, *given, **named))
            _put(made[0], method, type(self))
        return made[0](self, *args, **kwargs)

    method.__name__ = name
    return method


def _put(made: Callable[..., Any], stand_in: Callable[..., Any], cls: type) -> None:
    """In the class that has the stand-in, and in those that a copy was made of with `__slots__`."""
    for owner in cls.__mro__:
        if vars(owner).get(made.__name__) is stand_in:
            made.__qualname__ = stand_in.__qualname__
            type.__setattr__(owner, made.__name__, made)
