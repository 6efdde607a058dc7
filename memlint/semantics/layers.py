"""A mapping and a set that branches copy cheaply: what many branches have in common is shared, and changed by none.

A copy takes as long as what was changed since the common part was made, and so does a comparison of two copies. What
is changed becomes common when it is much: after as many changes, at least, as there are copied each time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from memlint.semantics.values import Value

_FEW = 32


class Variables:
    """What each variable holds, by its access path."""

    __slots__ = ("_own", "_shared")

    def __init__(self, own: dict[str, Value | None], shared: dict[str, Value | None] | None = None) -> None:
        self._own = own
        """What was set since the common part was made; None: deleted."""
        self._shared = shared if shared is not None else {}

    def copy(self) -> Variables:
        changes = len(self._own)
        if changes > _FEW and changes * changes > len(self._shared):
            self._shared = {**self._shared, **self._own}
            self._own = {}
        return Variables(dict(self._own), self._shared)

    def get(self, path: str) -> Value | None:
        own = self._own
        return own[path] if path in own else self._shared.get(path)

    def __getitem__(self, path: str) -> Value:
        value = self.get(path)
        if value is None:
            raise KeyError(path)
        return value

    def __contains__(self, path: str) -> bool:
        return self.get(path) is not None

    def __setitem__(self, path: str, value: Value) -> None:
        self._own[path] = value

    def pop(self, path: str) -> Value | None:
        """Forget what the path holds; what it held."""
        value = self.get(path)
        if value is not None:
            self._own[path] = None
        return value

    def __bool__(self) -> bool:
        return any(value is not None for part in (self._own, self._shared) for value in part.values())

    def items(self) -> Iterator[tuple[str, Value]]:
        both = {**self._shared, **self._own} if self._shared else dict(self._own)
        return ((path, value) for path, value in both.items() if value is not None)

    def differing(self, other: Variables) -> list[tuple[str, Value | None, Value | None]]:
        """The paths that hold something else in the other, with what they hold here and there."""
        mine, theirs = self._own, other._own
        if self._shared is not other._shared:
            mine, theirs = {**self._shared, **mine}, {**other._shared, **theirs}
        found: list[tuple[str, Value | None, Value | None]] = []
        for path, here in mine.items():
            there = theirs[path] if path in theirs else other._shared.get(path)
            if here is not there:
                found.append((path, here, there))
        for path, there in theirs.items():
            if path not in mine:
                here = self._shared.get(path)
                if here is not there:
                    found.append((path, here, there))
        return found


class Roots:
    """A growing set of definitions."""

    __slots__ = ("_own", "_shared")

    def __init__(self, own: set[int] | None = None, shared: frozenset[int] = frozenset()) -> None:
        self._own = own if own is not None else set()
        self._shared = shared

    def copy(self) -> Roots:
        changes = len(self._own)
        if changes > _FEW and changes * changes > len(self._shared):
            self._shared = self._shared | self._own
            self._own = set()
        return Roots(set(self._own), self._shared)

    def add(self, root: int) -> None:
        self._own.add(root)

    def remove(self, roots: frozenset[int]) -> None:
        self._own -= roots
        if not roots.isdisjoint(self._shared):
            self._shared = self._shared - roots

    def __contains__(self, root: int) -> bool:
        return root in self._own or root in self._shared

    def has_all(self, roots: frozenset[int]) -> bool:
        return roots - self._own <= self._shared

    def has_any(self, roots: Iterable[int]) -> bool:
        return not (self._own.isdisjoint(roots) and self._shared.isdisjoint(roots))


def union(one: Roots, other: Roots) -> Roots:
    """What is in one of them; the second may well be the smaller."""
    both = one.copy()
    both._own |= other._own
    if other._shared is not both._shared:
        both._own |= other._shared - both._shared
    return both
