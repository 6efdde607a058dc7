"""What a function of another file does to its arguments and what it returns, as plain data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import libcst as cst

from memlint.semantics.questions import GradOnEntry
from memlint.semantics.scopes import path_of, walk
from memlint.semantics.values import Grad, Kind, Mode, Proof, Value

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
    frozen: bool = False
    """A module whose parameters need no gradient."""
    weak: bool = False


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


# A function that mentions one of these differentiates, or may (attacks, saliency, forces, test-time training).
DIFFERENTIATING_WORDS = frozenset(
    {"requires_grad_", "requires_grad", "enable_grad", "autograd", "create_graph", "jacobian", "hessian", "vjp", "jvp"}
)


def builds_a_graph(call: Call) -> bool:
    """The call of a module, other than a loss, with grad mode on."""
    if not call.is_forward or call.handler or call.mode in (Mode.OFF, Mode.UNKNOWN):
        return False
    if not carrying(call.result).carries_graph:
        return False
    cls = call.callee.cls
    return cls is None or not (cls.startswith("torch.nn.") and cls.endswith("Loss"))


def carrying(value: Value) -> Value:
    """The value, or the first of its elements that carries a graph."""
    return next((element for element in (value, *(value.elements or ())) if element.carries_graph), value)


def forwards_of(analysis: Analysis, flow: Flow) -> tuple[str, ...]:
    """The modules that the function runs in its caller's grad mode, whatever else is not known."""
    entry = GradOnEntry(flow.scope.qualname)
    paths: dict[str, None] = {}
    for call in flow.calls:
        path = path_of(call.call.func)
        if path is None or call.mode is not Mode.ENTRY or not builds_a_graph(call):
            continue
        if analysis.basis(carrying(call.result).conditions) <= {entry}:
            paths[path.removesuffix(".forward")] = None
    return tuple(paths)


def store_of(analysis: Analysis, flow: Flow, root: int) -> Store | None:
    """Where a function keeps a parameter next to what earlier calls have left, with its graph if it has one."""
    if any(call.callee.quals & TYPE_TESTS and _is_asked(call, root) for call in flow.calls):
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


def _is_asked(call: Call, root: int) -> bool:
    return bool(call.positional) and root in call.positional[0].value.roots


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
    return not isinstance(made.node, cst.Call) or (
        isinstance(made.node.func, cst.Attribute) and made.node.func.attr.value in ("items", "values")
    )


def result_of(analysis: Analysis, flow: Flow, value: Value, parameters: dict[int, str], file: str) -> Result:
    """A returned value in terms of the function's parameters (their roots, by name)."""
    elements = None
    if value.elements is not None and value.depth < _MAX_DEPTH:
        elements = tuple(result_of(analysis, flow, element, parameters, file) for element in value.elements)
    needs: set[str] = set()
    needs_on, proven = False, True
    if value.grad is Grad.YES:
        for condition in analysis.basis(value.conditions):
            if isinstance(condition, GradOnEntry) and condition.function == flow.scope.qualname:
                needs_on = True
            elif isinstance(condition, Proof) and condition.root in parameters:
                needs.add(parameters[condition.root])
            else:
                proven = False
    return Result(
        value.kind,
        Grad.MIXED if value.boxes else value.grad,
        _class_name(value.cls, file),
        frozenset(needs),
        needs_on,
        proven,
        frozenset(parameters[root] for root in flow.all_roots(value) if root in parameters),
        elements,
        value.kind is Kind.MODULE and value.mode is Mode.OFF,
        value.weak,
    )


# A tuple of tuples of tuples is no result that a caller takes apart.
_MAX_DEPTH = 4


def _class_name(cls: str | None, file: str) -> str | None:
    return f"@{file}{cls}" if cls is not None and cls.startswith(":") else cls
