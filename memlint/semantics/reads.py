"""Who reads a name. Worked out for a finding only, never for a whole file."""

from __future__ import annotations

import libcst as cst

from memlint.semantics.scopes import walk


def is_read(inside: cst.CSTNode, name: str) -> bool:
    """Whether the code (nested functions included) reads the name, rather than only binding it."""
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
    return any(isinstance(node, cst.Name) and node.value == name and id(node) not in no_reads for node in walk(inside))


def binds(inside: cst.CSTNode, name: str) -> bool:
    """Whether the code binds the name anew."""
    targets = (node.target for node in walk(inside) if isinstance(node, (cst.AssignTarget, cst.AnnAssign, cst.For)))
    bound = {node for target in targets for node in _bound(target)}
    return any(_is_name(node, name) and id(node) in bound for node in walk(inside))


def is_unpacked(inside: cst.CSTNode, name: str) -> bool:
    """Whether the name is taken apart, or put into a tuple: reads that are not recorded as uses."""
    for node in walk(inside):
        if isinstance(node, cst.Assign) and _is_name(node.value, name):
            if any(not isinstance(target.target, cst.Name) for target in node.targets):
                return True
        elif isinstance(node, cst.Arg):
            if node.star and _is_name(node.value, name):
                return True
        elif isinstance(node, cst.StarredElement) and _is_name(node.value, name):
            return True
    bound = {id(node.target) for node in walk(inside) if isinstance(node, (cst.AssignTarget, cst.For, cst.CompFor))}
    return any(
        isinstance(node, cst.Tuple)
        and id(node) not in bound
        and any(_is_name(element.value, name) for element in node.elements)
        for node in walk(inside)
    )


def _is_name(node: cst.CSTNode, name: str) -> bool:
    return isinstance(node, cst.Name) and node.value == name


def _bound(target: cst.CSTNode) -> set[int]:
    """The nodes of the plain names that a target binds."""
    if isinstance(target, cst.Name):
        return {id(target)}
    if isinstance(target, cst.StarredElement):
        return _bound(target.value)
    if isinstance(target, (cst.Tuple, cst.List)):
        return {node for element in target.elements for node in _bound(element.value)}
    return set()
