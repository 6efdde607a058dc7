"""Forward passes: the call of a module."""

from __future__ import annotations

from typing import TYPE_CHECKING

import libcst as cst

from memlint.semantics.imports import keeps_graph
from memlint.semantics.knowledge import torch as known
from memlint.semantics.parameterless import has_no_parameters
from memlint.semantics.reading import Reading
from memlint.semantics.values import (
    NOTHING,
    Grad,
    Kind,
    Mode,
    Value,
)

if TYPE_CHECKING:
    from memlint.semantics.analysis import Callee
    from memlint.semantics.flow import Flow


def forward_call(flow: Flow, reading: Reading) -> Value:
    """The call of a module."""
    reading.forward = True
    root = reading.root = flow.root(reading.node, saves=True, is_forward=True)
    callee = reading.callee
    roots = frozenset().union(*(flow.all_roots(value) for value in reading.values)) if reading.arguments else NOTHING
    for value in reading.values:
        for box in value.boxes:
            flow.analysis.boxes[box].escaped = True
    cls = callee.cls
    if callee.mode is Mode.OFF:
        return flow.derived(Kind.UNKNOWN, reading.node, reading.values, root)  # frozen: the graph only passes through
    if cls is not None and cls.startswith("torch.nn."):
        name = cls.rpartition(".")[2]
        if name.endswith("Loss") or name in known.MODULES_WITHOUT_PARAMETERS:
            return flow.derived(Kind.TENSOR, reading.node, reading.values, root)
        kind = Kind.TENSOR if name in known.TENSOR_MODULES else Kind.UNKNOWN
        out = flow.graph(kind, reading.node, roots=roots, ident=root)
        if cls in known.RECURRENT_MODULES:
            return Value(Kind.CONTAINER, out.grad, conditions=out.conditions, roots=out.roots, elements=(out, out))
        return out
    if cls is not None:
        method = flow.analysis.method(cls, "forward")
        if method is not None and "set_grad_enabled" in method.words:
            # `with torch.set_grad_enabled(self.training):` - whether it does depends on the model's mode.
            return Value(Kind.UNKNOWN, Grad.MIXED, roots=roots | {root})
        if method is not None:
            return _forward_in_view(flow, reading, flow.analysis.callee(method, reading, flow), roots)
        if cls.startswith("@") and not keeps_graph(flow, cls):
            return _forward_out_of_sight(flow, reading, roots)
    return flow.graph(
        Kind.UNKNOWN, reading.node, roots=roots, ident=root, conditions=callee.conditions, weak=callee.weak
    )


def _forward_out_of_sight(flow: Flow, reading: Reading, roots: frozenset[int]) -> Value:
    """It may or may not cut the graph: a backward pass on the output shows that it does not."""
    if flow.state.mode is Mode.OFF:
        return Value(Kind.UNKNOWN, Grad.MIXED, roots=roots | {reading.root})
    flow.analysis.unseen.add(reading.root)
    return flow.unknown(reading.node, roots, reading.root)


def _forward_in_view(flow: Flow, reading: Reading, callee: Callee | None, roots: frozenset[int]) -> Value:
    node, root = reading.node, reading.root
    if callee is not None and callee.result.boxes and callee.result.cls is not None:
        # A dataclass: its fields are made in the forward pass.
        return Value(Kind.INSTANCE, roots=roots | {root}, idents=frozenset({root}))
    if callee is None or callee.result.kind is Kind.NONE:
        return flow.graph(Kind.UNKNOWN, node, roots=roots, ident=root)  # no forward of a real module gives nothing back
    returned = callee.result
    if returned.elements is not None:
        elements = _forward_elements(flow, node, returned.elements, roots | {root})
        return Value(Kind.CONTAINER, roots=roots | {root}, elements=elements, idents=frozenset({root}))
    cls = reading.callee.cls
    if returned.grad is Grad.YES and cls is not None and has_no_parameters(flow.analysis, cls):
        return flow.derived(returned.kind, node, reading.values, root)
    return _forward_element(flow, node, returned, roots | {root}, root)


def _forward_elements(
    flow: Flow, node: cst.Call, returned: tuple[Value, ...], roots: frozenset[int]
) -> tuple[Value, ...]:
    return tuple(_forward_element(flow, node, element, roots) for element in returned)


def _forward_element(
    flow: Flow, node: cst.Call, returned: Value, roots: frozenset[int], root: int | None = None
) -> Value:
    if returned.grad is Grad.YES:
        return flow.graph(returned.kind, node, roots=roots, ident=root)
    if returned.elements is not None:  # `return out, (h, c)`
        elements = _forward_elements(flow, node, returned.elements, roots)
        return Value(returned.kind, returned.grad, roots=roots, elements=elements)
    return Value(returned.kind, returned.grad, roots=roots, boxes=returned.boxes)


def note_forward(flow: Flow, reading: Reading) -> None:
    flow.has_forward = True
    given = frozenset().union(*(flow.all_roots(value) for value in reading.values)) if reading.arguments else NOTHING
    # `for f in features: model.decoder(f)` goes through the parts of one input.
    is_part = reading.callee.weak and reading.receiver is not None and reading.receiver.kind is Kind.MODULE
    loop = flow.loop
    while loop is not None:
        loop.has_forward = True
        if loop.element in given and not (is_part and reading.method in known.PARTS_OF_MODELS):
            loop.feeds_forward = True
        if loop.element in reading.callee.roots:
            loop.runs_layers = True
        loop = loop.parent
