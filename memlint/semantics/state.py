"""What is known at one point of a function body: variables, grad mode, what a backward pass has surely freed."""

from __future__ import annotations

from collections.abc import Collection

from memlint.semantics.values import NOTHING, Grad, Kind, Mode, Value, join


class State:
    """Flow-sensitive facts. Variables are keyed by access path: `loss`, `self.total`, `logs['loss']`."""

    __slots__ = ("alive", "backed", "guarded", "made", "mode", "owners", "vars")

    def __init__(self, variables: dict[str, Value], mode: Mode) -> None:
        self.vars = variables
        self.mode = mode
        self.backed: frozenset[int] = NOTHING
        """Definitions whose graph a backward pass has freed on every path on which they were made."""
        self.made: set[int] = set()
        """Definitions made on some path to here."""
        self.owners: frozenset[str] = frozenset()
        """Names of which an attribute or item is known: `self` of `self.total`."""
        self.guarded = False
        self.alive = True

    def copy(self) -> State:
        new = State(dict(self.vars), self.mode)
        new.backed = self.backed
        new.made = set(self.made)
        new.owners = self.owners
        new.guarded = self.guarded
        new.alive = self.alive
        return new

    def make(self, root: int, members: Collection[int] = ()) -> None:
        """A definition is made anew: what was freed of an earlier one says nothing about it."""
        self.made.add(root)
        if root in self.backed:
            self.backed = self.backed - {root}
        if members:
            self.backed = self.backed.difference(members)

    def bind(self, path: str, value: Value) -> None:
        """Assign; what was known of the old value's attributes and items is forgotten."""
        if path in self.owners:
            for known in [known for known in self.vars if known.startswith((path + ".", path + "["))]:
                del self.vars[known]
            self.owners = self.owners - {path}
        elif not path.isidentifier():
            owner = path.replace("[", ".").partition(".")[0]
            if owner not in self.owners:
                self.owners = self.owners | {owner}
        self.vars[path] = value


def merge(a: State, b: State) -> State:
    """The state after two branches."""
    if not a.alive:
        return b
    if not b.alive:
        return a
    merged = State(_merge_vars(a.vars, b.vars), a.mode if a.mode is b.mode else Mode.UNKNOWN)
    merged.backed = (a.backed - (b.made - b.backed)) | (b.backed - (a.made - a.backed))
    merged.made = a.made | b.made
    merged.owners = a.owners | b.owners
    merged.guarded = a.guarded or b.guarded
    return merged


def _merge_vars(a: dict[str, Value], b: dict[str, Value]) -> dict[str, Value]:
    merged = dict(a)
    for path, value in b.items():
        known = merged.get(path)
        if known is value:
            continue
        merged[path] = join(known, value) if known is not None else _from_one_side(path, value)
    for path in a.keys() - b.keys():
        merged[path] = _from_one_side(path, a[path])
    return merged


def _from_one_side(path: str, value: Value) -> Value:
    """A local name bound on one path only must be that value; an attribute has an older value on the other path."""
    if path.isidentifier():
        return value
    return join(value, Value(Kind.UNKNOWN, Grad.MIXED))
