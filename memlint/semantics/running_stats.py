"""Running statistics that are computed from their own last value together with an autograd graph (catalogue, item 11).

A decayed mean on an object, `self.mean = 0.9 * self.mean + 0.1 * x.mean(0)`, and a moving average of weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import libcst as cst

from memlint.semantics import layer_inputs
from memlint.semantics.attribute_reads import AttributeReads
from memlint.semantics.events import Argument, AttributeStore, Call, Loop, Store
from memlint.semantics.flow import Flow
from memlint.semantics.keepers import bound_parameter
from memlint.semantics.module import Module
from memlint.semantics.questions import GradOnEntry, Question
from memlint.semantics.retention import retention_of
from memlint.semantics.scopes import NODES_REMEMBERED, Scope, nodes_of, parameters, path_of, walk
from memlint.semantics.step_outputs import bases_in_view
from memlint.semantics.sums import joined
from memlint.semantics.values import Condition, Grad, Mode, Proof, Value

_ADDING = frozenset({"add_", "sub_", "lerp_", "copy_"})
# Methods, and functions of torch, that compute a new average from the last one.
_AVERAGING = frozenset({"add", "lerp"})
_LERP = frozenset({"torch.lerp"})
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
    by_rows: bool = False
    """Rows of it are written, the others keep what was written before."""


def running_stats(module: Module) -> Iterator[RunningStat]:
    seen: set[int] = set()
    for stat in _all_stats(module):
        if id(stat.node) not in seen:
            seen.add(id(stat.node))
            yield stat


def _all_stats(module: Module) -> Iterator[RunningStat]:
    for flow in module.flows:
        if not flow.scope.is_function or flow.scope.name == "__init__":
            continue
        for store in flow.stores:
            found = _stored(module, flow, store)
            if found is not None:
                yield found
        for call in flow.calls:
            if call.method in _ADDING:
                found = _in_place(module, flow, call)
            elif call.method in _AVERAGING or call.names(_LERP):
                found = _computed(module, flow, call)
            else:
                continue
            if found is not None:
                yield found
        for written in flow.tensors_written:
            found = _written(module, flow, written)
            if found is not None:
                yield found
        yield from _returned(module, flow)


def _stored(module: Module, flow: Flow, store: Store) -> RunningStat | None:
    if store.how != "accumulate" or isinstance(store.target, cst.Subscript):
        return _averaged_weights(module, store)
    if isinstance(store.statement, cst.AugAssign):
        return _augmented(module, flow, store)
    return _assigned(module, flow, store)


# --- attributes of an object ---


def _assigned(module: Module, flow: Flow, store: Store) -> RunningStat | None:
    """`self.mean = 0.9 * self.mean + 0.1 * e`, once in each call of a method."""
    attribute = _own_attribute(store.target)
    if attribute is None or not isinstance(store.statement, cst.Assign) or not store.value.carries_graph:
        return None
    if store.mode in (Mode.OFF, Mode.UNKNOWN):
        return None
    if not _decays(store.statement.value, attribute) and not _is_queue(module, flow, store.statement, attribute):
        return None
    if store.root in module.analysis.differentiated or store.root in flow.return_roots:
        return None  # a state that the output depends on
    if retention_of(module, store) is not None:
        return None  # MEM101
    ground = layer_inputs.ground(module, flow, store.value)
    if ground is None:
        return None
    added = tuple(node for node, _ in store.carriers) or (store.value_node,)
    return RunningStat(store.statement, store.target, added, False, *ground)


def _augmented(module: Module, flow: Flow, store: Store) -> RunningStat | None:
    """`self.mean *= 0.9` and `self.mean += 0.1 * e`; `self.mean += 0.1 * (e - self.mean)`."""
    statement, attribute = store.statement, _own_attribute(store.target)
    if attribute is None or not isinstance(statement, cst.AugAssign) or store.mode in (Mode.OFF, Mode.UNKNOWN):
        return None
    if not store.value.carries_graph or not _is_own_tensor(module, flow, attribute):
        return None
    if not _moves_towards(statement.value, attribute) and not _is_scaled_apart(module, flow, attribute):
        return None
    if retention_of(module, store) is not None:
        return None  # MEM101
    return _updated(module, flow, store.node, store.target, store.value_node, store.value)


def _written(module: Module, flow: Flow, store: AttributeStore) -> RunningStat | None:
    """`self.mean[:] = 0.9 * self.mean + 0.1 * e`; `self.bank[index] = e`, where nobody wants the graph of the bank."""
    target = store.node.value if isinstance(store.node, cst.Subscript) else None
    attribute = _own_attribute(target) if target is not None else None
    if target is None or attribute is None or store.mode in (Mode.OFF, Mode.UNKNOWN):
        return None
    if not _is_own_tensor(module, flow, attribute):
        return None
    by_rows = not _decays(store.source, attribute)
    if by_rows and not _is_read_detached(module, flow, attribute):
        return None
    # In a loop over rows the last value carries the graph of the row before; what is taken up must do so by itself.
    taken_up = (call.result for call in _calls_beside(module, store.source, attribute) if call.result.carries_graph)
    written = _but_for_own(module, store.value, attribute)
    grounds = (layer_inputs.ground(module, flow, value) for value in (written, *taken_up))
    ground = next((ground for ground in grounds if ground is not None), None)
    return None if ground is None else RunningStat(store.statement, target, (store.source,), False, *ground, by_rows)


def _but_for_own(module: Module, value: Value, attribute: str) -> Value:
    """`0.1 * x + 0.9 * self.mean[:, 0]` carries a graph as soon as `x` does, whatever the last value carries."""
    basis = module.analysis.basis(value.conditions)
    of_own = {
        item
        for item in basis
        if isinstance(item, Proof) and _own_attribute(_whole_of(module.analysis.roots[item.root].node)) == attribute
    }
    return Value(value.kind, value.grad, conditions=basis - of_own) if of_own < basis else value


def _calls_beside(module: Module, node: cst.BaseExpression, attribute: str) -> Iterator[Call]:
    """`f.mean(0)` of `0.9 * self.mean[c] + 0.1 * f.mean(0)`."""
    calls = (module.call_at(part) for part in walk(node) if isinstance(part, cst.Call))
    for call in calls:
        if call is not None and not any(_own_attribute(part) == attribute for part in walk(call.node)):
            yield call


def _is_read_detached(module: Module, flow: Flow, attribute: str) -> bool:
    """Whether all reads of the attribute but those of its updates are detached, and no method sets it anew."""
    owner = flow.scope.enclosing_class()
    assert owner is not None
    inside = list(walk(owner.node))
    if any(_sets_anew(node, attribute) for method in _methods_but_init(owner) for node in walk(method.node)):
        return False
    updates = {id(part) for node in inside if _updates(node, attribute) for part in walk(node)}
    own, reads = {id(node) for node in inside}, module.once(AttributeReads)
    others = [
        node
        for node in reads.named(attribute)
        if id(node) not in updates
        and (id(node) in own or path_of(node.value) != "self")
        and not (reads.is_bound(node) or reads.is_looked_at(node))
    ]
    return bool(others) and all(reads.cut(node) is not None or reads.is_read_without_grad(node) for node in others)


def _is_queue(module: Module, flow: Flow, statement: cst.Assign, attribute: str) -> bool:
    """`self.queue = torch.cat([self.queue[n:], e])` of a tensor that nobody reads with its graph."""
    joins = _joins(statement, attribute) and _is_own_tensor(module, flow, attribute)
    return joins and _is_read_detached(module, flow, attribute)


def _joins(node: cst.CSTNode, attribute: str) -> bool:
    """Whether the attribute, or a part of it, is joined with something else."""
    both = joined(node.value) if isinstance(node, cst.Assign) else None
    return both is not None and any(_own_attribute(_whole_of(part)) == attribute for part in both)


def _methods_but_init(owner: Scope) -> Iterator[Scope]:
    return (method for method in owner.children if method.name != "__init__")


def _sets_anew(node: cst.CSTNode, attribute: str) -> bool:
    """Whether the attribute is bound to something else than what it is joined to."""
    targets: list[cst.CSTNode] = []
    if isinstance(node, cst.Assign) and not _joins(node, attribute):
        targets = [part for target in node.targets for part in _elements(target.target)]
    elif isinstance(node, (cst.AnnAssign, cst.AugAssign, cst.For, cst.NamedExpr)):
        targets = list(_elements(node.target))
    return any(_own_attribute(target) == attribute for target in targets)


def _elements(target: cst.BaseExpression) -> Iterator[cst.BaseExpression]:
    yield target
    for element in target.elements if isinstance(target, (cst.Tuple, cst.List)) else ():
        yield from _elements(element.value)


def _updates(node: cst.CSTNode, attribute: str) -> bool:
    """`self.bank[index] = row`, `self.bank[index] -= row`, `self.bank = torch.cat([self.bank[1:], row])`"""
    if _joins(node, attribute):
        return True
    if isinstance(node, cst.AugAssign):
        target: cst.BaseExpression = node.target
    elif isinstance(node, cst.Assign):
        target = node.targets[0].target
    else:
        return False
    return isinstance(target, cst.Subscript) and _own_attribute(target.value) == attribute


def _computed(module: Module, flow: Flow, call: Call) -> RunningStat | None:
    """`self.mean = torch.lerp(self.mean, e, 0.1)`, `self.mean = self.mean.mul(0.9).add(e)`."""
    statement = call.statement
    if not isinstance(statement, cst.Assign) or statement.value is not call.node or len(statement.targets) != 1:
        return None
    given = list(call.positional)
    last = call.receiver_node
    if call.names(_LERP) and given:
        last = given.pop(0).expression
    target = statement.targets[0].target
    attribute = _own_attribute(target)
    if last is None or not given or attribute is None or call.mode in (Mode.OFF, Mode.UNKNOWN):
        return None
    base, scaled = _unscaled(last, frozenset({"mul", "div"}))
    if _own_attribute(base) != attribute or not (scaled or call.method != "add"):
        return None
    argument = given[0] if call.method != "add" else given[-1]
    if not argument.value.carries_graph or not _is_own_tensor(module, flow, attribute):
        return None
    made = call.result.idents | (call.result.roots - argument.value.roots)
    if not made or made & flow.return_roots:
        return None  # a state that the output depends on
    return _updated(module, flow, statement, target, argument.expression, argument.value)


def _in_place(module: Module, flow: Flow, call: Call) -> RunningStat | None:
    """`self.mean.mul_(0.9).add_(e)`, `self.mean.lerp_(e, 0.1)`, `self.mean.copy_(0.9 * self.mean + 0.1 * e)`."""
    if call.receiver_node is None or not call.positional or call.mode in (Mode.OFF, Mode.UNKNOWN):
        return None
    target, scaled = _unscaled(call.receiver_node, _SCALING)
    argument = call.positional[0] if call.method in ("lerp_", "copy_") else call.positional[-1]
    if isinstance(target, cst.Name):
        is_average = call.method == "lerp_" or (call.method == "add_" and scaled)
        return _averaged_in_place(module, flow, call, target) if is_average else None
    attribute = _own_attribute(target)
    if attribute is None or not argument.value.carries_graph:
        return None
    if call.method == "copy_":
        scaled = _decays(argument.expression, attribute)
    elif call.method != "lerp_":
        scaled |= _moves_towards(argument.expression, attribute) or _is_scaled_apart(module, flow, attribute)
    else:
        scaled = True
    if not scaled or not _is_own_tensor(module, flow, attribute):
        return None  # of a parameter: torch raises
    return _updated(module, flow, call.node, target, argument.expression, argument.value)


def _unscaled(node: cst.BaseExpression, scaling: frozenset[str]) -> tuple[cst.BaseExpression, bool]:
    """`self.mean` of `self.mean.mul_(0.9)`, and whether it is scaled."""
    scaled = False
    while isinstance(node, cst.Call) and isinstance(node.func, cst.Attribute) and node.func.attr.value in scaling:
        scaled, node = True, node.func.value
    return node, scaled


def _updated(
    module: Module,
    flow: Flow,
    node: cst.CSTNode,
    statistic: cst.BaseExpression,
    added: cst.BaseExpression,
    value: Value,
) -> RunningStat | None:
    ground = layer_inputs.ground(module, flow, value)
    return None if ground is None else RunningStat(node, statistic, (added,), False, *ground)


def _is_own_tensor(module: Module, flow: Flow, attribute: str) -> bool:
    owner = flow.scope.enclosing_class()
    return owner is not None and _is_plain_tensor(module, owner, attribute)


def _is_scaled_apart(module: Module, flow: Flow, attribute: str) -> bool:
    """`self.mean.mul_(0.9)` or `self.mean *= 0.9` as a statement of its own."""
    return f"self.{attribute}" in _scaled_apart(flow)


@lru_cache(maxsize=NODES_REMEMBERED)
def _scaled_apart(flow: Flow) -> frozenset[str | None]:
    """The paths that the function scales so."""
    calls = (call for call in flow.calls if call.method in _SCALING and call.is_statement)
    scaled = {path_of(call.receiver_node) for call in calls if call.receiver_node is not None}
    for node in nodes_of(flow.scope.node, cst.AugAssign):
        if isinstance(node.operator, (cst.MultiplyAssign, cst.DivideAssign)):
            scaled.add(path_of(node.target))
    return frozenset(scaled)


def _is_plain_tensor(module: Module, owner: Scope, attribute: str) -> bool:
    """Whether the attribute is a buffer, or a tensor that requires no grad at first."""
    buffers = module.once(_buffers)
    if any((cls, attribute) in buffers for cls in (owner, *bases_in_view(module, owner))):
        return True
    if module.analysis.inherits_statistic(owner.qualname, attribute):
        return True
    member = module.analysis.member(owner.qualname, attribute)
    return member is not None and member.is_tensor and member.grad is Grad.NO


def _buffers(module: Module) -> frozenset[tuple[Scope | None, object]]:
    """Class and name of each buffer that a method of the class registers."""
    registering = (call for call in module.calls if call.method == "register_buffer" and call.positional)
    return frozenset((call.scope.parent, call.positional[0].value.literal) for call in registering)


def _own_attribute(node: cst.CSTNode) -> str | None:
    path = path_of(node)
    return (
        path.removeprefix("self.") if path is not None and path.startswith("self.") and path.count(".") == 1 else None
    )


def _decays(node: cst.BaseExpression, attribute: str) -> bool:
    """Whether the last value is scaled: `0.9 * self.mean + ...`. A plain sum is a total."""
    return _is_scaled(node, f"self.{attribute}") or _moves_towards(node, attribute)


def _is_scaled(node: cst.BaseExpression, path: str) -> bool:
    for part in walk(node):
        if not isinstance(part, cst.BinaryOperation) or not isinstance(part.operator, (cst.Multiply, cst.Divide)):
            continue
        if path in (path_of(_whole_of(part.left)), path_of(_whole_of(part.right))):
            return True
    return False


def _whole_of(node: cst.CSTNode) -> cst.CSTNode:
    """`self.covariance` of `self.covariance[:, 0]`."""
    while isinstance(node, cst.Subscript):
        node = node.value
    return node


def _moves_towards(node: cst.BaseExpression, attribute: str) -> bool:
    """`0.1 * (e - self.mean)`: what is added takes away some of the last value."""
    path = f"self.{attribute}"
    for part in walk(node):
        if not isinstance(part, cst.BinaryOperation) or not isinstance(part.operator, (cst.Multiply, cst.Divide)):
            continue
        for side in (part.left, part.right):
            is_distance = isinstance(side, cst.BinaryOperation) and isinstance(side.operator, cst.Subtract)
            if is_distance and path_of(side.right) == path:  # type: ignore[attr-defined]
                return True
    return False


# --- averages that a function of this file returns ---


def _returned(module: Module, flow: Flow) -> Iterator[RunningStat]:
    """`y, self.mean, self.var = batch_norm(x, self.mean, self.var)`, where the function decays what it is given."""
    for store in flow.attribute_stores:
        target = store.node
        assert isinstance(target, cst.Attribute)
        attribute = _own_attribute(target)
        call = module.call_at(store.source) if attribute is not None else None
        if attribute is None or call is None or call.mode in (Mode.OFF, Mode.UNKNOWN) or len(call.callee.quals) != 1:
            continue
        scope = module.analysis.scope_named(min(call.callee.quals))
        inner = module.flow_of(scope) if scope is not None else None
        if scope is None or inner is None or scope is flow.scope:
            continue
        place = _place(store.statement, store.node)
        ground = None if place is None else _decayed_by(module, flow, call, inner, f"self.{attribute}", place)
        if ground is not None:
            yield RunningStat(store.node, target, (call.call,), False, *ground)


def _place(statement: cst.CSTNode, target: cst.CSTNode) -> int | None:
    """Where in `y, self.mean = ...` the target stands; -1: it is the only one."""
    if not isinstance(statement, cst.Assign) or len(statement.targets) != 1:
        return None
    targets = statement.targets[0].target
    if targets is target:
        return -1
    if not isinstance(targets, (cst.Tuple, cst.List)):
        return None
    return next((place for place, element in enumerate(targets.elements) if element.value is target), None)


def _decayed_by(
    module: Module, flow: Flow, call: Call, inner: Flow, path: str, place: int
) -> tuple[bool, frozenset[Question]] | None:
    """Whether the function returns, at the place, the parameter that gets the last value, after it decayed it."""
    scope = inner.scope
    given = {bound_parameter(scope, call, item): item for item in (*call.positional, *call.keywords.values())}
    name = next((name for name, item in given.items() if path_of(item.expression) == path), None)
    owner = flow.scope.enclosing_class()
    if name is None or owner is None:
        return None
    if not layer_inputs.stands_in_network(module, owner):
        return None
    for part in walk(scope.node):
        if not isinstance(part, cst.Assign) or path_of(part.targets[0].target) != name:
            continue
        if _returned_after(scope.node, part, place) != {name}:
            continue
        needed = _needed_by_addend(module, inner, part.value, name, given) if _is_scaled(part.value, name) else None
        asked = None if needed is None else layer_inputs.asked_of_input(module, flow.scope, needed)
        if asked is not None:
            entry = {GradOnEntry(flow.scope.qualname)} if call.mode is Mode.ENTRY else set()
            return False, asked | entry
    return None


def _needed_by_addend(
    module: Module, inner: Flow, average: cst.BaseExpression, name: str, given: dict[str | None, Argument]
) -> frozenset[Condition] | None:
    """What the caller's arguments rest on that give `mean` in `0.9 * moving_mean + 0.1 * mean` its graph."""
    added = {item.value for item in walk(average) if isinstance(item, cst.Name)} - {name}
    made = [
        call
        for call in inner.calls
        if isinstance(call.statement, cst.Assign)
        and call.statement.value is call.node
        and path_of(call.statement.targets[0].target) in added
    ]
    needed: set[Condition] = set()
    for call in made:
        if not call.result.carries_graph or call.mode is Mode.OFF:
            return None
        for item in module.analysis.basis(call.result.conditions):
            if item == GradOnEntry(inner.scope.qualname):
                continue
            of = next((of for of in given if of and item == Proof(_root(module, inner.scope, of))), None)
            if of is None or not given[of].value.carries_graph:
                return None
            needed |= given[of].value.conditions
    return module.analysis.basis(needed) if needed else None


def _root(module: Module, scope: Scope, name: str) -> int:
    node = scope.node
    found = parameters(node.params) if isinstance(node, cst.FunctionDef) else []
    return next((module.analysis.root_for(item) for item in found if item.name.value == name), -1)


def _returned_after(node: cst.CSTNode, statement: cst.CSTNode, place: int) -> set[str]:
    """The names that a function returns at a place of its tuple, in the returns below a statement; `?` for the rest."""
    names: set[str] = set()
    below = False
    for part in walk(node):
        below |= part is statement
        if not below or not isinstance(part, cst.Return):
            continue
        value = part.value
        if place >= 0:
            elements = value.elements if isinstance(value, cst.Tuple) else ()
            value = elements[place].value if place < len(elements) else None
        names.add(value.value if isinstance(value, cst.Name) else "?")
    return names


# --- moving averages of weights ---


def _averaged_weights(module: Module, store: Store) -> RunningStat | None:
    """`self.shadow[name] = d * self.shadow[name] + (1 - d) * param` over `model.named_parameters()`."""
    statement = store.statement
    if store.how not in ("setitem", "accumulate") or not isinstance(statement, cst.Assign) or store.loop is None:
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
    if loop is None or not isinstance(loop.node, cst.For) or not isinstance(loop.item, cst.Tuple):
        return None
    zipped = loop.source if isinstance(loop.source, cst.Call) and path_of(loop.source.func) == "zip" else None
    if zipped is None or len(zipped.args) != len(loop.item.elements):
        return None
    sources = {
        path_of(element.value): argument.value
        for element, argument in zip(loop.item.elements, zipped.args, strict=True)
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
    source, target = loop.source, loop.item
    if not isinstance(loop.node, cst.For) or not isinstance(source, cst.Call):
        return frozenset()
    if not isinstance(source.func, cst.Attribute):
        return frozenset()
    method = source.func.attr.value
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
