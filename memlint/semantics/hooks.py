"""Hooks that are registered again and again on an object that lives on, and whose handle nobody keeps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import libcst as cst

from memlint.semantics.blocks import path_to
from memlint.semantics.events import Call, Loop
from memlint.semantics.knowledge import hooks as known
from memlint.semantics.module import Module
from memlint.semantics.reads import is_read
from memlint.semantics.scopes import Scope, parameters, path_of, target_names, walk
from memlint.semantics.values import Kind

_MAX_STEPS = 6
_NOBODY: frozenset[str] = frozenset()
_ONCE = frozenset({"__init__", "__post_init__", "setup", "__enter__", "__new__"})


@dataclass(frozen=True, eq=False)
class LostHook:
    """A hook that each round adds once more."""

    call: Call
    loop: Loop | None
    """The loop that registers it in every iteration."""
    repeats: cst.CSTNode
    """What repeats it: the loop, the function that also runs the model, or a call of the function in a loop."""
    in_forward: bool
    certain: bool


def lost_hooks(module: Module) -> Iterator[LostHook]:
    hooks = known.MODULE_HOOKS | known.TENSOR_HOOKS
    if module.words.isdisjoint(hooks) or module.words & known.HOOK_TABLES:
        return
    for call in module.calls:
        if call.method in hooks and _stays(call) and handle_is_lost(call):
            found = _repeated(module, call)
            if found is not None:
                yield found


def _stays(call: Call) -> bool:
    """A hook of a module or a parameter: that of another tensor dies with its graph."""
    if call.method in known.MODULE_HOOKS:
        return bool(call.positional or call.keywords)
    return call.receiver is not None and call.receiver.cls == "torch.nn.Parameter"


def handle_is_lost(call: Call) -> bool:
    """Whether nobody keeps what the registration returns."""
    if call.is_statement:
        return True
    statement = call.statement
    if not isinstance(statement, cst.Assign) or statement.value is not call.node or len(statement.targets) != 1:
        return False
    target = statement.targets[0].target
    if not isinstance(target, cst.Name) or not call.scope.is_function or target.value in call.scope.nonlocal_names:
        return False
    return not is_read(call.scope.node, target.value)


def _repeated(module: Module, call: Call) -> LostHook | None:
    scope = call.scope
    assert call.receiver_node is not None
    if _is_guarded(call):
        return None
    loop = _repeating_loop(module, call)
    if loop is not None:
        is_batch = loop.is_batch_loop or loop.has_forward
        return LostHook(call, loop, loop.node, False, is_batch)
    owners = _owners(module, scope, call.receiver_node)
    if not scope.is_function or scope.name in _ONCE or not owners:
        return _constructed_in_loop(module, call)
    if _is_forward(module, scope):
        return LostHook(call, None, scope.node, True, True)
    site = _called_in_loop(module, scope)
    if site is not None:
        return LostHook(call, site.loop, site.node, False, True)
    run = _run_of(module, call, owners) if call.method in known.MODULE_HOOKS else None
    if run is None:
        return None
    return LostHook(call, None, run.node, False, False)


def _is_forward(module: Module, scope: Scope) -> bool:
    owner = scope.parent
    return (
        scope.name == "forward"
        and owner is not None
        and owner.is_class
        and module.analysis.is_module_class(owner.qualname)
    )


# --- conditions ---


def _is_guarded(call: Call) -> bool:
    """Behind a condition that may hold but once. One that picks modules out of a loop over them is none."""
    path = path_to(call.scope.node, call.node)
    targets: set[str] = set()
    for parent, child in pairwise(path):
        if isinstance(parent, cst.For):
            targets.update(target_names(parent.target))
        elif isinstance(parent, (cst.If, cst.IfExp)) and child is not parent.test:
            if not any(isinstance(node, cst.Name) and node.value in targets for node in walk(parent.test)):
                return True
        elif isinstance(parent, (cst.BooleanOperation, cst.ExceptHandler, cst.MatchCase)):
            return True
        elif isinstance(parent, cst.IndentedBlock):
            index = next(index for index, item in enumerate(parent.body) if item is child)
            if any(_leaves_for_good(item) for item in parent.body[:index]):
                return True
    return False


def _leaves_for_good(statement: cst.CSTNode) -> bool:
    """`if self.hooked: return`, `if name in seen: continue`."""
    if not isinstance(statement, cst.If) or not any(
        isinstance(node, (cst.Return, cst.Continue)) for node in walk(statement)
    ):
        return False
    return any(isinstance(node, (cst.Attribute, cst.In, cst.NotIn)) for node in walk(statement.test))


# --- loops ---


def _repeating_loop(module: Module, call: Call) -> Loop | None:
    """The innermost loop that registers the hook on one and the same object in every iteration."""
    assert call.receiver_node is not None
    for loop in call.loop.outer() if call.loop is not None else ():
        if loop.is_comprehension or not isinstance(loop.node, (cst.For, cst.While)):
            continue
        changing = _bound_in(loop.node)
        if _names_of(loop.node, call.receiver_node) & changing:
            continue
        targets = set(target_names(loop.node.target)) if isinstance(loop.node, cst.For) else set()
        hook = [argument.expression for argument in (*call.positional, *call.keywords.values())]
        own = any(isinstance(node, cst.Name) and node.value in targets for item in hook for node in walk(item))
        if loop.is_batch_loop or loop.has_forward or (not own and isinstance(loop.node, cst.For)):
            return loop
    return None


def _bound_in(loop: cst.For | cst.While) -> set[str]:
    """The names that the loop binds anew."""
    bound: set[str] = set(target_names(loop.target)) if isinstance(loop, cst.For) else set()
    for node in walk(loop.body):
        if isinstance(node, (cst.AssignTarget, cst.For, cst.AnnAssign, cst.NamedExpr)):
            bound.update(target_names(node.target))
        elif isinstance(node, cst.AsName):
            bound.update(target_names(node.name))
    return bound


def _names_of(loop: cst.For | cst.While, expression: cst.BaseExpression) -> set[str]:
    """The names on which the expression depends: those of inner loops over an outer module stand for that module."""
    inner = _sources(loop.body)
    names: set[str] = set()
    pending = [expression]
    while pending:
        for node in walk(pending.pop()):
            if isinstance(node, cst.Name) and node.value not in names:
                names.add(node.value)
                sources = inner.get(node.value, [])
                if len(sources) == 1:
                    names.discard(node.value)
                    pending.append(sources[0])
    return names


def _sources(inside: cst.CSTNode) -> dict[str, list[cst.BaseExpression]]:
    """Name -> the expressions that it is bound to, or is an element of, in the code."""
    found: dict[str, list[cst.BaseExpression]] = {}
    for node in walk(inside):
        if isinstance(node, cst.Assign):
            for target in node.targets:
                for name in target_names(target.target):
                    found.setdefault(name, []).append(node.value)
        elif isinstance(node, (cst.For, cst.CompFor)):
            for name in target_names(node.target):
                found.setdefault(name, []).append(node.iter)
        elif isinstance(node, cst.AnnAssign) and node.value is not None:
            for name in target_names(node.target):
                found.setdefault(name, []).append(node.value)
        elif isinstance(node, cst.WithItem) and node.asname is not None:
            for name in target_names(node.asname.name):
                found.setdefault(name, []).append(node.item)
    return found


# --- does the object outlive the function? ---


def _owners(module: Module, scope: Scope, expression: cst.BaseExpression, steps: int = _MAX_STEPS) -> frozenset[str]:
    """The names of what the module is a part of, and which the caller, the object or the program holds.

    None of it where the function may have made the module itself.
    """
    head = _whole(expression)
    if head is None or not steps:
        return _NOBODY
    if head == "self":
        return frozenset({head})
    sources = _sources(scope.node).get(head, [])
    is_parameter = head in _parameter_names(scope)
    if not is_parameter and not sources:
        is_outer = head not in scope.bound and _is_outer_object(module, scope, head)
        return frozenset({head}) if is_outer else _NOBODY
    found = [_owners(module, scope, source, steps - 1) for source in sources if _whole(source) != head]
    if not all(found):
        return _NOBODY
    return frozenset({head} if is_parameter else ()).union(*found)


def _whole(expression: cst.BaseExpression) -> str | None:
    """`net` of `net.layers[3]`, of `dict(net.named_modules())[name]`, of `getattr(net, name)`; None: something new."""
    node: cst.BaseExpression = expression
    while not isinstance(node, cst.Name):
        if isinstance(node, (cst.Attribute, cst.Subscript)):
            node = node.value
        elif isinstance(node, (cst.List, cst.Tuple)) and len(node.elements) == 1:
            node = node.elements[0].value  # `[*net.named_modules()]`
        elif (
            isinstance(node, cst.Call) and isinstance(node.func, cst.Attribute) and node.func.attr.value in known.PARTS
        ):
            node = node.func.value
        elif isinstance(node, cst.Call) and path_of(node.func) in known.PARTS_OF_FIRST and node.args:
            node = node.args[0].value
        else:
            return None
    return node.value


def _parameter_names(scope: Scope) -> set[str]:
    if not isinstance(scope.node, (cst.FunctionDef, cst.Lambda)):
        return set()
    return {param.name.value for param in parameters(scope.node.params)}


def _is_outer_object(module: Module, scope: Scope, name: str) -> bool:
    value = module.analysis.outer_variable(scope, name)
    return value is None or value.kind is not Kind.CALLABLE


# --- is the function called again and again? ---


def _called_in_loop(module: Module, scope: Scope) -> Call | None:
    for call in module.calls_of(frozenset({scope.qualname})):
        if call.loop is not None and _same_arguments(call):
            return call
    return None


def _constructed_in_loop(module: Module, call: Call) -> LostHook | None:
    """`GradCAM(model, layer)` for every image: each object puts its hooks on the model."""
    scope = call.scope
    owner = scope.parent
    if scope.name != "__init__" or owner is None or not owner.is_class or call.receiver_node is None:
        return None
    head = _whole(call.receiver_node)
    given = head if head in _parameter_names(scope) and head != "self" else None
    if head == "self" and isinstance(call.receiver_node, cst.Attribute):
        given = _parameter_behind(module, scope, call.receiver_node)
    if given is None:
        return None
    for site in module.calls_of(frozenset({owner.qualname})):
        if site.loop is not None and _same_arguments(site):
            return LostHook(call, site.loop, site.node, False, True)
    return None


def _parameter_behind(module: Module, scope: Scope, receiver: cst.Attribute) -> str | None:
    """`self.model.layer4` where `self.model = model` stands in the constructor."""
    path = path_of(receiver) or ""
    for node in walk(scope.node):
        if isinstance(node, cst.Assign) and isinstance(node.value, (cst.Name, cst.Attribute)):
            target = path_of(node.targets[0].target)
            if target is not None and target != "self" and (path == target or path.startswith(target + ".")):
                head = _whole(node.value)
                return head if head in _parameter_names(scope) and head != "self" else None
    return None


def _same_arguments(call: Call) -> bool:
    """The model is the same in every iteration, and in each of them a batch is handled, or nothing else changes.

    `for name in layers: watch(model, name)` is a setup.
    """
    assert call.loop is not None
    loop = call.loop
    if loop.is_comprehension or not isinstance(loop.node, (cst.For, cst.While)) or call.unpacks:
        return False
    given = [argument.expression for argument in (*call.positional, *call.keywords.values())]
    if call.receiver_node is not None and call.receiver is not None and not call.receiver.quals:
        given.insert(0, call.receiver_node)
    changing = _bound_in(loop.node)
    depends = [bool(_names_of(loop.node, expression) & changing) for expression in given]
    if not depends:
        return True
    return not any(depends) or (not depends[0] and loop.is_batch_loop)


def _run_of(module: Module, call: Call, owners: frozenset[str]) -> Call | None:
    """The function also runs the model that it was given: each call of it adds a hook and uses all there are."""
    scope = call.scope
    given = _parameter_names(scope) - {"self", "cls"}
    for other in module.calls_in(scope):
        if other is call or not (other.positional or other.keywords):
            continue
        if any(loop not in (call.loop.outer() if call.loop is not None else ()) for loop in _loops_of(other)):
            continue  # registered once, run for many batches
        path = path_of(other.call.func) or ""
        if path.rpartition(".")[2] in known.RUNS:
            path = path.rpartition(".")[0]
        start, _, rest = path.partition(".")
        if start == "self" and "self" in owners and _runs_member(call, rest, other):
            return other
        if not rest and (start in owners - {"self"} or (other.is_forward and start in given and owners & given)):
            return other
    return None


def _loops_of(call: Call) -> list[Loop]:
    return [loop for loop in (call.loop.outer() if call.loop is not None else ()) if not loop.is_comprehension]


def _runs_member(call: Call, rest: str, other: Call) -> bool:
    """`self.model(x)` after a hook on `self.model.layer4`."""
    path = path_of(call.receiver_node) if call.receiver_node is not None else None
    member = (path or "self.").split(".")[1]
    return bool(rest) and (rest.split(".", maxsplit=1)[0] == member or other.is_forward) and not other.callee.quals
