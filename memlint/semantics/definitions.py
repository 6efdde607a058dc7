"""The definitions and containers of one file, and who of them carries a graph."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import libcst as cst

from memlint.semantics.events import Loop, Use
from memlint.semantics.knowledge import torch as known
from memlint.semantics.questions import GradOnEntry
from memlint.semantics.scopes import path_of
from memlint.semantics.values import MAX_HELD, NONE_NEEDED, Condition, Grad, Kind, Proof, Root, Value, join

# So many parts of a container that carry a graph are as good as all.
_MAX_CARRYING = 8


@dataclass(eq=False)
class Box:
    """A container, by the expression that makes it."""

    node: cst.CSTNode
    born_in: frozenset[cst.CSTNode]
    """The loops around the expression: each of their iterations makes a new one."""
    content: Value = field(default_factory=lambda: Value(Kind.UNKNOWN, Grad.MIXED))
    filled: bool = False
    carrying: list[Value] = field(default_factory=list)
    """What was put into it that carries a graph."""
    escaped: bool = False
    returned: bool = False
    in_object: bool = False
    bounded: bool = False
    """`deque(maxlen=...)`."""
    items: dict[str, Value] | None = None
    """What stands under each key, where all of them are literals."""
    counts: bool = False
    """It holds numbers: `sums[key] += value` adds to one, and makes no list longer."""
    emptied_in: set[cst.CSTNode] = field(default_factory=set)
    """Loops in whose body it is cleared."""


class Definitions:
    """Roots, markers and boxes by the expressions that make them, and the proofs that a value carries a graph."""

    def __init__(self) -> None:
        self.roots: list[Root] = []
        self.boxes: list[Box] = []
        self.uses: dict[int, list[Use]] = {}
        self.proven: set[int] = set()
        """Definitions on which a backward pass was started: they carry a graph."""
        self.differentiated: set[int] = set()
        """Definitions and stores that reach a backward pass."""
        self.escaped: set[int] = set()
        """Definitions and stores that reach code out of view."""
        self.stored: set[int] = set()
        """The markers of all stores."""
        self.shared: set[int] = set()
        """Definitions and stores that reach an attribute, a global or a closure."""
        self.step_closures: set[str] = set()
        """Functions that an optimizer's step calls, once or more."""
        self.captured: set[int] = set()
        """Those of them that reach it otherwise than by an assignment to an attribute."""
        self._regions: set[int] = set()
        """Markers of where grad mode is switched by what nobody knows; proven: grad mode is on there."""
        self.grad_on: set[str] = set()
        """Functions that differentiate, whenever they are called, what they computed in their caller's grad mode."""
        self._claims: dict[int, frozenset[Condition]] = {}
        self._certain: set[int] = set()
        self.imported: dict[int, str] = {}
        """The results of calls of what other files define: the qualified name of what is called."""
        self.called: dict[int, str] = {}
        """The results of calls out of view: what the code calls the function."""
        self._passing: tuple[int, frozenset[str]] = (0, frozenset())
        self.unseen: set[int] = set()
        """The results of calls out of view."""
        self.of_batches: set[int] = set()
        """The results of calls out of view that are given something of what a loop goes through, and no number."""
        self.each_of: dict[int, int] = {}
        """`losses.values()` -> what is proven where each of the items carries a graph."""
        self.records: set[int] = set()
        """Named tuples, by the calls that make them."""
        self.losses: set[int] = set()
        """Those of them that are called like a loss function: what they return has the graph of what they get."""
        self._root_ids: dict[int, int] = {}
        self._marker_ids: dict[int, int] = {}
        self._box_ids: dict[tuple[int, int | None], int] = {}

    def root_for(self, node: cst.CSTNode) -> int:
        found = self._root_ids.get(id(node))
        if found is None:
            found = len(self.roots)
            self.roots.append(Root(node))
            self._root_ids[id(node)] = found
        return found

    def marker_for(self, node: cst.CSTNode) -> int:
        """A root that marks a place without defining a value there."""
        found = self._marker_ids.get(id(node))
        if found is None:
            found = len(self.roots)
            self.roots.append(Root(node))
            self._marker_ids[id(node)] = found
        return found

    def region_for(self, node: cst.CSTNode) -> int:
        """The marker of what switches grad mode to nobody knows what."""
        region = self.marker_for(node)
        self._regions.add(region)
        return region

    def carried_marker(self, loop: cst.CSTNode, path: str) -> int:
        """A root that marks what a variable holds when the next iteration of the loop starts."""
        return self.member_root(self.marker_for(loop), path, loop)

    def member_root(self, owner: int, name: str, node: cst.CSTNode) -> int:
        """The definition of an attribute or item of a definition."""
        members = self.roots[owner].members
        if name not in members:
            members[name] = len(self.roots)
            self.roots.append(Root(node))
        return members[name]

    def box_for(self, node: cst.CSTNode, loop: Loop | None, of_root: int | None = None) -> int:
        key = id(node), of_root
        found = self._box_ids.get(key)
        if found is None:
            found = len(self.boxes)
            loops = loop.outer() if loop is not None else ()
            self.boxes.append(Box(node, frozenset(item.node for item in loops)))
            self._box_ids[key] = found
        return found

    def lose(self, roots: frozenset[int]) -> None:
        """They are too many to be followed: whatever can be done with them may be done."""
        self.escaped |= roots
        self.differentiated |= roots

    def put(self, box: int, value: Value) -> None:
        target = self.boxes[box]
        target.counts |= value.kind is Kind.NUMBER
        target.items = None
        if len(target.content.roots) > MAX_HELD:
            target.escaped = True
            self.lose(value.roots)
            return
        target.content = join(target.content, value) if target.filled else value
        if value.carries_graph and len(target.carrying) < _MAX_CARRYING:
            target.carrying.append(value)
        target.filled = True

    def capture(self, roots: Iterable[int]) -> None:
        """They reach a global, a closure or an object out of view."""
        self.shared.update(roots)
        self.captured.update(roots)

    # --- who carries a graph ---

    def claim(self, root: int, conditions: frozenset[Condition] | None) -> None:
        """The value defined at the root carries a graph if all conditions hold; None: only a backward proves it."""
        if conditions is None:
            self._claims.pop(root, None)
            self._certain.discard(root)
            return
        self._claims[root] = conditions
        if all(not isinstance(condition, Proof) or condition.root in self._certain for condition in conditions):
            self._certain.add(root)

    def prove(self, value: Value) -> None:
        """A backward pass was started on the value: it carries a graph, and so does whatever alone can give it one."""
        self._prove_regions(value.conditions)
        self.proven |= value.proves
        self._prove_summands(value.proves)
        if not self.unproven(value):
            return  # what is known to carry a graph gives it one: `returns * log_probs`, of an environment's rewards
        source = self._origin({root for root in value.roots if self._is_source(root)})
        if source is None:
            return
        # All of the graph comes out of one call: `loss = ce(recon, x) + kl(mu, logvar)` with all of `vae(x)`.
        self._prove_regions(self._claims.get(source, NONE_NEEDED))
        self.proven.add(source)
        for root in value.roots:
            claim = self._claims.get(root)
            if claim is not None and all(self._comes_from(condition, source) for condition in self.basis(claim)):
                self.proven.add(root)

    def _prove_regions(self, conditions: frozenset[Condition]) -> None:
        """Grad mode was on where something that is differentiated was computed."""
        basis = self.basis(conditions) if self._regions else ()
        self.proven.update(item.root for item in basis if isinstance(item, Proof) and item.root in self._regions)

    def prove_terms(self, total: frozenset[int]) -> None:
        """A scalar was differentiated: what a function out of view has computed of a batch for it has a graph.

        Nobody adds a constant to a loss. Of a difference that is squared first, one side may be a constant.
        """
        pending, seen = set(total), set(total)
        while pending:
            made = self.roots[pending.pop()]
            self.proven |= {part for part in made.summands if self._is_computed_from_batch(part)}
            pending |= made.terms - seen
            seen |= made.terms

    def _is_computed_from_batch(self, part: int) -> bool:
        made = self.roots[part]
        return made.may_carry and not self.of_batches.isdisjoint(made.ancestors | {part})

    def _prove_summands(self, totals: frozenset[int]) -> None:
        """What is added to a loss and came out of a model has a graph: nobody adds a constant to a loss."""
        pending = list(totals)
        while pending:
            for part in self.roots[pending.pop()].summands - self.proven:
                made = self.roots[part]
                if made.may_carry and any(self._runs_a_model(root) for root in made.ancestors | {part}):
                    self.proven.add(part)
                    pending.append(part)

    def _is_source(self, root: int) -> bool:
        if not self.roots[root].saves or root in self.losses:
            return False
        claim = self._claims.get(root)
        return claim is None or any(isinstance(item, Proof) and item.root in self._regions for item in claim)

    def _origin(self, sources: set[int]) -> int | None:
        """The one call that all of a loss's graph came out of; None where several may have given it one.

        Of `prepare(batch)`, `encoder(x)` and `model(z)`, one computed from the other, the last that runs a model, with
        `criterion(z)` after it.
        """
        if len(sources) == 1:
            return next(iter(sources))
        models = {root for root in sources if self._runs_a_model(root)}
        # Whatever comes after all the others has them among its ancestors, maybe itself too.
        behind = ((root, self.roots[root].ancestors) for root in models)
        late = [(root, ancestors) for root, ancestors in behind if len(ancestors) >= len(models) - 1]
        last = [root for root, ancestors in late if models <= ancestors | {root}]
        return last[0] if len(last) == 1 else None

    def _runs_a_model(self, root: int) -> bool:
        made = self.roots[root]
        if made.is_forward or made.of_module:
            return True
        path = path_of(made.node.func) if isinstance(made.node, cst.Call) else None
        return path is not None and path.rpartition(".")[2] in known.MODEL_NAMES

    def _comes_from(self, condition: Condition, source: int) -> bool:
        return not isinstance(condition, Proof) or source in self.roots[condition.root].ancestors

    def unproven(self, value: Value) -> int:
        """How many of the value's conditions nothing but a backward pass can prove."""
        return sum(
            isinstance(condition, Proof) and condition.root not in self._certain for condition in value.conditions
        )

    def unproven_yet(self, value: Value) -> bool:
        """Whether no backward pass that has been read proves that the value carries a graph."""
        return any(isinstance(item, Proof) for item in self.basis(value.conditions))

    def basis(self, conditions: Iterable[Condition]) -> frozenset[Condition]:
        """The conditions that are left when every claim is followed to what it rests on."""
        left: set[Condition] = set()
        seen: set[Condition] = set()
        pending = list(conditions)
        while pending:
            condition = pending.pop()
            if condition in seen:
                continue
            seen.add(condition)
            if not isinstance(condition, Proof):
                if not (isinstance(condition, GradOnEntry) and condition.function in self.grad_on):
                    left.add(condition)
            elif condition.root in self.proven:
                continue
            elif condition.root in self._claims:
                pending.extend(self._claims[condition.root])
            elif not self._is_passed_on(condition.root):
                left.add(condition)
        return frozenset(left)

    def foundations(self, conditions: Iterable[Condition]) -> frozenset[Condition]:
        """What the conditions rest on, for one call of several: also the questions below what is proven.

        Another call's backward pass proves nothing of the grad mode in which this one runs.
        """
        left: set[Condition] = set()
        seen: set[tuple[Condition, bool]] = set()
        pending = [(condition, True) for condition in conditions]
        while pending:
            condition, is_needed = pending.pop()
            if (condition, is_needed) in seen:
                continue
            seen.add((condition, is_needed))
            if not isinstance(condition, Proof):
                left.add(condition)
                continue
            is_proven = condition.root in self.proven
            claim = self._claims.get(condition.root)
            if is_needed and (is_proven or claim is None):
                left.add(condition)
            pending += [(item, is_needed and not is_proven) for item in claim or ()]
        return frozenset(left)

    def _is_passed_on(self, root: int) -> bool:
        """What a function out of view makes of a graph, when it is known to pass another one on."""
        name = self.called.get(root)
        if name is None:
            return False
        if self._passing[0] != len(self.proven):
            names = frozenset(self.called[item] for item in self.proven if item in self.called)
            self._passing = (len(self.proven), names)
        return name in self._passing[1] and not self.proven.isdisjoint(self.roots[root].ancestors - {root})
