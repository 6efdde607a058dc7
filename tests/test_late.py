"""Dataclasses whose methods are compiled late behave like those of the standard library."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import subprocess
import sys
from typing import Any

import pytest

from memlint.cli.late import OFTEN, compile_methods_late

DEFINITIONS = """
from __future__ import annotations
import dataclasses
from dataclasses import dataclass, field

@dataclass(frozen=True)
class Point:
    x: int
    y: int = 2
    tags: tuple[str, ...] = field(default_factory=tuple)

@dataclass(frozen=True, order=True)
class Ordered(Point):
    z: int = 3

@dataclass
class Loose:
    names: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.names.append("made")

@dataclass(frozen=True, eq=False)
class Same:
    x: int

@dataclass(slots=True)
class Slotted:
    x: int
    y: list[int] = field(default_factory=list)

@dataclass(kw_only=True)
class Named:
    x: int
    y: int = 2

@dataclass
class Odd:
    x: int
    given: dataclasses.InitVar[int] = 3
    y: int = field(default=4, init=False)

    def __post_init__(self, given: int) -> None:
        self.x += given
"""


def defined() -> dict[str, Any]:
    namespace: dict[str, Any] = {"__name__": __name__}
    exec(DEFINITIONS, namespace)
    return namespace


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    if not hasattr(dataclasses, "_create_fn"):
        pytest.skip("this Python compiles the methods of a dataclass together")
    for name in ("_create_fn", "_init_fn"):
        monkeypatch.setattr(dataclasses, name, getattr(dataclasses, name))
    compile_methods_late()
    return defined()


def behaviour(classes: dict[str, Any]) -> list[object]:
    """What the classes do, each method called for the first time and again."""
    point, ordered, loose, same, slotted = (classes[name] for name in ("Point", "Ordered", "Loose", "Same", "Slotted"))
    one, other = point(1), point(x=1, y=2)
    found: list[object] = [repr(one), repr(other), one == other, one == point(3), one == 1, hash(one) == hash(other)]
    found += [ordered(1) < ordered(2), ordered(1) >= ordered(2), repr(ordered(1, z=5)), ordered(1) == one]
    found += [loose().names, loose() == loose(), loose(["a"]).names]
    found += [same(1) == same(1), len({same(1), same(1)}), repr(slotted(4)), slotted(4) == slotted(4)]
    named, odd = classes["Named"], classes["Odd"]
    found += [slotted(4).y is not slotted(4).y, repr(named(x=1)), named(y=3, x=1).y, repr(odd(1)), repr(odd(1, 5))]
    found += [repr(dataclasses.replace(one, y=9)), dataclasses.astuple(one), repr(copy.copy(one))]
    for wrong in (
        point,
        lambda: point(1, 2, (), 4),
        lambda: point(1, x=1),
        lambda: point(1, w=1),
        lambda: point(w=1),
        lambda: named(1),
        lambda: hash(loose()),
    ):
        try:
            wrong()
        except TypeError as error:
            found.append(str(error))
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.x = 5
    with pytest.raises(dataclasses.FrozenInstanceError):
        del one.x
    return found


def test_they_behave_alike(late: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    found = behaviour(late)
    monkeypatch.undo()
    assert found == behaviour(defined())
    assert behaviour(late) == found


def test_a_method_stands_in_its_class_once_it_was_called(late: dict[str, Any]) -> None:
    point = late["Point"]
    stand_in = vars(point)["__eq__"]
    assert late["Ordered"](1) != late["Ordered"](2)
    assert vars(point)["__eq__"] is stand_in
    assert point(1) == point(1)
    assert vars(point)["__eq__"] is not stand_in
    assert vars(point)["__eq__"].__qualname__ == "Point.__eq__"


def test_a_constructor_stands_in_its_class_once_it_was_called_often(late: dict[str, Any]) -> None:
    point = late["Point"]
    stand_in = vars(point)["__init__"]
    before = [point(number) for number in range(OFTEN)]
    assert vars(point)["__init__"] is stand_in
    assert [point(number) for number in range(OFTEN)] == before
    assert vars(point)["__init__"] is not stand_in
    assert vars(point)["__init__"].__qualname__ == "Point.__init__"
    assert inspect.signature(point).parameters.keys() == {"x", "y", "tags"}


def test_libcst_reads_the_same() -> None:
    program = "import libcst; print(libcst.parse_module('def f(a, *b: int) -> None:\\n    return [a for a in b]\\n'))"
    late_program = f"from memlint.cli.late import compile_methods_late; compile_methods_late(); {program}"
    outputs = {subprocess.check_output([sys.executable, "-c", text]) for text in (program, late_program)}
    assert len(outputs) == 1


def test_libcst_s_metadata_is_imported_when_somebody_asks_for_it() -> None:
    program = """
import sys
from memlint.cli.late import import_metadata_late
import_metadata_late()
import libcst
provider = "libcst.metadata.scope_provider"
print(provider in sys.modules)
from libcst.metadata import MetadataWrapper, PositionProvider
print(provider in sys.modules, MetadataWrapper is libcst.MetadataWrapper)
wrapper = MetadataWrapper(libcst.parse_module("x = 1"))
print(wrapper.resolve(PositionProvider)[wrapper.module.body[0]].end.column)
"""
    assert subprocess.check_output([sys.executable, "-c", program], text=True).split() == ["False", "True", "True", "5"]
