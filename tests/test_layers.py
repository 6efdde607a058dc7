"""The mapping and the set that branches copy: against Python's own, which copy everything."""

from __future__ import annotations

import random

from memlint.semantics.layers import Roots, Variables, union
from memlint.semantics.values import Value

VALUES = [Value() for _ in range(5)]


def branches(seed: int) -> list[tuple[Variables, dict[str, Value]]]:
    """Copies of copies, each changed in its own way, with what they should hold."""
    chance = random.Random(seed)
    grown = [(Variables({}), dict[str, Value]())]
    for _ in range(40):
        variables, held = chance.choice(grown)
        copied = variables.copy(), dict(held)
        for _ in range(chance.randint(0, 60)):
            path = f"v{chance.randrange(200)}"
            if chance.random() < 0.2:
                assert copied[0].pop(path) is copied[1].pop(path, None)
            else:
                copied[0][path] = copied[1][path] = chance.choice(VALUES)
        grown.append(copied)
    return grown


def test_each_copy_holds_what_it_was_given() -> None:
    for variables, held in branches(0):
        assert dict(variables.items()) == held
        assert bool(variables) is bool(held)
        for path in ("v1", "v2", "v3", "v1000"):
            assert variables.get(path) is held.get(path)
            assert (path in variables) is (path in held)


def test_copies_differ_where_they_hold_something_else() -> None:
    grown = branches(1)
    for variables, held in grown[::3]:
        for others, held_there in grown:
            differing = {path: (here, there) for path, here, there in variables.differing(others)}
            paths = held.keys() | held_there.keys()
            assert differing == {
                path: (held.get(path), held_there.get(path))
                for path in paths
                if held.get(path) is not held_there.get(path)
            }


def test_sets_of_definitions() -> None:
    chance = random.Random(2)
    grown = [(Roots(), set[int]())]
    for _ in range(40):
        before, held_before = chance.choice(grown)
        roots, held = before.copy(), set(held_before)
        for root in chance.sample(range(300), chance.randint(0, 60)):
            roots.add(root)
            held.add(root)
        gone = frozenset(chance.sample(range(300), 3))
        roots.remove(gone)
        grown.append((roots, held - gone))
    every = frozenset(range(300))
    for one, held in grown:
        assert {root for root in every if root in one} == held
        assert one.has_all(frozenset(held))
        assert not one.has_any(every - held)
        for other, held_there in grown[::7]:
            both = union(one, other)
            assert {root for root in every if root in both} == held | held_there
