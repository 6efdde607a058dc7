"""Clones that arithmetic reads at once: `x.clone() + y` makes a tensor of its own anyway."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import libcst as cst

from memlint.semantics.events import Call
from memlint.semantics.module import Module
from memlint.semantics.scopes import parents_within, path_of, walk
from memlint.semantics.values import Kind


@dataclass(frozen=True, eq=False)
class OperandClone:
    """`source.clone()`, an operand of an operator that writes to neither of its operands."""

    call: Call
    source: cst.BaseExpression


def operand_clones(module: Module) -> Iterator[OperandClone]:
    if not module.uses_torch:
        return
    for call in module.calls:
        source, receiver = call.receiver_node, call.receiver
        if call.method != "clone" or call.call.args or source is None or receiver is None or receiver.quals:
            continue
        if receiver.kind not in (Kind.TENSOR, Kind.UNKNOWN) or receiver.boxes or path_of(source) is None:
            continue
        other = _other_operand(call)
        if other is not None and not _may_reach(other, source):
            yield OperandClone(call, source)


def _other_operand(call: Call) -> cst.BaseExpression | None:
    """`y` of `x.clone() + y`."""
    parent = parents_within(call.scope.node).get(id(call.node))
    if not isinstance(parent, cst.BinaryOperation):
        return None
    return parent.right if parent.left is call.node else parent.left


def _may_reach(other: cst.BaseExpression, source: cst.BaseExpression) -> bool:
    """`x.clone() + block(x)`: what is computed meanwhile may write to the source."""
    head = (path_of(source) or "").partition(".")[0]
    calls = any(isinstance(node, cst.Call) for node in walk(other))
    return calls and any(isinstance(node, cst.Name) and node.value in (head, "self") for node in walk(other))
