"""What decorators and context managers of the project do to grad mode.

The library's own are in `knowledge`. These are read from their definitions: a function that mentions no word of grad
mode leaves it alone, and neither do the functions of the project that it calls.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator

from memlint.project.names import Names, file_of, is_symbol, name_in_file
from memlint.project.surface import FUNCTIONS, Definition, dotted, words_of
from memlint.semantics.knowledge import torch as known
from memlint.semantics.values import Mode

OFF_WORDS = frozenset({"no_grad", "inference_mode"})
GRAD_MODE_WORDS = OFF_WORDS | {"set_grad_enabled", "enable_grad"}
# A decorator's helper has helpers of its own; whoever hides grad mode deeper than this does so on purpose.
_DEPTH = 3
_CONTEXT_MANAGERS = frozenset({"contextlib.contextmanager", "contextlib.asynccontextmanager"})


def definition(names: Names, symbol: str) -> Definition | None:
    """The node of a function, class or method of the project."""
    tree = names.tree(file_of(symbol))
    body: list[ast.stmt] = tree.body if tree is not None else []
    found: Definition | None = None
    for part in name_in_file(symbol).split("."):
        found = next((node for node in _definitions(body) if node.name == part), None)
        if found is None:
            return None
        body = found.body
    return found


def _definitions(body: Iterable[ast.stmt]) -> Iterator[Definition]:
    for node in body:
        if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            yield node
        elif isinstance(node, (ast.If, ast.Try)):
            yield from _definitions([*node.body, *node.orelse])


def is_context_manager(names: Names, symbol: str) -> bool:
    """Whether `with symbol(...):` enters something that the project defines."""
    file, name = file_of(symbol), name_in_file(symbol)
    surface = names.surface(file)
    function = surface.functions.get(name)
    if function is not None:
        return any(names.qualify(file, item) in _CONTEXT_MANAGERS for item in function.decorators)
    return name in surface.classes and names.method(symbol, "__enter__") is not None


def effect_as_context(names: Names, symbol: str) -> Mode:
    """Grad mode inside `with symbol(...):`; KEEP: what it was."""
    node = definition(names, symbol)
    if node is None:
        return Mode.UNKNOWN
    return context_effect(node, _mentions_grad_mode(names, symbol, _DEPTH))


def effect_as_decorator(names: Names, symbol: str) -> Mode:
    """Grad mode in the body of a function that `@symbol` or `@symbol(...)` decorates; KEEP: its caller's."""
    node = definition(names, symbol)
    if node is None:
        return Mode.UNKNOWN
    return decorator_effect(node, _mentions_grad_mode(names, symbol, _DEPTH))


def context_effect(node: Definition, mentions: bool) -> Mode:
    if not mentions:
        return Mode.KEEP
    if isinstance(node, ast.ClassDef):
        enter = next((item for item in node.body if isinstance(item, FUNCTIONS) and item.name == "__enter__"), None)
        return Mode.OFF if enter is not None and any(_switches_off(item) for item in enter.body) else Mode.UNKNOWN
    yields = list(_yields(node.body, Mode.KEEP))
    modes = set(yields)
    return modes.pop() if len(modes) == 1 else Mode.UNKNOWN


def decorator_effect(node: Definition, mentions: bool) -> Mode:
    if not mentions:
        return Mode.KEEP
    words = words_of(node)
    if "enable_grad" in words or "set_grad_enabled" in words:
        return Mode.UNKNOWN
    for item in ast.walk(node):
        if isinstance(item, ast.With) and any(_is_off(entry.context_expr) for entry in item.items) and _calls(item):
            return Mode.OFF
        # `torch.no_grad()(fn)`, `(torch.inference_mode if new else torch.no_grad)()(fn)`
        if isinstance(item, ast.Call) and isinstance(item.func, ast.Call) and words_of(item.func) & OFF_WORDS:
            return Mode.OFF
    return Mode.UNKNOWN


def _calls(node: ast.With) -> bool:
    """Whether something that a plain name denotes is called: the decorated function."""
    return any(isinstance(inner, ast.Call) and isinstance(inner.func, ast.Name) for inner in ast.walk(node))


def _mentions_grad_mode(names: Names, symbol: str, depth: int) -> bool:
    """Whether the definition, or a function of the project that it calls, mentions grad mode."""
    node = definition(names, symbol)
    if node is None:
        return False
    if words_of(node) & GRAD_MODE_WORDS:
        return True
    if depth == 0:
        return False
    called = {dotted(item.func) for item in ast.walk(node) if isinstance(item, ast.Call)}
    for path in called:
        target = names.qualify(file_of(symbol), path) if path is not None else "?"
        if is_symbol(target) and target != symbol and _mentions_grad_mode(names, target, depth - 1):
            return True
    return False


def _yields(body: Iterable[ast.stmt], mode: Mode) -> Iterator[Mode]:
    """Grad mode at each `yield` of a context manager's generator, KEEP: that of the `with` statement."""
    for node in body:
        if _switches_off(node):
            mode = Mode.OFF
        elif isinstance(node, ast.Expr) and words_of(node) & GRAD_MODE_WORDS and not _has_yield(node):
            mode = Mode.UNKNOWN
        if isinstance(node, ast.With):
            yield from _yields(node.body, _entered(node, mode))
        elif isinstance(node, ast.Try):
            for block in (node.body, *(handler.body for handler in node.handlers), node.orelse, node.finalbody):
                yield from _yields(block, mode)
        elif isinstance(node, (ast.If, ast.For, ast.While)):
            yield from _yields(node.body, mode)
            yield from _yields(node.orelse, mode)
        elif _has_yield(node):
            yield mode


def _entered(node: ast.With, mode: Mode) -> Mode:
    for item in node.items:
        if _is_off(item.context_expr):
            mode = Mode.OFF
        elif words_of(item.context_expr) & GRAD_MODE_WORDS:
            mode = Mode.UNKNOWN
    return mode


def _has_yield(node: ast.AST) -> bool:
    return any(isinstance(item, (ast.Yield, ast.YieldFrom)) for item in ast.walk(node))


def _is_off(node: ast.expr) -> bool:
    """`torch.no_grad()`, `inference_mode()`, `torch.set_grad_enabled(False)`."""
    if not isinstance(node, ast.Call):
        return False
    last = (dotted(node.func) or "").rpartition(".")[2]
    if last in OFF_WORDS:
        return not node.args
    return last == "set_grad_enabled" and len(node.args) == 1 and _is_false(node.args[0])


def _switches_off(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and _is_off(node.value) and "set_grad_enabled" in words_of(node)


def _is_false(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is False


def library_context(name: str, call: ast.Call | None) -> Mode:
    """Grad mode inside a library's context manager; KEEP for all that torch does not know as one of grad mode."""
    if name in known.GRAD_OFF_CONTEXTS:
        return Mode.OFF if call is not None and not call.args else Mode.UNKNOWN
    if name in known.GRAD_ON_CONTEXTS:
        return Mode.ON
    if name in known.SET_GRAD_ENABLED:
        literal = call.args[0].value if call is not None and call.args and isinstance(call.args[0], ast.Constant) else 0
        return Mode.OFF if literal is False else Mode.ON if literal is True else Mode.UNKNOWN
    return Mode.KEEP
