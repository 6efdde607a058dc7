"""The plain data of a lint run. Frozen, picklable, no behaviour: findings cross processes and are stored."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from memlint.source.lines import Position

if TYPE_CHECKING:
    from memlint.source.cells import CellIndex


class Confidence(str, Enum):
    """How often a finding of this kind is right. The default run shows high and medium."""

    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"


CONFIDENCE_RANK = {Confidence.LOW: 0, Confidence.MEDIUM: 1, Confidence.HIGH: 2}


class CostClass(str, Enum):
    """What a finding costs, in kind."""

    GROWS_ON_DEVICE = "grows-on-device"
    """More device memory is held after each step."""
    RAISES_PEAK = "raises-peak"
    """The peak of device memory is higher; nothing grows from step to step."""
    GROWS_ON_HOST = "grows-on-host"
    """More host memory is held after each step."""
    CONSTANT = "constant-waste"
    """Bytes or time wasted, the same at every step."""


class Applicability(str, Enum):
    """Who may apply a fix. Defined in docs/fix-safety.md."""

    SAFE = "safe"
    UNSAFE = "unsafe"
    DISPLAY_ONLY = "display-only"


@dataclass(frozen=True)
class Cost:
    """A cost class and, where one is known, the formula (symbols as on the rule pages: A, P, N, ...)."""

    cost_class: CostClass
    formula: str | None = None


@dataclass(frozen=True)
class Related:
    """A place that explains a finding: where the graph comes from, where the loop starts."""

    path: str
    position: Position
    message: str
    cell: int | None = None


@dataclass(frozen=True, order=True)
class Edit:
    """Replace the text from `start` up to `end` (exclusive) by `content`."""

    start: Position
    end: Position
    content: str
    cell: int | None = None


@dataclass(frozen=True)
class Fix:
    applicability: Applicability
    message: str
    edits: tuple[Edit, ...]


@dataclass(frozen=True)
class Measured:
    """What `memlint confirm` measured of a finding. Bytes are None where there is nothing to say.

    `verdict` is one of those in docs/confirm.md, `summary` says it all in a line, `results` grades whether the program
    computes the same with the fix. `changed_since`: the file is another one by now, so take it for what it was.
    """

    verdict: str
    summary: str
    basis: str
    """How the numbers were obtained: `measured on cuda`, `measured on cpu` or `predicted`."""
    steps: int
    peak_before_bytes: int
    peak_after_bytes: int | None
    growth_before_bytes_per_step: int | None
    growth_after_bytes_per_step: int | None
    held_at_peak_bytes: int | None
    results: str
    changed_since: bool = False


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong at one place. `end` is exclusive.

    In a notebook the positions are those of the program that its cells make, until a report places them in their cells:
    then `cell` is the number of the cell (1-based, all cells counted).
    """

    code: str
    name: str
    message: str
    path: str
    start: Position
    end: Position
    confidence: Confidence = Confidence.HIGH
    cost: Cost | None = None
    related: tuple[Related, ...] = ()
    fix: Fix | None = None
    cell: int | None = None
    measured: Measured | None = None

    @property
    def sort_key(self) -> tuple[str, int, Position, str, str]:
        return (self.path, self.cell or 0, self.start, self.code, self.message)


@dataclass(frozen=True)
class FileResult:
    """What one file gave.

    `lines` holds the text (without its newline) of each 1-based line that a finding or a related place of
    this file names, so that a report needs no second read. `cells` leads from the lines of a notebook's program to its
    cells. `trouble` is a message about the run itself (the
    file could not be opened, a worker died): it is no finding and makes the exit status 2.
    """

    path: str
    findings: tuple[Finding, ...] = ()
    lines: dict[int, str] = field(default_factory=dict)
    trouble: str | None = None
    cells: CellIndex | None = None


@dataclass(frozen=True)
class FixResult:
    """What `fix` made of one file: the text before and after, how often each code was applied, what is left.

    `before == after` when nothing was to be applied. `remaining` is the lint result of the text after.
    """

    path: str
    before: bytes
    after: bytes
    applied: dict[str, int]
    remaining: FileResult
