"""Tensors that a `torch.autograd.Function` keeps as attributes of its context, where no backward pass frees them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum

import libcst as cst

from memlint.semantics.autograd_functions import tensor_inputs, tensor_names
from memlint.semantics.events import Argument, AttributeStore, Call
from memlint.semantics.flow import Flow
from memlint.semantics.knowledge import torch as known
from memlint.semantics.module import Module
from memlint.semantics.scopes import Scope, parameters, path_of, target_names, walk
from memlint.semantics.values import NO_GRAD_TENSOR, Kind, Value

_WORDS = frozenset({"Function", "InplaceFunction", "NestedIOFunction"})
_CONTEXT_METHODS = ("forward", "setup_context")
# Of a whole tensor these make a single number.
_REDUCTIONS = frozenset("sum mean max min norm numel any all std var prod median amax amin".split())


class Kept(Enum):
    OUTPUT = "output"
    """The context keeps the output, the output its context: a cycle."""
    TENSOR = "tensor"
    SEVERAL = "several"
    """A tuple, list or dictionary with tensors in it."""


@dataclass(frozen=True, eq=False)
class ContextTensor:
    """`ctx.name = tensor`."""

    store: AttributeStore
    kept: Kept
    function: Scope
    """The class."""
    reads: tuple[cst.Attribute, ...]
    """Where the attribute is read, in all of the class."""
    saves_others: bool
    """The class calls `save_for_backward` too."""
    is_alone: bool
    """The attribute is set once, by a statement that does nothing else."""
    is_cleared: bool
    """Another method takes it away again: where it runs, which it does in a backward pass only."""
    is_short_lived: bool
    """Reversible layers: the graph is built inside a backward pass, differentiated there and dropped at once."""


@dataclass(frozen=True, eq=False)
class _Setup:
    """A function that fills the context: `forward`, `setup_context`, or one that is handed the context by these."""

    scope: Scope
    context: str
    outputs: str | None
    """The parameter with what `forward` has returned."""


def context_tensors(module: Module) -> Iterator[ContextTensor]:
    if module.words.isdisjoint(_WORDS):
        return
    seen: set[int] = set()
    for flow in module.flows:
        function = _function_of(module, flow.scope)
        if function is not None:
            for found in _kept_by(module, flow, function):
                if id(found.store.node) not in seen:  # two classes may share a helper
                    seen.add(id(found.store.node))
                    yield found


def _function_of(module: Module, scope: Scope) -> Scope | None:
    owner = scope.parent
    if scope.name not in _CONTEXT_METHODS or owner is None or not owner.is_class:
        return None
    return None if module.analysis.base_names(owner.qualname).isdisjoint(known.AUTOGRAD_FUNCTIONS) else owner


def _setups(module: Module, method: Scope) -> list[_Setup]:
    """The method, and the functions of this file that it hands its context to."""
    context = _context_name(method)
    if context is None:
        return []
    outputs = _param_at(method, 2) if method.name == "setup_context" else None
    found = [_Setup(method, context, outputs)]
    for call in module.calls_in(method):
        given = [path_of(argument.expression) for argument in call.positional]
        if context not in given or len(call.callee.quals) != 1 or call.unpacks:
            continue
        helper = module.analysis.scope_named(next(iter(call.callee.quals)))
        if helper is None or helper is method or not isinstance(helper.node, cst.FunctionDef):
            continue
        shift = int(_param_at(helper, 0) in ("self", "cls"))
        name = _param_at(helper, given.index(context) + shift)
        handed = _param_at(helper, given.index(outputs) + shift) if outputs is not None and outputs in given else None
        if name is not None:
            found.append(_Setup(helper, name, handed))
    return found


def _param_at(scope: Scope, index: int) -> str | None:
    assert isinstance(scope.node, (cst.FunctionDef, cst.Lambda))
    params = parameters(scope.node.params)
    return params[index].name.value if index < len(params) else None


def _kept_by(module: Module, flow: Flow, function: Scope) -> Iterator[ContextTensor]:
    setups = _setups(module, flow.scope)
    flows = [(setup, module.flow_of(setup.scope)) for setup in setups]
    if not any(inner is not None and inner.attribute_stores for _, inner in flows):
        return
    mentions = list(_mentions(function))
    for setup in setups[1:]:
        if setup.scope.parent is not function:
            mentions += _mentions_in(setup.scope, setup.context)
    cleared = _cleared(mentions, function, frozenset(setup.scope.name for setup in setups))
    inputs = tensor_inputs(function)
    seen: set[str] = set()
    for setup, inner in flows:
        for store in inner.attribute_stores if inner is not None else ():
            if store.path != f"{setup.context}.{store.name}" or store.name in seen or cleared is None:
                continue
            kept = _kept(module, flow, function, store, inputs, setup)
            if kept is None or (store.name in cleared and kept is not Kept.OUTPUT):
                continue
            seen.add(store.name)
            yield ContextTensor(
                store,
                kept,
                function,
                tuple(item.node for item in mentions if item.name == store.name and not item.is_target),
                "save_for_backward" in function.words_within or "save_for_backward" in setup.scope.words_within,
                sum(item.name == store.name and item.is_target for item in mentions) == 1
                and isinstance(store.statement, cst.Assign)
                and len(store.statement.targets) == 1
                and store.statement.targets[0].target is store.node,
                store.name in cleared,
                kept is not Kept.OUTPUT and _is_short_lived(module, function),
            )


def _is_short_lived(module: Module, function: Scope) -> bool:
    """A layer of the file computes its forward pass anew in its backward pass, which this Function does not drive."""
    backward = next((child for child in function.children if child.name == "backward"), None)
    if backward is None or "enable_grad" in backward.words:
        return False
    again = {
        scope.name
        for scope in module.scopes
        if scope.is_function and scope.parent is not function and {"enable_grad", "backward"} <= scope.words
    }
    return bool(again) and again.isdisjoint(backward.words)


def _context_name(scope: Scope) -> str | None:
    assert isinstance(scope.node, (cst.FunctionDef, cst.Lambda))
    params = parameters(scope.node.params)
    return params[0].name.value if params else None


# --- what is put there ---


def _kept(
    module: Module, flow: Flow, function: Scope, store: AttributeStore, inputs: frozenset[str], setup: _Setup
) -> Kept | None:
    value = store.value
    is_own = setup.scope is flow.scope
    if (is_own and _is_output(flow, value)) or _is_handed_output(setup, store.source):
        return Kept.OUTPUT
    if is_own and any(_is_output(flow, element) for element in value.elements or ()):
        return Kept.OUTPUT  # `ctx.cache = x, output`
    if _is_tensor(module, value, inputs):
        return None if _is_one_number(module, value) else Kept.TENSOR
    if value.kind is Kind.CONTAINER:
        parts = list(value.elements or ())
        for box in value.boxes:
            parts += _contents(module, module.box(box).content)
        return (
            Kept.SEVERAL if _holds_tensor(module, parts, inputs) or _is_used_as_tensor(function, store.name) else None
        )
    return Kept.TENSOR if value.kind is Kind.UNKNOWN and _is_used_as_tensor(function, store.name) else None


def _holds_tensor(module: Module, parts: Iterable[Value], inputs: frozenset[str]) -> bool:
    return any(_is_tensor(module, part, inputs) and not _is_one_number(module, part) for part in parts)


def _contents(module: Module, content: Value) -> Iterator[Value]:
    """What a container holds: of several things each by itself."""
    if len(content.idents) < 2:
        yield content
    for ident in content.idents:
        yield Value(Kind.UNKNOWN, idents=frozenset({ident}))


def _is_output(flow: Flow, value: Value) -> bool:
    """Whether it is the very object that forward returns first: that one is a tensor."""
    if value is NO_GRAD_TENSOR or value.kind not in (Kind.TENSOR, Kind.UNKNOWN):
        return False
    for returned in flow.returned:
        first = returned.elements[0] if returned.elements else returned
        if first is value or (value.idents and value.idents == first.idents):
            # An input that is returned as it is becomes another tensor.
            return not value.idents or not all(
                isinstance(flow.analysis.roots[root].node, cst.Param) for root in value.idents
            )
    return False


def _is_handed_output(setup: _Setup, source: cst.BaseExpression) -> bool:
    """`output` in `setup_context(ctx, inputs, output)`, the first of several that it is unpacked to."""
    if setup.outputs is None or not isinstance(source, cst.Name) or _bindings(setup.scope.node, setup.outputs) != 1:
        return False
    if source.value == setup.outputs:
        return True
    for node in walk(setup.scope.node):
        if isinstance(node, cst.Assign) and path_of(node.value) == setup.outputs:
            target = node.targets[0].target
            if isinstance(target, (cst.Tuple, cst.List)) and target.elements:
                first = target.elements[0].value
                return path_of(first) == source.value and _bindings(setup.scope.node, source.value) == 1
    return False


def _is_tensor(module: Module, value: Value, inputs: frozenset[str]) -> bool:
    if value.is_tensor:
        return True
    if value.kind is not Kind.UNKNOWN:
        return False
    nodes = module.definitions(value)
    return bool(nodes) and all(_makes_tensor(module, node, inputs) for node in nodes)


def _makes_tensor(module: Module, node: cst.CSTNode, inputs: frozenset[str]) -> bool:
    """An input that may be None too, `buffer.normal_()`."""
    if isinstance(node, cst.Param):
        return node.name.value in inputs
    call = module.call_at(node)
    if call is None or call.method is None or call.receiver is None:
        return False
    is_in_place = call.method.endswith("_") and not call.method.startswith("_")
    return is_in_place and _is_tensor(module, call.receiver, inputs)


def _is_one_number(module: Module, value: Value) -> bool:
    """`x.max()`, `torch.tensor(0.5)`: too small to matter."""
    calls = [module.call_at(node) for node in module.definitions(value)]
    return bool(calls) and all(call is not None and _gives_one_number(module, call) for call in calls)


def _gives_one_number(module: Module, call: Call) -> bool:
    is_copy = call.method in known.COPYING_METHODS or call.method == "requires_grad_"
    if is_copy and not call.callee.quals and call.receiver is not None:
        return _is_one_number(module, call.receiver)
    if call.callee.quals and all(qual in known.FACTORIES for qual in call.callee.quals):
        return call.names({"torch.tensor"}) and any(_is_short(argument) for argument in call.positional[:1])
    if call.method in _REDUCTIONS and not call.callee.quals:
        return not call.positional and not call.keywords
    names = {qual.rpartition(".")[2] for qual in call.callee.quals if qual.startswith("torch.")}
    return bool(names) and names <= _REDUCTIONS and len(call.positional) == 1 and not call.keywords


def _is_short(argument: Argument) -> bool:
    """A number, a list of one."""
    expression = argument.expression
    if isinstance(expression, (cst.List, cst.Tuple)):
        return len(expression.elements) == 1 and not isinstance(expression.elements[0], cst.StarredElement)
    return argument.value.kind is Kind.NUMBER


def _is_used_as_tensor(function: Scope, name: str) -> bool:
    """A method that only tensors have is called on `ctx.name`, or on what is read from it."""
    for method in function.children:
        context = _context_name(method) if method.is_function else None
        if context is None:
            continue
        path = f"{context}.{name}"
        tensors = tensor_names(method)
        if path in tensors or (tensors and not tensors.isdisjoint(_names_for(method, path))):
            return True
    return False


def _names_for(method: Scope, path: str) -> set[str]:
    """`a` of `a = ctx.x`, `a` and `b` of `a, b = ctx.x`: names that are bound nowhere else."""
    return {
        name
        for node in walk(method.node)
        if isinstance(node, cst.Assign) and path_of(node.value) == path
        for target in node.targets
        for name in target_names(target.target)
        if _bindings(method.node, name) == 1
    }


# --- what becomes of it ---


@dataclass(frozen=True, eq=False)
class _Mention:
    node: cst.Attribute
    name: str
    method: str
    is_target: bool
    sets_none: bool
    is_deleted: bool


def _mentions(function: Scope) -> Iterator[_Mention]:
    """Every `ctx.name` in the methods of the class."""
    for method in function.children:
        context = _context_name(method) if method.is_function else None
        if context is not None:
            yield from _mentions_in(method, context)


def _mentions_in(method: Scope, context: str) -> Iterator[_Mention]:
    targets: dict[int, bool] = {}
    deleted: set[int] = set()
    for node in walk(method.node):
        if isinstance(node, cst.Assign):
            for target in node.targets:
                for inner in walk(target.target):
                    targets[id(inner)] = _gives_none(node.value)
        elif isinstance(node, (cst.AugAssign, cst.AnnAssign)):
            targets[id(node.target)] = False
        elif isinstance(node, cst.Del):
            deleted |= {id(inner) for inner in walk(node.target)}
        elif isinstance(node, cst.Attribute) and path_of(node) == f"{context}.{node.attr.value}":
            is_target = id(node) in targets
            yield _Mention(
                node,
                node.attr.value,
                method.name,
                is_target,
                targets.get(id(node), False),
                id(node) in deleted,
            )


def _gives_none(value: cst.BaseExpression) -> bool:
    """`None`, `None, None`."""
    if isinstance(value, cst.Tuple):
        return any(_gives_none(element.value) for element in value.elements)
    return path_of(value) == "None"


def _cleared(mentions: list[_Mention], function: Scope, setups: frozenset[str]) -> frozenset[str] | None:
    """The attributes that somebody takes away again, in backward for one; None where it may be any of them."""
    if not function.words_within.isdisjoint({"delattr", "__dict__"}):
        return None
    gone = (
        item
        for item in mentions
        if item.is_deleted or (item.sets_none and item.method not in (*_CONTEXT_METHODS, *setups))
    )
    return frozenset(item.name for item in gone)


# --- what a rewrite needs ---


def is_simple(found: ContextTensor) -> bool:
    """Whether `save_for_backward` could take the attribute's place: set once, and read in other methods only."""
    method = found.store.scope.node
    inside = {id(node) for node in walk(method)}
    return (
        found.is_alone
        and found.kept is not Kept.SEVERAL
        and not found.saves_others
        and not found.store.guarded
        and not found.is_cleared
        and found.store.scope.parent is found.function
        and found.store.loop is None
        and not any(id(read) in inside for read in found.reads)
        and isinstance(found.store.source, cst.Name)
        and _bindings(method, found.store.source.value) <= 1
    )


def _bindings(function: cst.CSTNode, name: str) -> int:
    """How often a name is bound in a function."""
    count = 0
    for node in walk(function):
        if isinstance(node, (cst.AssignTarget, cst.AugAssign, cst.AnnAssign, cst.NamedExpr, cst.For, cst.CompFor)):
            count += list(target_names(node.target)).count(name)
        elif isinstance(node, (cst.Param, cst.AsName)):
            count += list(target_names(node.name)).count(name)
    return count
