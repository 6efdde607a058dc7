"""What two runs say of a fix: does it save memory, and does the program still compute the same?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import accumulate, pairwise
from pathlib import Path

from memlint.measure import analysis
from memlint.measure.recording import Digest, Fingerprints, Recording, StepKind
from memlint.measure.report.subject import Subject


class Verdict(str, Enum):
    CONFIRMED = "confirmed"
    """The peak is lower with the fix."""
    GROWTH_CONFIRMED = "growth confirmed"
    """Less device memory is left behind by each step."""
    HOST_ONLY = "host only"
    """Autograd nodes pile up in host memory, and do not with the fix; nothing changes on the device."""
    NO_EFFECT = "no effect at the peak here"
    WORSE = "worse"
    """The peak is higher with the fix, or more is left behind by each step."""
    RESULTS_DIFFER = "results differ"
    NOT_REACHED = "not reached"
    """The line did not run, so nothing is known of its price."""
    COULD_NOT_RUN = "could not run"
    NO_FIX = "no fix"
    """There is no fix to run; what the line holds is said instead."""


SAVING = frozenset({Verdict.CONFIRMED, Verdict.GROWTH_CONFIRMED, Verdict.HOST_ONLY})
"""The verdicts of fixes that were seen to save memory."""

# Below these a difference is no reason to change a program. The peak of a small program stands for that of a large one,
# so a share of it counts, but a few scalars (allocator blocks are 512 bytes) do not.
LEAST_SAVING_SHARE = 0.01
LEAST_SAVING_BYTES = 16 * 1024
LEAST_GROWTH_BYTES = 4 * 1024


class Grade(str, Enum):
    """How the results of a run compare with those of the original."""

    IDENTICAL = "identical"
    """Bit by bit: losses, parameters, buffers, the first step's gradients, random state."""
    WITHIN_TOLERANCE = "within tolerance"
    """They differ by no more than another order of the same sums may do; the random state is identical."""
    DIFFERENT = "different"
    NOT_CHECKED = "not checked"


# Losses in float32 have 24 bits: sums in another order differ by some units in the last place at each step, and
# training carries that on. A thousand units is far above that over a few steps, and far below what a change of meaning
# does. Optimizers that divide by the size of the gradient (Adam) make more of a difference in one that is nearly 0.
LOSS_TOLERANCE = 1e-4
WEIGHTS_TOLERANCE = 1e-3
_TOLERANCE = {
    "losses": LOSS_TOLERANCE,
    "parameters": WEIGHTS_TOLERANCE,
    "buffers": WEIGHTS_TOLERANCE,
    "first gradients": WEIGHTS_TOLERANCE,
}

# What a program that is not deterministic may be held against. Its spread is known from one pair of runs: a third one
# may well be farther off than they are from each other; ten times as far, hardly. Where they are a hundredth apart,
# everything of meaning is within the spread.
MOST_SPREAD = 1e-2
SPREADS = 2
CLEARLY = 10

_VARIES = "the program is not deterministic: two runs of the original differ too much to compare with"
_DRAWN = "other random numbers were drawn"


@dataclass(frozen=True)
class Results:
    """`detail` says what was compared, or why nothing was."""

    grade: Grade
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.grade.value} ({self.detail})" if self.detail else self.grade.value


@dataclass(frozen=True)
class Price:
    """The memory of one run, in bytes. None: there is nothing to say."""

    peak_allocated_bytes: int
    peak_reserved_bytes: int | None = None
    growth_of_kinds: tuple[tuple[StepKind, int | None], ...] = ()
    """Bytes per step of each kind of steps: a fix may end the slower growth of two."""
    graph_nodes_per_step: int | None = None
    step_peaks: tuple[int, ...] = ()
    step_graph_nodes: tuple[int, ...] = ()
    """Autograd nodes that are alive in host memory at the end of each step."""

    @property
    def growth_bytes_per_step(self) -> int | None:
        """That of the steps that grow most."""
        known = [growth for _, growth in self.growth_of_kinds if growth is not None]
        return max(known) if any(known) or len(known) == len(self.growth_of_kinds) > 0 else None

    @classmethod
    def of(cls, recording: Recording) -> Price:
        subject = Subject("", recording, Path())
        return cls(
            subject.peak_allocated_bytes,
            subject.peak_reserved_bytes,
            tuple((growth.kind, growth.bytes_per_step) for growth in subject.growths),
            subject.host_growth.nodes_per_step,
            tuple(analysis.step_peaks(recording)),
            tuple(step.graph_nodes or 0 for step in recording.steps),
        )


def judge(before: Price, after: Price, results: Results, *, noise: int = 0) -> Verdict:
    """The verdict on a fix whose line ran and whose program ran to its last step.

    `noise` is how far the peaks of two runs of the original are apart: no smaller difference means anything.
    """
    if results.grade is Grade.DIFFERENT:
        return Verdict.RESULTS_DIFFER
    less_growth = sum(
        first - second for _, first, second in growth_changes(before, after) if first is not None and second is not None
    )
    saved = before.peak_allocated_bytes - after.peak_allocated_bytes
    least = max(LEAST_SAVING_BYTES, noise, LEAST_SAVING_SHARE * before.peak_allocated_bytes)
    if less_growth >= LEAST_GROWTH_BYTES:
        return Verdict.GROWTH_CONFIRMED
    if -less_growth >= LEAST_GROWTH_BYTES or -saved > least:
        return Verdict.WORSE
    if saved > least:
        return Verdict.CONFIRMED
    if saved_elsewhere(before, after) <= least and fewer_graph_nodes(before, after):
        return Verdict.HOST_ONLY
    return Verdict.NO_EFFECT


def growth_changes(before: Price, after: Price) -> list[tuple[StepKind, int | None, int | None]]:
    """The growth of each kind of steps in both. None: unknown, which is no saving."""
    first, second = dict(before.growth_of_kinds), dict(after.growth_of_kinds)
    return [(kind, first.get(kind), second.get(kind)) for kind in {**first, **second}]


def saved_elsewhere(before: Price, after: Price) -> int:
    """The most that a step's own peak is lowered by, where the peak of the run is not."""
    return max(_differences(before.step_peaks, after.step_peaks), default=0)


def fewer_graph_nodes(before: Price, after: Price) -> int:
    """The most that fewer are alive at the end of a step, where more and more pile up without the fix.

    They may be let go at the end of an epoch, so the run as a whole need not grow. One graph more than with the fix is
    none that piles up: a variable still holds it.
    """
    differences = _differences(before.step_graph_nodes, after.step_graph_nodes)
    heights = [0, *accumulate(differences, max)]
    records = sum(higher > lower for lower, higher in pairwise(heights))
    return heights[-1] if records >= 2 else 0


def _differences(before: tuple[int, ...], after: tuple[int, ...]) -> list[int]:
    return [first - second for first, second in zip(before, after, strict=False)]


def compare(original: Fingerprints, other: Fingerprints) -> Results:
    """Grade the results of another run against those of the original."""
    if len(original.losses) != len(other.losses):
        return Results(Grade.DIFFERENT, f"{len(original.losses)} losses against {len(other.losses)}")
    apart = _distances(original, other)
    same_random_state = original.random_state == other.random_state
    if not apart and same_random_state:
        return Results(Grade.IDENTICAL, f"bitwise: {', '.join([*_TOLERANCE, 'random state'])}")
    detail = f"relative differences: {_in_words(apart)}"
    if not same_random_state:
        return Results(Grade.DIFFERENT, f"{detail}; {_DRAWN}" if apart else _DRAWN)
    tolerated = all(difference <= _TOLERANCE[name] for name, difference in apart.items())
    return Results(Grade.WITHIN_TOLERANCE if tolerated else Grade.DIFFERENT, detail)


def compare_with_both(first: Fingerprints, again: Fingerprints, other: Fingerprints) -> Results:
    """Grade the results of another run against two runs of the original.

    Where these are not the same bit by bit, the program is not deterministic: then the other run is held against what
    they differ by themselves, as far as that is little enough to tell a program from another.
    """
    if compare(first, again).grade is Grade.IDENTICAL:
        return compare(first, other)
    if len(first.losses) != len(again.losses):
        return Results(Grade.NOT_CHECKED, f"{_VARIES}: {len(first.losses)} losses and {len(again.losses)}")
    spread = _distances(first, again)
    if any(difference > MOST_SPREAD for difference in spread.values()):
        return Results(Grade.NOT_CHECKED, f"{_VARIES}: {_in_words(spread)}")
    if len(first.losses) != len(other.losses):
        return Results(Grade.DIFFERENT, f"{len(first.losses)} losses against {len(other.losses)}")
    if first.random_state == again.random_state != other.random_state:
        return Results(Grade.DIFFERENT, _DRAWN)
    one, two = _distances(first, other), _distances(again, other)
    apart = {name: min(one[name], two[name]) for name in one if name in two}
    excess = max((apart[name] / max(_TOLERANCE[name], SPREADS * spread.get(name, 0.0)) for name in apart), default=0.0)
    detail = f"relative differences: {_in_words(apart) or 'none'}; of two runs of the original: {_in_words(spread)}"
    if excess <= 1:
        return Results(Grade.WITHIN_TOLERANCE, detail)
    return Results(Grade.DIFFERENT if excess > CLEARLY else Grade.NOT_CHECKED, detail)


def _distances(first: Fingerprints, other: Fingerprints) -> dict[str, float]:
    """How far apart the groups of results are that are not the same bit by bit. As many losses are in both."""
    pairs = {
        "losses": list(zip(first.losses, other.losses, strict=True)),
        "parameters": [(first.parameters, other.parameters)],
        "buffers": [(first.buffers, other.buffers)],
        "first gradients": [(first.first_gradients, other.first_gradients)],
    }
    return {name: max(map(_apart, group), default=0.0) for name, group in pairs.items() if not _same_bits(group)}


def _in_words(apart: dict[str, float]) -> str:
    return ", ".join(f"{name} {difference:.1e}" for name, difference in apart.items())


def _same_bits(pairs: Sequence[tuple[Digest, Digest]]) -> bool:
    return all(first.bits == second.bits for first, second in pairs)


def _apart(pair: tuple[Digest, Digest]) -> float:
    """How far apart two digests are, relative to the size of what they stand for."""
    first, second = pair
    if first.bits == second.bits:
        return 0.0
    scale = max(first.magnitude, second.magnitude)
    difference = abs(first.projection - second.projection)
    difference = max(difference, abs(first.magnitude - second.magnitude))
    if math.isnan(difference) or math.isinf(scale):
        return math.inf
    return difference / scale if scale else 0.0
