"""Backward passes that keep a graph which nothing differentiates again (catalogue, section 7c, item 7)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import inf
from typing import NamedTuple

import libcst as cst

from memlint.semantics.events import Backward, Call, Loop
from memlint.semantics.flow import Flow
from memlint.semantics.module import Module
from memlint.semantics.naming import is_model_name, words_of
from memlint.semantics.questions import Question, ResultNotDifferentiated
from memlint.semantics.recurrent import classes_with_state, retains_for_state
from memlint.semantics.retention import differentiated_losses, makes_leaf
from memlint.semantics.rollouts import draws_old_transitions
from memlint.semantics.scopes import NODES_REMEMBERED, Scope, nodes_within, parameters, path_of, walk
from memlint.semantics.spent_graphs import is_set_back, is_stepped_after, only_in_spent_attributes, set_by_forward
from memlint.semantics.values import Grad, Mode, Root, Value

# A parameter so named is no tensor: it holds functions, or settings.
_NAMESPACES = frozenset(
    """losses criterion criterions criteria model models net network module trainer agent engine accelerator
    args arg cfg config configs conf hparams hps opt opts options flags settings""".split()
)
# A parameter or attribute with one of these words in its name is a batch, or a number: the weight of a loss.
_DATA_WORDS = frozenset(
    """x y data batch batches input inputs target targets label labels image images img imgs gt mask masks tokens
    lengths ids text texts epoch step iteration ratio eps epsilon alpha beta gamma num n size lr
    weight weights lambda lam coef coeff scale temperature tau buffer replay""".split()
)


@dataclass(frozen=True, eq=False)
class NeedlessRetain:
    """`backward(retain_graph=True)` on a graph that is differentiated nowhere else."""

    backward: Backward
    argument: cst.Arg
    is_last: bool
    """Others differentiated the graph before; this is the last."""
    questions: frozenset[Question]
    certain: bool

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
            found = _needless(module, flow, backward, argument.node)
            if found is not None and not retains_for_state(module, backward):
                yield found


def _needless(module: Module, flow: Flow, backward: Backward, argument: cst.Arg) -> NeedlessRetain | None:
    """None where the graph may be needed again."""
    loop, graph = _step_loop(backward), _saved(module, backward.differentiated.roots - _iterated(module, backward))
    if not graph or (loop is None and not _is_step(module, flow, backward)):
        return None  # the caller may differentiate again
    inside = _read_anew(module, flow, loop)
    if any(id(module.analysis.roots[root].node) not in inside for root in graph):
        return None  # part of the graph was built before the loop: every round needs it
    outside = _Outside(module, backward, inside)
    if outside.may_carry():
        return None
    if _runs_what_remembers(module, flow):
        return None
    if loop is not None and loop.carried & backward.differentiated.roots:
        return None  # a hidden state, a running sum: the next iteration walks this graph again
    spans = _backward_spans(flow)
    over_it = [spans[root] for root in graph & spans.keys()]
    if any(span.last > backward.order or span.first_guarded < backward.order for span in over_it):
        return None  # GAN steps, per-task gradients, gradient penalties
    if _handed_on(module, flow, backward, graph):
        return None
    returned = [part for value in flow.returned for part in _parts(value) if graph & part.roots]
    if is_stepped_after(module, backward):
        returned = [
            part for part in returned if not part.idents or not part.idents <= module.once(differentiated_losses)
        ]
    questions = frozenset({ResultNotDifferentiated(backward.scope.qualname)} if returned else ())
    others = any(span.first < backward.order for span in over_it)
    return NeedlessRetain(backward, argument, others, questions, loop is not None and not outside.by_name)


class _Span(NamedTuple):
    """The orders of the backward passes of a function that reach one definition."""

    first: int
    last: int
    first_guarded: float


@lru_cache(maxsize=NODES_REMEMBERED)
def _backward_spans(flow: Flow) -> dict[int, _Span]:
    spans: dict[int, _Span] = {}
    for backward in flow.backwards:
        order = backward.order
        for root in backward.differentiated.roots:
            known = spans.get(root, _Span(order, order, inf))
            guarded = min(known.first_guarded, order) if backward.guarded else known.first_guarded
            spans[root] = _Span(known.first, order, guarded)
    return spans


@lru_cache(maxsize=NODES_REMEMBERED)
def _runs_what_remembers(module: Module, flow: Flow) -> bool:
    if any(_remembers(module, call) for call in flow.calls if call.is_forward):
        return True
    return bool(module.once(classes_with_state)) and any(_may_be_any_module(module, call) for call in flow.calls)


def _may_be_any_module(module: Module, call: Call) -> bool:
    """`model(x)` of a parameter, but not `criterion(net(x), y)`."""
    if call.method is not None or call.callee.quals or call.callee.cls is not None:
        return False
    given = (root for argument in call.positional for root in argument.value.roots)
    return not any(module.analysis.roots[root].is_forward for root in given)


def _remembers(module: Module, forward: Call) -> bool:
    """Whether the model's forward reads what another method left on it of an earlier pass: `model.remember()`."""
    method = module.analysis.method(forward.callee.cls, "forward") if forward.callee.cls is not None else None
    if method is None:
        return False
    stores = [store for store in module.attribute_stores if store.scope.parent is method.parent]
    carrying = {store.name for store in stores if store.value.grad is Grad.YES}
    left = {
        store.name
        for store in stores
        if store.scope.name not in ("__init__", "forward")
        and store.mode is not Mode.OFF
        and not _own_attributes(store.source).isdisjoint(carrying)
    }
    return not left.isdisjoint(_own_attributes(method.node))


def _own_attributes(node: cst.CSTNode) -> frozenset[str]:
    """The attributes of `self` that the code mentions, but for those that it detaches."""
    mentioned = [path_of(part) or "" for part in walk(node) if isinstance(part, cst.Attribute)]
    names = {path.split(".")[1] for path in mentioned if path.startswith("self.")}
    return frozenset(
        names - {path.split(".")[1] for path in mentioned if path.endswith(".detach") and path.count(".") == 2}
    )


def _parts(value: Value) -> Iterator[Value]:
    """The value, or what is in the tuple that it is."""
    if value.elements is None:
        yield value
    for element in value.elements or ():
        yield from _parts(element)


def _is_step(module: Module, flow: Flow, backward: Backward) -> bool:
    """A function that builds what it differentiates, for whoever calls it: its graph is gone when it ends."""
    if not isinstance(flow.scope.node, cst.FunctionDef) or flow.scope.name == "forward" or flow.scope.has_yield:
        return False
    if backward.loop is not None or backward.handler or module.is_test_file:
        return False
    return not backward.call.positional or backward.differentiated is not backward.call.receiver  # no `gradient`


def _iterated(module: Module, backward: Backward) -> frozenset[int]:
    """What the loops around it iterate over, and what they are given of it, where that is data."""
    loops = backward.loop.outer() if backward.loop is not None else ()
    return frozenset(root for loop in loops if _goes_over_data(module, loop) for root in loop.sources | {loop.element})


def _goes_over_data(module: Module, loop: Loop) -> bool:
    """No outputs of a model, `for row in model(x)`, to whose graph each iteration comes back."""
    held = (root for box in loop.iterates.boxes for root in module.box(box).content.roots)
    return not any(_is_output(module, root) for root in (*loop.sources, *held))


def _is_output(module: Module, root: int) -> bool:
    made = module.analysis.roots[root]
    call = module.call_at(made.node)
    if made.saves or call is None:
        return made.saves
    return call.is_forward or is_model_name((path_of(call.call.func) or "").rpartition(".")[2])


@lru_cache(maxsize=NODES_REMEMBERED)
def _read_anew(module: Module, flow: Flow, loop: Loop | None) -> frozenset[int]:
    """The nodes that each iteration, or each call of the function, reads anew, in functions that it calls too."""
    own = nodes_within(flow.scope.node) if loop is None else _nodes_inside(loop)
    return own | _nodes_of_callees(module, flow, loop)


def _nodes_inside(loop: Loop) -> frozenset[int]:
    """The nodes that each iteration reads anew: the target and the body, not what is iterated over."""
    assert isinstance(loop.node, (cst.For, cst.While))  # no comprehension: see _step_loop
    parts = [loop.node.body, loop.node.target] if isinstance(loop.node, cst.For) else [loop.node.body, loop.node.test]
    return nodes_within(parts[0]) | nodes_within(parts[1])


def _nodes_of_callees(module: Module, flow: Flow, loop: Loop | None) -> set[int]:
    """The nodes of the functions of this file that the function calls only in the loop: each iteration reads them."""
    calls = [(call, loop is None or (call.loop is not None and loop in call.loop.outer())) for call in flow.calls]
    # What a later call computes, or one with grad mode off, is in no graph of the loop.
    last = max((call.order for call, is_inside in calls if is_inside), default=0)
    earlier = [
        call
        for call, is_inside in calls
        if not is_inside and call.mode is not Mode.OFF and (call.order < last or call.loop is not None)
    ]
    outside = {name for call in earlier for name in call.callee.quals}
    names = {name for call, is_inside in calls if is_inside for name in call.callee.quals} - outside
    scopes = [module.analysis.scope_named(name) for name in names if name.startswith(":")]
    return {id(node) for scope in scopes if scope is not None for node in walk(scope.node)}


def _step_loop(backward: Backward) -> Loop | None:
    """The innermost loop, if it is one over batches or steps."""
    loop = backward.loop
    return loop if loop is not None and not loop.is_comprehension and not backward.handler else None


def _saved(module: Module, roots: frozenset[int]) -> frozenset[int]:
    made = ((root, module.analysis.roots[root]) for root in roots)
    return frozenset(
        root for root, at in made if at.saves and not draws_old_transitions(module, module.call_at(at.node))
    )


class _Outside:
    """What the loss was computed from that the iteration (or the call of a training step) finds made."""

    def __init__(self, module: Module, backward: Backward, inside: frozenset[int]) -> None:
        self._module = module
        self._backward = backward
        self._inside = inside
        loops = backward.loop.outer() if backward.loop is not None else ()
        self._iterables = frozenset().union(
            *(nodes_within(loop.iterable) for loop in loops if loop.iterable is not None)
        )
        self.by_name = False
        """A name was part of the evidence: a parameter called `labels`."""

    def may_carry(self) -> bool:
        """Whether any of it may carry a graph. What the loop iterates over is data, and so is a leaf."""
        return any(
            self._carries(root, set())
            for root in self._backward.differentiated.roots - _iterated(self._module, self._backward)
        )

    def _carries(self, root: int, seen: set[int]) -> bool:
        made = self._module.analysis.roots[root]
        if root in seen or not made.may_carry or _is_namespace(made):
            return False
        seen.add(root)
        if id(made.node) in self._inside or id(made.node) in self._iterables:
            return self._backward.loop is None and (self._is_kept(made) or self._brings_a_graph(made.node))
        if set_by_forward(self._module, self._backward, root) or makes_leaf(self._module.call_at(made.node)):
            return False
        if is_set_back(self._module, self._backward, made.node):
            return False
        if isinstance(made.node, cst.Param):
            return self._is_given(made.node, seen)
        sources = made.ancestors - {root}
        is_computed = bool(sources) and not made.saves
        return not is_computed or any(self._carries(source, seen) for source in sources)

    def _is_kept(self, made: Root) -> bool:
        """`self.fake`, which another method may have computed before the step."""
        node, owner = made.node, self._backward.scope.enclosing_class()
        if not isinstance(node, cst.Attribute) or made.ancestors or owner is None or path_of(node.value) != "self":
            return False
        return words_of(node.attr.value).isdisjoint(_DATA_WORDS)

    def _brings_a_graph(self, node: cst.CSTNode) -> bool:
        """Whether a caller in view gives the parameter what a model has made, or what the last call has returned."""
        scope = self._module.once(_scopes_by_parameter).get(id(node))
        if scope is None or not isinstance(node, cst.Param):
            return False
        given = (value for value in _given(self._module, scope, node) if value.grad is not Grad.NO)
        roots = frozenset().union(*(value.roots for value in given))
        return any(_is_of_model(self._module, root) or _calls(self._module, root, scope) for root in roots)

    def _is_given(self, param: cst.Param, seen: set[int]) -> bool:
        """Whether a caller may give a parameter that carries a graph."""
        if not words_of(param.name.value).isdisjoint(_DATA_WORDS):
            self.by_name = True
            return False
        scope = self._module.once(_scopes_by_parameter).get(id(param))
        if scope is None:
            return True
        given = _given(self._module, scope, param)
        return not given or any(
            value.grad is not Grad.NO and any(self._carries(root, seen) for root in value.roots) for value in given
        )


def _scopes_by_parameter(module: Module) -> dict[int, Scope]:
    return {id(param): scope for scope in module.scopes for param in _parameters(scope)}


def _parameters(scope: Scope) -> list[cst.Param]:
    return parameters(scope.node.params) if isinstance(scope.node, cst.FunctionDef) else []


def _given(module: Module, scope: Scope, param: cst.Param) -> list[Value]:
    """What the callers in view give for a parameter; nothing where that is not known of all of them."""
    if scope.qualname in module.analysis.handed_over:
        return []
    is_method = scope.parent is not None and scope.parent.is_class
    place = _parameters(scope).index(param) - is_method
    found = []
    for call in module.calls_of(frozenset({scope.qualname})):
        by_name = call.keywords.get(param.name.value)
        if by_name is not None:
            found.append(by_name.value)
        elif place < len(call.positional):
            found.append(call.positional[place].value)
        elif param.default is None or call.unpacks:
            return []
    return found


def _is_of_model(module: Module, root: int) -> bool:
    """What a model has made, one by its name (`model.body(x)`), not `self.create_batches()`."""
    made = module.analysis.roots[root]
    path = path_of(made.node.func) if isinstance(made.node, cst.Call) else None
    by_name = path is not None and any(is_model_name(name) for name in path.split(".")[:-1])
    return made.is_forward or made.of_module or (made.saves and by_name)


def _calls(module: Module, root: int, scope: Scope) -> bool:
    """Whether the definition is the result of a call of this function."""
    call = module.call_at(module.analysis.roots[root].node)
    return call is not None and call.callee.quals == {scope.qualname}


def _is_namespace(made: Root) -> bool:
    """`losses` of `losses.generator(fake)`, `args` of `args.beta * kl`, but not `*args`."""
    node = made.node
    return isinstance(node, cst.Param) and not node.star and not words_of(node.name.value).isdisjoint(_NAMESPACES)


def _handed_on(module: Module, flow: Flow, backward: Backward, graph: frozenset[int]) -> bool:
    """Whether code out of view, an attribute or a closure gets hold of the graph."""
    if graph & module.analysis.captured:
        return True
    if graph & module.analysis.shared and not only_in_spent_attributes(module, flow, backward, graph):
        return True
    last_taken = _last_taken_out_of_view(module, flow)
    return any(last_taken.get(root, 0) > backward.order for root in graph)


@lru_cache(maxsize=NODES_REMEMBERED)
def _last_taken_out_of_view(module: Module, flow: Flow) -> dict[int, int]:
    """By definition: where in the function code out of view is given it for the last time."""
    last: dict[int, int] = {}
    for call in flow.calls:
        if call.root in module.analysis.unseen:
            for argument in (*call.positional, *call.keywords.values()):
                for root in argument.value.roots:
                    last[root] = max(call.order, last.get(root, 0))
    return last
