"""Who reads a name, in a function or another node. What is asked about one node comes together: it is listed once."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import libcst as cst

from memlint.semantics.scopes import NODES_REMEMBERED, nodes_of, walk

_Binding = cst.AssignTarget | cst.AnnAssign | cst.For | cst.CompFor


def is_read(inside: cst.CSTNode, name: str) -> bool:
    """Whether the code (nested functions included) reads the name, rather than only binding it."""
    return name in _read_in(inside)


@lru_cache(maxsize=NODES_REMEMBERED)
def _read_in(inside: cst.CSTNode) -> frozenset[str]:
    no_reads: set[int] = set()
    for node in walk(inside):
        if isinstance(node, cst.Attribute):
            no_reads.add(id(node.attr))
        elif isinstance(node, cst.Arg) and node.keyword is not None:
            no_reads.add(id(node.keyword))
        elif isinstance(node, cst.Param):
            no_reads.add(id(node.name))
        elif isinstance(node, (cst.AssignTarget, cst.For, cst.CompFor, cst.AnnAssign)):
            no_reads.update(_bound(node.target))
        elif isinstance(node, cst.AsName):
            no_reads.update(_bound(node.name))
        elif isinstance(node, cst.Del):
            no_reads.update(_bound(node.target))
    return frozenset(node.value for node in nodes_of(inside, cst.Name) if id(node) not in no_reads)


def binds(inside: cst.CSTNode, name: str) -> bool:
    """Whether the code binds the name anew."""
    return name in _bound_in(inside)


@lru_cache(maxsize=NODES_REMEMBERED)
def _bound_in(inside: cst.CSTNode) -> frozenset[str]:
    targets = _targets_of(inside, cst.AssignTarget, cst.AnnAssign, cst.For)
    bound = {node for target in targets for node in _bound(target)}
    return frozenset(node.value for node in nodes_of(inside, cst.Name) if id(node) in bound)


def is_unpacked(inside: cst.CSTNode, name: str) -> bool:
    """Whether the name is taken apart, or put into a tuple: reads that are not recorded as uses."""
    return name in _unpacked_in(inside)


@lru_cache(maxsize=NODES_REMEMBERED)
def _unpacked_in(inside: cst.CSTNode) -> frozenset[str]:
    return frozenset(node.value for node in _unpacked(inside) if isinstance(node, cst.Name))


def _unpacked(inside: cst.CSTNode) -> Iterator[cst.BaseExpression]:
    for assign in nodes_of(inside, cst.Assign):
        if any(not isinstance(target.target, cst.Name) for target in assign.targets):
            yield assign.value
    yield from (argument.value for argument in nodes_of(inside, cst.Arg) if argument.star)
    yield from (element.value for element in nodes_of(inside, cst.StarredElement))
    bound = set(map(id, _targets_of(inside, cst.AssignTarget, cst.For, cst.CompFor)))
    for node in nodes_of(inside, cst.Tuple):
        if id(node) not in bound:
            yield from (element.value for element in node.elements)


def _targets_of(inside: cst.CSTNode, *kinds: type[_Binding]) -> list[cst.BaseExpression]:
    """What the nodes of these kinds bind."""
    return [node.target for kind in kinds for node in nodes_of(inside, kind)]


def _bound(target: cst.CSTNode) -> set[int]:
    """The nodes of the plain names that a target binds."""
    if isinstance(target, cst.Name):
        return {id(target)}
    if isinstance(target, cst.StarredElement):
        return _bound(target.value)
    if isinstance(target, (cst.Tuple, cst.List)):
        return {node for element in target.elements for node in _bound(element.value)}
    return set()
