"""Losses of several forward passes that are added up and differentiated together: all their graphs live at once.

Catalogue, section 7c, item 10.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import libcst as cst

from memlint.semantics.events import Backward, Call, Loop, Store
from memlint.semantics.flow import Flow
from memlint.semantics.knowledge import frameworks
from memlint.semantics.knowledge import torch as torch_known
from memlint.semantics.knowledge import training as known
from memlint.semantics.linear_sums import is_weighted_sum
from memlint.semantics.module import Module
from memlint.semantics.naming import words_of
from memlint.semantics.scopes import NODES_REMEMBERED, Scope, nodes_of, nodes_within, path_of, walk
from memlint.semantics.values import NOTHING, Kind, Value

_MODEL_WORDS = frozenset({"model", "net", "network", "policy", "actor", "critic", "generator", "unet"})
# A parameter so named holds data: no part of a graph that was built before.
_DATA_WORDS = frozenset(
    """batch batches data inputs input images image img imgs x xs y ys sample samples microbatch microbatches minibatch
    minibatches views tokens ids targets target labels label tasks task episode episodes sequence sequences loader
    dataloader dataset memory transitions graphs crops mask masks obs states state""".split()
)
_ONE_REDUCTION_WORDS = frozenset({"DistributedDataParallel", "DDP", "FullyShardedDataParallel", "FSDP", "fully_shard"})
_WEIGHTING = (cst.Multiply, cst.MatrixMultiply, cst.Power)


@dataclass(frozen=True, eq=False)
class SummedLosses:
    """A sum of losses, each with a graph of its own, that one backward pass differentiates."""

    store: Store
    loop: Loop
    backward: Backward
    forward: Call
    by_name: bool
    """Only a name says that the call is a model's."""
    reduces: bool
    """Several processes: one backward pass means one exchange of gradients."""


def summed_losses(module: Module) -> Iterator[SummedLosses]:
    if module.words.isdisjoint(torch_known.BACKWARD_METHODS):
        return
    seen: set[tuple[str | None, int]] = set()
    for flow in module.flows:
        for store in flow.stores:
            found = _summed(module, flow, store) if store.root in module.analysis.differentiated else None
            if found is not None and (store.path, id(found.loop.node)) not in seen:
                seen.add((store.path, id(found.loop.node)))
                yield found


def _summed(module: Module, flow: Flow, store: Store) -> SummedLosses | None:
    if store.how not in ("accumulate", "append") or not store.carried_by or store.handler:
        return None
    loop = store.carried_by[0]
    if loop.is_comprehension or loop.runs_layers or not isinstance(loop.node, (cst.For, cst.While)):
        return None
    backward = _backward_of_all(module, flow, store, loop)
    if backward is None:
        return None
    inside = nodes_within(loop.node) - _head(loop)
    forward = _forward_in(module, flow, store.value, inside)
    if forward is not None and _is_one_of_several(forward, loop):
        return None  # replicas, each on a device of its own
    if store.how == "append" and _is_weighted_later(flow, store):
        return None  # log-probabilities wait for the rewards
    if forward is None or loop.carried & _roots(module, store.value):
        return None  # a hidden state: the graph of one iteration goes on in the next
    if _shares_graph(module, flow, store.value, inside, loop) or not _is_linear(module, flow, store):
        return None
    if not is_weighted_sum(store, loop, backward):
        return None
    reduces = not module.words.isdisjoint(_ONE_REDUCTION_WORDS)
    return SummedLosses(store, loop, backward, forward, not forward.is_forward, reduces)


def _head(loop: Loop) -> frozenset[int]:
    """What is iterated over is read once, before the loop."""
    return nodes_within(loop.node.iter) if isinstance(loop.node, cst.For) else NOTHING


def _roots(module: Module, value: Value) -> frozenset[int]:
    roots = value.roots
    for box in value.boxes:
        roots |= module.box(box).content.roots
    return roots


def _backward_of_all(module: Module, flow: Flow, store: Store, loop: Loop) -> Backward | None:
    """The only backward pass over the sum: after the loop, or behind a condition in it (every fourth iteration)."""
    over = [item for item in module.backwards_over({store.root}) if item.scope is flow.scope]
    others = module.backwards_over(store.value.idents)
    if len(over) != 1 or any(item is not over[0] for item in others) or not over[0].frees:
        return None
    backward = over[0]
    if backward.call.names(torch_known.DIFFERENTIATING_FUNCTIONS - {"torch.autograd.backward"}):
        return None
    loops = backward.loop.outer() if backward.loop is not None else ()
    if loop in loops:
        return backward if backward.loop is loop and backward.guarded and backward.order > store.order else None
    return backward if backward.order > store.order else None


def _forward_in(module: Module, flow: Flow, value: Value, inside: frozenset[int]) -> Call | None:
    """A forward pass of the loop's body that the value was computed from."""
    for root in sorted(_roots(module, value)):
        node = module.analysis.roots[root].node
        call = module.call_at(node) if id(node) in inside else None
        if call is None or call.root != root:
            continue
        if call.is_forward and not _is_loss(call.callee.cls):
            return call
        if root in module.analysis.unseen and _runs_a_model(call):
            return call
    return None


def _is_one_of_several(forward: Call, loop: Loop) -> bool:
    """`for model in models:`, or what a `zip` gives."""
    head = (path_of(forward.call.func) or "").partition(".")[0]
    return isinstance(loop.node, cst.For) and any(
        isinstance(node, cst.Name) and node.value == head for node in walk(loop.node.target)
    )


def _is_weighted_later(flow: Flow, store: Store) -> bool:
    """Each item is multiplied by something when the loop has ended, or is no loss by itself."""
    if any(isinstance(node, cst.Name) and node.value == "log_prob" for node in walk(store.value_node)):
        return True
    name = (store.path or "").rpartition(".")[2]
    return name in _weighted_in(flow.scope.node)


@lru_cache(maxsize=NODES_REMEMBERED)
def _weighted_in(function: cst.CSTNode) -> frozenset[str]:
    """The names that stand in a product of which no side is a number."""
    products = (node for node in nodes_of(function, cst.BinaryOperation) if isinstance(node.operator, _WEIGHTING))
    sides = ((node.left, node.right) for node in products)
    weighted = (pair for pair in sides if not any(isinstance(side, (cst.Integer, cst.Float)) for side in pair))
    return frozenset(
        part.value for pair in weighted for side in pair for part in walk(side) if isinstance(part, cst.Name)
    )


def _is_loss(cls: str | None) -> bool:
    name = (cls or "").rpartition(".")[2]
    return name in torch_known.MODULES_WITHOUT_PARAMETERS or not words_of(name).isdisjoint({"loss", "criterion"})


def _runs_a_model(call: Call) -> bool:
    """A model by its name, or code out of view that is given one."""
    path = path_of(call.call.func)
    if path is not None and not words_of(path.rpartition(".")[2]).isdisjoint(_MODEL_WORDS) and call.call.args:
        return not words_of(path.rpartition(".")[2]) & {"loss", "reg", "regularization", "penalty", "norm"}
    return any(argument.value.kind is Kind.MODULE for argument in (*call.positional, *call.keywords.values()))


def _shares_graph(module: Module, flow: Flow, value: Value, inside: frozenset[int], loop: Loop) -> bool:
    """Whether a part of the graph may have been built before the loop: then its terms are not independent."""
    own = nodes_within(flow.scope.node)
    elements = {item.element for item in loop.outer()}
    iterated = frozenset().union(*(item.sources for item in loop.outer()))
    for root in _roots(module, value) - elements:
        made = module.analysis.roots[root]
        if not made.may_carry or id(made.node) in inside or id(made.node) not in own:
            continue
        if not _is_data(module, root, elements, iterated):
            return True
    return False


def _is_data(module: Module, root: int, elements: set[int], iterated: frozenset[int]) -> bool:
    made = module.analysis.roots[root]
    if isinstance(made.node, cst.Param):
        return root in iterated or not words_of(made.node.name.value).isdisjoint(_DATA_WORDS)
    call = module.call_at(made.node)
    if call is not None and call.names(torch_known.FACTORIES):
        return True  # a leaf
    above = made.ancestors - {root}
    if made.is_forward or (root in module.analysis.unseen and not _only_moves(call)):
        # `for x, y in batches():` draws data; `for features in extract(x):` has run a model before the loop.
        return (
            root in iterated
            and not made.is_forward
            and not above & elements
            and call is not None
            and not _runs_a_model(call)
        )
    if root in iterated:
        return True
    if above & elements:
        return not any(module.analysis.roots[other].is_forward for other in above)
    return bool(above) and all(_is_data(module, other, elements, iterated) for other in above if other < root)


def _only_moves(call: Call | None) -> bool:
    return call is not None and call.method in torch_known.COPYING_METHODS


def _is_linear(module: Module, flow: Flow, store: Store) -> bool:
    """Nothing is done to the sum but scaling, adding to it, differentiating and showing it."""
    for call in module.once(_takers_of_sums).get(store.root, ()):
        if call.scope is not flow.scope or (call.order < store.order and call.loop is store.loop):
            continue
        if call.callee.quals:
            if not call.callee.quals <= known.LINEAR_FUNCTIONS | frameworks.CONSUMING_FUNCTIONS:
                return False
        elif call.method not in known.LINEAR_METHODS | frameworks.CONSUMING_METHODS:
            return False
    return not store.scope.words & {"retain_graph", "create_graph"} or _scope_has_own_gradients(store.scope)


def _takers_of_sums(module: Module) -> dict[int, list[Call]]:
    """The calls that a sum is handed to, or that are made on it, by the store that marks the sum."""
    takers: dict[int, list[Call]] = {}
    for call in module.calls:
        values = [argument.value for argument in (*call.positional, *call.keywords.values())]
        if call.receiver is not None:
            values.append(call.receiver)
        given = frozenset().union(*(_roots(module, value) for value in values)) if values else NOTHING
        for root in given & module.analysis.stored:
            takers.setdefault(root, []).append(call)
    return takers


def _scope_has_own_gradients(scope: Scope) -> bool:
    """`autograd.grad(..., create_graph=True)` inside an iteration, as in meta-learning, is part of its own graph."""
    return "grad" in scope.words and "retain_graph" not in scope.words
