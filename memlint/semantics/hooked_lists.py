"""Lists outside of a forward hook that it makes longer in each pass, and of which nobody takes more than an item."""

from __future__ import annotations

from collections.abc import Iterator

import libcst as cst

from memlint.semantics.events import Store
from memlint.semantics.module import Module
from memlint.semantics.scopes import Scope, path_of, walk

_FILLING = frozenset({"append", "insert"})


def stores_in_outer_lists(module: Module, hook: Scope) -> Iterator[Store]:
    """`activations.append(output)`, where `activations` is a variable of the file, or of the function around the hook.

    A hook that is removed fills it no longer; a list that is made where the hook is registered for one forward pass
    goes with the function.
    """
    flow = module.flow_of(hook)
    if flow is None or "remove" in module.words:
        return
    for store in flow.stores:
        name = store.path or ""
        if store.how not in _FILLING or store.guarded or not name.isidentifier():
            continue
        owner = _owner(hook, name)
        if owner is None or not _is_run_often(module, owner) or not _stays_a_list(module, store, name):
            continue
        yield store


def _owner(hook: Scope, name: str) -> Scope | None:
    """The scope outside of the hook whose variable it is."""
    if name in hook.bound:
        return None
    scope = hook.parent
    while scope is not None and (scope.is_class or name not in scope.bound):
        scope = scope.parent
    return scope


def _is_run_often(module: Module, owner: Scope) -> bool:
    """A loop runs a model while the list lives."""
    loops = [loop for loop in module.loops if loop.has_forward and not loop.is_comprehension]
    return any(owner.parent is None or loop.scope is owner for loop in loops)


def _stays_a_list(module: Module, store: Store, name: str) -> bool:
    """It is bound once, to an empty list, and read an item at a time: nobody wants the whole list, or empties it."""
    harmless = {id(store.target)}
    bindings = 0
    for node in walk(module.tree):
        if isinstance(node, cst.Assign) and any(path_of(target.target) == name for target in node.targets):
            bindings += 1
            harmless |= {id(target.target) for target in node.targets}
            if not isinstance(node.value, cst.List) or node.value.elements:
                return False
        elif isinstance(node, cst.Subscript) and _takes_one(node):
            harmless.add(id(node.value))
    names = (node for node in walk(module.tree) if isinstance(node, cst.Name) and node.value == name)
    return bindings == 1 and all(id(node) in harmless for node in names)


def _takes_one(node: cst.Subscript) -> bool:
    """`activations[-1]`, `activations[0]`."""
    index = node.slice[0].slice if len(node.slice) == 1 else None
    value = index.value if isinstance(index, cst.Index) else None
    if isinstance(value, cst.UnaryOperation):
        value = value.expression
    return isinstance(value, cst.Integer)
