"""What a call of a function of another file returns, by the function's summary."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memlint.semantics.reading import Reading
from memlint.semantics.summaries import Result
from memlint.semantics.values import NOTHING, Condition, Grad, Kind, Mode, Proof, Value

if TYPE_CHECKING:
    from memlint.semantics.flow import Flow


def returned(flow: Flow, reading: Reading, result: Result, given: dict[str, Value], part: str = "") -> Value:
    """The value in the caller's grad mode. `part` names which part of the result it is: each has its own definition."""
    held = [given[name] for name in sorted(result.holds) if name in given]
    roots = frozenset().union(*(flow.all_roots(value) for value in held)) if held else NOTHING
    if result.elements is not None:
        _definition(flow, reading, part)
        parts = enumerate(result.elements)
        elements = tuple(returned(flow, reading, element, given, f"{part}[{index}]") for index, element in parts)
        _note_added(flow, result.elements, elements)
        return Value(result.kind, roots=roots | {reading.root}, elements=elements, weak=result.weak)
    if result.items is not None:
        return _dictionary(flow, reading, result.items, given)
    if result.grad is Grad.NO:
        mode = Mode.OFF if result.frozen else None
        return Value(result.kind, roots=roots, cls=result.cls, mode=mode, weak=result.weak)
    own = _definition(flow, reading, part)
    if result.grad is Grad.MIXED:
        return _unknown(flow, result, reading, roots, own)
    conditions: set[Condition] = set()
    for name in result.needs:
        value = given.get(name)
        if value is None or value.grad is not Grad.YES:
            return Value(result.kind, Grad.MIXED if value is None else value.grad, roots=roots, cls=result.cls)
        conditions |= value.conditions
    if not result.proven and not (part and result.open):
        return _unknown(flow, result, reading, roots, own)
    conditions |= {Proof(_inner(flow, reading, item)) for item in result.open} if part else set()
    return _carrying(flow, reading, result, roots, frozenset(conditions), own)


def _carrying(
    flow: Flow, reading: Reading, result: Result, roots: frozenset[int], conditions: frozenset[Condition], own: int
) -> Value:
    """What carries a graph if the conditions hold, and grad mode is on where the function builds it."""
    saved = frozenset(_inner(flow, reading, item) for item in result.saved)
    for item in result.saved - result.open:
        flow.analysis.claim(_inner(flow, reading, item), conditions)
    if result.needs_on:
        value = flow.graph(
            result.kind, reading.node, roots=roots | saved, conditions=conditions, ident=own, weak=result.weak
        )
    else:
        flow.analysis.claim(own, conditions)
        flow.analysis.roots[own].may_carry = True
        flow.analysis.roots[own].ancestors = roots | saved
        ident = frozenset({own})
        value = Value(
            result.kind,
            Grad.YES,
            conditions=frozenset({Proof(own)}),
            roots=roots | saved | ident,
            idents=ident,
            cls=result.cls,
            weak=result.weak,
        )
    if result.freed:
        flow.state.backed = flow.state.backed | saved | {own}
    return value


def _dictionary(flow: Flow, reading: Reading, items: tuple[tuple[str, Result], ...], given: dict[str, Value]) -> Value:
    _definition(flow, reading, "")
    values = {key: returned(flow, reading, item, given, f"[{key!r}]") for key, item in items}
    _note_added(flow, tuple(item for _, item in items), tuple(values.values()))
    made = flow.box(reading.node, values.values())
    for box in made.boxes:
        flow.analysis.boxes[box].items = values
    return made


def _note_added(flow: Flow, results: tuple[Result, ...], values: tuple[Value, ...]) -> None:
    """Whoever differentiates a part that is a sum of others differentiates these."""
    for result, total in zip(results, values, strict=True):
        for ident in total.idents if result.adds else ():
            made = flow.analysis.roots[ident]
            made.summands = made.summands.union(*(values[place].proves for place in result.adds))


def _definition(flow: Flow, reading: Reading, part: str) -> int:
    """The definition of the call's result, or of one part of it."""
    if part:
        return flow.part(reading.root, part, reading.node)
    reading.root = flow.root(reading.node, saves=True)
    return reading.root


def _inner(flow: Flow, reading: Reading, number: int) -> int:
    """The definition of an operation inside the function, which parts of the result may share."""
    root = flow.part(reading.root, f"saved {number}", reading.node)
    flow.analysis.roots[root].saves = True
    return root


def _unknown(flow: Flow, result: Result, reading: Reading, roots: frozenset[int], own: int) -> Value:
    """It may carry a graph; a backward pass on it would prove so."""
    if flow.state.mode is Mode.OFF and result.needs_on:
        return Value(result.kind, cls=result.cls)
    flow.analysis.roots[own].saves = True
    flow.analysis.roots[own].of_module |= reading.receiver is not None and reading.receiver.kind is Kind.MODULE
    value = flow.unknown(reading.node, roots, own)
    return Value(
        result.kind if result.kind is not Kind.NONE else Kind.UNKNOWN,
        value.grad,
        conditions=value.conditions,
        roots=value.roots,
        idents=value.idents,
        cls=result.cls,
        weak=result.weak,
    )
