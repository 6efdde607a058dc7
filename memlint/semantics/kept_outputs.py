"""Outputs that an object keeps and of which nobody takes more than the data."""

from __future__ import annotations

import libcst as cst

from memlint.semantics.events import Call
from memlint.semantics.knowledge import torch as known
from memlint.semantics.module import Module
from memlint.semantics.scopes import path_of, walk

_DATA = known.DETACHING_METHODS | {"data"}


def is_kept_as_data(module: Module, call: Call) -> bool:
    """`self.fake = self.net(x)` where all that reads `self.fake` in the class, if anything, is `self.fake.data`."""
    owner, statement = call.scope.enclosing_class(), call.statement
    if owner is None or not isinstance(statement, cst.Assign) or statement.value is not call.node:
        return False
    paths = [path_of(item.target) for item in statement.targets]
    if len(paths) != 1 or paths[0] is None or not paths[0].startswith("self.") or paths[0].count(".") != 1:
        return False
    nodes = list(walk(owner.node))
    bound = {id(item.target) for node in nodes if isinstance(node, cst.Assign) for item in node.targets}
    data = {id(node.value) for node in nodes if isinstance(node, cst.Attribute) and node.attr.value in _DATA}
    reads = [node for node in nodes if isinstance(node, cst.Attribute) and path_of(node) == paths[0]]
    reads = [node for node in reads if id(node) not in bound]
    return bool(reads) and all(id(node) in data for node in reads) and call.root not in module.analysis.escaped
