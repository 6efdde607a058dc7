"""Loaders that only their name tells: weak evidence, for findings of medium confidence."""

from __future__ import annotations

import libcst as cst

from memlint.semantics.knowledge import torch as known
from memlint.semantics.module import Module, words_of
from memlint.semantics.scopes import path_of
from memlint.semantics.values import Kind, Value

_LOADER_WORDS = frozenset({"loader", "dataloader"})


def is_named_loader(module: Module, expression: cst.BaseExpression, value: Value) -> bool:
    """An unknown value of a file that uses torch, called a loader; `enumerate` and the like may stand around it.

    What a class in view has made is no unknown value: `loader = jinja2.FileSystemLoader(...)`.
    """
    call = module.call_at(expression)
    if call is not None and call.names(known.ITERATION_WRAPPERS) and call.positional:
        inner = call.positional[0]
        return is_named_loader(module, inner.expression, inner.value)
    path = path_of(expression)
    if path is None or "torch" not in module.words or value.kind is not Kind.UNKNOWN:
        return False
    if any(_is_made_by_a_class(module, node) for node in module.definitions(value)):
        return False
    return not words_of(path.rpartition(".")[2]).isdisjoint(_LOADER_WORDS)


def _is_made_by_a_class(module: Module, node: cst.CSTNode) -> bool:
    call = module.call_at(node)
    return call is not None and any(qual.rpartition(".")[2][:1].isupper() for qual in call.callee.quals)
