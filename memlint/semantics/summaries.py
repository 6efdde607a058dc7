"""What a function of another file does to its arguments and what it returns, as plain data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import libcst as cst

from memlint.semantics.knowledge import torch as known
from memlint.semantics.paths import parameter_names, renamed
from memlint.semantics.questions import GradOnEntry
from memlint.semantics.scopes import path_of, walk
from memlint.semantics.values import NO_NAMES, NOTHING, Grad, Kind, Mode, Proof, Value

if TYPE_CHECKING:
    from memlint.semantics.analysis import Analysis
    from memlint.semantics.events import Call, Store
    from memlint.semantics.flow import Flow


@dataclass(frozen=True)
class Result:
    """What is returned. `grad` YES holds if every one of `needs` carries a graph, and grad mode is on if `needs_on`.

    `proven` is False where only a backward pass by the caller can prove it.
    """

    kind: Kind
    grad: Grad
    cls: str | None = None
    needs: frozenset[str] = frozenset()
    needs_on: bool = False
    proven: bool = True
    holds: frozenset[str] = frozenset()
    """The parameters whose graph it may hold."""
    elements: tuple[Result, ...] | None = None
    items: tuple[tuple[str, Result], ...] | None = None
    """Of a dictionary with literal keys: what stands under each."""
    freed: bool = False
    """A backward pass has freed its graph when the function returns."""
    saved: frozenset[int] = frozenset()
    """Of a part of a result: the operations whose tensors its graph holds, by number; parts may share some."""
    open: frozenset[int] = frozenset()
    """Those of them of which nothing but a backward pass by the caller shows that they carry a graph."""
    frozen: bool = False
    """A module whose parameters need no gradient."""
    weak: bool = False
    adds: frozenset[int] = frozenset()
    """Of a part of a result: the parts that it is a sum of, by their places."""


@dataclass(frozen=True)
class ParameterEffects:
    """What the function does with one parameter."""

    differentiated: bool
    proven: bool
    """A backward pass is started on it: it carries a graph."""
    escapes: bool
    """It reaches code out of view."""
    shared: bool
    """It reaches an attribute, a global or a closure with the graph it has."""
    freed: bool
    """A backward pass frees its graph on every path."""
    kept: bool = False
    """Put, with its graph, next to what earlier calls have left in an object: added to a sum, appended."""
    summed: bool = False
    """Added: with grad mode off in the function, the sum carries no graph."""


@dataclass(frozen=True)
class FunctionSummary:
    """What a function does when it is called."""

    effects: dict[str, ParameterEffects] = field(default_factory=dict)
    result: Result = field(default_factory=lambda: Result(Kind.UNKNOWN, Grad.MIXED))
    has_forward: bool = False
    has_backward: bool = False
    has_step: bool = False
    forwards: tuple[str, ...] = ()
    """Paths of the modules that it runs in its caller's grad mode, building graphs: `model`, `self.net`."""
    may_differentiate: bool = False
    """It mentions what only code mentions that differentiates something itself."""
    others: str | None = None
    """The parameter that takes all other keywords: `kwargs`."""


# A function that mentions one of these differentiates, or may (attacks, saliency, forces, test-time training).
DIFFERENTIATING_WORDS = frozenset(
    {"requires_grad_", "requires_grad", "enable_grad", "autograd", "create_graph", "jacobian", "hessian", "vjp", "jvp"}
)


def builds_a_graph(call: Call) -> bool:
    """The call of a module that has parameters, with grad mode on."""
    if not call.is_forward or call.handler or call.mode in (Mode.OFF, Mode.UNKNOWN):
        return False
    if not carrying(call.result).carries_graph:
        return False
    cls = call.callee.cls
    if cls is None or not cls.startswith("torch.nn."):
        return True
    return not cls.endswith("Loss") and cls.rpartition(".")[2] not in known.MODULES_WITHOUT_PARAMETERS


def carrying(value: Value) -> Value:
    """The value, or the first of its elements that carries a graph."""
    return next((element for element in (value, *(value.elements or ())) if element.carries_graph), value)


def forwards_of(analysis: Analysis, flow: Flow, depth: int = 2) -> tuple[str, ...]:
    """The modules that the function runs in its caller's grad mode, itself or through functions of its file."""
    entry = GradOnEntry(flow.scope.qualname)
    paths: dict[str, None] = {}
    for call in flow.calls:
        if call.mode is not Mode.ENTRY:
            continue
        if not builds_a_graph(call):
            paths.update((path, None) for path in _forwards_through(analysis, call, depth))
            continue
        path = path_of(call.call.func)
        if path is not None and analysis.basis(carrying(call.result).conditions) <= {entry}:
            paths[path.removesuffix(".forward")] = None
    return tuple(paths)


def _forwards_through(analysis: Analysis, call: Call, depth: int) -> Iterator[str]:
    name = next(iter(call.callee.quals), "") if len(call.callee.quals) == 1 else ""
    scope = analysis.scope_named(name) if name.startswith(":") else None
    flow = analysis.flow(scope) if scope is not None and depth else None
    if flow is None or not flow.has_forward or flow.has_backward:
        return
    scope = flow.scope
    bound = scope.parent is not None and scope.parent.is_class
    for path in forwards_of(analysis, flow, depth - 1):
        outer = renamed(path, call, parameter_names(scope), bound=bound, local=scope.bound)
        if outer is not None:
            yield outer


def store_of(analysis: Analysis, flow: Flow, root: int) -> Store | None:
    """Where a function keeps a parameter next to what earlier calls have left, with its graph if it has one."""
    if any(asks_of_tensor(call, root) for call in flow.calls):
        return None  # it thinks of tensors that carry a graph
    for store in flow.stores:
        boxes = [analysis.boxes[index] for index in store.boxes]
        if not is_in_object(analysis, store) or any(box.bounded for box in boxes):
            continue
        if any(value.carries_graph and _rests_on(analysis, flow, value, root) for value in _stored(store)):
            return store
    return None


def is_in_object(analysis: Analysis, store: Store) -> bool:
    """Whether what the store puts away is there in the next call: `self.totals[key] += value` too."""
    if _is_overwritten(store):
        return False
    if store.in_object or any(analysis.boxes[index].in_object for index in store.boxes):
        return True
    target: cst.BaseExpression = store.target
    while isinstance(target, cst.Subscript):
        target = target.value
    path = path_of(target) or ""
    attribute = path.removeprefix("self.")
    return path.startswith("self.") and attribute not in store.scope.attributes_stored


def _is_overwritten(store: Store) -> bool:
    """`for key in loss: self.last[key] = loss[key]`: the same keys in each call, so only the last values are kept."""
    target = store.node
    if store.how != "setitem" or not isinstance(target, cst.Subscript):
        return False
    names = {item.value for item in walk(target) if isinstance(item, cst.Name)}
    if store.scope.loop_names.isdisjoint(names):
        return False
    held = path_of(target.value)
    return not any(path_of(item) == held for item in walk(store.value_node) if isinstance(item, cst.Attribute))


# A function that asks these of its parameter thinks of tensors that carry a graph.
TYPE_TESTS = frozenset({"isinstance", "torch.is_tensor", "hasattr", "type", "torch.is_grad_enabled"})


def asks_of_tensor(call: Call, root: int) -> bool:
    """`isinstance(value, Tensor)`, not `isinstance(values, dict)`."""
    if not call.callee.quals & TYPE_TESTS or not call.positional or root not in call.positional[0].value.roots:
        return False
    asked = call.positional[1].value.quals if len(call.positional) > 1 else NO_NAMES
    return not asked or not asked <= _CONTAINER_TYPES


_CONTAINER_TYPES = frozenset(
    """dict list tuple set collections.abc.Mapping collections.abc.Sequence collections.OrderedDict typing.Mapping
    typing.Dict""".split()
)


def _stored(store: Store) -> list[Value]:
    return [store.value, *(value for _, value in store.carriers)]


def _rests_on(analysis: Analysis, flow: Flow, value: Value, root: int) -> bool:
    left = {item for item in analysis.basis(value.conditions) if item != GradOnEntry(flow.scope.qualname)}
    return root in value.roots and all(isinstance(item, Proof) and _is_part(analysis, item.root, root) for item in left)


def _is_part(analysis: Analysis, part: int, root: int) -> bool:
    """The parameter, or an item of it: `loss[key]`, what iterating over `.items()` gives."""
    made = analysis.roots[part]
    if part == root or made.node is analysis.roots[root].node:
        return True
    if root not in made.ancestors:
        return False
    return not isinstance(made.node, cst.Call) or takes_parts(made.node)


_GOING_THROUGH = frozenset({"enumerate", "zip", "list", "tuple", "sorted", "reversed"})


def takes_parts(node: cst.CSTNode) -> bool:
    """`losses.items()`, `enumerate(losses)`: what holds the parts of an object, and no more."""
    if not isinstance(node, cst.Call):
        return False
    if isinstance(node.func, cst.Attribute):
        return node.func.attr.value in ("items", "values")
    return path_of(node.func) in _GOING_THROUGH


def result_of(
    analysis: Analysis, flow: Flow, value: Value, parameters: dict[int, str], file: str, *, is_part: bool = False
) -> Result:
    """A returned value in terms of the function's parameters (their roots, by name)."""

    def part(value: Value) -> Result:
        return result_of(analysis, flow, value, parameters, file, is_part=True)

    is_deep = value.depth >= _MAX_DEPTH

    def parts(values: tuple[Value, ...]) -> tuple[Result, ...]:
        return tuple(replace(part(item), adds=_added(analysis, item, values)) for item in values)

    elements = None if value.elements is None or is_deep else parts(value.elements)
    items = analysis.boxes[next(iter(value.boxes))].items if len(value.boxes) == 1 and not is_part else None
    needs: set[str] = set()
    left: set[int] = set()
    needs_on, proven = False, True
    if value.grad is Grad.YES:
        for condition in analysis.basis(value.conditions):
            if isinstance(condition, GradOnEntry) and condition.function == flow.scope.qualname:
                needs_on = True
            elif isinstance(condition, Proof) and condition.root in parameters:
                needs.add(parameters[condition.root])
            else:
                proven = False
                left |= {condition.root} if isinstance(condition, Proof) else set()
    roots = flow.all_roots(value)
    saved = frozenset(root for root in roots if analysis.roots[root].saves) if value.grad is Grad.YES else NOTHING
    return Result(
        value.kind,
        Grad.MIXED if value.boxes else value.grad,
        cls=_class_name(value.cls, file),
        needs=frozenset(needs),
        needs_on=needs_on,
        proven=proven,
        holds=frozenset(parameters[root] for root in roots if root in parameters),
        elements=elements,
        items=None if items is None else tuple(zip(items, parts(tuple(items.values())), strict=True)),
        freed=bool(saved) and saved <= (flow.backed_at_end or NOTHING),
        saved=saved if is_part else NOTHING,
        open=saved & left if is_part else NOTHING,
        frozen=value.kind is Kind.MODULE and value.mode is Mode.OFF,
        weak=value.weak,
    )


def _added(analysis: Analysis, total: Value, parts: tuple[Value, ...]) -> frozenset[int]:
    """`{"loss": rec + kl, "rec": rec, "kl": kl}`: which of the parts the total is the sum of."""
    summands = frozenset().union(*(analysis.roots[ident].summands for ident in total.idents))
    return frozenset(place for place, value in enumerate(parts) if value.idents and value.idents <= summands)


# A tuple of tuples of tuples is no result that a caller takes apart.
_MAX_DEPTH = 4


def _class_name(cls: str | None, file: str) -> str | None:
    return f"@{file}{cls}" if cls is not None and cls.startswith(":") else cls
