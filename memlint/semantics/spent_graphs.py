"""Graphs in attributes that nobody differentiates again: of states that are set back, and of losses after the step."""

from __future__ import annotations

import libcst as cst

from memlint.semantics.events import Backward
from memlint.semantics.flow import Flow
from memlint.semantics.module import Module
from memlint.semantics.scopes import Scope, nodes_within, path_of, walk
from memlint.semantics.values import Grad, Kind


def only_in_spent_attributes(module: Module, flow: Flow, backward: Backward, graph: frozenset[int]) -> bool:
    """Attributes that each iteration sets back, or that hold the very loss after the optimizer's step."""
    stepped = is_stepped_after(module, backward)
    return all(
        (stepped and bool(store.value.idents) and store.value.idents <= backward.differentiated.idents)
        or is_set_back(module, backward, store.node)
        for store in module.attribute_stores
        if graph & flow.all_roots(store.value)
    )


def is_stepped_after(module: Module, backward: Backward) -> bool:
    """An optimizer changes the parameters afterwards: whoever differentiated the loss once more would get an error."""
    return backward.order < module.once(_last_steps).get(backward.scope, 0)


def _last_steps(module: Module) -> dict[Scope, int]:
    """By function: the order of the last step of an optimizer that no condition guards."""
    return {
        call.scope: call.order
        for call in module.calls
        if call.method == "step"
        and not call.guarded
        and call.receiver is not None
        and call.receiver.kind in (Kind.OPTIMIZER, Kind.SCALER)
    }


def set_by_forward(module: Module, backward: Backward, root: int) -> bool:
    """An attribute of the module that each iteration runs, set by a method of it: an auxiliary loss."""
    node = module.analysis.roots[root].node
    owner = backward.scope.enclosing_class()
    if owner is None or not module.analysis.is_module_class(owner.qualname):
        return False
    runs_itself = any(
        call.is_forward and call.callee.cls == owner.qualname and call.order < backward.order
        for call in module.calls_in(backward.scope)
        if call.loop is not None and call.loop in (backward.loop.outer() if backward.loop is not None else ())
    )
    inside = {
        id(inner)
        for method in owner.children
        if method is not backward.scope and method.name != "__init__"
        for inner in walk(method.node)
    }
    return runs_itself and id(node) in inside


def is_set_back(module: Module, backward: Backward, node: cst.CSTNode) -> bool:
    """The state of an object to which each iteration gives a new one: `model.init_hidden()` sets `self.hidden`."""
    while isinstance(node, cst.Subscript):
        node = node.value
    if not isinstance(node, cst.Attribute) or path_of(node.value) != "self" or backward.loop is None:
        return False
    return any(
        _sets_without_graph(module, name, node)
        for call in module.calls_in(backward.scope)
        if call.loop is not None and backward.loop in call.loop.outer() and not call.guarded
        if call.order < backward.order and not call.is_forward
        for name in call.callee.quals
    )


def _sets_without_graph(module: Module, method: str, node: cst.Attribute) -> bool:
    """Whether a method of the class in which the attribute is read sets it to something without a graph."""
    scope = module.analysis.scope_named(method)
    flow = module.flow_of(scope) if scope is not None else None
    if scope is None or flow is None or scope.parent is None or not scope.parent.is_class:
        return False
    set_to = [store.value for store in flow.attribute_stores if store.path == f"self.{node.attr.value}"]
    if not set_to or id(node) not in nodes_within(scope.parent.node):
        return False
    return all(value.grad is Grad.NO for value in set_to)
