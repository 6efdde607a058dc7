"""Grad-mode, autocast and saved-tensor contexts that are never entered."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

import libcst as cst

from memlint.semantics.blocks import followers, mentions
from memlint.semantics.knowledge import torch as known
from memlint.semantics.module import Module
from memlint.semantics.scopes import Scope


class Idle(Enum):
    """Why a context does not act."""

    STATEMENT = "statement"
    """`torch.no_grad()` as a statement."""
    NAME = "name"
    """`torch.no_grad` as a statement."""
    NOT_CALLED = "not called"
    """`with torch.no_grad:` raises."""
    NEVER_ENTERED = "never entered"
    """`ctx = torch.no_grad()`, and `ctx` is not mentioned again."""
    DECORATES_UNCALLED = "decorates uncalled"
    """`@torch.no_grad` under a torch that cannot do so."""
    DECORATES_CLASS = "decorates class"
    """`@torch.no_grad()` on a class: only its constructor runs without grad (torch/utils/_contextlib.py)."""


@dataclass(frozen=True, eq=False)
class IdleContext:
    """A context manager that the code makes, or names, and that never acts."""

    node: cst.BaseExpression
    why: Idle
    is_called: bool
    callable_as_is: bool
    """`()` makes a context of the class: it needs no argument."""
    statement: cst.Expr | None = None
    followers: Sequence[cst.CSTNode] = ()
    """What stands below a bare statement and was meant to run in the context."""
    function: cst.FunctionDef | None = None
    """The function on the line below a bare statement: the `@` is missing."""


def idle_contexts(module: Module) -> Iterator[IdleContext]:
    yield from _bare_calls(module)
    yield from _bare_names(module)
    yield from _in_class_bodies(module)
    yield from _not_called(module)
    yield from _early_decorators(module)
    yield from _class_decorators(module)


def _bare_calls(module: Module) -> Iterator[IdleContext]:
    for call in module.calls_of(known.ACTS_ONLY_WHEN_ENTERED):
        statement = call.statement
        if call.is_statement and isinstance(statement, cst.Expr):
            yield _bare(module, call.scope, statement, Idle.STATEMENT, True)
        elif _is_forgotten(call.scope, statement, call.node):
            yield IdleContext(call.call, Idle.NEVER_ENTERED, True, True)


def _is_forgotten(scope: Scope, statement: cst.CSTNode, node: cst.CSTNode) -> bool:
    """`ctx = torch.no_grad()` in a function that does not mention `ctx` again."""
    if not scope.is_function or not isinstance(statement, cst.Assign) or statement.value is not node:
        return False
    target = statement.targets[0].target
    if len(statement.targets) != 1 or not isinstance(target, cst.Name) or target.value in scope.nonlocal_names:
        return False
    return "locals" not in scope.words and mentions(scope.node, target.value) == 1


def _bare_names(module: Module) -> Iterator[IdleContext]:
    for flow in module.flows:
        for statement, value in flow.bare_names:
            if value.quals and value.quals <= known.ACTS_ONLY_WHEN_ENTERED:
                yield _bare(module, flow.scope, statement, Idle.NAME, _callable_as_is(value.quals))


def _in_class_bodies(module: Module) -> Iterator[IdleContext]:
    for scope in module.scopes:
        body = scope.node.body.body if isinstance(scope.node, cst.ClassDef) else ()
        lines = (line.body for line in body if isinstance(line, cst.SimpleStatementLine))
        for statement in (small for line in lines for small in line if isinstance(small, cst.Expr)):
            called = isinstance(statement.value, cst.Call)
            name = module.analysis.qualify(
                statement.value.func if isinstance(statement.value, cst.Call) else statement.value
            )
            if name in known.ACTS_ONLY_WHEN_ENTERED:
                why = Idle.STATEMENT if called else Idle.NAME
                yield _bare(module, scope, statement, why, called or _callable_as_is(frozenset({name})))


def _bare(module: Module, scope: Scope, statement: cst.Expr, why: Idle, callable_as_is: bool) -> IdleContext:
    below = followers(scope.node, statement)
    first = below[0] if below else None
    function = first if isinstance(first, cst.FunctionDef) and _is_next_line(first) else None
    # The functions of a script or a class run later, outside; a generator's consumer would run inside.
    if scope.has_yield or any(isinstance(item, (cst.FunctionDef, cst.ClassDef)) for item in below):
        below = ()
    is_called = why is Idle.STATEMENT
    return IdleContext(statement.value, why, is_called, callable_as_is, statement, below, function)


def _is_next_line(function: cst.FunctionDef) -> bool:
    return all(line.comment is not None for line in function.leading_lines)


def _not_called(module: Module) -> Iterator[IdleContext]:
    for _, item, value in module.withs:
        if value.quals and value.quals <= known.ACTS_ONLY_WHEN_ENTERED:
            yield IdleContext(item.item, Idle.NOT_CALLED, False, _callable_as_is(value.quals))


def _early_decorators(module: Module) -> Iterator[IdleContext]:
    if module.target_torch is None or module.target_torch >= known.DECORATES_UNCALLED_SINCE:
        return
    for scope in module.scopes:
        if not isinstance(scope.node, cst.FunctionDef):
            continue
        for decorator in scope.node.decorators:
            name = module.analysis.qualify(decorator.decorator)
            if name in known.GRAD_OFF_CONTEXTS | known.GRAD_ON_CONTEXTS:
                yield IdleContext(decorator.decorator, Idle.DECORATES_UNCALLED, False, True)


def _class_decorators(module: Module) -> Iterator[IdleContext]:
    for scope in module.scopes:
        if not isinstance(scope.node, cst.ClassDef) or all(_is_constructor(child) for child in scope.children):
            continue
        for decorator in scope.node.decorators:
            expression = decorator.decorator
            is_called = isinstance(expression, cst.Call)
            name = module.analysis.qualify(expression.func if isinstance(expression, cst.Call) else expression)
            if name in known.GRAD_OFF_CONTEXTS:
                yield IdleContext(expression, Idle.DECORATES_CLASS, is_called, False)


def _is_constructor(scope: Scope) -> bool:
    return not scope.is_function or scope.name == "__init__"


def _callable_as_is(quals: frozenset[str]) -> bool:
    return quals.isdisjoint(known.NEEDS_DEVICE_TYPE)
