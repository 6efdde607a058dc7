"""Backward passes that keep a graph which nothing differentiates again (catalogue, section 7c, item 7)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import libcst as cst

from memlint.semantics.events import Backward, Loop
from memlint.semantics.flow import Flow
from memlint.semantics.module import Module
from memlint.semantics.naming import words_of
from memlint.semantics.recurrent import retains_for_state
from memlint.semantics.scopes import walk
from memlint.semantics.values import Root

# A parameter so named is no tensor.
_NAMESPACES = frozenset(
    "losses criterion criterions criteria model models net network module trainer agent engine accelerator".split()
)


@dataclass(frozen=True, eq=False)
class NeedlessRetain:
    """`backward(retain_graph=True)` on a graph that is differentiated nowhere else."""

    backward: Backward
    argument: cst.Arg
    is_last: bool
    """Others differentiated the graph before; this is the last."""

    @property
    def differentiated(self) -> cst.BaseExpression:
        """The expression that is differentiated: the receiver, or the argument of `accelerator.backward(loss)`."""
        call = self.backward.call
        for argument in call.positional:
            if argument.value is self.backward.differentiated:
                return argument.expression
        return call.receiver_node or call.call.func


def needless_retains(module: Module) -> Iterator[NeedlessRetain]:
    for flow in module.flows:
        for backward in flow.backwards:
            argument = backward.call.keywords.get("retain_graph")
            if argument is None or argument.value.literal is not True or "create_graph" in backward.call.keywords:
                continue
            found = _needless(module, flow, backward)
            if found is not None and not retains_for_state(module, backward):
                yield NeedlessRetain(backward, argument.node, found)


def _needless(module: Module, flow: Flow, backward: Backward) -> bool | None:
    """Whether it is the last of several; None where the graph may be needed again."""
    loop = _step_loop(backward)
    if loop is None:
        return None  # the caller may differentiate again
    graph = _saved(module, backward.differentiated.roots)
    if not graph:
        return None
    inside = _nodes_inside(loop) | _nodes_of_callees(module, flow, loop)
    if any(id(module.analysis.roots[root].node) not in inside for root in graph):
        return None  # part of the graph was built before the loop: every round needs it
    if _may_carry_from_outside(module, backward, inside):
        return None
    if loop.carried & backward.differentiated.roots:
        return None  # a hidden state, a running sum: the next iteration walks this graph again
    others = [item for item in flow.backwards if item is not backward and graph & item.differentiated.roots]
    if any(item.order > backward.order or item.guarded for item in others):
        return None  # GAN steps, per-task gradients, gradient penalties
    if _handed_on(module, flow, backward, graph):
        return None
    return bool(others)


def _nodes_inside(loop: Loop) -> set[int]:
    """The nodes that each iteration reads anew: the target and the body, not what is iterated over."""
    assert isinstance(loop.node, (cst.For, cst.While))  # no comprehension: see _step_loop
    parts = [loop.node.body, loop.node.target] if isinstance(loop.node, cst.For) else [loop.node.body, loop.node.test]
    return {id(node) for part in parts for node in walk(part)}


def _nodes_of_callees(module: Module, flow: Flow, loop: Loop) -> set[int]:
    """The nodes of the functions of this file that the function calls only in the loop: each iteration reads them."""
    calls = [(call, call.loop is not None and loop in call.loop.outer()) for call in flow.calls]
    outside = {name for call, is_inside in calls if not is_inside for name in call.callee.quals}
    names = {name for call, is_inside in calls if is_inside for name in call.callee.quals} - outside
    scopes = [module.analysis.scope_named(name) for name in names if name.startswith(":")]
    return {id(node) for scope in scopes if scope is not None for node in walk(scope.node)}


def _step_loop(backward: Backward) -> Loop | None:
    """The innermost loop, if it is one over batches or steps."""
    loop = backward.loop
    return loop if loop is not None and not loop.is_comprehension and not backward.handler else None


def _saved(module: Module, roots: frozenset[int]) -> frozenset[int]:
    return frozenset(root for root in roots if module.analysis.roots[root].saves)


def _may_carry_from_outside(module: Module, backward: Backward, inside: set[int]) -> bool:
    """Whether a value from before the loop that may carry a graph is an ancestor of the loss.

    What the loop iterates over is data.
    """
    analysis = module.analysis
    loops = backward.loop.outer() if backward.loop is not None else ()
    iterated = {root for loop in loops for root in loop.iterates.roots | {loop.element}}
    data = {id(node) for loop in loops if loop.iterable is not None for node in walk(loop.iterable)}
    return any(
        analysis.roots[root].may_carry
        and id(analysis.roots[root].node) not in inside | data
        and not _is_namespace(analysis.roots[root])
        and not _set_by_forward(module, backward, root)
        for root in backward.differentiated.roots - iterated
    )


def _is_namespace(made: Root) -> bool:
    """`losses` of `losses.generator(fake)`: a parameter so named holds functions."""
    return isinstance(made.node, cst.Param) and not words_of(made.node.name.value).isdisjoint(_NAMESPACES)


def _set_by_forward(module: Module, backward: Backward, root: int) -> bool:
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


def _handed_on(module: Module, flow: Flow, backward: Backward, graph: frozenset[int]) -> bool:
    """Whether code out of view, a later return, an attribute or a closure gets hold of the graph."""
    if graph & flow.return_roots and any(graph & value.roots for value in flow.returned):
        return True
    if graph & module.analysis.shared:
        return True
    for call in flow.calls:
        if call.order <= backward.order or call.root not in module.analysis.unseen:
            continue
        values = [argument.value for argument in (*call.positional, *call.keywords.values())]
        if any(graph & value.roots for value in values):
            return True
    return False
