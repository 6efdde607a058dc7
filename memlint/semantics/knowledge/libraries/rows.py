"""The form of what is known of a library: its classes, its functions, and what their calls do to tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum


class Role(Enum):
    """What an object of a class is to the analysis."""

    MODULE = "module"
    LOADER = "loader"
    OPTIMIZER = "optimizer"
    SCHEDULER = "scheduler"
    METRIC = "metric"
    LOGGER = "logger"
    HELPER = "helper"
    """Anything else whose methods are known: an accelerator, a pipeline, a trainer."""


class Effect(Enum):
    """What a call does with the tensors that it is given."""

    CONSUMES = "consumes"
    """Reads them: keeps and differentiates none, and its result holds no graph."""
    PASSES = "passes"
    """Its result holds their graph: a differentiable function."""
    MAY_PASS = "may pass"
    """Its result holds their graph in some configurations; it keeps and differentiates none."""
    KEEPS = "keeps"
    """Keeps them with their graph, and differentiates none."""
    DIFFERENTIATES = "differentiates"
    """Runs a backward pass on the first."""
    STEPS = "steps"
    """An optimizer's step."""
    RETURNS_FIRST = "returns first"
    """Its result is its first argument, or a wrapper around it."""
    RETURNS_ALL = "returns all"
    """Its result is what it is given: one, or a tuple."""
    RETURNS_SELF = "returns self"
    CONTEXT = "context"
    """A context manager that leaves grad mode alone."""


@dataclass(frozen=True)
class Class:
    """One class of a library. `calls` says what its methods do, `__call__` among them."""

    role: Role
    calls: Mapping[str, Effect] = field(default_factory=dict)
    grad_off: frozenset[str] = frozenset()
    """Methods of subclasses that the library calls with grad mode off."""
    plain: bool = False
    """The library calls all other methods of subclasses in its caller's grad mode, which is on by default."""


@dataclass(frozen=True)
class Library:
    """What is known of one library. Classes and functions are named by the last part of their qualified name.

    Libraries re-export their names and move them from file to file: `transformers.Trainer` is
    `transformers.trainer.Trainer`. The package and the last part are what stays.
    """

    packages: tuple[str, ...]
    """The first parts of the qualified names."""
    classes: Mapping[str, Class] = field(default_factory=dict)
    suffixes: Mapping[str, Class] = field(default_factory=dict)
    """Classes by how their name ends, for families of hundreds."""
    prefixes: Mapping[str, Class] = field(default_factory=dict)
    """Classes by how their name begins."""
    not_classes: frozenset[str] = frozenset()
    """Beginnings of names that a suffix would take in by mistake."""
    functions: Mapping[str, Effect] = field(default_factory=dict)
    function_folders: Mapping[str, Effect] = field(default_factory=dict)
    """Functions by the namespace they stand in: `torchmetrics.functional.*`."""
    builders: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Functions that return objects of these classes of the library: one, or a tuple. Empty name: nothing known."""


def named(names: str, row: Class) -> dict[str, Class]:
    """The same row for each of the names."""
    return dict.fromkeys(names.split(), row)


def calls(effect: Effect, names: str) -> dict[str, Effect]:
    """The same effect for each of the methods or functions."""
    return dict.fromkeys(names.split(), effect)
