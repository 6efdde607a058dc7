"""Modules without parameters: their outputs carry a graph only where their inputs do."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING

import libcst as cst

from memlint.semantics.naming import is_model_name, words_of
from memlint.semantics.scopes import NODES_REMEMBERED, Scope, path_of, walk

if TYPE_CHECKING:
    from memlint.semantics.classes import Classes

# A class that mentions one of these holds parameters, or may.
_HOLDING_WORDS = frozenset(
    """nn Parameter register_parameter register_module add_module ModuleList ModuleDict ParameterList ParameterDict
    Sequential setattr __setattr__ requires_grad_ load from_pretrained""".split()
)
# What is called so and given to the constructor is a function, or a module without parameters.
_FUNCTION_WORDS = frozenset({"fn", "func", "function", "kernel"})


def has_no_parameters(classes: Classes, cls: str) -> bool:
    """A class of this file that holds tensors, settings and functions: nothing in it can be a parameter or a layer."""
    owner = classes.definition(cls)
    if owner is None or classes.base_names(cls) != {"torch.nn.Module"}:
        return False
    return owner.words_within.isdisjoint(_HOLDING_WORDS) and _holds_no_layer(owner)


@lru_cache(maxsize=NODES_REMEMBERED)
def _holds_no_layer(owner: Scope) -> bool:
    methods = {inner.name for inner in owner.children}
    stored = [name for inner in owner.descendants() for name in inner.attributes_stored]
    if not stored or any(is_model_name(name) for name in stored):
        return False
    return not any(_may_hold(node, methods, owner) for node in walk(owner.node))


def _may_hold(node: cst.CSTNode, methods: set[str], owner: Scope) -> bool:
    """Whether this node stores what may be a layer or a parameter, runs one, or asks for a gradient."""
    if isinstance(node, cst.Assign) and any(_stores_attribute(item.target) for item in node.targets):
        return not all(_makes_tensor(call, methods) for call in _outermost_calls(node.value))
    if isinstance(node, cst.Call):
        return not _runs_no_layer(node, methods, owner)
    if isinstance(node, cst.Arg) and node.keyword is not None and node.keyword.value == "requires_grad":
        return path_of(node.value) != "False"
    return isinstance(node, cst.AnnAssign) and node.value is not None and _stores_attribute(node.target)


def _stores_attribute(target: cst.BaseExpression) -> bool:
    return any(isinstance(node, cst.Attribute) for node in walk(target))


def _outermost_calls(node: cst.CSTNode) -> Iterator[cst.Call]:
    """The calls whose results the value holds, not those that only serve as their arguments."""
    pending = [node]
    while pending:
        current = pending.pop()
        if isinstance(current, cst.Call):
            yield current
        else:
            pending.extend(current.children)


def _makes_tensor(call: cst.Call, methods: set[str]) -> bool:
    """`torch.zeros(n)`, `self.tensor(data)`: of a class (`Linear(n, m)`) or another function nobody knows."""
    head, _, name = (path_of(call.func) or "").rpartition(".")
    return name.islower() and (head == "torch" or (head == "self" and name in methods))


def _runs_no_layer(call: cst.Call, methods: set[str], owner: Scope) -> bool:
    path = path_of(call.func) or ""
    if not path.startswith("self."):
        return True
    name = path.split(".")[1]
    if name in methods or not words_of(name).isdisjoint(_FUNCTION_WORDS):
        return True
    return path.count(".") > 1 and not _may_be_given(owner, name)


@lru_cache(maxsize=NODES_REMEMBERED)
def _may_be_given(owner: Scope, name: str) -> bool:
    """`self.net = net`: what the caller gives may be a module, of which a method is called."""
    assigned = (node for node in walk(owner.node) if isinstance(node, cst.Assign))
    values = [node.value for node in assigned if any(path_of(item.target) == f"self.{name}" for item in node.targets)]
    return not values or any(isinstance(value, (cst.Name, cst.Attribute)) for value in values)
