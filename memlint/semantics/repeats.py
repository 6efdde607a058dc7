"""Iterators of the standard library that remember what they have handed out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import libcst as cst

from memlint.semantics.events import Call
from memlint.semantics.loaders import hands_out_few, is_named_loader
from memlint.semantics.module import Module
from memlint.semantics.values import Kind

# itertools documentation: cycle "saving a copy of each" element, tee keeps what one of its iterators has not taken yet.
_EVERY_ITEM = frozenset({"itertools.cycle"})
_REMEMBERS = _EVERY_ITEM | {"itertools.tee"}


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
        if hands_out_few(module, argument.expression, argument.value):
            continue
        if argument.value.kind in (Kind.LOADER, Kind.DATASET):
            yield RememberedBatches(call, argument.expression, call.names(_EVERY_ITEM), argument.value.weak)
        elif is_named_loader(module, argument.expression, argument.value):
            yield RememberedBatches(call, argument.expression, call.names(_EVERY_ITEM), True)
