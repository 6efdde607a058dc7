"""One call while it is read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import libcst as cst

from memlint.semantics.knowledge import torch as known
from memlint.semantics.values import PLAIN, Kind, Value

if TYPE_CHECKING:
    from memlint.semantics.events import Argument
    from memlint.semantics.flow import Flow
    from memlint.semantics.summaries import FunctionSummary


class Reading:
    """One call while it is read: its parts, evaluated."""

    __slots__ = (
        "callee",
        "forward",
        "keywords",
        "method",
        "node",
        "positional",
        "receiver",
        "receiver_node",
        "root",
        "summary",
        "unpacks",
    )

    def __init__(self, node: cst.Call) -> None:
        self.node = node
        self.callee = PLAIN
        self.receiver: Value | None = None
        self.receiver_node: cst.BaseExpression | None = None
        self.method: str | None = None
        self.positional: list[Argument] = []
        self.keywords: dict[str, Argument] = {}
        self.unpacks = False
        self.root = -1
        self.forward = False
        self.summary: FunctionSummary | None = None

    @property
    def arguments(self) -> list[Argument]:
        return [*self.positional, *self.keywords.values()]

    @property
    def values(self) -> list[Value]:
        return [argument.value for argument in self.arguments]

    def first(self) -> Value | None:
        return self.positional[0].value if self.positional else None


def literal_index(node: cst.Subscript) -> int | None:
    """The literal integer of `x[0]` or `x[-1]`."""
    if len(node.slice) != 1 or not isinstance(node.slice[0].slice, cst.Index):
        return None
    index = node.slice[0].slice.value
    sign = 1
    if isinstance(index, cst.UnaryOperation) and isinstance(index.operator, cst.Minus):
        sign, index = -1, index.expression
    return sign * int(index.value, 0) if isinstance(index, cst.Integer) else None


def string_value(node: cst.CSTNode) -> str | bytes | None:
    """What a string literal says; None for one with replacement fields."""
    if type(node) is not cst.SimpleString:
        return node.evaluated_value if isinstance(node, cst.ConcatenatedString) else None
    text = node.value
    if "\\" in text or "\r" in text or text[0] not in "'\"":
        return node.evaluated_value
    # LibCST has Python compile each literal.
    width = 3 if text.startswith(('"""', "'''")) else 1
    return text[width:-width]


def literal_key(node: cst.CSTNode) -> str | None:
    """The literal string of `x["loss"]`."""
    if not isinstance(node, cst.Subscript) or len(node.slice) != 1 or not isinstance(node.slice[0].slice, cst.Index):
        return None
    index = node.slice[0].slice.value
    return str(index.evaluated_value) if isinstance(index, cst.SimpleString) else None


def escape_arguments(flow: Flow, reading: Reading) -> None:
    for value in reading.values:
        flow.escape(value)


def reduced_pair(flow: Flow, reading: Reading, name: str, receiver: Value, arguments: list[Argument]) -> Value:
    """`values, indices = t.topk(k)`: the indices never require grad; `t.max()` alone is one tensor."""
    operands = [receiver, *(argument.value for argument in arguments)]
    if name in known.SEQUENCE_METHODS:
        return flow.derived(Kind.CONTAINER, reading.node, operands, reading.root)
    values = flow.derived(receiver.kind, reading.node, operands, reading.root)
    has_dim = bool(arguments) or "dim" in reading.keywords
    if name in ("topk", "kthvalue", "sort") or (name in ("max", "min", "median", "mode") and has_dim):
        if len(arguments) == 1 and arguments[0].value.is_tensor:
            return values
        indices = Value(Kind.TENSOR if receiver.is_tensor else Kind.UNKNOWN)
        return Value(Kind.CONTAINER, roots=values.roots, elements=(values, indices))
    return values


def parsed_annotation(text: str) -> cst.BaseExpression | None:
    """The annotation in a string; None where it is none."""
    try:
        return cst.parse_expression(text)
    except cst.ParserSyntaxError:
        return None
