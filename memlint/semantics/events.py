"""What happens in a function, in the field's words: loops, calls, backward passes, stores. Rules read these."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypedDict

import libcst as cst

from memlint.semantics.scopes import path_of
from memlint.semantics.values import NOTHING, Mode, Value

if TYPE_CHECKING:
    from memlint.semantics.scopes import Scope
    from memlint.semantics.summaries import FunctionSummary

_KEEPING_ITEMS = frozenset({"list", "sorted", "tuple", "set"})


@dataclass(eq=False)
class Loop:
    """A `for`, a `while` or a comprehension, with what its body does (directly or through functions of this file)."""

    node: cst.CSTNode
    scope: Scope
    parent: Loop | None
    iterates: Value
    iterable: cst.BaseExpression | None
    element: int
    """The root that stands for what one iteration is given."""
    source: cst.BaseExpression | None
    """What it goes through, whatever counts it: `batches` of `enumerate(tqdm(batches))`."""
    source_value: Value
    item: cst.BaseExpression | None
    """What one item is bound to: `batch` of `for number, batch in enumerate(batches)`."""
    drawn_from: frozenset[int] = frozenset()
    """Definitions of the iterators of which the body takes the next item: `next(batches)`."""
    feeds_forward: bool = False
    """What the iteration is given reaches the call of a module."""
    has_forward: bool = False
    has_backward: bool = False
    has_step: bool = False
    draws_from_loader: bool = False
    escaping_calls: bool = False
    runs_layers: bool = False
    """What is iterated over are the modules that are called."""
    backed_at_end: frozenset[int] | None = None
    """Definitions whose graph a backward pass has surely freed when an iteration ends; None: it never ends."""
    sums: set[str] = field(default_factory=set)
    """Access paths to which the body adds something."""
    carried: set[int] = field(default_factory=set)
    """Markers of the values that one iteration finds as the one before it left them."""
    filters: int = 0
    """How many conditions ask, where its body is being read, which of what it goes through it is given."""

    @property
    def sources(self) -> frozenset[int]:
        """Definitions of what the iterations are given something of."""
        return self.iterates.roots | self.drawn_from

    @property
    def is_comprehension(self) -> bool:
        return not isinstance(self.node, (cst.For, cst.While))

    @property
    def is_batch_loop(self) -> bool:
        """Each iteration handles a batch: it draws one from a loader, feeds what it is given forward, or trains."""
        return self.draws_from_loader or self.has_backward or (self.feeds_forward and not self.runs_layers)

    @property
    def is_training_loop(self) -> bool:
        return self.has_backward or self.has_step

    def gives_keys_of(self, path: str, name: str) -> bool:
        """`for name in losses:`, `for name in sorted(losses.keys()):`"""
        source = self.source
        if not isinstance(self.node, cst.For) or not isinstance(self.item, cst.Name) or self.item.value != name:
            return False
        while isinstance(source, cst.Call):
            if isinstance(source.func, cst.Attribute) and source.func.attr.value == "keys":
                source = source.func.value
            elif path_of(source.func) in _KEEPING_ITEMS and len(source.args) == 1:
                source = source.args[0].value
            else:
                return False
        return source is not None and path_of(source) == path

    def outer(self) -> Sequence[Loop]:
        """This loop and those around it, innermost first."""
        loops: list[Loop] = []
        loop: Loop | None = self
        while loop is not None:
            loops.append(loop)
            loop = loop.parent
        return loops


class Circumstances(TypedDict):
    """The fields of an event, for making one."""

    node: cst.CSTNode
    statement: cst.CSTNode
    scope: Scope
    loop: Loop | None
    mode: Mode
    guarded: bool
    handler: bool
    in_try: bool
    order: int
    branches: tuple[tuple[int, int], ...]


@dataclass(frozen=True, eq=False)
class Event:
    """Where and in which circumstances something happens."""

    node: cst.CSTNode
    statement: cst.CSTNode
    scope: Scope
    loop: Loop | None
    """The innermost loop around it."""
    mode: Mode
    guarded: bool
    """Inside a condition, a handler or behind an early `continue`, seen from the innermost loop or function."""
    handler: bool
    """Inside an `except` clause."""
    in_try: bool
    """In the body of a `try` that has handlers: an exception may be expected."""
    order: int
    """Grows in the order in which the body is read."""
    branches: tuple[tuple[int, int], ...]
    """The branches of `if` statements around it: which statement, which of its branches."""

    def excludes(self, other: Event) -> bool:
        """Whether both cannot happen in one pass: they stand in different branches of one `if`."""
        mine = dict(self.branches)
        return any(mine.get(statement, branch) != branch for statement, branch in other.branches)


@dataclass(frozen=True, eq=False)
class Argument:
    node: cst.Arg
    value: Value

    @property
    def expression(self) -> cst.BaseExpression:
        return self.node.value


@dataclass(frozen=True, eq=False)
class Handed:
    """An argument with the innermost expressions in it that carry a graph as one tensor."""

    argument: Argument
    carriers: tuple[tuple[cst.BaseExpression, Value], ...]


@dataclass(frozen=True, eq=False)
class Call(Event):
    """A call. `node` is the `cst.Call`."""

    callee: Value
    receiver: Value | None
    receiver_node: cst.BaseExpression | None
    method: str | None
    positional: tuple[Argument, ...]
    keywords: dict[str, Argument]
    unpacks: bool
    """Has `*args` or `**kwargs`: what they hold is unknown."""
    result: Value
    root: int
    """The definition that the result is, -1 where it needs none."""
    is_statement: bool
    """The call is a statement of its own: its result is thrown away."""
    is_forward: bool
    """A module is called."""
    backed: frozenset[int] = NOTHING
    """Definitions whose graph was surely freed before."""
    summary: FunctionSummary | None = None
    """Of a function of another file: what it does."""
    handed: tuple[Handed, ...] = ()
    """Of a statement of its own in a loop, or after a training step: what in its arguments carries a graph."""

    @property
    def call(self) -> cst.Call:
        assert isinstance(self.node, cst.Call)
        return self.node

    def names(self, table: frozenset[str] | set[str]) -> bool:
        """Whether every qualified name the callee may have stands in the table."""
        return bool(self.callee.quals) and self.callee.quals <= table


@dataclass(frozen=True, eq=False)
class Backward(Event):
    """A backward pass: `loss.backward()`, `accelerator.backward(loss)`, `torch.autograd.grad(loss, ...)`."""

    call: Call
    differentiated: Value
    frees: bool
    """The graph's saved tensors are freed by it (no `retain_graph`, no `create_graph`)."""


@dataclass(frozen=True, eq=False)
class Store(Event):
    """A value is put where it outlives the statement: added to a total, appended, put under a key."""

    how: str
    """`accumulate`, `append`, `extend`, `insert`, `setitem`."""
    target: cst.BaseExpression
    path: str | None
    """The target's access path: `total`, `self.losses`."""
    value: Value
    """What is put there; of a display, the part that carries a graph."""
    value_node: cst.BaseExpression
    carriers: tuple[tuple[cst.BaseExpression, Value], ...]
    """The innermost expressions in it that carry a graph as one tensor: where a `.detach()` belongs."""
    root: int
    """Marks this store in everything computed from the target afterwards."""
    carried_by: tuple[Loop, ...]
    """The loops, innermost first, whose next iteration finds the target as this one left it."""
    backed: frozenset[int]
    """Definitions whose graph was surely freed before."""
    in_object: bool
    """The target is an attribute, a parameter, a global or captured: it is in other hands too."""
    boxes: frozenset[int] = NOTHING


@dataclass(frozen=True, eq=False)
class AttributeStore(Event):
    """`owner.name = value`. `node` is the target."""

    owner: Value
    name: str
    path: str | None
    """The target's access path: `ctx.mask`, `self.error`."""
    value: Value
    source: cst.BaseExpression
    """What is assigned; of `a.x, a.y = f()` the whole right-hand side."""


@dataclass(frozen=True, eq=False)
class Use:
    """One use of a definition."""

    how: str
    """`method`, `argument`, `operand`, `subscript`, `attribute`, `test`, `iterate`, `format`, `return`, `yield`,
    `store`, `captured`, `written`, `delete`, `load`."""
    detail: str
    node: cst.CSTNode
    order: int
