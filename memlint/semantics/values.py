"""Abstract values: what the analysis knows of an expression at one point of a function."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from memlint.semantics.questions import Question

if TYPE_CHECKING:
    import libcst as cst


class Kind(Enum):
    UNKNOWN = "unknown"
    TENSOR = "tensor"
    NUMBER = "number"
    NONE = "none"
    PLAIN = "plain"
    """A string, an array, a file: something that holds no autograd graph."""
    CONTAINER = "container"
    MODULE = "module"
    OPTIMIZER = "optimizer"
    LOADER = "loader"
    DATASET = "dataset"
    SCALER = "scaler"
    CALLABLE = "callable"
    """A function, class or namespace that `quals` name."""
    INSTANCE = "instance"
    """An object of a class of this file (`cls`)."""
    CONTEXT = "context"
    """A context manager; `mode` says what entering it does to grad mode."""
    STATE = "state"
    """What torch.load or state_dict() returned."""


class Grad(Enum):
    """Does the value carry an autograd graph?"""

    NO = "no"
    YES = "yes"
    """Yes, if every one of the value's conditions holds."""
    MIXED = "mixed"
    """On some paths only, or not known: never ground for a finding."""


class Mode(Enum):
    """Grad mode of a program point."""

    ON = "on"
    OFF = "off"
    UNKNOWN = "unknown"
    ENTRY = "entry"
    """That of the caller."""
    KEEP = "keep"
    """Of a context manager or decorator: changes nothing."""


@dataclass(frozen=True)
class Proof:
    """The condition that the value defined at this root carries a graph.

    Proven by a `backward()` on it, or by what the analysis claims of the root (`Analysis.claim`).
    """

    root: int


Condition = Proof | Question
NONE_NEEDED: frozenset[Condition] = frozenset()
NOTHING: frozenset[int] = frozenset()
MAX_HELD = 600
"""A value that would hold more definitions counts as made by code out of view, which got them all; so does a container.

Each step of a sum of thousands of calls, or of functions that call each other, would go over all before it otherwise.
In the packages of benchmarks/corpus.toml few values hold more than 200.
"""
MAX_ALTERNATIVES = 50
"""Of a variable that may be one of more definitions it is not followed which: in those packages none is one of 20."""
NO_NAMES: frozenset[str] = frozenset()


class Value:
    """Immutable by convention (slots and no freezing, for speed: millions are made)."""

    __slots__ = (
        "boxes",
        "cls",
        "conditions",
        "elements",
        "grad",
        "idents",
        "kind",
        "literal",
        "mode",
        "partly",
        "proves",
        "quals",
        "roots",
        "weak",
    )

    def __init__(  # noqa: PLR0913 - one keyword for each fact: every caller names the few that it knows
        self,
        kind: Kind = Kind.UNKNOWN,
        grad: Grad = Grad.NO,
        *,
        conditions: frozenset[Condition] = NONE_NEEDED,
        roots: frozenset[int] = NOTHING,
        idents: frozenset[int] = NOTHING,
        quals: frozenset[str] = NO_NAMES,
        cls: str | None = None,
        elements: tuple[Value, ...] | None = None,
        boxes: frozenset[int] = NOTHING,
        mode: Mode | None = None,
        literal: object = None,
        weak: bool = False,
        proves: frozenset[int] = NOTHING,
        partly: frozenset[Condition] | None = None,
    ) -> None:
        self.kind = kind
        self.grad = grad
        self.conditions = conditions
        """What must hold for `grad` YES to be true."""
        self.roots = roots
        """Every definition whose graph this value may hold."""
        self.idents = idents
        """The definitions of which this value is exactly one."""
        self.mode = mode
        """Of a context manager: what entering it does to grad mode.

        Of a module, OFF: its parameters need no gradient.
        """
        self.quals = quals
        """Qualified names, where the value is a function, class or namespace."""
        self.cls = cls
        self.elements = elements
        self.boxes = boxes
        """The containers that this value may be."""
        self.literal = literal
        self.proves = proves | idents
        """The definitions that must carry a graph if this value does: what a `backward()` on it proves."""
        self.weak = weak
        """A name was part of the evidence."""
        self.partly = partly
        """Of `grad` MIXED: what must hold for it to carry a graph whenever one of several branches was taken."""

    def holding(self, more: frozenset[int]) -> Value:
        """`with_roots` of whatever can hold a definition: no number does."""
        return self if self.kind in (Kind.NUMBER, Kind.PLAIN) else self.with_roots(more)

    def with_roots(self, more: frozenset[int]) -> Value:
        """The same value, which may hold these definitions too."""
        return Value(
            self.kind,
            self.grad,
            conditions=self.conditions,
            roots=self.roots | more,
            idents=self.idents,
            quals=self.quals,
            cls=self.cls,
            elements=None if self.elements is None else tuple(part.holding(more) for part in self.elements),
            boxes=self.boxes,
            mode=self.mode,
            literal=self.literal,
            weak=self.weak,
            proves=self.proves,
            partly=self.partly,
        )

    def as_weak(self) -> Value:
        """The same value; a name was part of the evidence."""
        return Value(
            self.kind,
            self.grad,
            conditions=self.conditions,
            roots=self.roots,
            idents=self.idents,
            cls=self.cls,
            weak=True,
            proves=self.proves,
        )

    def at_times(self, conditions: frozenset[Condition]) -> Value:
        """The same value, which carries a graph on some paths if the conditions hold."""
        return Value(
            self.kind,
            Grad.MIXED,
            roots=self.roots,
            idents=self.idents,
            cls=self.cls,
            boxes=self.boxes,
            weak=self.weak,
            proves=self.proves,
            partly=conditions,
        )

    def when_carrying(self) -> Value:
        """The value on the paths on which it carries a graph."""
        if self.partly is None:
            return self
        return Value(
            self.kind,
            Grad.YES,
            conditions=self.partly,
            roots=self.roots,
            idents=self.idents,
            boxes=self.boxes,
            weak=True,
            proves=self.proves,
        )

    @property
    def depth(self) -> int:
        """How deep its tuples are nested."""
        return 1 + max((element.depth for element in self.elements), default=0) if self.elements else 0

    def of_unknown_kind(self) -> Value:
        """The same value, of which it is not known any more what it is."""
        return join(self, Value(Kind.UNKNOWN, self.grad, conditions=self.conditions, quals=self.quals))

    @property
    def carries_graph(self) -> bool:
        return self.grad is Grad.YES

    @property
    def is_tensor(self) -> bool:
        return self.kind is Kind.TENSOR


NUMBER = Value(Kind.NUMBER)
PLAIN = Value(Kind.PLAIN)
NONE = Value(Kind.NONE)
TRUE = Value(Kind.NUMBER, literal=True)
FALSE = Value(Kind.NUMBER, literal=False)
NO_GRAD_TENSOR = Value(Kind.TENSOR)
MIXED = Value(Kind.UNKNOWN, Grad.MIXED)
PARAMETER = Value(Kind.TENSOR, Grad.MIXED, cls="torch.nn.Parameter")
"""It requires grad unless somebody froze it."""


def join(a: Value, b: Value) -> Value:
    """What is known when either may be the value."""
    if a is b:
        return a
    grad = a.grad if a.grad is b.grad else Grad.MIXED
    return Value(
        _join_kinds(a, b),
        grad,
        conditions=a.conditions | b.conditions if grad is Grad.YES else NONE_NEEDED,
        roots=a.roots | b.roots,
        idents=a.idents | b.idents,
        proves=a.proves | b.proves,
        quals=_join_quals(a, b),
        cls=a.cls if a.cls == b.cls or b.kind is Kind.NONE else (b.cls if a.kind is Kind.NONE else None),
        elements=_join_elements(a, b),
        boxes=a.boxes | b.boxes,
        mode=a.mode if a.mode is b.mode else (Mode.UNKNOWN if a.mode or b.mode else None),
        literal=a.literal if a.literal == b.literal and type(a.literal) is type(b.literal) else None,
        weak=a.weak or b.weak,
    )


def _join_kinds(a: Value, b: Value) -> Kind:
    if a.kind is b.kind:
        return a.kind
    # `model = None` before it is built: whoever calls a method on it has built it.
    for one, other in ((a, b), (b, a)):
        if one.kind is Kind.NONE and other.kind in (
            Kind.MODULE,
            Kind.OPTIMIZER,
            Kind.LOADER,
            Kind.SCALER,
            Kind.CALLABLE,
        ):
            return other.kind
    return Kind.UNKNOWN


def _join_quals(a: Value, b: Value) -> frozenset[str]:
    if a.quals == b.quals or b.kind is Kind.NONE:
        return a.quals
    if a.kind is Kind.NONE:
        return b.quals
    return a.quals | b.quals if a.quals and b.quals else NO_NAMES


def _join_elements(a: Value, b: Value) -> tuple[Value, ...] | None:
    for one, other in ((a, b), (b, a)):
        if one.kind is Kind.MODULE and one.elements == () and other.kind is Kind.MODULE:
            return other.elements  # a list of modules before the loop that fills it
    if a.elements is None or b.elements is None or len(a.elements) != len(b.elements):
        return None
    return tuple(join(x, y) for x, y in zip(a.elements, b.elements, strict=True))


class Root:
    """A definition: the expression that made a value whose graph others may hold."""

    __slots__ = (
        "ancestors",
        "by_flag",
        "is_forward",
        "may_carry",
        "members",
        "node",
        "of_module",
        "saves",
        "summands",
        "terms",
    )

    def __init__(self, node: cst.CSTNode) -> None:
        self.node = node
        self.is_forward = False
        """The call of a module."""
        self.of_module = False
        """The call of a method of a module, out of view."""
        self.summands = NOTHING
        """Of a sum: the definitions that are added up, with those that must carry a graph if they do."""
        self.terms = NOTHING
        """Of a sum, or of a product with a constant: the definitions in it."""
        self.saves = False
        """A call that saves tensors for backward, or may."""
        self.may_carry = False
        """The value defined here carries a graph, or may."""
        self.by_flag = False
        """Made where grad mode is not known: a flag (`set_grad_enabled(train)`) may decide whether there is a graph."""
        self.ancestors: frozenset[int] = NOTHING
        """The definitions from which it was computed."""
        self.members: dict[str, int] = {}
        """Definitions of its attributes and items, by name: `outputs.loss` is one value however often it is read."""
