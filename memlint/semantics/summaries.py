"""What a function of another file does to its arguments and what it returns, as plain data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from memlint.semantics.questions import GradOnEntry
from memlint.semantics.values import Grad, Kind, Mode, Proof, Value

if TYPE_CHECKING:
    from memlint.semantics.analysis import Analysis
    from memlint.semantics.flow import Flow


@dataclass(frozen=True)
class Result:
    """What is returned. `grad` YES holds if every one of `needs` carries a graph, and grad mode is on if `needs_on`.

    `proven` is False where only a backward pass by the caller can prove it.
    """

    kind: Kind
    grad: Grad
    cls: str | None = None
    needs: frozenset[str] = frozenset()
    needs_on: bool = False
    proven: bool = True
    holds: frozenset[str] = frozenset()
    """The parameters whose graph it may hold."""
    elements: tuple[Result, ...] | None = None
    frozen: bool = False
    """A module whose parameters need no gradient."""
    weak: bool = False


@dataclass(frozen=True)
class ParameterEffects:
    """What the function does with one parameter."""

    differentiated: bool
    proven: bool
    """A backward pass is started on it: it carries a graph."""
    escapes: bool
    """It reaches code out of view."""
    shared: bool
    """It reaches an attribute, a global or a closure with the graph it has."""
    freed: bool
    """A backward pass frees its graph on every path."""


@dataclass(frozen=True)
class FunctionSummary:
    """What a function does when it is called."""

    effects: dict[str, ParameterEffects] = field(default_factory=dict)
    result: Result = field(default_factory=lambda: Result(Kind.UNKNOWN, Grad.MIXED))
    has_forward: bool = False
    has_backward: bool = False
    has_step: bool = False


def result_of(analysis: Analysis, flow: Flow, value: Value, parameters: dict[int, str], file: str) -> Result:
    """A returned value in terms of the function's parameters (their roots, by name)."""
    elements = None
    if value.elements is not None and value.depth < _MAX_DEPTH:
        elements = tuple(result_of(analysis, flow, element, parameters, file) for element in value.elements)
    needs: set[str] = set()
    needs_on, proven = False, True
    if value.grad is Grad.YES:
        for condition in analysis.basis(value.conditions):
            if isinstance(condition, GradOnEntry) and condition.function == flow.scope.qualname:
                needs_on = True
            elif isinstance(condition, Proof) and condition.root in parameters:
                needs.add(parameters[condition.root])
            else:
                proven = False
    return Result(
        value.kind,
        Grad.MIXED if value.boxes else value.grad,
        _class_name(value.cls, file),
        frozenset(needs),
        needs_on,
        proven,
        frozenset(parameters[root] for root in flow.all_roots(value) if root in parameters),
        elements,
        value.kind is Kind.MODULE and value.mode is Mode.OFF,
        value.weak,
    )


# A tuple of tuples of tuples is no result that a caller takes apart.
_MAX_DEPTH = 4


def _class_name(cls: str | None, file: str) -> str | None:
    return f"@{file}{cls}" if cls is not None and cls.startswith(":") else cls
