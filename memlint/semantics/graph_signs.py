"""What code says of a value of unknown origin: is it part of an autograd graph, as far as its author knows?"""

from __future__ import annotations

from collections.abc import Iterator

import libcst as cst

from memlint.semantics import layer_inputs
from memlint.semantics.events import Call, Use
from memlint.semantics.module import Module
from memlint.semantics.naming import words_of
from memlint.semantics.scopes import Scope, parameters, path_of
from memlint.semantics.values import Proof, Value

# Only who thinks of the graph reads these.
_GRAPH_ATTRIBUTES = frozenset({"requires_grad", "grad_fn", "is_leaf", "grad"})
_GRAPH_METHODS = frozenset({"requires_grad_", "retain_grad", "backward"})
# A function called so is given what hangs on a graph: it cuts it off.
_CUTTING_WORDS = frozenset({"detach", "detached", "detaching", "repackage", "repackaged"})
_LOSS_WORDS = frozenset({"loss", "losses"})
# What is called so is a module, or part of one.
_MODULE_WORDS = frozenset(
    """model net network encoder decoder backbone generator discriminator actor critic policy student transformer unet
    lstm gru rnn embedder""".split()
)
_PARAMETER_NAMES = frozenset({"weight", "bias"})
_FORWARD_HOOK = "register_forward_hook"
_OF_A_FORWARD_HOOK = 3


def carries_by_signs(module: Module, expression: cst.BaseExpression, value: Value, at: Call) -> bool:
    """Somebody who wrote this code took the value for part of a graph, or for a tensor that may be."""
    if _cuts(at.scope) or _is_loss(expression) or _is_of_layer_input(module, value, at):
        return True
    roots = {item.root for item in module.analysis.basis(value.conditions) if isinstance(item, Proof)}
    return bool(roots) and all(_has_sign(module, root, at) for root in roots)


def _is_of_layer_input(module: Module, value: Value, at: Call) -> bool:
    """What a norm or a loss is given, or computes of it: the outputs of other layers."""
    flow, owner = module.flow_of(at.scope), at.scope.enclosing_class()
    if flow is None or owner is None or not value.carries_graph:
        return False
    is_behind = layer_inputs.is_named_inner_layer(owner.name) or not words_of(owner.name).isdisjoint(_LOSS_WORDS)
    return is_behind and layer_inputs.ground(module, flow, value) is not None


def _cuts(scope: Scope) -> bool:
    """`repackage_hidden(h)`: the function is there for it."""
    function: Scope | None = scope
    while function is not None and function.is_function:
        if not words_of(function.name).isdisjoint(_CUTTING_WORDS):
            return True
        function = function.parent
    return False


def _is_loss(expression: cst.BaseExpression) -> bool:
    """The name's last word says what it is: `ce_loss`, not `loss_weights`."""
    name = (path_of(expression) or "").rpartition(".")[2].strip("_")
    return not words_of(name.rpartition("_")[2]).isdisjoint(_LOSS_WORDS)


def _has_sign(module: Module, root: int, at: Call) -> bool:
    return root in module.once(_shown_to_carry) or any(
        _is_source(module, origin, at) for origin in _origins(module, root)
    )


def _shown_to_carry(module: Module) -> frozenset[int]:
    """The definitions that are used as only something with a graph is."""
    return frozenset(root for root, uses in module.analysis.uses.items() if any(map(_shows_graph, uses)))


def _is_source(module: Module, origin: cst.CSTNode, at: Call) -> bool:
    if isinstance(origin, cst.Param):
        return _is_loss(origin.name) or _is_of_hook(module, at.scope, origin)
    if isinstance(origin, cst.Call):
        return _runs_module(origin) or (isinstance(origin.func, cst.Attribute) and is_parameter(origin.func.value))
    return is_parameter(origin) or (isinstance(origin, (cst.Name, cst.Attribute)) and _is_loss(origin))


def is_parameter(node: cst.CSTNode) -> bool:
    """`layer.weight`"""
    return isinstance(node, cst.Attribute) and node.attr.value in _PARAMETER_NAMES


def _shows_graph(use: Use) -> bool:
    if use.how == "attribute":
        return use.detail in _GRAPH_ATTRIBUTES
    return use.how == "method" and use.detail in _GRAPH_METHODS


def _runs_module(node: cst.Call) -> bool:
    """`self.encoder(x)`, `policy.forward(x)`."""
    path = path_of(node.func) or ""
    name = path.removesuffix(".forward").rpartition(".")[2]
    return not words_of(name.rpartition("_")[2]).isdisjoint(_MODULE_WORDS)


def _origins(module: Module, root: int) -> Iterator[cst.CSTNode]:
    """The parameter (of a function) that the value is, or what it is an item of."""
    made = module.analysis.roots[root]
    yield made.node
    func = made.node.func if isinstance(made.node, cst.Call) else None
    takes_parts = isinstance(func, cst.Attribute) and func.attr.value in ("items", "values")
    if takes_parts or isinstance(made.node, (cst.Name, cst.Subscript, cst.Tuple)):
        for ancestor in made.ancestors:
            yield module.analysis.roots[ancestor].node


def _is_of_hook(module: Module, scope: Scope, param: cst.Param) -> bool:
    """The inputs or the outputs that a forward hook `(module, inputs, outputs)` is given."""
    if _FORWARD_HOOK not in module.words or not isinstance(scope.node, (cst.FunctionDef, cst.Lambda)):
        return False
    names = [item.name.value for item in parameters(scope.node.params)]
    if scope.parent is not None and scope.parent.is_class:
        names = names[1:]
    if any("grad" in words_of(name) for name in names):
        return False  # a backward hook
    return len(names) == _OF_A_FORWARD_HOOK and param.name.value in names[1:]
