"""Where the attributes of a file are read, and whether what is read is taken out of its graph there."""

from __future__ import annotations

from collections.abc import Iterator

import libcst as cst

from memlint.semantics.module import Module
from memlint.semantics.scopes import parts_of, walk
from memlint.semantics.values import Mode

_CUTTING = frozenset({"detach", "item", "tolist"})
# `self.queue.shape[0]` tells nothing of the values.
_LOOKS = frozenset({"shape", "device", "dtype", "size", "dim", "numel"})


class AttributeReads:
    """By name: whose attribute it is, nobody asks."""

    def __init__(self, module: Module) -> None:
        self._module = module
        self._parents: dict[int, cst.CSTNode] = {}
        self._attributes: dict[str, list[cst.Attribute]] = {}
        for node in walk(module.tree):
            if isinstance(node, cst.Attribute):
                self._attributes.setdefault(node.attr.value, []).append(node)
            for child in parts_of(node):
                self._parents[id(child)] = node

    def named(self, name: str) -> list[cst.Attribute]:
        """`memory.logprobs`, wherever it stands."""
        return self._attributes.get(name, [])

    def parent(self, node: cst.CSTNode) -> cst.CSTNode | None:
        return self._parents.get(id(node))

    def outside_tuple(self, node: cst.CSTNode | None) -> cst.CSTNode | None:
        """What stands around the node, and around the tuples that it is an element of."""
        parent = None if node is None else self.parent(node)
        while isinstance(parent, (cst.Element, cst.Tuple, cst.List)):
            parent = self.parent(parent)
        return parent

    def is_bound(self, node: cst.CSTNode) -> bool:
        """`self.logprobs = []`, `self.actions, self.logprobs = [], []`."""
        return isinstance(self.outside_tuple(node), cst.AssignTarget)

    def is_looked_at(self, node: cst.CSTNode) -> bool:
        """`self.bank.shape`"""
        parent = self.parent(node)
        return isinstance(parent, cst.Attribute) and parent.value is node and parent.attr.value in _LOOKS

    def cut(self, node: cst.CSTNode) -> cst.CSTNode | None:
        """What takes it out of its graph in the same expression: `.detach()`, `.data`."""
        for part in self._around(node):
            func = part.func if isinstance(part, cst.Call) else None
            if isinstance(func, cst.Attribute) and func.attr.value in _CUTTING:
                return part
            if isinstance(part, cst.Attribute) and part is not node and part.attr.value == "data":
                return part
        return None

    def is_read_without_grad(self, node: cst.CSTNode) -> bool:
        """A call of the same expression makes a tensor of it where grad mode is off."""
        calls = (self._module.call_at(part) for part in self._around(node) if isinstance(part, cst.Call))
        return any(call is not None and call.mode is Mode.OFF and call.result.is_tensor for call in calls)

    def _around(self, node: cst.CSTNode) -> Iterator[cst.CSTNode]:
        """The node and the expressions around it, from the inside out."""
        current: cst.CSTNode | None = node
        while isinstance(current, (cst.BaseExpression, cst.Arg)):
            yield current
            current = self.parent(current)
