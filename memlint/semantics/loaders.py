"""Loaders: how they are made, and those that only their name tells (for findings of medium confidence)."""

from __future__ import annotations

from collections.abc import Iterator

import libcst as cst

from memlint.semantics.events import Call
from memlint.semantics.knowledge import torch as known
from memlint.semantics.module import Module
from memlint.semantics.naming import words_of
from memlint.semantics.scopes import Scope, assignments_in, path_of
from memlint.semantics.values import Kind, Value

_LOADER_WORDS = frozenset({"loader", "dataloader", "trainloader", "valloader", "validloader", "testloader"})
# `loader_kwargs`, `loader_name`: what belongs to a loader.
_OTHER_WORDS = frozenset(
    """kwargs args arguments config configs cfg params parameters options opts opt settings name names fn factory func
    cls class type id ids path paths len length size sizes dict state""".split()
)
_FIRST_FEW = frozenset({"itertools.islice"})
# `zip(range(10), loader)` ends with the shorter one.
_SHORT = frozenset({"range"})


def is_named_loader(module: Module, expression: cst.BaseExpression, value: Value) -> bool:
    """An unknown value of a file that uses torch, called a loader; `enumerate` and the like may stand around it.

    What a class in view has made is no unknown value: `loader = jinja2.FileSystemLoader(...)`.
    """
    call = module.call_at(expression)
    if call is not None and call.names(known.ITERATION_WRAPPERS) and call.positional:
        inner = call.positional[0]
        return is_named_loader(module, inner.expression, inner.value)
    if call is not None and module.uses_torch:
        return (path_of(call.call.func) or "").endswith("DataLoader")  # of torch, or one that inherits it
    path = path_of(expression)
    if path is None or not module.uses_torch or value.kind is not Kind.UNKNOWN:
        return False
    if any(_is_made_by_a_class(module, node) for node in module.definitions(value)):
        return False
    words = words_of(path.rpartition(".")[2])
    return not words.isdisjoint(_LOADER_WORDS) and words.isdisjoint(_OTHER_WORDS)


def _is_made_by_a_class(module: Module, node: cst.CSTNode) -> bool:
    call = module.call_at(node)
    return call is not None and any(qual.rpartition(".")[2][:1].isupper() for qual in call.callee.quals)


def made_by(module: Module, expression: cst.BaseExpression, value: Value) -> Iterator[Call]:
    """The calls that make the value, as far as they are in view: `DataLoader(...)`, `islice(loader, 4)`."""
    for node in (expression, *module.definitions(value)):
        call = module.call_at(node)
        if call is not None:
            yield call


def hands_out_few(module: Module, expression: cst.BaseExpression, value: Value) -> bool:
    """`islice(loader, 4)`, also behind `enumerate`; or a loader whose one batch is the whole data set."""
    for call in made_by(module, expression, value):
        if call.names(_FIRST_FEW):
            return True
        if call.names(known.ITERATION_WRAPPERS):
            for inner in call.positional if call.names({"zip"}) else call.positional[:1]:
                made = module.call_at(inner.expression)
                if made is not None and made.names(_SHORT) and call.names({"zip"}):
                    return True
                if inner.value is not value and hands_out_few(module, inner.expression, inner.value):
                    return True
        size = call.keywords.get("batch_size")
        if size is not None and _is_length(module, call.scope, size.expression):
            return True
    return False


def _is_length(module: Module, scope: Scope, node: cst.BaseExpression) -> bool:
    """`len(dataset)`, or a variable that is set to it."""
    made = assignments_in(scope.node).get(path_of(node), ()) if isinstance(node, cst.Name) else ()
    call = module.call_at(made[-1].value if made else node)
    return call is not None and call.names({"len"})


def unwrapped(module: Module, node: cst.BaseExpression) -> cst.BaseExpression:
    """`batches` of `enumerate(tqdm(batches))`."""
    call = module.call_at(node)
    while call is not None and call.names(known.ITERATION_WRAPPERS) and call.positional:
        node = call.positional[0].expression
        call = module.call_at(node)
    return node
