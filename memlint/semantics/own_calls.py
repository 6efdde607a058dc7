"""Calls of functions and classes of the file: read where they are called, with what they are given."""

from __future__ import annotations

from typing import TYPE_CHECKING

import libcst as cst

from memlint.semantics.entry_modes import context_mode
from memlint.semantics.imports import note_effects, note_work
from memlint.semantics.knowledge import libraries
from memlint.semantics.questions import GradOnEntry
from memlint.semantics.reading import Reading, escape_arguments
from memlint.semantics.unknown_calls import unknown_call
from memlint.semantics.values import (
    MAX_HELD,
    NOTHING,
    Condition,
    Grad,
    Kind,
    Mode,
    Proof,
    Value,
)

if TYPE_CHECKING:
    from memlint.semantics.analysis import Callee
    from memlint.semantics.flow import Flow


def own_call(flow: Flow, reading: Reading, qual: str) -> Value:
    analysis = flow.analysis
    if analysis.is_class(qual):
        record = _record(flow, reading, qual)
        if record is not None:
            return record
        for value in reading.values:
            # What a constructor is given it may keep.
            analysis.capture(flow.all_roots(value))
        return analysis.made_by(qual)
    mode = context_mode(analysis, qual)
    if mode is not None:
        escape_arguments(flow, reading)
        return Value(Kind.CONTEXT, mode=mode)
    scope = analysis.scope_named(qual)
    if scope is None:
        owner, _, method = qual.rpartition(".")
        if libraries.builds_its_class(method) and analysis.is_class(owner) and analysis.is_module_class(owner):
            return Value(Kind.MODULE, cls=owner)  # `LitModel.load_from_checkpoint(path)`
        return unknown_call(flow, reading, qual)
    callee = analysis.callee(scope, reading, flow)
    if callee is None:
        return unknown_call(flow, reading, qual)
    if len(flow.all_roots(callee.result)) > MAX_HELD:
        note_work(flow, reading, callee)
        flow.escape(callee.result)
        analysis.lose(flow.all_roots(callee.result))
        return unknown_call(flow, reading, qual)
    return applied_call(flow, reading, callee)


def _record(flow: Flow, reading: Reading, cls: str) -> Value | None:
    """`Result(loss, logits=logits)` of a dataclass: a container of its fields."""
    fields = flow.analysis.record_fields(cls)
    if fields is None or reading.unpacks:
        return None
    given = [*zip(fields, reading.positional, strict=False), *reading.keywords.items()]
    items = {name: argument.value for name, argument in given}
    made = flow.box(reading.node, items.values())
    for box in made.boxes:
        flow.analysis.boxes[box].items = items
    return Value(Kind.CONTAINER, cls=cls, boxes=made.boxes)


def applied_call(flow: Flow, reading: Reading, callee: Callee) -> Value:
    """What a function of this file does to its arguments, and what it returns, in the caller's grad mode."""
    note_work(flow, reading, callee)
    given = dict(callee.parameters)
    for root, value in callee.parameters:
        note_effects(flow, value, callee.done[root])
        _prove_parts(flow, root, value)
    flow.state.backed |= callee.backed
    return _returned(flow, reading, callee.result, callee, given)


def _prove_parts(flow: Flow, parameter: int, given: Value) -> None:
    """`def step(out): out.loss.backward()`: after `step(output)`, `output.loss` is known to carry a graph."""
    analysis = flow.analysis
    if len(given.idents) != 1 or given.boxes:
        return
    (whole,) = given.idents
    for name, part in analysis.roots[parameter].members.items():
        if part in analysis.proven:
            analysis.proven.add(analysis.member_root(whole, name, analysis.roots[part].node))


def _returned(
    flow: Flow, reading: Reading, value: Value, callee: Callee, given: dict[int, Value], part: str | None = None
) -> Value:
    """`part`: which element of the result it is; each has a definition of its own."""
    elements = None
    items = _items_of(flow, value)
    if items is not None:
        return _dictionary(flow, reading, items, callee, given, part)
    if value.elements is not None and value.mode is not Mode.KEEP:
        if part is None:
            reading.root = flow.root(reading.node)
        parts = enumerate(value.elements)
        elements = tuple(_returned(flow, reading, element, callee, given, str(index)) for index, element in parts)
        _note_summands_returned(flow, value.elements, elements)
    roots = set(value.roots)
    for root in value.roots & given.keys():
        roots |= flow.all_roots(given[root])
    grad, conditions = _grad_for_caller(flow, value, callee, given)
    idents = value.idents
    if grad is Grad.YES:
        # This call's own definition: a backward on the result proves it, whatever the callee's conditions.
        if part is None:
            reading.root = flow.root(reading.node)
        own = reading.root if part is None else flow.part(reading.root, f"[{part}", reading.node)
        if elements is None and value.idents:
            flow.analysis.claim(own, conditions)
            if value.idents <= flow.state.backed:
                flow.state.backed = flow.state.backed | {own}
            idents = idents | {own}
            conditions = frozenset({Proof(own)})
            roots |= {reading.root, own}
    return Value(
        value.kind,
        grad,
        conditions=conditions,
        roots=frozenset(roots)
        if grad is not Grad.NO or value.boxes or elements or value.kind is Kind.STATE
        else NOTHING,
        idents=idents if grad is Grad.YES else NOTHING,
        quals=value.quals,
        cls=value.cls,
        elements=elements,
        boxes=value.boxes,
        mode=value.mode,
        weak=value.weak,
        partly=_partly_for_caller(flow, value, callee, given),
    )


def _items_of(flow: Flow, value: Value) -> dict[str, Value] | None:
    """What stands under each key of a dictionary that nobody but the caller gets."""
    if len(value.boxes) != 1 or value.elements is not None or value.cls is not None:
        return None
    (index,) = value.boxes
    box = flow.analysis.boxes[index]
    is_kept = box.escaped or box.in_object
    return None if is_kept or not isinstance(box.node, (cst.Dict, cst.Call, cst.Tuple)) else box.items or None


def _dictionary(
    flow: Flow, reading: Reading, items: dict[str, Value], callee: Callee, given: dict[int, Value], part: str | None
) -> Value:
    """`return {"loss": loss, "kl": kl}`: each item is what it is for this call."""
    if part is None:
        reading.root = flow.root(reading.node)
    own = reading.root if part is None else flow.part(reading.root, f"[{part}", reading.node)
    inside = tuple(items.values())
    here = tuple(
        value if value.boxes else _returned(flow, reading, value, callee, given, f"{part or ''}[{key}")
        for key, value in items.items()
    )
    _note_summands_returned(flow, inside, here)
    made = flow.box(reading.node, here, own)
    for box in made.boxes:
        flow.analysis.boxes[box].items = dict(zip(items, here, strict=True))
    return made


def _note_summands_returned(flow: Flow, inside: tuple[Value, ...], returned: tuple[Value, ...]) -> None:
    """`return rec + kl, rec, kl`: here as there, whoever differentiates the first differentiates its parts."""
    roots = flow.analysis.roots
    for total, here in zip(inside, returned, strict=True):
        summands = frozenset().union(*(roots[ident].summands for ident in total.idents))
        for part, value in zip(inside, returned, strict=True) if summands and here.grad is Grad.YES else ():
            if not part.idents or not part.idents <= summands:
                continue
            for ident in value.idents - part.idents:
                roots[ident].ancestors |= value.roots
                roots[ident].may_carry = True
            for ident in here.idents - total.idents:
                roots[ident].summands |= value.idents - part.idents


def _partly_for_caller(
    flow: Flow, value: Value, callee: Callee, given: dict[int, Value]
) -> frozenset[Condition] | None:
    if value.partly is None:
        return None
    grad, conditions = _grad_for_caller(flow, value.when_carrying(), callee, given)
    return conditions if grad is Grad.YES else None


def _grad_for_caller(
    flow: Flow, value: Value, callee: Callee, given: dict[int, Value]
) -> tuple[Grad, frozenset[Condition]]:
    """The callee's conditions, with its entry mode and its parameters replaced by what this call gives."""
    if value.grad is not Grad.YES:
        return value.grad, frozenset()
    mode = flow.state.mode
    # A backward pass in the callee shows that grad mode is on whenever it is called, one elsewhere does not.
    runs_backward = callee.has_backward and mode is not Mode.OFF
    rests_on = (flow.analysis.basis if runs_backward else flow.analysis.foundations)(value.conditions)
    entry = GradOnEntry(callee.name)
    region = flow.state.region if mode is Mode.UNKNOWN else None
    if entry in rests_on and (mode is Mode.OFF or (mode is Mode.UNKNOWN and region is None)):
        return (Grad.NO if mode is Mode.OFF else Grad.MIXED), frozenset()
    passed = {item: given[item.root] for item in rests_on if isinstance(item, Proof) and item.root in given}
    for grad in (Grad.NO, Grad.MIXED):
        if any(argument.grad is grad for argument in passed.values()):
            return grad, frozenset()
    others = rests_on - passed.keys() - {entry}
    if mode is Mode.OFF and others:
        return Grad.MIXED, frozenset()  # made in the callee by code out of view, by this call without a graph
    conditions = others.union(*(argument.conditions for argument in passed.values()))
    if entry in rests_on and mode is Mode.ENTRY and callee.name not in flow.analysis.grad_on:
        conditions |= {GradOnEntry(flow.scope.qualname)}
    if entry in rests_on and region is not None:
        conditions |= {Proof(region)}
    return Grad.YES, conditions
