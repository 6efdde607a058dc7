"""Calls of what other files of the project define: their summaries, applied where they are called."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memlint.semantics.entry_modes import context_mode
from memlint.semantics.imported_results import returned
from memlint.semantics.reading import Reading, escape_arguments
from memlint.semantics.summaries import FunctionSummary, ParameterEffects, Result
from memlint.semantics.values import Grad, Kind, Value

if TYPE_CHECKING:
    from memlint.semantics.analysis import Callee
    from memlint.semantics.flow import Flow

# Code that mentions none of these neither trains nor evaluates.
TRAINING_WORDS = frozenset(
    """backward manual_backward zero_grad eval loader dataloader DataLoader train_loader val_loader test_loader epoch
    epochs""".split()
)
_OBJECTS = frozenset({Kind.MODULE, Kind.OPTIMIZER, Kind.LOADER, Kind.SCALER})


def imported_call(flow: Flow, reading: Reading, symbol: str) -> Value | None:
    """The call of a class or function of another file; None where the project does not say what it does."""
    view = flow.analysis.view
    if view is None or not view.defines(symbol):
        return None
    mode = context_mode(flow.analysis, symbol)
    if mode is not None:
        escape_arguments(flow, reading)
        return Value(Kind.CONTEXT, mode=mode)
    if view.is_class(symbol):
        for value in reading.values:
            # What a constructor is given it may keep.
            flow.analysis.capture(flow.all_roots(value))
        return flow.analysis.made_by(symbol)
    if not _matters(flow):
        return None
    given = _given(reading, view.parameters(symbol))
    seeds = tuple(sorted((name, value.kind) for name, value in given.items() if value.kind in _OBJECTS))
    summary = view.summary(symbol, seeds)
    return None if summary is None else _apply(flow, reading, summary, given)


def _matters(flow: Flow) -> bool:
    """Whether what the function does may decide a finding: code that trains or evaluates, or loops, calls it.

    Most files define layers; reading what those import would take longer than reading the files.
    """
    if not flow.analysis.trains:
        return False
    scope = flow.scope
    if scope.words & TRAINING_WORDS:
        return True
    owner = scope.enclosing_class()
    return flow.loop is not None and (owner is None or not flow.analysis.is_module_class(owner.qualname))


def keeps_graph(flow: Flow, cls: str) -> bool:
    """Whether the forward of a module class of the project gives back a graph like any other module's."""
    view = flow.analysis.view
    if view is None or not view.forward_may_detach(cls):
        return True
    method = view.method(cls, "forward")
    summary = view.summary(method) if method is not None else None
    return summary is not None and _carries(summary.result)


def _carries(result: Result) -> bool:
    if result.elements:
        return all(_carries(element) for element in result.elements)
    return result.grad is Grad.YES and not result.needs  # frozen layers only pass on the graph of what they are given


def _given(reading: Reading, names: tuple[str, ...]) -> dict[str, Value]:
    """Parameter name -> what the call gives. Unpacked arguments give nothing that is known."""
    given: dict[str, Value] = {}
    if not reading.unpacks:
        given.update(zip(names, (argument.value for argument in reading.positional), strict=False))
    given.update({name: argument.value for name, argument in reading.keywords.items()})
    return given


def note_work(flow: Flow, reading: Reading, callee: Callee | FunctionSummary) -> None:
    """The caller, and each loop around the call, does what the function does."""
    for loop in flow.loop.outer() if flow.loop is not None else ():
        loop.has_backward |= callee.has_backward
        loop.has_step |= callee.has_step
        loop.has_forward |= callee.has_forward
        if callee.has_forward and any(loop.element in flow.all_roots(value) for value in reading.values):
            loop.feeds_forward = True
    flow.has_backward |= callee.has_backward
    flow.has_step |= callee.has_step
    flow.has_forward |= callee.has_forward


def note_effects(flow: Flow, value: Value, effects: ParameterEffects) -> None:
    """What the function does with a parameter happens to what the call gives for it."""
    analysis, roots = flow.analysis, flow.all_roots(value)
    if effects.differentiated:
        analysis.differentiated |= roots
    if effects.proven:
        analysis.prove(value)
    if effects.freed:
        flow.state.backed |= roots
    if effects.escapes:
        flow.escape(value)
    if effects.shared:
        analysis.capture(roots)


def _apply(flow: Flow, reading: Reading, summary: FunctionSummary, given: dict[str, Value]) -> Value:
    """What the function does to its arguments, and what it returns, in the caller's grad mode."""
    reading.summary = summary
    note_work(flow, reading, summary)
    for name, value in given.items():
        effects = summary.effects.get(name)
        if effects is None:
            flow.escape(value)  # it lands in `**kwargs`
        else:
            note_effects(flow, value, effects)
    if reading.unpacks or len(given) < len(reading.arguments):
        escape_arguments(flow, reading)
    return returned(flow, reading, summary.result, given)
