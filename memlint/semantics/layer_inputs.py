"""Layers inside of a network: what they are given in training was computed by other layers, and carries a graph."""

from __future__ import annotations

import libcst as cst

from memlint.semantics.events import Call
from memlint.semantics.flow import Flow
from memlint.semantics.keepers import bound_parameter
from memlint.semantics.knowledge import normalisers as known
from memlint.semantics.modes import is_layer_method
from memlint.semantics.module import Module
from memlint.semantics.naming import words_of
from memlint.semantics.questions import GradOnEntry, Question
from memlint.semantics.scopes import Scope, parameters
from memlint.semantics.values import Condition, Kind, Mode, Proof, Value


def ground(module: Module, flow: Flow, value: Value) -> tuple[bool, frozenset[Question]] | None:
    """Whether it surely carries a graph, or as the input of a layer does; None: nobody knows."""
    questions = module.questions(value.conditions)
    if questions is not None:
        return True, questions
    owner = flow.scope.enclosing_class()
    if owner is None or not stands_in_network(module, owner):
        return None
    left = module.analysis.basis(value.conditions)
    asked = asked_of_input(module, flow.scope, left)
    return None if asked is None else (False, asked)


def asked_of_input(
    module: Module, scope: Scope, left: frozenset[Condition], seen: frozenset[Scope] = frozenset()
) -> frozenset[Question] | None:
    """What is left to ask where only the input of the layer must carry a graph; None: something else must, too."""
    entry = GradOnEntry(scope.qualname)
    layer_input = _first_input(module, scope)
    if is_layer_method(scope.name, scope.words) and all(
        item == entry or (isinstance(item, Proof) and item.root == layer_input) for item in left
    ):
        return frozenset({entry}) & left
    return None if scope in seen else _asked_of_callers(module, scope, left, seen | {scope})


def _asked_of_callers(
    module: Module, scope: Scope, left: frozenset[Condition], seen: frozenset[Scope]
) -> frozenset[Question] | None:
    """`self._update(x.mean(0))` in the forward of the class: the helper's parameters are what its callers give."""
    entry, owner = GradOnEntry(scope.qualname), scope.enclosing_class()
    node = scope.node
    names = (
        {module.analysis.root_for(p): p.name.value for p in parameters(node.params)}
        if isinstance(node, cst.FunctionDef)
        else {}
    )
    by_name = {name: root for root, name in names.items()}
    needed = {_whole(module, item.root, by_name) for item in left if isinstance(item, Proof)}
    if (
        owner is None
        or not needed
        or not needed <= set(names)
        or any(not isinstance(item, Proof) and item != entry for item in left)
    ):
        return None
    asked: frozenset[Question] = frozenset({entry}) & left
    found = False
    for method in owner.children:
        for call in module.calls_in(method) if scope.name in method.words else ():
            if call.callee.quals != {scope.qualname} or method is scope:
                continue
            for root in needed:
                value = _given(scope, call, names[root])
                if value is None or not value.carries_graph or call.mode is Mode.OFF:
                    return None
                more = asked_of_input(module, method, module.analysis.basis(value.conditions), seen)
                if more is None:
                    return None
                asked |= more
                found = True
    return asked if found else None


def _whole(module: Module, root: int, by_name: dict[str, int]) -> int:
    """The parameter `f` of which `f[y == c]` are rows; otherwise the definition itself."""
    node = module.analysis.roots[root].node
    while isinstance(node, cst.Subscript):
        node = node.value
    return by_name.get(node.value, root) if isinstance(node, cst.Name) else root


def _given(scope: Scope, call: Call, name: str) -> Value | None:
    """What a call of a method gives for one of its parameters."""
    for argument in (*call.positional, *call.keywords.values()):
        if bound_parameter(scope, call, argument) == name:
            return argument.value
    return None


def stands_in_network(module: Module, owner: Scope) -> bool:
    """Whether the class is a module that has parameters, or is named for what stands behind other layers."""
    return _is_module(module, owner) and _learns(module, owner)


def _is_module(module: Module, owner: Scope) -> bool:
    """Whether torch, or a buffer that the class registers, says that it is a module; its base may be out of view."""
    return module.surely_a_module(owner) or "register_buffer" in owner.words_within


def _first_input(module: Module, scope: Scope) -> int | None:
    """The definition of `x` in `forward(self, x, momentum)`."""
    node = scope.node
    given = parameters(node.params)[1:2] if isinstance(node, cst.FunctionDef) else []
    return module.analysis.root_for(given[0]) if given else None


def is_named_inner_layer(name: str) -> bool:
    """Whether a class is named for what only ever stands behind other layers: a batch norm, a codebook."""
    words = words_of(name)
    return bool(words & known.INNER_LAYERS) or (bool(words & known.NORMS) and bool(words & known.NORMED))


def _learns(module: Module, owner: Scope) -> bool:
    """Whether the class has parameters or layers: it stands inside a network, its input was computed by others."""
    if "Parameter" in owner.words_within or is_named_inner_layer(owner.name) or module.mentions(known.OVER_CHANNELS):
        return True
    names = {name for method in owner.children for name in method.attributes_stored}
    members = (module.analysis.member(owner.qualname, name) for name in sorted(names))
    return any(member is not None and member.kind is Kind.MODULE for member in members)
