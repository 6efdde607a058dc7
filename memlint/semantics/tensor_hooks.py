"""Hooks of tensors that hold the tensor itself.

A tensor that is no leaf keeps its hooks in the node that made it. A hook that holds the tensor, or what was computed
from it, closes a circle through that node, which Python's collector does not see (catalogue, E12).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import libcst as cst

from memlint.semantics.events import Call
from memlint.semantics.hooks import handle_is_lost
from memlint.semantics.knowledge import hooks as known
from memlint.semantics.module import Module
from memlint.semantics.reads import binds, is_read
from memlint.semantics.scopes import Scope, parameters
from memlint.semantics.values import Grad, Kind, Mode, Value


@dataclass(frozen=True, eq=False)
class SelfReference:
    """A registration whose hook keeps the tensor alive for ever."""

    call: Call
    captured: str
    """The name by which the hook holds the tensor, or what was computed from it."""
    is_itself: bool
    """It is the tensor itself."""
    hook: cst.Lambda | None
    """The hook, where it is a lambda that reads the name when it is called."""
    certain: bool


def self_references(module: Module) -> Iterator[SelfReference]:
    if known.TENSOR_HOOK not in module.words:
        return
    for call in module.calls:
        if call.method != known.TENSOR_HOOK or call.mode is Mode.OFF or not call.scope.is_function:
            continue
        if call.receiver is None or not _is_no_leaf(module, call.receiver) or not handle_is_lost(call):
            continue
        found = _reference(module, call, call.receiver)
        if found is not None:
            yield found


def _is_no_leaf(module: Module, tensor: Value) -> bool:
    """Computed from something: a hook can only be put on a tensor that requires grad, so it has a node that made it."""
    if not tensor.idents or tensor.kind not in (Kind.TENSOR, Kind.UNKNOWN):
        return False
    roots = module.analysis.roots
    return all(
        roots[ident].ancestors - {ident} and not _makes_leaf(module, ident, roots[ident].node)
        for ident in tensor.idents
    )


def _makes_leaf(module: Module, ident: int, node: cst.CSTNode) -> bool:
    call = module.call_at(node)
    if call is not None and call.method in known.MAY_RETURN_ITSELF and call.receiver is not None:
        return not _is_no_leaf(module, call.receiver)
    if call is not None and (call.method in known.LEAF_METHODS or any(_is_leaf_maker(q) for q in call.callee.quals)):
        return True
    return any(
        (use.how == "written" and use.detail in ("requires_grad", "data"))
        or (use.how == "method" and use.detail in known.LEAF_METHODS)
        for use in module.uses_of(ident)
    )


def _is_leaf_maker(qualified: str) -> bool:
    return qualified.rpartition(".")[2] in known.LEAF_MAKERS


# --- what the hook holds ---


def _reference(module: Module, call: Call, tensor: Value) -> SelfReference | None:
    arguments = [*call.positional, *call.keywords.values()]
    if len(arguments) != 1 or call.unpacks:
        return None
    hook = arguments[0].expression
    flow = module.flow_of(call.scope)
    if flow is None:
        return None
    for name, is_late in _held(module, call.scope, hook):
        if is_late and _is_bound_anew(call, name):
            continue  # the next iteration gives the closure another tensor: only the last one stays
        value = flow.final.get(name)
        if value is None or value.grad is not Grad.YES or not value.idents:
            continue  # deleted, or detached: a closure holds what the name is bound to in the end
        is_itself = bool(value.idents & tensor.idents)
        if not is_itself and not tensor.idents <= value.roots:
            continue
        lambda_ = hook if isinstance(hook, cst.Lambda) and is_late else None
        return SelfReference(call, name, is_itself, lambda_, _is_certain(module, tensor))
    return None


def _is_bound_anew(call: Call, name: str) -> bool:
    """By the next iteration of a loop of the same function."""
    loops = call.loop.outer() if call.loop is not None else ()
    return any(loop.scope is call.scope and binds(loop.node, name) for loop in loops)


def _is_certain(module: Module, tensor: Value) -> bool:
    """The tensor comes from a module, a torch operation or arithmetic rather than from a call out of view."""
    roots = module.analysis.roots
    return not any(ident in module.analysis.unseen and not roots[ident].is_forward for ident in tensor.idents)


def _held(module: Module, scope: Scope, hook: cst.BaseExpression) -> Iterator[tuple[str, bool]]:
    """The local names whose value the hook holds; True where it looks the name up when it is called."""
    if isinstance(hook, cst.Lambda):
        yield from _held_by_function(module.analysis.scope_of(hook), scope)
        return
    if isinstance(hook, cst.Name):
        for inner in scope.children:
            if inner.name == hook.value and isinstance(inner.node, cst.FunctionDef):
                yield from _held_by_function(inner, scope)
        return
    call = module.call_at(hook)
    if call is None:
        return
    given = [*call.positional, *call.keywords.values()]
    if call.names(known.PARTIAL):
        given = given[1:]
    elif not _returns_closure_over(module, call):
        return
    for argument in given:
        if isinstance(argument.expression, cst.Name) and argument.expression.value in scope.bound:
            yield argument.expression.value, False


def _held_by_function(inner: Scope, scope: Scope) -> Iterator[tuple[str, bool]]:
    assert isinstance(inner.node, (cst.Lambda, cst.FunctionDef))
    for param in parameters(inner.node.params):
        if isinstance(param.default, cst.Name) and param.default.value in scope.bound:
            yield param.default.value, False
    body = inner.node.body
    for name in sorted((inner.words_within & scope.bound) - inner.bound):
        if is_read(body, name):
            yield name, True


def _returns_closure_over(module: Module, call: Call) -> bool:
    """`make_hook(y)`: a function of this file whose inner function, which it returns, reads all that it is given."""
    scope = module.analysis.scope_named(next(iter(call.callee.quals))) if len(call.callee.quals) == 1 else None
    if scope is None or not isinstance(scope.node, cst.FunctionDef):
        return False
    params = [param.name.value for param in parameters(scope.node.params) if param.name.value != "self"]
    inner = [child for child in scope.children if child.is_function]
    flow = module.flow_of(scope)
    if len(inner) != 1 or flow is None or not flow.returned or not params:
        return False
    if not all(value.kind is Kind.CALLABLE for value in flow.returned):
        return False
    return all(is_read(inner[0].node, name) and name not in inner[0].bound for name in params)
