"""What is known at one point of a function body: variables, grad mode, what a backward pass has surely freed."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from memlint.semantics.layers import Roots, Variables, union
from memlint.semantics.values import NOTHING, Grad, Kind, Mode, Value, join


class State:
    """Flow-sensitive facts. Variables are keyed by access path: `loss`, `self.total`, `logs['loss']`."""

    __slots__ = ("alive", "backed", "fresh", "guarded", "joined", "made", "mode", "owners", "region", "vars")

    def __init__(self, variables: Variables, mode: Mode, made: Roots, fresh: Roots) -> None:
        self.vars = variables
        self.mode = mode
        self.region: int | None = None
        """Where grad mode is UNKNOWN: the marker of what switched it, the same for all that it switches alike."""
        self.backed: frozenset[int] = NOTHING
        """Definitions whose graph a backward pass has freed on every path on which they were made."""
        self.made = made
        """Definitions made on some path to here."""
        self.fresh = fresh
        """Definitions made in the branch that is being read."""
        self.owners: frozenset[str] = frozenset()
        """Names of which an attribute or item is known: `self` of `self.total`."""
        self.guarded = False
        self.alive = True
        self.joined: list[str] = []
        """After a merge: the paths that held something else on one side than on the other."""

    def copy(self) -> State:
        new = State(self.vars.copy(), self.mode, self.made.copy(), Roots())
        new.region = self.region
        new.backed = self.backed
        new.owners = self.owners
        new.guarded = self.guarded
        new.alive = self.alive
        return new

    def make(self, root: int, members: Collection[int] = ()) -> None:
        """A definition is made anew: what was freed of an earlier one says nothing about it."""
        self.made.add(root)
        self.fresh.add(root)
        if root in self.backed:
            self.backed = self.backed - {root}
        if members:
            self.backed = self.backed.difference(members)

    def bind(self, path: str, value: Value) -> None:
        """Assign; what was known of the old value's attributes and items is forgotten."""
        if path in self.owners:
            for known in [known for known, _ in self.vars.items() if known.startswith((path + ".", path + "["))]:
                self.vars.pop(known)
            self.owners = self.owners - {path}
        elif not path.isidentifier():
            owner = path.replace("[", ".").partition(".")[0]
            if owner not in self.owners:
                self.owners = self.owners | {owner}
        self.vars[path] = value


class Effect:
    """What code did to the state in which it was read, for other states: a variable that it left alone stays alone."""

    def __init__(self, after: State, changed: Iterable[str]) -> None:
        self._after = after
        self._changed = {path: after.vars.get(path) for path in changed}

    def applied_to(self, state: State) -> State:
        new = self._after.copy()
        new.vars = state.vars.copy()
        for path, value in self._changed.items():
            if value is None:
                new.vars.pop(path)
            else:
                new.vars[path] = value
        new.owners = self._after.owners | state.owners
        return new


def merge(a: State, b: State) -> State:
    """The state after two branches."""
    if not a.alive:
        return b
    if not b.alive:
        return a
    variables, joined = _merge_vars(a, b)
    mode = a.mode if a.mode is b.mode else Mode.UNKNOWN
    merged = State(variables, mode, union(a.made, b.made), union(a.fresh, b.fresh))
    merged.region = a.region if a.region == b.region and a.mode is b.mode else None
    merged.backed = freed(a.backed, a.made, b.backed, b.made)
    merged.owners = a.owners | b.owners
    merged.guarded = a.guarded or b.guarded
    merged.joined = joined
    return merged


def freed(backed: frozenset[int], made: Roots, others: frozenset[int], made_by_others: Roots) -> frozenset[int]:
    """The definitions that were freed on both of two paths, or on the one on which they were made."""
    if backed == others:
        return backed
    one = frozenset(root for root in backed - others if root not in made_by_others)
    other = frozenset(root for root in others - backed if root not in made)
    return one | other | (backed & others)


def _merge_vars(a: State, b: State) -> tuple[Variables, list[str]]:
    merged = a.vars.copy()
    differing = a.vars.differing(b.vars)
    for path, of_a, of_b in differing:
        if of_a is not None and of_b is not None:
            merged[path] = _either(a, of_a, b, of_b)
        elif (value := of_a or of_b) is not None:
            merged[path] = _from_one_side(path, value)
    return merged, [path for path, _, _ in differing]


def _either(a: State, of_a: Value, b: State, of_b: Value) -> Value:
    """The value of one branch or the other: what only one of them makes with a graph has one at times."""
    value = join(of_a, of_b)
    if value.grad is not Grad.MIXED:
        return value
    for state, one, other in ((a, of_a, of_b), (b, of_b, of_a)):
        makes_it = one.grad is Grad.YES and bool(one.idents) and state.fresh.has_all(one.idents)
        if makes_it and other.grad is Grad.NO and other.kind is not Kind.CONTAINER:
            return value.at_times(one.conditions)
        if one.partly is not None and state.fresh.has_any(one.roots) and other.kind in (Kind.NUMBER, Kind.NONE):
            return value.at_times(one.partly)
    return value


def _from_one_side(path: str, value: Value) -> Value:
    """A local name bound on one path only must be that value; an attribute has an older value on the other path."""
    if path.isidentifier():
        return value
    return join(value, Value(Kind.UNKNOWN, Grad.MIXED))
