"""Running statistics that are computed from their own last value together with an autograd graph (catalogue, item 11).

A decayed mean on an object, `self.mean = 0.9 * self.mean + 0.1 * x.mean(0)`, and a moving average of weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import libcst as cst

from memlint.semantics.events import Call, Loop, Store
from memlint.semantics.flow import Flow
from memlint.semantics.module import Module
from memlint.semantics.questions import GradOnEntry, Question
from memlint.semantics.retention import retention_of
from memlint.semantics.scopes import Scope, parameters, path_of, walk
from memlint.semantics.values import Grad, Kind, Mode, Proof, Value

_ADDING = frozenset({"add_", "lerp_"})
_SCALING = frozenset({"mul_", "div_"})
_KEEPS_GRAPH = frozenset({"to", "cpu", "cuda", "clone", "float"})


@dataclass(frozen=True, eq=False)
class RunningStat:
    """An update of a statistic from its own last value and something that carries a graph."""

    node: cst.CSTNode
    statistic: cst.BaseExpression
    added: tuple[cst.BaseExpression, ...]
    """The expressions that bring the graph in."""
    of_weights: bool
    """What is averaged are parameters."""
    certain: bool
    """The code in view proves that there is a graph; otherwise a layer's input is taken to carry one."""
    questions: frozenset[Question]


def running_stats(module: Module) -> Iterator[RunningStat]:
    for flow in module.flows:
        if not flow.scope.is_function or flow.scope.name == "__init__":
            continue
        for store in flow.stores:
            found = _assigned(module, flow, store) if store.how == "accumulate" else _averaged_weights(module, store)
            if found is not None:
                yield found
        for call in flow.calls:
            if call.method in _ADDING:
                found = _in_place(module, flow, call)
                if found is not None:
                    yield found


# --- attributes of an object ---


def _assigned(module: Module, flow: Flow, store: Store) -> RunningStat | None:
    """`self.mean = 0.9 * self.mean + 0.1 * e`, once in each call of a method."""
    attribute = _own_attribute(store.target)
    if attribute is None or not isinstance(store.statement, cst.Assign) or not store.value.carries_graph:
        return None
    if not _decays(store.statement.value, attribute) or store.mode in (Mode.OFF, Mode.UNKNOWN):
        return None
    if store.root in module.analysis.differentiated or store.root in flow.return_roots:
        return None  # a state that the output depends on
    if retention_of(module, store) is not None:
        return None  # MEM101
    ground = _ground(module, flow, store.value)
    if ground is None:
        return None
    added = tuple(node for node, _ in store.carriers) or (store.value_node,)
    return RunningStat(store.statement, store.target, added, False, *ground)


def _in_place(module: Module, flow: Flow, call: Call) -> RunningStat | None:
    """`self.mean.mul_(0.9).add_(e)`, `self.mean.lerp_(e, 0.1)`."""
    target = call.receiver_node
    scaled = call.method == "lerp_"
    while isinstance(target, cst.Call) and isinstance(target.func, cst.Attribute):
        if target.func.attr.value not in _SCALING:
            return None
        scaled, target = True, target.func.value
    if target is None or not scaled or not call.positional or call.mode in (Mode.OFF, Mode.UNKNOWN):
        return None
    if isinstance(target, cst.Name):
        return _averaged_in_place(module, flow, call, target)
    attribute = _own_attribute(target)
    owner = flow.scope.enclosing_class()
    if attribute is None or owner is None:
        return None
    if not _is_plain_tensor(module, owner, attribute):
        return None  # a parameter: torch raises
    argument = call.positional[-1]
    if call.method == "lerp_":
        argument = call.positional[0]
    if not argument.value.carries_graph:
        return None
    ground = _ground(module, flow, argument.value)
    return None if ground is None else RunningStat(call.node, target, (argument.expression,), False, *ground)


def _is_plain_tensor(module: Module, owner: Scope, attribute: str) -> bool:
    """Whether the attribute is a buffer, or a tensor that requires no grad at first."""
    for method in owner.children:
        for call in module.calls_in(method):
            if call.method == "register_buffer" and call.positional and call.positional[0].value.literal == attribute:
                return True
    member = module.analysis.member(owner.qualname, attribute)
    return member is not None and member.is_tensor and member.grad is Grad.NO


def _own_attribute(node: cst.BaseExpression) -> str | None:
    path = path_of(node)
    return (
        path.removeprefix("self.") if path is not None and path.startswith("self.") and path.count(".") == 1 else None
    )


def _decays(node: cst.BaseExpression, attribute: str) -> bool:
    """Whether the last value is scaled: `0.9 * self.mean + ...`. A plain sum is a total."""
    path = f"self.{attribute}"
    for part in walk(node):
        is_scaled = isinstance(part, cst.BinaryOperation) and isinstance(part.operator, (cst.Multiply, cst.Divide))
        if is_scaled and path in (path_of(part.left), path_of(part.right)):  # type: ignore[attr-defined]
            return True
    return False


def _ground(module: Module, flow: Flow, value: Value) -> tuple[bool, frozenset[Question]] | None:
    """Whether it surely carries a graph, or as the input of a layer does; None: nobody knows."""
    questions = module.questions(value.conditions)
    if questions is not None:
        return True, questions
    scope = flow.scope
    owner = scope.enclosing_class()
    if owner is None or scope.name != "forward" or not module.surely_a_module(owner) or not _learns(module, owner):
        return None
    entry = GradOnEntry(scope.qualname)
    left = module.analysis.basis(value.conditions)
    layer_input = _first_input(module, scope)
    if all(item == entry or (isinstance(item, Proof) and item.root == layer_input) for item in left):
        return False, frozenset({entry}) & left
    return None


def _first_input(module: Module, scope: Scope) -> int | None:
    """The definition of `x` in `forward(self, x, momentum)`."""
    node = scope.node
    given = parameters(node.params)[1:2] if isinstance(node, cst.FunctionDef) else []
    return module.analysis.root_for(given[0]) if given else None


def _learns(module: Module, owner: Scope) -> bool:
    """Whether the class has parameters or layers: it stands inside a network, its input was computed by others."""
    if "Parameter" in owner.words_within:
        return True
    names = {name for method in owner.children for name in method.attributes_stored}
    members = (module.analysis.member(owner.qualname, name) for name in sorted(names))
    return any(member is not None and member.kind is Kind.MODULE for member in members)


# --- moving averages of weights ---


def _averaged_weights(module: Module, store: Store) -> RunningStat | None:
    """`self.shadow[name] = d * self.shadow[name] + (1 - d) * param` over `model.named_parameters()`."""
    statement = store.statement
    if store.how != "setitem" or not isinstance(statement, cst.Assign) or store.loop is None:
        return None
    if store.mode in (Mode.OFF, Mode.UNKNOWN):
        return None
    target, names = statement.targets[0].target, _parameter_names(store.loop)
    average = _resolved(statement.value, store.loop) if names else None
    if average is None or not _takes_up(average, module.text(target, 1000), module):
        return None
    added = tuple(_bare(average, names))
    if not added:
        return None
    questions = frozenset({GradOnEntry(store.scope.qualname)}) if store.mode is Mode.ENTRY else frozenset()
    # `if p.requires_grad:` says that there are such; else all of them may be frozen.
    return RunningStat(statement, target, added, True, "requires_grad" in store.scope.words, questions)


def _averaged_in_place(module: Module, flow: Flow, call: Call, average: cst.Name) -> RunningStat | None:
    """`avg.mul_(0.999).add_(p, alpha=0.001)` over `zip(averages, net.parameters())`.

    An average that is a parameter itself must be frozen: else torch raises.
    """
    loop = call.loop
    if loop is None or not isinstance(loop.node, cst.For) or not isinstance(loop.node.target, cst.Tuple):
        return None
    zipped = loop.iterable if isinstance(loop.iterable, cst.Call) and path_of(loop.iterable.func) == "zip" else None
    if zipped is None or len(zipped.args) != len(loop.node.target.elements):
        return None
    sources = {
        path_of(element.value): argument.value
        for element, argument in zip(loop.node.target.elements, zipped.args, strict=True)
    }
    parameters_of = {name: _module_path(node) for name, node in sources.items()}
    owner = parameters_of.get(average.value)
    if average.value not in sources or (owner is not None and not module.analysis.is_frozen(flow.scope, owner)):
        return None
    names = frozenset(name for name, model in parameters_of.items() if name is not None and model is not None)
    added = tuple(_bare(call.positional[0].expression, names)) or tuple(_bare(call.positional[-1].expression, names))
    if not added:
        return None
    questions = frozenset({GradOnEntry(call.scope.qualname)}) if call.mode is Mode.ENTRY else frozenset()
    return RunningStat(call.node, average, added, True, False, questions)


def _module_path(node: cst.BaseExpression) -> str | None:
    """`net` of `net.parameters()`."""
    if isinstance(node, cst.Call) and isinstance(node.func, cst.Attribute) and node.func.attr.value == "parameters":
        return path_of(node.func.value)
    return None


def _resolved(node: cst.BaseExpression, loop: Loop) -> cst.BinaryOperation | None:
    """The computation that a value stands for: `average.clone()`, where `average = ...` stands in the loop."""
    while isinstance(node, cst.Call) and isinstance(node.func, cst.Attribute) and node.func.attr.value in _KEEPS_GRAPH:
        node = node.func.value
    if isinstance(node, cst.Name):
        made = [
            item.value
            for item in walk(loop.node)
            if isinstance(item, cst.Assign) and path_of(item.targets[0].target) == node.value
        ]
        node = made[0] if len(made) == 1 else node
    return node if isinstance(node, cst.BinaryOperation) else None


def _parameter_names(loop: Loop) -> frozenset[str]:
    """The names that are parameters in `for name, p in model.named_parameters()`."""
    iterable, node = loop.iterable, loop.node
    if (
        not isinstance(node, cst.For)
        or not isinstance(iterable, cst.Call)
        or not isinstance(iterable.func, cst.Attribute)
    ):
        return frozenset()
    method = iterable.func.attr.value
    target: cst.BaseExpression = node.target
    if method == "named_parameters" and isinstance(target, cst.Tuple) and len(target.elements) == 2:
        target = target.elements[1].value
    elif method != "parameters":
        return frozenset()
    return frozenset({target.value}) if isinstance(target, cst.Name) else frozenset()


def _takes_up(node: cst.BaseExpression, text: str, module: Module) -> bool:
    return any(isinstance(part, cst.Subscript) and module.text(part, 1000) == text for part in walk(node))


def _bare(node: cst.BaseExpression, names: frozenset[str]) -> Iterator[cst.BaseExpression]:
    """Where a parameter itself, and not its `.data` or a detached copy, is an operand."""
    if isinstance(node, cst.Name):
        if node.value in names:
            yield node
    elif isinstance(node, cst.BinaryOperation):
        yield from _bare(node.left, names)
        yield from _bare(node.right, names)
    elif isinstance(node, cst.UnaryOperation):
        yield from _bare(node.expression, names)
    elif isinstance(node, cst.Call) and isinstance(node.func, cst.Attribute) and node.func.attr.value in _KEEPS_GRAPH:
        yield from _bare(node.func.value, names)
