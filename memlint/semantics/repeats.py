"""Iterators of the standard library that remember what they have handed out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import libcst as cst

from memlint.semantics.events import Argument, Call
from memlint.semantics.loaders import hands_out_few, is_named_loader
from memlint.semantics.module import Module
from memlint.semantics.naming import words_of
from memlint.semantics.scopes import path_of
from memlint.semantics.values import Kind, Value

# itertools documentation: cycle "saving a copy of each" element, tee keeps what one of its iterators has not taken yet.
_EVERY_ITEM = frozenset({"itertools.cycle"})
_TEE = frozenset({"itertools.tee"})
_REMEMBERS = _EVERY_ITEM | _TEE

_ONE_LOADER = frozenset({"loader", "dataloader"})
_MANY_LOADERS = frozenset({"loaders", "dataloaders", "dls"})
_SHORT_NAMES = frozenset({"dl"})
# What a function that makes a loader gives back beside it may be class names: the variable must say data, too.
_DATA = frozenset("data batch batches io iter iterator train val valid test eval it gen stream".split())


@dataclass(frozen=True, eq=False)
class RememberedBatches:
    """`cycle` or `tee` over something that makes its items anew in every pass."""

    call: Call
    iterable: cst.BaseExpression
    every_item: bool
    """`cycle` keeps all items, `tee` those that one of its iterators has not reached."""
    by_name: bool
    """Only a name says that the iterable is a loader."""
    again: bool = False
    """`it, copy = tee(it)` in an endless loop that reads each copy to its end: a `cycle` made by hand."""


def remembered_batches(module: Module) -> Iterator[RememberedBatches]:
    for call in module.calls_of(_REMEMBERS):
        if not call.positional or call.unpacks:
            continue
        argument = call.positional[0]
        if hands_out_few(module, argument.expression, argument.value):
            continue
        if argument.value.kind in (Kind.LOADER, Kind.DATASET):
            yield RememberedBatches(call, argument.expression, call.names(_EVERY_ITEM), argument.value.weak)
        elif _is_cycle_by_hand(module, call):
            yield RememberedBatches(call, argument.expression, False, True, True)
        elif is_named_loader(module, argument.expression, argument.value) or _is_shown_loader(module, argument):
            yield RememberedBatches(call, argument.expression, call.names(_EVERY_ITEM), True)


def _is_shown_loader(module: Module, argument: Argument) -> bool:
    """`train_dl`, `loaders["train"]`, `get_train_loader()`, and what such a function has returned."""
    expression, value = argument.expression, argument.value
    if "torch" not in module.words or value.kind is not Kind.UNKNOWN:
        return False
    if isinstance(expression, cst.Subscript):
        return not _words(expression.value).isdisjoint(_MANY_LOADERS)
    if isinstance(expression, cst.Call):
        return _makes_loader(expression)
    if not _words(expression).isdisjoint(_SHORT_NAMES):
        return True
    return not _words(expression).isdisjoint(_DATA) and any(_makes_loader(node) for node in _makers(module, value))


def _makers(module: Module, value: Value) -> Iterator[cst.Call]:
    """The calls that have returned the value, or a tuple that it was taken from."""
    for ident in value.idents:
        root = module.analysis.roots[ident]
        for origin in (ident, *root.ancestors):
            node = module.analysis.roots[origin].node
            if isinstance(node, cst.Call):
                yield node


def _makes_loader(call: cst.Call) -> bool:
    """`loader_factory(cfg)`, `self.build_dataloader("train")`; a class, `FileSystemLoader(...)`, may load anything."""
    name = (path_of(call.func) or "").rpartition(".")[2]
    return not name[:1].isupper() and not words_of(name).isdisjoint(_ONE_LOADER | _MANY_LOADERS)


def _words(expression: cst.BaseExpression) -> frozenset[str]:
    return words_of((path_of(expression) or "").rpartition(".")[2])


def _is_cycle_by_hand(module: Module, call: Call) -> bool:
    """Each pass reads one copy to its end, so the other one remembers every item; the next pass starts from that."""
    loop, statement = call.loop, call.statement
    if loop is None or not isinstance(loop.node, cst.While) or not isinstance(statement, cst.Assign):
        return False
    target = statement.targets[0].target
    if not call.names(_TEE) or len(statement.targets) != 1 or not isinstance(target, cst.Tuple):
        return False
    names = {path_of(element.value) for element in target.elements}
    copies = names - {path_of(call.positional[0].expression)}
    if len(copies) == len(names):
        return False
    inner = (item for item in module.loops if loop in item.outer() and isinstance(item.node, cst.For))
    return any(item.source is not None and path_of(item.source) in copies for item in inner)
