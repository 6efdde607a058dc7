"""Calls of what nobody knows: what they may do to their arguments, and when their result carries a graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

import libcst as cst

from memlint.semantics.reading import Reading, escape_arguments
from memlint.semantics.scopes import path_of
from memlint.semantics.values import (
    NOTHING,
    Grad,
    Kind,
    Mode,
    Value,
)

if TYPE_CHECKING:
    from memlint.semantics.flow import Flow

_LOSS_NAMES = frozenset(
    {"criterion", "criterions", "loss_fn", "loss_func", "loss_function", "crit", "loss_fct", "criterion_"}
)
_LOSS_CONTAINERS = _LOSS_NAMES | {"losses", "criteria", "loss_fns", "loss_functions"}


# transformers: tokenizers and processors, which turn texts, images and sounds into tensors.
_MAKES_TENSORS = "return_tensors"


def shows_a_graph(flow: Flow, value: Value) -> bool:
    """A model's output, or what a backward pass ran on: no array, which has `argmax` and `nonzero` as well."""
    shown = (ident in flow.state.backed or flow.analysis.roots[ident].is_forward for ident in value.idents)
    return value.carries_graph and bool(value.idents) and all(shown)


def unknown_call(flow: Flow, reading: Reading, qual: str = "") -> Value:
    """A call out of view: it may keep or differentiate its arguments; its result may carry their graphs."""
    is_loss = _is_loss_by_name(reading)
    if not is_loss:  # a loss function neither differentiates nor keeps what it is given
        escape_arguments(flow, reading)
    if not is_loss and flow.loop is not None and any(value.grad is not Grad.NO for value in reading.values):
        for loop in flow.loop.outer():
            loop.escaping_calls = True
    roots = frozenset().union(*(flow.all_roots(value) for value in reading.values)) if reading.arguments else NOTHING
    if reading.receiver is not None:
        roots |= reading.receiver.roots
    reading.root = flow.root(reading.node, saves=True)
    flow.analysis.unseen.add(reading.root)
    if _is_given_of_batch(flow, reading):
        flow.analysis.of_batches.add(reading.root)
    called = path_of(reading.node.func)
    if called is not None:
        flow.analysis.called[reading.root] = called
    flow.analysis.roots[reading.root].of_module |= reading.receiver is not None and reading.receiver.kind is Kind.MODULE
    result = flow.unknown(reading.node, roots, reading.root)
    if qual.startswith(".") or (qual and not qual.startswith(":") and "." in qual):
        flow.analysis.imported[reading.root] = qual
    if _MAKES_TENSORS in reading.keywords:
        return Value(Kind.UNKNOWN, idents=frozenset({reading.root}))
    if is_loss:
        flow.analysis.losses.add(reading.root)
        if flow.state.mode is Mode.OFF:
            return Value(roots=result.roots - {reading.root})
        carrying = [value for value in reading.values if value.grad is Grad.YES and not flow.analysis.unproven(value)]
        if carrying:
            return flow.graph(
                Kind.UNKNOWN,
                reading.node,
                roots=result.roots,
                conditions=carrying[0].conditions,
                ident=reading.root,
                weak=True,
            )
    return result


def _is_given_of_batch(flow: Flow, reading: Reading) -> bool:
    elements = {loop.element for loop in flow.loop.outer()} if flow.loop is not None else set()
    given = (value for value in reading.values if value.kind not in (Kind.NUMBER, Kind.PLAIN))
    return bool(elements) and any(not elements.isdisjoint(flow.all_roots(value)) for value in given)


def _is_loss_by_name(reading: Reading) -> bool:
    """`criterion(output, target)`: the name counts only together with an argument that carries a graph."""
    func = reading.node.func
    if isinstance(func, cst.Subscript):  # `self.criteria["l1"](output, target)`
        return (path_of(func.value) or "").rpartition(".")[2] in _LOSS_CONTAINERS
    name = func.attr.value if isinstance(func, cst.Attribute) else func.value if isinstance(func, cst.Name) else ""
    return name in _LOSS_NAMES
