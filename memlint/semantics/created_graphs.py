"""`backward(create_graph=True)`: each `.grad` holds the graph of the gradient, and the graph the parameter."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

import libcst as cst

from memlint.semantics.events import Backward, Call, Event, Loop
from memlint.semantics.flow import Flow
from memlint.semantics.module import Module
from memlint.semantics.running import is_called_in_view
from memlint.semantics.scopes import Scope, nodes_of, path_of
from memlint.semantics.values import Kind

_RESETTING = frozenset({"zero_grad", "optimizer_zero_grad", "clear_grad", "cleargrad", "clear_gradients"})
_FUNCTIONAL = frozenset({"torch.autograd.grad"})
_VARIABLES = frozenset({"torch.autograd.Variable", "torch.autograd.variable.Variable"})
# Where the flag stands without a keyword: Tensor.backward(gradient, retain_graph, create_graph),
# torch.autograd.backward(tensors, grad_tensors, retain_graph, create_graph).
_POSITION = 2
_POSITION_OF_FUNCTION = 3


class Leak(Enum):
    NEVER_RESET = "never reset"
    INPUT = "input"
    """`zero_grad()` resets the parameters; the input that requires a gradient keeps its own."""
    LATE = "late"
    """`zero_grad()` stands between the next forward and backward pass: two graphs at the peak."""
    AFTERWARDS = "afterwards"
    """Only the next call of the function resets them."""


@dataclass(frozen=True, eq=False)
class CreatedGraph:
    backward: Backward
    leak: Leak
    name: str
    """The input that keeps its gradient."""
    certain: bool
    is_script: bool
    """A script's one backward pass over something that is no model."""
    is_helper: bool = False
    """It differentiates a loss that it was given, for callers of whom none is in view: they may reset the gradients."""


def created_graphs(module: Module) -> Iterator[CreatedGraph]:
    if "create_graph" not in module.words and not any(
        len(backward.call.positional) > _POSITION for backward in module.backwards
    ):
        return
    for flow in module.flows:
        for backward in flow.backwards:
            if _creates_graph(backward.call):
                found = _judged(module, flow, backward)
                if found is not None:
                    yield found


def _creates_graph(call: Call) -> bool:
    if call.callee.quals & _FUNCTIONAL or call.unpacks:
        return False
    keyword = call.keywords.get("create_graph")
    if keyword is not None:
        return keyword.value.literal is True
    position = _POSITION_OF_FUNCTION if call.callee.quals else _POSITION
    return len(call.positional) == position + 1 and call.positional[position].value.literal is True


def _judged(module: Module, flow: Flow, backward: Backward) -> CreatedGraph | None:
    leaf = _leaking_input(module, flow, backward)
    if leaf is not None:
        return CreatedGraph(backward, Leak.INPUT, leaf[0], leaf[1], False)
    resets = _resets(module, flow)
    if any(order > backward.order for order, _ in resets):
        return None
    # What stands before the loop is done once.
    loops = backward.loop.outer() if backward.loop is not None else ()
    orders = [order for order, loop in resets if not loops or loop in loops]
    if orders:
        built = _built(flow, backward)
        late = bool(built) and max(built) < max(orders)
        if late and backward.loop is not None:
            return CreatedGraph(backward, Leak.LATE, "", False, False)
        if late or backward.loop is not None or flow.has_step or not flow.scope.is_function:
            return None
        if _is_reset_elsewhere(module, flow.scope):
            return None
        return CreatedGraph(backward, Leak.AFTERWARDS, "", False, False)
    if not resets and _is_reset_elsewhere(module, flow.scope):
        return None
    built = _built(flow, backward)
    is_function = flow.scope.is_function
    returns = backward.loop is None and is_function  # to somebody who may reset the gradients before the next call
    if returns and _is_reset_by_other_files(module, flow.scope):
        return None
    is_open = returns and not is_called_in_view(module, flow.scope)
    certain = bool(built) and not is_open and not _file_resets(module)
    is_helper = is_open and not built
    return CreatedGraph(backward, Leak.NEVER_RESET, "", certain, not built and not is_function, is_helper)


def _built(flow: Flow, backward: Backward) -> list[int]:
    """When the calls were made that built the graph, as far as they stand in this function."""
    roots = flow.analysis.roots
    return [call.order for call in flow.calls if call.root in backward.differentiated.roots and roots[call.root].saves]


# --- who resets the gradients ---


def _resets(module: Module, flow: Flow) -> list[tuple[int, Loop | None]]:
    """The places in the function that reset gradients, or call a function of this file that does, with their loops."""
    events: list[Event] = [
        call
        for call in flow.calls
        if call.method in _RESETTING
        or (call.method == "detach_" and _is_gradient(call.receiver_node))
        or any(_resets_within(module, name) for name in call.callee.quals)
    ]
    events += [store for store in flow.attribute_stores if store.name == "grad"]
    found = [(event.order, event.loop) for event in events]
    if any(_is_gradient(node.target) for node in nodes_of(flow.scope.node, cst.Del)):
        found.append((flow.order + 1, None))
    return found


def _is_gradient(node: cst.BaseExpression | None) -> bool:
    return isinstance(node, cst.Attribute) and node.attr.value == "grad"


def _resets_within(module: Module, name: str) -> bool:
    scope = module.analysis.scope_named(name) if name.startswith(":") else None
    return scope is not None and _mentions_reset(module, scope)


def _mentions_reset(module: Module, scope: Scope) -> bool:
    if not scope.words_within.isdisjoint(_RESETTING):
        return True
    flow = module.flow_of(scope)
    return flow is not None and any(store.name == "grad" for store in flow.attribute_stores)


def _file_resets(module: Module) -> bool:
    return any(_mentions_reset(module, scope) for scope in module.scopes)


def _is_reset_elsewhere(module: Module, scope: Scope) -> bool:
    """By a function around it, another method of the class, a framework's trainer or a caller in view."""
    if not scope.is_function:
        return False
    owner = scope.enclosing_class()
    if owner is not None:
        if any(method is not scope and _mentions_reset(module, method) for method in owner.children):
            return True
        if not _is_plain_class(module, owner):
            return True
    outer = scope.parent
    while outer is not None and outer.parent is not None:
        if outer.is_function and _mentions_reset(module, outer):
            return True  # the closure itself among what it mentions
        outer = outer.parent
    pending, asked = [scope.qualname], {scope.qualname}
    while pending:
        for site in module.facts.calls_of(pending.pop()):
            caller = module.analysis.scope_named(site.caller)
            if caller is None and site.caller == ":" and not module.analysis.root.words.isdisjoint(_RESETTING):
                return True
            if caller is None or caller.qualname in asked:
                continue
            if _mentions_reset(module, caller):
                return True
            asked.add(caller.qualname)
            pending.append(caller.qualname)
    return False


def _is_reset_by_other_files(module: Module, scope: Scope) -> bool:
    """By the function, or the script, of another file that calls this one."""
    view = module.analysis.view
    sites = view.sites(scope.qualname) if view is not None else None
    return view is not None and sites is not None and any(view.words_around(site) & _RESETTING for site in sites)


def _is_plain_class(module: Module, owner: Scope) -> bool:
    """No base out of view, whose methods may reset gradients; torch's Module does so only when it is told to."""
    bases = module.analysis.base_names(owner.qualname)
    return all(base.startswith(":") or base in ("object", "torch.nn.Module") for base in bases)


# --- inputs ---


def _leaking_input(module: Module, flow: Flow, backward: Backward) -> tuple[str, bool] | None:
    """An input that was told to require a gradient, reaches the loss and never has its `.grad` taken away.

    With whether it surely is a leaf.
    """
    reset = {store.path.rpartition(".")[0] for store in flow.attribute_stores if store.name == "grad" and store.path}
    reset |= {
        path_of(node.target.value) or ""
        for node in nodes_of(flow.scope.node, cst.Del)
        if isinstance(node.target, cst.Attribute) and node.target.attr.value == "grad"
    }
    inputs = backward.call.keywords.get("inputs")
    if inputs is not None:
        return None  # gradients are made for these only
    for call in flow.calls:
        if call.order > backward.order:
            break
        name = _required(call)
        if name is None or name in reset or "." in name:
            continue
        value = call.receiver if call.method in ("requires_grad_", "retain_grad") else call.result
        if value is None or value.kind in (Kind.MODULE, Kind.CONTAINER):
            continue
        roots = value.idents | call.result.idents
        if roots & backward.differentiated.roots:
            return name, call.method != "requires_grad_" or not value.carries_graph  # of `retain_grad` either will do
    return None


def _required(call: Call) -> str | None:
    """The variable of `x.requires_grad_()`, of `x = x.detach().requires_grad_()`."""
    statement = call.statement
    target = statement.targets[0].target if isinstance(statement, cst.Assign) else None
    assigned = (
        path_of(target) if isinstance(statement, cst.Assign) and statement.value is call.node and target else None
    )
    if call.method == "requires_grad_" and (not call.positional or call.positional[0].value.literal is True):
        return assigned or (path_of(call.receiver_node) if call.receiver_node is not None else None)
    if call.method == "retain_grad" and call.receiver_node is not None:
        return path_of(call.receiver_node)
    keyword = call.keywords.get("requires_grad")
    if keyword is not None and keyword.value.literal is True and call.names(_VARIABLES):
        return assigned
    return None
