"""What a forward hook leaves behind on the module, or on the object that it is a method of.

The hook goes with its handle; what it has stored stays until the module dies, unless somebody takes it away.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

import libcst as cst

from memlint.semantics.events import Call
from memlint.semantics.hooked_lists import stores_in_outer_lists
from memlint.semantics.hooks import handle_is_lost
from memlint.semantics.knowledge import hooks as known
from memlint.semantics.knowledge.predictions import MODEL_WORDS
from memlint.semantics.module import Module
from memlint.semantics.naming import words_of
from memlint.semantics.scopes import Scope, chain_of, parameters, path_of, target_names, walk
from memlint.semantics.step_outputs import attribute_of, is_emptied
from memlint.semantics.values import Kind, Mode

# What leaves a tensor a tensor of the same size on the same device.
_KEEPING = frozenset({"detach", "clone", "contiguous", "requires_grad_", "detach_", "data"})
_TO_HOST = frozenset({"cpu"})
_FILLING = frozenset({"append", "insert", "setitem"})
# Code with one of these words may take attributes away by another way.
_DYNAMIC = frozenset({"delattr", "setattr", "__dict__", "vars", "deepcopy"})


class Left(Enum):
    AFTER_REMOVAL = "after removal"
    """The hook is removed, its activation stays on the module."""
    WITH_GRAPH = "with graph"
    """A copy on the host, which keeps the graph on the device."""
    PILED_UP = "piled up"
    """One for each forward pass, in a list that nobody empties."""


@dataclass(frozen=True, eq=False)
class HookedActivation:
    node: cst.CSTNode
    source: cst.BaseExpression
    """The expression that is kept."""
    path: str
    left: Left


@dataclass(frozen=True, eq=False)
class _Hook:
    call: Call
    scope: Scope
    module_name: str
    given: frozenset[str]
    """The parameters with inputs and outputs."""
    is_pre: bool


def hooked_activations(module: Module) -> Iterator[HookedActivation]:
    if module.words.isdisjoint(known.FORWARD_HOOKS):
        return
    seen: set[int] = set()
    for hook in _forward_hooks(module):
        for found in (*_left_on_module(module, hook), *_copied_with_graph(module, hook), *_piled_up(module, hook)):
            if id(found.node) not in seen:
                seen.add(id(found.node))
                yield found


def _forward_hooks(module: Module) -> Iterator[_Hook]:
    """The functions of this file that are registered, directly or as methods of the registering object."""
    for call in module.calls:
        if call.method not in known.FORWARD_HOOKS or not call.positional:
            continue
        quals = call.positional[0].value.quals
        scope = module.analysis.scope_named(next(iter(quals))) if len(quals) == 1 else None
        if scope is None or not isinstance(scope.node, cst.FunctionDef):
            continue
        names = [param.name.value for param in parameters(scope.node.params)]
        if scope.parent is not None and scope.parent.is_class:
            names = names[1:]
        if len(names) > 1:
            yield _Hook(call, scope, names[0], frozenset(names[1:]), call.method != "register_forward_hook")


# --- on the module ---


def _left_on_module(module: Module, hook: _Hook) -> Iterator[HookedActivation]:
    """`module.output = output.detach()`, where the file removes the hooks and nobody the attribute."""
    if "remove" not in module.words or handle_is_lost(hook.call) or not module.words.isdisjoint(_DYNAMIC):
        return
    flow = module.flow_of(hook.scope)
    for store in flow.attribute_stores if flow is not None else ():
        if store.path != f"{hook.module_name}.{store.name}" or not _is_activation(store.source, hook):
            continue
        if not _is_taken_away(module, store.name, hook.scope):
            yield HookedActivation(store.node, store.source, store.path, Left.AFTER_REMOVAL)


def _is_activation(expression: cst.BaseExpression, hook: _Hook) -> bool:
    """`output`, `inputs[0].clone().detach()`: no shape, no mean, nothing on the host."""
    node = expression
    while not isinstance(node, cst.Name):
        if isinstance(node, cst.Call):
            if not isinstance(node.func, cst.Attribute) or node.func.attr.value not in _KEEPING:
                return False
            node = node.func.value
        elif isinstance(node, cst.Subscript) or (isinstance(node, cst.Attribute) and node.attr.value in _KEEPING):
            node = node.value
        else:
            return False
    return node.value in hook.given


def _is_taken_away(module: Module, name: str, hook: Scope) -> bool:
    """Deleted, set to None or anew outside of the hook, or named by a string, here or in the rest of the project."""
    inside = {id(node) for node in walk(hook.node)}
    for node in walk(module.tree):
        if isinstance(node, cst.SimpleString) and node.evaluated_value == name:
            return True
        targets: list[cst.BaseExpression] = []
        if isinstance(node, cst.Del):
            targets = [node.target]
        elif isinstance(node, cst.Assign) and id(node) not in inside:
            targets = [target.target for target in node.targets]
        parts = (part for target in targets for part in walk(target))
        if any(isinstance(part, cst.Attribute) and part.attr.value == name for part in parts):
            return True
    view = module.analysis.view
    if view is None:
        return False
    deleted, cleared = rf"del\s[^\n]*\.{name}\b", rf"\.{name}\s*=\s*None"
    return view.another_file_matches((deleted,), (cleared,), ("delattr|__dict__", rf"[\"']{name}[\"']"))


# --- with its graph ---


def _copied_with_graph(module: Module, hook: _Hook) -> Iterator[HookedActivation]:
    """`self.activations.append(output.cpu())` beside a hook for gradients, which says that grad mode is on."""
    owner = hook.scope.enclosing_class()
    if owner is None or hook.is_pre or owner.words_within.isdisjoint(known.GRADIENT_HOOKS):
        return
    flow = module.flow_of(hook.scope)
    if flow is None:
        return
    tensors = _derived(hook)
    for store in flow.stores:
        is_kept = store.how in _FILLING and (store.path or "").startswith("self.") and store.mode is not Mode.OFF
        if is_kept and _is_host_copy(store.value_node, tensors):
            yield HookedActivation(store.node, store.value_node, store.path or "", Left.WITH_GRAPH)
    for item in flow.attribute_stores:
        is_kept = (item.path or "").startswith("self.") and item.mode is not Mode.OFF
        if is_kept and _is_host_copy(item.source, tensors):
            yield HookedActivation(item.node, item.source, item.path or "", Left.WITH_GRAPH)


def _derived(hook: _Hook) -> frozenset[str]:
    """The last parameter, the output, and the names that it gets: no copy without its graph."""
    assert isinstance(hook.scope.node, cst.FunctionDef)
    output = parameters(hook.scope.node.params)[-1].name.value
    names = {output}
    for node in walk(hook.scope.node):
        if isinstance(node, cst.Assign) and {path_of(node.value)} & names:
            for target in node.targets:
                names.update(target_names(target.target))
    for node in walk(hook.scope.node):
        if isinstance(node, cst.Assign) and path_of(node.value) not in names:
            for target in node.targets:
                bound = set(target_names(target.target)) & names
                if bound and not _passes_on(node.value, names):
                    names -= bound
    return frozenset(names)


def _passes_on(value: cst.BaseExpression, names: set[str]) -> bool:
    """`self.reshape(activation)`, `output[0]`: the graph goes along."""
    if isinstance(value, cst.Subscript):
        return path_of(value.value) in names
    if not isinstance(value, cst.Call) or any(part.func.attr.value == "detach" for part in chain_of(value)):  # type: ignore[attr-defined]
        return False
    return any(path_of(argument.value) in names for argument in value.args)


def _is_host_copy(expression: cst.BaseExpression, tensors: frozenset[str]) -> bool:
    chain = list(chain_of(expression))
    methods = {call.func.attr.value for call in chain}  # type: ignore[attr-defined]
    if not methods & _TO_HOST or not methods <= _TO_HOST | {"clone", "float", "contiguous"}:
        return False
    inner = chain[-1].func.value  # type: ignore[attr-defined]
    while isinstance(inner, cst.Subscript):
        inner = inner.value
    return path_of(inner) in tensors


# --- in a list ---


def _piled_up(module: Module, hook: _Hook) -> Iterator[HookedActivation]:
    """`activations.append(output)`; `self.activations.append(output)`, of an object that runs the model itself."""
    for store in stores_in_outer_lists(module, hook.scope):
        if _is_activation(store.value_node, hook):
            yield HookedActivation(store.node, store.value_node, store.path or "", Left.PILED_UP)
    owner, flow = hook.scope.parent, module.flow_of(hook.scope)
    if owner is None or not owner.is_class or flow is None or "remove" in owner.words_within:
        return  # the hook goes, and the object mostly with it
    if owner not in module.once(_running_models):
        return
    for store in flow.stores:
        attribute = attribute_of(store)
        if store.how not in _FILLING or store.how == "setitem" or attribute is None or store.guarded:
            continue
        boxes = [module.box(box) for box in store.boxes]
        if not boxes or any(box.bounded for box in boxes) or not _is_activation(store.value_node, hook):
            continue
        if not is_emptied(module, owner, attribute, store):
            yield HookedActivation(store.node, store.value_node, store.path or "", Left.PILED_UP)


def _running_models(module: Module) -> frozenset[Scope | None]:
    """The classes of which a method runs a model."""
    return frozenset(call.scope.parent for call in module.calls if _runs_it(call))


def _runs_it(call: Call) -> bool:
    """`self.model(x)`, wherever the model came from."""
    path = path_of(call.call.func) or ""
    is_own = path.startswith("self.") and not words_of(path.rpartition(".")[2]).isdisjoint(MODEL_WORDS)
    return call.scope.name != "__init__" and (call.is_forward or (is_own and call.callee.kind is Kind.UNKNOWN))
