"""Iterators of the standard library that remember what they have handed out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import libcst as cst

from memlint.semantics.events import Call
from memlint.semantics.knowledge import torch as known
from memlint.semantics.loaders import is_named_loader
from memlint.semantics.module import Module
from memlint.semantics.values import Kind, Value

# itertools documentation: cycle "saving a copy of each" element, tee keeps what one of its iterators has not taken yet.
_EVERY_ITEM = frozenset({"itertools.cycle"})
_REMEMBERS = _EVERY_ITEM | {"itertools.tee"}
_FIRST_FEW = frozenset({"itertools.islice"})


@dataclass(frozen=True, eq=False)
class RememberedBatches:
    """`cycle` or `tee` over something that makes its items anew in every pass."""

    call: Call
    iterable: cst.BaseExpression
    every_item: bool
    """`cycle` keeps all items, `tee` those that one of its iterators has not reached."""
    by_name: bool
    """Only the iterable's name says that it is a loader."""


def remembered_batches(module: Module) -> Iterator[RememberedBatches]:
    for call in module.calls_of(_REMEMBERS):
        if not call.positional or call.unpacks:
            continue
        argument = call.positional[0]
        if _hands_out_few(module, argument.expression, argument.value):
            continue
        if argument.value.kind in (Kind.LOADER, Kind.DATASET):
            yield RememberedBatches(call, argument.expression, call.names(_EVERY_ITEM), argument.value.weak)
        elif is_named_loader(module, argument.expression, argument.value):
            yield RememberedBatches(call, argument.expression, call.names(_EVERY_ITEM), True)


def _hands_out_few(module: Module, expression: cst.BaseExpression, value: Value) -> bool:
    """`islice(loader, 4)`, also behind `enumerate`; or a loader whose one batch is the whole data set."""
    made_by = [module.call_at(node) for node in (expression, *module.definitions(value))]
    for call in made_by:
        if call is None:
            continue
        if call.names(_FIRST_FEW):
            return True
        if call.names(known.ITERATION_WRAPPERS) and call.positional:
            inner = call.positional[0]
            if inner.value is not value and _hands_out_few(module, inner.expression, inner.value):
                return True
        size = call.keywords.get("batch_size")
        if size is not None and (length := module.call_at(size.expression)) is not None and length.names({"len"}):
            return True
    return False
