"""Calls that differentiate: `loss.backward()`, `accelerator.backward(loss)`, `torch.autograd.grad(loss, ...)`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import libcst as cst

from memlint.semantics.call_events import call_event
from memlint.semantics.events import Backward
from memlint.semantics.grad_effects import GRAD_MODE_WORDS
from memlint.semantics.knowledge import torch as known
from memlint.semantics.knowledge.libraries.rows import Effect
from memlint.semantics.library_objects import effect_of
from memlint.semantics.questions import GradOnEntry
from memlint.semantics.reading import Reading
from memlint.semantics.scopes import path_of
from memlint.semantics.values import (
    PLAIN,
    Grad,
    Kind,
    Mode,
    Value,
)

if TYPE_CHECKING:
    from memlint.semantics.flow import Flow


def differentiates(reading: Reading) -> bool:
    if reading.callee.quals & known.DIFFERENTIATING_FUNCTIONS:
        return True
    if reading.method not in known.BACKWARD_METHODS or reading.callee.quals:
        return False
    return reading.method != "backward" or not _is_super(reading)


def _is_super(reading: Reading) -> bool:
    node = reading.receiver_node
    return isinstance(node, cst.Call) and isinstance(node.func, cst.Name) and node.func.value == "super"


def backward_call(flow: Flow, reading: Reading, loss: Value | None = None) -> Value:
    """`loss`: what is differentiated, where the call's name does not say it."""
    analysis = flow.analysis
    target = reading.receiver if reading.receiver is not None and not reading.receiver.quals else None
    first = reading.first()
    if loss is not None:
        target = loss
    elif first is not None and (
        target is None
        or effect_of(flow, reading) is Effect.DIFFERENTIATES
        or (first.grad is not Grad.NO and not _is_computed(flow, target))
    ):
        target = first  # `accelerator.backward(loss)`, not `y.backward(weights)`
    if target is None:
        keyword = reading.keywords.get("tensors") or reading.keywords.get("outputs") or reading.keywords.get("loss")
        target = keyword.value if keyword is not None else PLAIN
    differentiated = flow.all_roots(target)
    analysis.differentiated |= differentiated
    _note_grad_on(flow, target)
    analysis.prove(target)
    if not reading.positional or target is first:  # `y.backward(weights)` is no scalar
        _prove_terms(flow, reading, target)
    flow.has_backward = True
    retain = reading.keywords.get("retain_graph")
    create = reading.keywords.get("create_graph")
    frees = (
        all(argument is None or argument.value.literal is False for argument in (retain, create))
        and not reading.unpacks
    )
    if frees:
        flow.state.backed = flow.state.backed | differentiated
    _note_carries(flow, reading, target, frees=frees)
    loop = flow.loop
    while loop is not None:
        loop.has_backward = True
        loop = loop.parent
    if not flow.quiet:
        flow.backwards.append(
            Backward(
                **flow.here(reading.node),
                call=call_event(flow, reading, PLAIN),
                differentiated=target,
                frees=frees,
            )
        )
    if reading.method is None or reading.callee.quals & {"torch.autograd.grad"}:
        return (
            flow.derived(Kind.UNKNOWN, reading.node, [target], flow.root(reading.node))
            if create is not None
            else Value()
        )
    return PLAIN


def _prove_terms(flow: Flow, reading: Reading, target: Value) -> None:
    if reading.keywords.keys() & {"gradient", "grad_tensors", "grad_outputs"}:
        return
    total = target.idents
    for node in (reading.receiver_node, *(argument.expression for argument in reading.positional[:1])):
        path = _differentiated_path(node) if node is not None else None
        value = flow.state.vars.get(path) if path is not None else None
        if value is not None and value.roots <= target.roots:
            total |= value.idents
    flow.analysis.prove_terms(total)


def _note_carries(flow: Flow, reading: Reading, target: Value, *, frees: bool) -> None:
    """`loss = 0`, `loss += part` for each part, `loss.backward()`: from then on it carries a graph, or it raises."""
    nodes = (reading.receiver_node, *(argument.expression for argument in reading.positional[:1]))
    for node in nodes:
        path = _differentiated_path(node) if node is not None else None
        value = flow.state.vars.get(path) if path is not None else None
        if (
            node is None
            or path is None
            or value is None
            or value.grad is not Grad.MIXED
            or not value.roots <= target.roots
        ):
            continue
        if value.kind in (Kind.UNKNOWN, Kind.TENSOR) and not value.boxes and value.elements is None:
            idents = value.idents or frozenset({flow.root(node)})
            flow.analysis.proven |= idents
            flow.analysis.differentiated |= idents
            if frees:
                flow.state.backed |= idents
            flow.state.vars[path] = Value(
                value.kind, Grad.YES, roots=value.roots | idents, idents=idents, weak=value.weak, proves=value.proves
            )


def _differentiated_path(node: cst.BaseExpression) -> str | None:
    """`loss` of `scaler.scale(loss / steps)`."""
    while True:
        if isinstance(node, cst.BinaryOperation) and isinstance(node.operator, (cst.Divide, cst.Multiply)):
            node = node.left
        elif isinstance(node, cst.Call) and isinstance(node.func, cst.Attribute) and node.func.attr.value == "scale":
            if not node.args:
                return None
            node = node.args[0].value
        else:
            return path_of(node)


def _note_grad_on(flow: Flow, target: Value) -> None:
    """Where each call of the function differentiates what it has computed, grad mode is on when it is called."""
    function = flow.scope.qualname
    rests_on = flow.analysis.foundations(target.conditions)
    if GradOnEntry(function) not in rests_on and not _is_of_entry_mode(flow, target):
        return
    branches = flow.branches
    if branches in flow.differentiating:
        return
    flow.differentiating.add(branches)
    for statement, _ in branches:
        flow.differentiating_in.setdefault(statement, []).append(branches)
    # Those that it may complete are in the same `if` as it.
    beside = flow.differentiating_in[branches[-1][0]] if branches else [branches]
    if any(_in_each_branch(each, flow.differentiating) for each in beside):
        flow.analysis.grad_on.add(function)


def _is_of_entry_mode(flow: Flow, target: Value) -> bool:
    """Code out of view has computed it here, in the mode in which the function was called: a loss function, a step."""
    made_here = bool(target.idents) and target.idents <= flow.analysis.unseen and flow.state.made.has_all(target.idents)
    return made_here and flow.state.mode is Mode.ENTRY and flow.scope.words_within.isdisjoint(GRAD_MODE_WORDS)


def _in_each_branch(branches: tuple[tuple[int, int], ...], others: set[tuple[tuple[int, int], ...]]) -> bool:
    """Unconditionally, or in both branches of each `if` (with and without a gradient scaler)."""
    while branches:
        *around, (statement, branch) = branches
        if (*around, (statement, 1 - branch)) not in others:
            return False
        branches = tuple(around)
    return True


def _is_computed(flow: Flow, value: Value) -> bool:
    """Whether the value was computed from others: a tensor, rather than an engine that was built or passed in."""
    roots = [flow.analysis.roots[ident] for ident in value.idents]
    if any(isinstance(root.node, cst.Attribute) and not _holds_graph(root.node) for root in roots):
        return value.is_tensor  # `trainer.accelerator.backward(loss)`
    return value.is_tensor or any(root.ancestors - value.idents for root in roots)


def _holds_graph(node: cst.Attribute) -> bool:
    """`outputs.loss`"""
    return node.attr.value in known.GRAPH_OUTPUT_ATTRIBUTES or node.attr.value.endswith("loss")
