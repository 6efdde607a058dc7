"""Callees that keep what they are given: does a call put its argument away, with the graph that the argument carries?

A function or method of this file is asked what it stores (catalogue, section 1.7); of a class out of view its name
must say it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import libcst as cst

from memlint.semantics.events import Argument, Call, Loop, Store
from memlint.semantics.knowledge import libraries, meters
from memlint.semantics.knowledge.libraries.rows import Effect
from memlint.semantics.module import Module
from memlint.semantics.project import View
from memlint.semantics.questions import GradOnEntry
from memlint.semantics.retention import Retention, retention_of
from memlint.semantics.scopes import Scope, parameters, path_of, walk
from memlint.semantics.summaries import asks_of_tensor, is_in_object, takes_parts
from memlint.semantics.values import NOTHING, Kind, Mode, Proof, Value

_NO_ROOT = -1


@dataclass(frozen=True, eq=False)
class Keeping:
    """Where a callee puts one of its arguments away."""

    root: int
    """Marks what is stored in everything computed from it; -1 where the callee is out of view."""
    sums: bool
    """A sum of arguments: with grad mode off in the callee it carries no graph."""
    attribute: str | None
    """The attribute of the callee's object that holds it: `total` of `self.total`."""
    certain: bool
    """The callee is in view."""
    bounded: bool
    """Only the last few are kept (`deque(maxlen=...)`)."""
    holder: str | None = None
    """The parameter that holds it: `values` of `def add(values, loss): values.append(loss)`."""
    boxes: frozenset[int] = NOTHING
    """The containers that a call gives for the holder."""


@dataclass(frozen=True, eq=False)
class KeptArgument:
    """A call in a loop over batches whose callee keeps the graph of an argument."""

    call: Call
    argument: Argument
    keeper: cst.BaseExpression
    """The object, or the function, that keeps it."""
    retention: Retention
    keeping: Keeping


def kept_arguments(module: Module) -> list[KeptArgument]:
    """All of a file, worked out once however many rules ask."""
    return module.once(_all_kept)


def keeps(module: Module, call: Call, argument: Argument) -> Keeping | None:
    """Does the callee store this argument with its graph? None: not as far as anybody knows.

    The one place where this is asked. Functions and methods of this file are read; of a class out of view, a name
    that is known for it must do.
    """
    summaries = module.once(_Summaries)
    callees = summaries.callees(call)
    if callees:
        found = [summaries.of(scope, call, argument) for scope in callees]
        return found[0] if all(found) else None
    known, keeping = _of_project(module, call, argument)
    return keeping if known else _by_name(module, call, argument)


# --- calls ---


def _all_kept(module: Module) -> list[KeptArgument]:
    found: list[KeptArgument] = []
    for call in module.calls:
        if not call.handed or call.is_forward or call.callee.kind is Kind.MODULE:
            continue
        for handed in call.handed:
            kept = _kept(module, call, handed.argument, handed.carriers)
            if kept is not None:
                found.append(kept)
    return found


def _kept(
    module: Module, call: Call, argument: Argument, carriers: tuple[tuple[cst.BaseExpression, Value], ...]
) -> KeptArgument | None:
    carriers = tuple(part for part in carriers if part[1].carries_graph)
    if not carriers:
        return None
    keeping = keeps(module, call, argument)
    if keeping is None or keeping.bounded or (argument.value.kind is Kind.CONTAINER and not keeping.certain):
        return None
    if keeping.sums and call.mode in (Mode.OFF, Mode.UNKNOWN):
        return None
    keeper = call.receiver_node or call.call.func
    store = _as_store(module, call, argument, keeper, carriers, keeping)
    retention = retention_of(module, store)
    return None if retention is None else KeptArgument(call, argument, keeper, retention, keeping)


def _as_store(
    module: Module,
    call: Call,
    argument: Argument,
    keeper: cst.BaseExpression,
    carriers: tuple[tuple[cst.BaseExpression, Value], ...],
    keeping: Keeping,
) -> Store:
    """The call seen as the store that its callee makes."""
    head = _head(keeper)
    own = call.receiver is not None and keeping.certain and head in call.scope.bound
    return Store(
        node=call.node,
        statement=call.statement,
        scope=call.scope,
        loop=call.loop,
        mode=call.mode,
        guarded=call.guarded,
        handler=call.handler,
        in_try=call.in_try,
        order=call.order,
        branches=call.branches,
        how="call",
        target=keeper,
        path=path_of(keeper),
        value=carriers[0][1],
        value_node=argument.expression,
        carriers=carriers,
        root=keeping.root,
        carried_by=tuple(
            loop
            for loop in carrying_loops(module, call, keeping.attribute)
            if not keeping.boxes or any(loop.node not in module.box(box).born_in for box in keeping.boxes)
        ),
        backed=call.backed,
        in_object=not own or _is_parameter(call.scope, head) or head in ("self", "cls"),
        boxes=keeping.boxes,
    )


def _is_parameter(scope: Scope, name: str | None) -> bool:
    node = scope.node
    return isinstance(node, (cst.FunctionDef, cst.Lambda)) and any(
        param.name.value == name for param in parameters(node.params)
    )


def _head(node: cst.BaseExpression) -> str | None:
    """`meters` of `meters["loss"]`, `self` of `self.meter`."""
    while isinstance(node, (cst.Attribute, cst.Subscript)):
        node = node.value
    return node.value if isinstance(node, cst.Name) else None


def _text_path(node: cst.BaseExpression) -> str | None:
    """The access path up to the first item: `self.meters` of `self.meters["loss"]`."""
    while path_of(node) is None and isinstance(node, (cst.Attribute, cst.Subscript)):
        node = node.value
    return path_of(node)


def carrying_loops(module: Module, call: Call, attribute: str | None) -> Iterator[Loop]:
    """The loops, innermost first, through whose iterations the keeper of a call lives, and is not emptied.

    What it keeps is in the attribute, where it is known.
    """
    path = _text_path(call.receiver_node or call.call.func)
    if path is None:
        return
    made = module.once(_paths_bound)
    for loop in call.loop.outer() if call.loop is not None else ():
        bound = made.of(loop)
        if any(path == item or path.startswith((item + ".", item + "[")) for item in bound):
            return
        if not _is_emptied(module, call, loop, attribute):
            yield loop


def _is_emptied(module: Module, call: Call, loop: Loop, attribute: str | None) -> bool:
    """Whether a method that sets the keeper back is called on it in the loop."""
    for other in module.calls_in(call.scope):
        if other is call or other.loop is None or loop not in other.loop.outer() or other.receiver_node is None:
            continue
        if other.method is None or _head(other.receiver_node) != _head(call.receiver_node or call.call.func):
            continue
        if other.method in meters.RESETTING_METHODS or other.method.startswith("reset"):
            return True
        if attribute is None or other.method == call.method:
            continue
        scopes = [module.analysis.scope_named(name) for name in other.callee.quals]
        if any(scope is not None and attribute in scope.attributes_stored for scope in scopes):
            return True
    return False


class _paths_bound:  # noqa: N801 - made once for a module, as a function would be
    """What each loop's body binds anew."""

    def __init__(self, module: Module) -> None:
        self._found: dict[int, frozenset[str]] = {}

    def of(self, loop: Loop) -> frozenset[str]:
        found = self._found.get(id(loop.node))
        if found is None:
            paths = (path_of(target) for target in _targets(loop.node))
            found = self._found[id(loop.node)] = frozenset(path for path in paths if path is not None)
        return found


def _targets(node: cst.CSTNode) -> Iterator[cst.BaseExpression]:
    for inner in walk(node):
        if isinstance(inner, (cst.AssignTarget, cst.For, cst.CompFor, cst.AnnAssign, cst.NamedExpr)):
            pending = [inner.target]
        elif isinstance(inner, cst.AsName) and isinstance(inner.name, cst.BaseExpression):
            pending = [inner.name]
        else:
            continue
        while pending:
            target = pending.pop()
            if isinstance(target, (cst.Tuple, cst.List)):
                pending.extend(element.value for element in target.elements)
            else:
                yield target


# --- what functions of this file keep ---


class _Summaries:
    """Function -> the parameters that it keeps."""

    def __init__(self, module: Module) -> None:
        self.module = module
        self._found: dict[Scope, dict[str, Keeping]] = {}

    def callees(self, call: Call) -> list[Scope]:
        """The functions of this file that a call runs; none where any is out of view."""
        analysis = self.module.analysis
        names = _names_called(self.module, call)
        scopes = [analysis.scope_named(name) if name.startswith(":") else None for name in names]
        return [] if None in scopes else [scope for scope in scopes if scope is not None]

    def of(self, scope: Scope, call: Call, argument: Argument) -> Keeping | None:
        name = bound_parameter(scope, call, argument)
        keeping = self.kept_by(scope).get(name) if name is not None else None
        if keeping is None or keeping.holder is None:
            return keeping
        given = (*call.positional, *call.keywords.values())
        holders = [item.value for item in given if bound_parameter(scope, call, item) == keeping.holder]
        return replace(keeping, boxes=holders[0].boxes) if holders and holders[0].boxes else None

    def kept_by(self, scope: Scope) -> dict[str, Keeping]:
        found = self._found.get(scope)
        if found is None:
            self._found[scope] = {}  # recursion keeps nothing more
            found = self._found[scope] = self._read(scope)
        return found

    def _read(self, scope: Scope) -> dict[str, Keeping]:
        flow = self.module.flow_of(scope)
        node = scope.node
        if flow is None or not isinstance(node, cst.FunctionDef):
            return {}
        kept: dict[str, Keeping] = {}
        for param in parameters(node.params):
            root = self.module.analysis.root_for(param)
            keeping = self._stored(scope, root) or self._handed_on(scope, root)
            if keeping is not None and not self._thinks_of_tensors(scope, root):
                kept[param.name.value] = keeping
        return kept

    def _stored(self, scope: Scope, root: int) -> Keeping | None:
        flow = self.module.flow_of(scope)
        for store in (*flow.stores, *flow.stores_in_given) if flow is not None else ():
            boxes = [self.module.box(index) for index in store.boxes]
            if not is_in_object(self.module.analysis, store):
                continue
            values = [store.value, *(value for _, value in store.carriers)]  # of a tuple, each of its elements
            if not any(value.carries_graph and self._comes_from(scope, value, root) for value in values):
                continue
            bounded = any(box.bounded for box in boxes)
            holder = _head(store.target) if flow is not None and store in flow.stores_in_given else None
            sums = store.how == "accumulate"
            return Keeping(store.root, sums, _attribute(store.target), True, bounded, holder)
        return None

    def _handed_on(self, scope: Scope, root: int) -> Keeping | None:
        for call in self.module.calls_in(scope):
            if call.is_forward or call.callee.kind is Kind.MODULE:
                continue
            for argument in (*call.positional, *call.keywords.values()):
                if not argument.value.carries_graph or not self._comes_from(scope, argument.value, root):
                    continue
                keeping = keeps(self.module, call, argument)
                if keeping is not None and _text_path(call.receiver_node or call.call.func) != "self":
                    attribute = _attribute(call.receiver_node) if call.receiver_node is not None else None
                    return Keeping(keeping.root, keeping.sums, attribute, keeping.certain, keeping.bounded)
                if keeping is not None:
                    return keeping
        return None

    def _comes_from(self, scope: Scope, value: Value, root: int) -> bool:
        """Whether the value carries a graph as soon as the parameter does."""
        analysis = self.module.analysis
        if root not in value.roots or root in analysis.differentiated:
            return False
        left = {item for item in analysis.basis(value.conditions) if item != GradOnEntry(scope.qualname)}
        return all(isinstance(item, Proof) and self._is_part(item.root, root) for item in left)

    def _is_part(self, part: int, root: int) -> bool:
        """Whether the definition is the parameter, or what iterating over it (`.items()`, `.values()`) gives."""
        roots = self.module.analysis.roots
        pending, seen = [part], {root}
        while pending:
            item = pending.pop()
            if item in seen:
                continue
            seen.add(item)
            made = roots[item]
            if root not in made.ancestors:
                return False
            if isinstance(made.node, cst.Call) and not (takes_parts(made.node) or _builds(made.node)):
                return False
            pending.extend(other for other in made.ancestors if roots[other].may_carry)
        return True

    def _thinks_of_tensors(self, scope: Scope, root: int) -> bool:
        return any(asks_of_tensor(call, root) for call in self.module.calls_in(scope))


def _builds(node: cst.Call) -> bool:
    """`Transition(*values)`: an object that holds what it is built from."""
    path = path_of(node.func)
    return path is not None and path.rpartition(".")[2][:1].isupper()


def _attribute(target: cst.BaseExpression) -> str | None:
    """`total` of `self.total` and of `self.total[key]`."""
    while isinstance(target, (cst.Attribute, cst.Subscript)):
        if isinstance(target, cst.Attribute) and isinstance(target.value, cst.Name):
            return target.attr.value
        target = target.value
    return None


def bound_parameter(scope: Scope, call: Call, argument: Argument) -> str | None:
    """The parameter that gets the argument."""
    node = scope.node
    if not isinstance(node, cst.FunctionDef):
        return None
    names = [param.name.value for param in (*node.params.posonly_params, *node.params.params)]
    is_method = scope.parent is not None and scope.parent.is_class
    static = any(path_of(item.decorator) == "staticmethod" for item in node.decorators)
    if is_method and not static and (call.receiver is None or call.receiver.kind is not Kind.CALLABLE):
        names = names[1:]
    if argument in call.positional:
        index = call.positional.index(argument)
        if index < len(names):
            return names[index]
        rest = node.params.star_arg
        return rest.name.value if isinstance(rest, cst.Param) else None
    keyword = argument.node.keyword
    if keyword is None:
        return node.params.star_kwarg.name.value if argument.node.star == "**" and node.params.star_kwarg else None
    keyword_names = {*names, *(param.name.value for param in node.params.kwonly_params)}
    if keyword.value in keyword_names:
        return keyword.value
    return None if node.params.star_kwarg is None else node.params.star_kwarg.name.value


def _names_called(module: Module, call: Call) -> frozenset[str]:
    """What a call runs: of an object its class's `__call__`."""
    method = module.analysis.method_of_calls(call.callee)
    return call.callee.quals if method is None else frozenset({method})


# --- functions of other files of the project ---


def _of_project(module: Module, call: Call, argument: Argument) -> tuple[bool, Keeping | None]:
    """Whether the callee stands in the project, and what it then does with the argument."""
    view = module.analysis.view
    symbols = sorted(_names_called(module, call))
    if view is None or not symbols or not all(symbol.startswith("@") for symbol in symbols):
        return False, None
    found: list[Keeping | None] = []
    for symbol in symbols:
        summary = view.summary(symbol) if view.defines(symbol) and not view.is_class(symbol) else None
        if summary is None:
            return False, None
        name = _parameter_of_project(view, symbol, call, argument)
        names = () if name is None else (name, summary.others or "")
        effects = next((summary.effects[item] for item in names if item in summary.effects), None)
        kept = effects is not None and effects.kept
        found.append(Keeping(_NO_ROOT, effects.summed, None, True, False) if kept and effects is not None else None)
    return True, found[0] if all(found) else None


def _parameter_of_project(view: View, symbol: str, call: Call, argument: Argument) -> str | None:
    names = view.parameters(symbol)
    if argument not in call.positional:
        keyword = argument.node.keyword
        return keyword.value if keyword is not None else None
    index = call.positional.index(argument)
    return names[index] if index < len(names) else None


# --- classes out of view ---


def _by_name(module: Module, call: Call, argument: Argument) -> Keeping | None:
    """`AverageMeter().update(loss)` of a class that is imported."""
    if call.method is not None and call.method in meters.SUMMING_METHODS and call.receiver is not None:
        holder = call.receiver
    elif call.method is None or call.callee.kind is Kind.UNKNOWN:
        holder = call.callee
    else:
        return None
    if argument is not _first(call):
        return None
    if holder.cls is not None and libraries.method_effect(holder.cls, call.method or "__call__") is Effect.KEEPS:
        return Keeping(_NO_ROOT, False, None, False, False)  # a list state of torchmetrics
    names = imported_classes(module, holder)
    if names and names <= meters.SUMMING_CLASSES:
        return Keeping(_NO_ROOT, True, None, False, False)
    return None


def _first(call: Call) -> Argument | None:
    """What the call counts: `loss` of `meter.update(loss, n)` and `meter.update(val=loss, n=n)`."""
    if call.positional:
        return call.positional[0]
    return next((call.keywords[name] for name in ("val", "value") if name in call.keywords), None)


def imported_classes(module: Module, value: Value) -> frozenset[str]:
    """The names of the imported classes of which the value is an object; none where it may be anything else."""
    imported = module.analysis.imported
    makers = value.idents or (value.roots if value.boxes else NOTHING)
    names = [imported[root].replace(":", ".") for root in makers if root in imported]
    if not names and module.once(_imports_a_star):  # `from utils import *`: nobody else can have brought the name
        names = [called for root in makers if "." not in (called := module.analysis.called.get(root, "."))]
    if (value.idents and len(names) != len(makers)) or any(
        name.startswith(meters.CONVERTING_LIBRARIES) for name in names
    ):
        return frozenset()
    return frozenset(name.rpartition(".")[2] for name in names)


def _imports_a_star(module: Module) -> bool:
    lines = (line for line in module.tree.body if isinstance(line, cst.SimpleStatementLine))
    return any(
        isinstance(part, cst.ImportFrom) and isinstance(part.names, cst.ImportStar)
        for line in lines
        for part in line.body
    )
