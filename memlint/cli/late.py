"""What a process that lives for one run puts off, because it may never need it.

Methods of dataclasses are compiled when they are called first, or often. `dataclasses` writes and compiles up to six
methods of a class when the class is defined. LibCST and memlint have 360 such classes, and a run calls a fifth of the
methods: the others cost a third of the time that all imports take. Most of the others are an `__init__` that is called
a few times: to compile it takes as long as some hundred calls without.

LibCST's package `metadata` is imported when somebody asks it for something: memlint does not.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Any


def compile_methods_late() -> None:
    """From now on, in this process. From Python 3.13 on `dataclasses` works otherwise, and is left alone."""
    if _create is not None:
        dataclasses._create_fn = _create_late  # type: ignore[attr-defined]
        dataclasses._init_fn = _init_late  # type: ignore[attr-defined]


def import_metadata_late() -> None:
    """From now on, in this process, `import libcst` imports of its `metadata` what it needs itself, 2 modules of 20."""
    from importlib.machinery import PathFinder
    from importlib.util import module_from_spec

    libcst = None if "libcst" in sys.modules else PathFinder.find_spec("libcst")
    spec = libcst and PathFinder.find_spec("libcst.metadata", libcst.submodule_search_locations)
    if not spec or spec.loader is None:
        return
    metadata, loader = module_from_spec(spec), spec.loader

    def load(name: str) -> Any:
        del metadata.__getattr__
        loader.exec_module(metadata)
        return getattr(metadata, name)

    metadata.__getattr__ = load  # type: ignore[method-assign]
    sys.modules[spec.name] = metadata


_create: Callable[..., Any] | None = getattr(dataclasses, "_create_fn", None)
_init: Any = getattr(dataclasses, "_init_fn", None)
OFTEN = 50


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


def _init_late(
    fields: list[Any], in_order: list[Any], by_name: list[Any], frozen: bool, has_post_init: bool, *others: Any
) -> Any:
    """Stands in for `dataclasses._init_fn`: an `__init__` that goes through the fields, until it is called often.

    For a call that it does not fit it is compiled too, and says what is wrong.
    """
    compiled = partial(_init, fields, in_order, by_name, frozen, has_post_init, *others)
    if not all(field.init and field._field_type is dataclasses._FIELD for field in fields):  # type: ignore[attr-defined]
        return compiled()
    put = object.__setattr__ if frozen else setattr
    names = [field.name for field in in_order]
    calls = count()

    def __init__(self: object, /, *args: Any, **named: Any) -> None:  # noqa: N807 - stands in for one
        given = dict(zip(names, args, strict=False), **named) if args else named
        fits = len(given) == len(args) + len(named) and _filled(given, fields)
        if not fits or next(calls) >= OFTEN:
            made = compiled()
            _put(made, __init__, type(self))
            made(self, *args, **named)
            return
        for field in fields:  # in this order, as `vars` shows
            put(self, field.name, given[field.name])
        if has_post_init:
            self.__post_init__()  # type: ignore[attr-defined]

    return __init__


def _filled(given: dict[str, Any], fields: list[Any]) -> bool:
    """Add the defaults of the fields that are not given; False where that does not make up all the fields."""
    for field in fields:
        if field.name in given:
            continue
        if field.default is not dataclasses.MISSING:
            given[field.name] = field.default
        elif field.default_factory is not dataclasses.MISSING:
            given[field.name] = field.default_factory()
        else:
            return False
    return len(given) == len(fields)


def _put(made: Callable[..., Any], stand_in: Callable[..., Any], cls: type) -> None:
    """In the class that has the stand-in, and in those that a copy was made of with `__slots__`."""
    for owner in cls.__mro__:
        if vars(owner).get(made.__name__) is stand_in:
            made.__qualname__ = stand_in.__qualname__
            type.__setattr__(owner, made.__name__, made)
