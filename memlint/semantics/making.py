"""Making values: the definitions that expressions make, and whether what they make carries a graph."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import libcst as cst

from memlint.semantics.questions import GradOnEntry
from memlint.semantics.values import (
    MAX_HELD,
    NO_GRAD_TENSOR,
    NONE_NEEDED,
    NOTHING,
    NUMBER,
    PLAIN,
    Condition,
    Grad,
    Kind,
    Mode,
    Proof,
    Value,
)

if TYPE_CHECKING:
    from memlint.semantics.analysis import Analysis
    from memlint.semantics.events import Loop
    from memlint.semantics.scopes import Scope
    from memlint.semantics.state import State


class Making:
    """The part of a flow that makes values."""

    analysis: Analysis
    scope: Scope
    state: State
    loop: Loop | None

    def root(self, node: cst.CSTNode, *, saves: bool = False, is_forward: bool = False) -> int:
        """The definition that an expression makes, each time it is read."""
        root = self.analysis.root_for(node)
        made = self.analysis.roots[root]
        made.saves |= saves
        made.is_forward |= is_forward
        self.state.make(root, made.members.values())
        return root

    def mark(self, node: cst.CSTNode) -> int:
        """A root that marks what is put somewhere here."""
        root = self.analysis.marker_for(node)
        self.analysis.stored.add(root)
        return root

    def unknown(self, node: cst.CSTNode, roots: frozenset[int], root: int | None = None) -> Value:
        """A value of which nothing is known; a `backward()` on it would prove that it carries a graph."""
        root = self.root(node) if root is None else root
        made = self.analysis.roots[root]
        if len(roots) > MAX_HELD:
            self.analysis.lose(roots)
            self.analysis.claim(root, None)
            made.saves = made.of_module = True
            roots = NOTHING
        made.ancestors = roots
        made.may_carry = True
        made.by_flag |= self.state.mode is Mode.UNKNOWN
        return Value(
            Kind.UNKNOWN,
            Grad.YES,
            conditions=frozenset({Proof(root)}),
            roots=roots | {root},
            idents=frozenset({root}),
        )

    def named(self, qualified: str) -> Value:
        return Value(Kind.CALLABLE, quals=frozenset({qualified}))

    def with_kind(self, value: Value, pattern: Value) -> Value:
        """The same value, whose kind an annotation or its use has told."""
        if pattern.kind is not Kind.TENSOR:
            return pattern
        return Value(
            pattern.kind,
            value.grad,
            conditions=value.conditions,
            roots=value.roots,
            idents=value.idents,
            cls=pattern.cls,
            boxes=value.boxes,
            weak=value.weak or pattern.weak,
        )

    def graph(
        self,
        kind: Kind,
        node: cst.CSTNode,
        *,
        roots: frozenset[int],
        conditions: frozenset[Condition] = NONE_NEEDED,
        ident: int | None = None,
        weak: bool = False,
        proves: frozenset[int] = NOTHING,
    ) -> Value:
        """The result of a differentiable operation on something that carries a graph: does it, in this grad mode?"""
        if len(roots) > MAX_HELD:
            return self.unknown(node, roots, ident)
        mode = self.state.mode
        idents = NOTHING if ident is None else frozenset({ident})
        if mode is Mode.OFF:
            return Value(kind, roots=self._given_by_loops(roots), idents=idents)
        if mode is Mode.ENTRY:
            conditions = conditions | {GradOnEntry(self.scope.qualname)}
        elif mode is Mode.UNKNOWN:
            if self.state.region is not None:
                conditions = conditions | {Proof(self.state.region)}
            ident = ident if ident is not None else self.root(node)
            idents = frozenset({ident})
            roots = roots | {ident}
        if ident is not None:
            is_open = mode is Mode.UNKNOWN and self.state.region is None
            self.analysis.claim(ident, None if is_open else conditions)
            self.analysis.roots[ident].ancestors = roots
            self.analysis.roots[ident].may_carry = True
            self.analysis.roots[ident].by_flag |= mode is Mode.UNKNOWN
            conditions = frozenset({Proof(ident)})
        return Value(
            kind, Grad.YES, conditions=conditions, roots=roots | idents, idents=idents, weak=weak, proves=proves
        )

    def _given_by_loops(self, roots: frozenset[int]) -> frozenset[int]:
        """What of these are no graphs, but the marks of what an iteration is given."""
        if self.loop is None or not roots:
            return NOTHING
        return roots.intersection(loop.element for loop in self.loop.outer())

    def derived(self, kind: Kind, node: cst.CSTNode, operands: Iterable[Value], ident: int | None = None) -> Value:
        """The result of a differentiable operation on these operands."""
        operands = list(operands)
        roots = frozenset().union(*(self.all_roots(operand) for operand in operands)) if operands else NOTHING
        if len(roots) > MAX_HELD:
            return self.unknown(node, roots, ident)
        carrying = [operand for operand in operands if operand.grad is Grad.YES]
        if not carrying:
            if any(operand.grad is Grad.MIXED for operand in operands):
                return self._at_times(kind, node, operands, roots, ident)
            return Value(kind, roots=roots, idents=NOTHING if ident is None else frozenset({ident}))
        # An attribute that some method sets, `self.decay`, is the weaker witness.
        best = min(carrying, key=self._doubt)
        if any(operand.partly is not None for operand in operands) and self.analysis.unproven(best):
            return self._at_times(kind, node, operands, roots, ident)
        # `weight * loss`: of what a caller gave and what was computed, the latter has the graph.
        sources = carrying if len(carrying) == 1 else [operand for operand in carrying if self._is_computed(operand)]
        only = len(sources) == 1 and not any(operand.grad is Grad.MIXED for operand in operands)
        return self.graph(
            kind,
            node,
            roots=roots,
            conditions=best.conditions,
            ident=ident,
            weak=best.weak,
            proves=sources[0].proves if only else NOTHING,
        )

    def _doubt(self, operand: Value) -> tuple[int, bool, bool]:
        """How little is known of whether the operand carries a graph: the least for the best witness."""
        unproven = self.analysis.unproven(operand)
        return unproven, operand.weak, bool(unproven) and not self._is_computed(operand)

    def _is_computed(self, value: Value) -> bool:
        """Whether the value was computed from others, rather than given, a part of that, or read from an attribute."""
        roots, data = self.analysis.roots, self._iterated()
        for made in (roots[ident] for ident in value.idents):
            is_part = isinstance(made.node, (cst.Attribute, cst.Subscript))
            behind = made.ancestors - value.idents - data
            if made.saves or (any(roots[root].saves for root in behind) if is_part else made.ancestors - value.idents):
                return True
        return not value.idents

    def _iterated(self) -> frozenset[int]:
        """What the loops around iterate over: `batch.target` of each batch is data, whatever made the batches."""
        loops = self.loop.outer() if self.loop is not None else ()
        return frozenset().union(*(loop.sources for loop in loops))

    def _at_times(
        self, kind: Kind, node: cst.CSTNode, operands: Iterable[Value], roots: frozenset[int], ident: int | None
    ) -> Value:
        """The result of an operation on what carries a graph on some paths only, or of which nobody knows."""
        partly = [operand.partly for operand in operands if operand.partly is not None]
        idents = NOTHING if ident is None else frozenset({ident})
        if ident is not None and not partly and self.state.mode in (Mode.ON, Mode.ENTRY):
            value = self.unknown(node, roots, ident)
            return self.with_kind(value, NO_GRAD_TENSOR) if kind is Kind.TENSOR else value
        return Value(
            kind,
            Grad.MIXED,
            roots=roots | idents,
            idents=idents,
            partly=partly[0] if partly and self.state.mode is not Mode.OFF else None,
        )

    def operation(self, left: Value, right: Value, node: cst.CSTNode) -> Value:
        if left.kind is Kind.NUMBER and right.kind is Kind.NUMBER:
            return NUMBER
        if left.kind is Kind.PLAIN and right.kind is Kind.PLAIN:
            return PLAIN
        if (left.boxes or right.boxes) and not (_is_item(left) and _is_item(right)):
            return Value(Kind.CONTAINER, roots=left.roots | right.roots, boxes=left.boxes | right.boxes)
        is_tensor = left.kind is Kind.TENSOR or right.kind is Kind.TENSOR
        carries = left.grad is Grad.YES or right.grad is Grad.YES
        ident = self.root(node) if carries else None
        return self.derived(Kind.TENSOR if is_tensor else Kind.UNKNOWN, node, (left, right), ident)

    def all_roots(self, value: Value) -> frozenset[int]:
        """The definitions that the value, or anything in it, may hold."""
        if not value.boxes and value.elements is None:
            return value.roots
        roots = set(value.roots)
        for box in value.boxes:
            roots |= self.analysis.boxes[box].content.roots
        for element in value.elements or ():
            roots |= self.all_roots(element)
        return frozenset(roots)

    def part(self, owner: int, name: str, node: cst.CSTNode) -> int:
        """The definition of one part of what a call returns, made anew with the call."""
        root = self.analysis.member_root(owner, name, node)
        self.state.made.add(root)
        self.state.fresh.add(root)
        return root

    def _member_root(self, base: Value, name: str, node: cst.CSTNode) -> int | None:
        """The same definition each time, where the base is one."""
        return self.member(base, name, node) if len(base.idents) == 1 else None

    def each_item(self, base: Value, node: cst.CSTNode) -> int:
        """The definition that stands for each item of a dictionary: proven where all of them are differentiated."""
        root = self.member(base, "[each]", node)
        self.analysis.roots[root].ancestors = base.roots
        self.analysis.roots[root].may_carry = True
        return root

    def member(self, base: Value, name: str, node: cst.CSTNode) -> int:
        """The definition of an attribute or item of what is one definition itself."""
        root = self.analysis.member_root(next(iter(base.idents)), name, node)
        self.state.made.add(root)
        return root


def _is_item(value: Value) -> bool:
    """No container, though it may come out of one: `totals.get(key, 0)`."""
    return value.kind is not Kind.CONTAINER
