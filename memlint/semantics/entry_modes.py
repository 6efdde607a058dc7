"""The grad mode in which a function's body starts, and in which what stands in a `with` runs."""

from __future__ import annotations

import ast
import textwrap
from functools import lru_cache
from typing import TYPE_CHECKING

import libcst as cst

from memlint.project.surface import FUNCTIONS, Definition
from memlint.semantics.grad_effects import GRAD_MODE_WORDS, context_effect, decorator_effect
from memlint.semantics.knowledge import torch as known
from memlint.semantics.knowledge.frameworks import is_of_plain_library
from memlint.semantics.modes import is_layer_method, library_decorator_mode, method_mode
from memlint.semantics.naming import EVALUATION_WORDS, words_of
from memlint.semantics.scopes import NODES_REMEMBERED, Scope, path_of, walk
from memlint.semantics.values import Mode

if TYPE_CHECKING:
    from memlint.semantics.classes import Classes


_HOOK_WORDS = frozenset({"step", "on", "batch", "epoch", "hook"})


def entry_mode(classes: Classes, scope: Scope) -> Mode:
    """The grad mode in which a scope's body starts, as far as its decorators, class and framework tell."""
    if scope.parent is None or scope.is_class:
        return Mode.ON
    if not isinstance(scope.node, cst.FunctionDef):
        return Mode.ENTRY
    for decorator in scope.node.decorators:
        mode = _decorator_mode(classes, decorator, scope.node)
        if mode is not Mode.KEEP:
            return mode
    if scope.parent.is_class:
        return _method_mode(classes, scope, scope.parent)
    return Mode.ENTRY


def _decorator_mode(classes: Classes, decorator: cst.Decorator, function: cst.FunctionDef) -> Mode:
    expression = decorator.decorator
    call = expression if isinstance(expression, cst.Call) else None
    name = classes.qualify(call.func if call is not None else expression)
    if name is None:
        return Mode.UNKNOWN
    if is_of_plain_library(maker_of(classes, name.partition(".")[0])):
        return Mode.KEEP  # `@app.route("/predict")`
    if name in known.GRAD_OFF_CONTEXTS:
        # An `async def` runs after the decorator's context has been left.
        return Mode.OFF if function.asynchronous is None and not (call and call.args) else Mode.UNKNOWN
    if name in known.SET_GRAD_ENABLED:
        literal = call is not None and len(call.args) == 1 and path_of(call.args[0].value)
        return {"False": Mode.OFF, "True": Mode.ON}.get(str(literal), Mode.UNKNOWN)
    if name.startswith(":"):
        return _own_decorator_mode(classes, name)
    if classes.view is not None and name.startswith("@"):
        mode = classes.view.decorator_mode(name)
        return Mode.UNKNOWN if mode is Mode.OFF and function.asynchronous is not None else mode
    return library_decorator_mode(name)


def maker_of(classes: Classes, name: str) -> str:
    """The qualified name of what made the variable of a file, `flask.Flask` of `app = Flask(__name__)`, or ""."""
    made = _made_at_top(classes.tree).get(name)
    return (classes.qualify(made.func) or "") if made is not None else ""


@lru_cache(maxsize=NODES_REMEMBERED)
def _made_at_top(tree: cst.Module) -> dict[str | None, cst.Call]:
    """The variables of the file that hold what a call returned."""
    return {
        path_of(target.target): item.value
        for statement in tree.body
        if isinstance(statement, cst.SimpleStatementLine)
        for item in statement.body
        if isinstance(item, cst.Assign) and isinstance(item.value, cst.Call)
        for target in item.targets
    }


def decorators(classes: Classes, scope: Scope) -> list[str]:
    """The qualified names of a function's decorators, `?` for those that have none."""
    if not isinstance(scope.node, cst.FunctionDef):
        return []
    expressions = [decorator.decorator for decorator in scope.node.decorators]
    return [classes.qualify(item.func if isinstance(item, cst.Call) else item) or "?" for item in expressions]


def _own_decorator_mode(classes: Classes, name: str) -> Mode:
    """A decorator of this file leaves grad mode alone unless something in it mentions grad mode."""
    scope = classes.definition(name)
    if scope is None:
        return Mode.UNKNOWN
    if not scope.words_within & GRAD_MODE_WORDS:
        return Mode.KEEP
    node = _python_node(classes, scope)
    return Mode.UNKNOWN if node is None else decorator_effect(node, mentions=True)


def _python_node(classes: Classes, scope: Scope) -> Definition | None:
    """The function or class as Python's own parser sees it."""
    try:
        body = ast.parse(textwrap.dedent(classes.tree.code_for_node(scope.node))).body
    except (SyntaxError, ValueError, RecursionError):
        return None
    return body[0] if len(body) == 1 and isinstance(body[0], (*FUNCTIONS, ast.ClassDef)) else None


def context_mode(classes: Classes, name: str) -> Mode | None:
    """Grad mode inside `with name(...):`, KEEP for what it was; None where it makes no context manager."""
    if name.startswith("@"):
        makes_context = classes.view is not None and classes.view.is_context_manager(name)
        return classes.view.context_mode(name) if classes.view is not None and makes_context else None
    scope = classes.definition(name)
    if scope is None:
        return None
    if scope.is_class and classes.method(name, "__enter__") is None:
        return None
    if not scope.is_class and "contextlib.contextmanager" not in decorators(classes, scope):
        return None
    if scope.is_class and classes.base_names(name) - {"object", "contextlib.ContextDecorator"}:
        return Mode.OFF if classes.base_names(name) <= known.GRAD_OFF_CONTEXTS else Mode.UNKNOWN
    if not scope.words_within & GRAD_MODE_WORDS:
        return Mode.KEEP
    node = _python_node(classes, scope)
    return Mode.UNKNOWN if node is None else context_effect(node, mentions=True)


def _method_mode(classes: Classes, scope: Scope, owner: Scope) -> Mode:
    mode = method_mode(scope.name, classes.base_names(owner.qualname))
    is_module = mode is Mode.UNKNOWN and "register_buffer" in owner.words_within
    if is_module and is_layer_method(scope.name, scope.words):
        return Mode.ENTRY  # a layer, whatever its base out of view is: no framework runs it by itself
    if mode is Mode.UNKNOWN and _runs_an_evaluation(scope):
        return Mode.ENTRY
    return mode


def _runs_an_evaluation(scope: Scope) -> bool:
    """A method that puts a model into eval mode and loops: what a framework does around its hooks, it does itself.

    So do `predict_proba` and `val`, with one pass.
    """
    if not any("eval" in methods for methods in scope.methods_called.values()):
        return False
    words = words_of(scope.name)
    evaluates = not words.isdisjoint(EVALUATION_WORDS) and words.isdisjoint(_HOOK_WORDS)
    return evaluates or any(isinstance(node, cst.For) for node in walk(scope.node))
