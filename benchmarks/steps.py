"""memlint's own work on a file, counted and not timed: the same on a busy machine as on a quiet one.

What counts are calls of functions, Python's and C's, and the facts that values and states are made of. LibCST's parse
does not count.
"""

from __future__ import annotations

import cProfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar
from unittest.mock import patch

import libcst

from memlint.linting import lint as core
from memlint.linting.finding import Confidence
from memlint.linting.policy import Policy
from memlint.linting.registry import all_rules
from memlint.semantics import slices
from memlint.semantics.layers import Roots, Variables
from memlint.semantics.parsing import parse
from memlint.semantics.values import Value

EVERY_RULE = Policy(frozenset(rule.code for rule in all_rules()), Confidence.LOW)

_Layers = TypeVar("_Layers", Variables, Roots)

# To copy so many facts from set to set takes as long as an average call.
_FACTS_A_CALL = 32


class _Facts:
    """The facts that values and states are made of."""

    def __init__(self) -> None:
        self.made = 0

    @contextmanager
    def counted(self) -> Iterator[None]:
        make, copy_variables, copy_roots = Value.__init__, Variables.copy, Roots.copy

        def making(value: Value, *given: Any, **named: Any) -> None:
            make(value, *given, **named)
            self.made += len(value.roots) + len(value.conditions) + len(value.proves)

        def copying(copy: Callable[[_Layers], _Layers]) -> Callable[[_Layers], _Layers]:
            def counting(layers: _Layers) -> _Layers:
                shared = layers._shared
                copied = copy(layers)
                self.made += len(copied._own) + (len(copied._shared) if copied._shared is not shared else 0)
                return copied

            return counting

        with (
            patch.object(Value, "__init__", making),
            patch.object(Variables, "copy", copying(copy_variables)),
            patch.object(Roots, "copy", copying(copy_roots)),
        ):
            yield


def steps(text: str) -> int:
    """What memlint does for a file by itself."""
    return steps_of([("module.py", text.encode(), EVERY_RULE)])


def steps_of(files: Iterable[tuple[str, bytes, Policy]]) -> int:
    """What memlint does for these files, one after the other."""
    facts, profile = _Facts(), cProfile.Profile()

    def parse_apart(text: str) -> libcst.Module:
        profile.disable()
        try:
            return parse(text)
        finally:
            profile.enable()

    with ExitStack() as stack:
        stack.enter_context(facts.counted())
        for module in (core, slices):
            stack.enter_context(patch.object(module, "parse", parse_apart))
        profile.enable()
        for path, raw, policy in files:
            core.lint(path, raw, policy)
        profile.disable()
    return facts.made // _FACTS_A_CALL + sum(entry.callcount for entry in profile.getstats())
