"""Loops that go over data batch by batch without a loader: by slices, or by what an iteration is given."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import libcst as cst

from memlint.semantics.naming import words_of
from memlint.semantics.scopes import NODES_REMEMBERED, target_names, walk

# What stands in a loop or function inside the loop is not its own.
_APART = frozenset({cst.For, cst.While, cst.FunctionDef, cst.ClassDef, cst.Lambda})
_BATCH_WORDS = frozenset({"batch", "minibatch"})
# `for batch_size in sizes`
_ABOUT_BATCHES = frozenset({"size", "sizes", "norm", "norms", "count", "counts", "total"})


@lru_cache(maxsize=NODES_REMEMBERED)
def goes_by_batches(loop: cst.For | cst.While) -> bool:
    """`for batch in batches`, `for i in range(0, n, size): x[i : i + size]`."""
    if isinstance(loop, cst.For) and any(map(_names_a_batch, target_names(loop.target))):
        return True
    changing = names_set_in(loop)
    return any(isinstance(node, cst.Slice) and _moves_on(node, changing) for node in walk(loop.body, _APART))


@lru_cache(maxsize=NODES_REMEMBERED)
def names_set_in(loop: cst.For | cst.While) -> frozenset[str]:
    """The names that each iteration sets anew, outside of the loops inside it."""
    names = set(target_names(loop.target)) if isinstance(loop, cst.For) else set()
    for node in walk(loop.body, _APART):
        if isinstance(node, (cst.AssignTarget, cst.AugAssign)):
            names.update(target_names(node.target))
    return frozenset(names)


def _names_a_batch(name: str) -> bool:
    words = words_of(name)
    return not words.isdisjoint(_BATCH_WORDS) and words.isdisjoint(_ABOUT_BATCHES)


def _moves_on(piece: cst.Slice, changing: frozenset[str]) -> bool:
    """`start:end`, both of which the iteration sets."""
    bounds = (piece.lower, piece.upper)
    return all(bound is not None and not changing.isdisjoint(_names_in(bound)) for bound in bounds)


def _names_in(node: cst.CSTNode) -> Iterator[str]:
    return (part.value for part in walk(node) if isinstance(part, cst.Name))
