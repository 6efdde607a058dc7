"""What the report for a terminal and the one for a browser both say in words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from memlint.measure import analysis
from memlint.measure.recording import SETUP_STEP, Category, Keeper, Place, ProcessMemory
from memlint.measure.report.subject import Subject
from memlint.measure.sizes import words

_MOST_PLACES = 3
CATEGORY_WORDS = {category: category.value.replace("_", " ") for category in Category}


@dataclass(frozen=True)
class Fact:
    """One of the numbers that head a report, and how it was obtained. `alarm`: it is bad news."""

    title: str
    value: str
    note: str
    alarm: bool = False


def facts(subject: Subject) -> Iterator[Fact]:
    basis, end = subject.basis, subject.recording.out_of_memory
    if end is not None:
        note = f"asked for, of {words(end.card_free)} that the card had left ({basis})"
        yield Fact("out of memory", words(end.requested), note, alarm=True)
    yield _allocated(subject)
    if subject.workspace_bytes > 0:
        count = len(subject.recording.workspaces)
        note = f"{subject.basis}: {count} workspace{'s' if count > 1 else ''} of cuBLAS, which a card's counts contain"
        yield Fact("and beside it", words(subject.workspace_bytes), note)
    yield _reserved(subject)
    if subject.untracked_bytes > 0:
        note = f"{basis}: workspaces of kernels, blocks left whole"
        yield Fact("of it untracked", words(subject.untracked_bytes), note)
    for growth in subject.growths:
        yield _growth(subject, growth)
    if matters(subject, subject.held_over):
        held_over = sum(share.bytes for share in subject.held_over)
        yield Fact("held over", words(held_over), f"{basis}: left by the step before, at the peak")
    nodes = subject.host_growth.nodes_per_step
    if nodes:
        yield Fact("graph nodes", f"+{nodes}", "per step, kept in host memory (counted in the run)", alarm=True)


def matters(subject: Subject, shares: Iterable[analysis.LineShare]) -> bool:
    """Whether it is at least a hundredth of the peak: a loss of 512 bytes that is held over is none of the news."""
    held = sum(share.bytes for share in shares)
    return held > 0 and 100 * held >= subject.tracked_peak.bytes


def during(step: int) -> str:
    return "in the set-up" if step == SETUP_STEP else f"in step {step}"


def _allocated(subject: Subject) -> Fact:
    peak, card = subject.peak_allocated_bytes, subject.card_bytes
    note = f"{subject.basis}, {during(subject.tracked_peak.step)}{_reserve(subject)}"
    if card is None or peak + subject.workspace_bytes <= card:
        return Fact("peak allocated", words(peak), note)
    return Fact("peak allocated", words(peak), f"{note}; does not fit on {subject.recording.device.name}", alarm=True)


def _reserve(subject: Subject) -> str:
    """In what way the peak is not exact, as the assumptions say."""
    if subject.is_upper_bound:
        return "; at most: sizes that depend on values are taken at their largest (see Assumed)"
    return "; on a card it may be some percent higher or lower (see Assumed)" if subject.is_inexact else ""


def _reserved(subject: Subject) -> Fact:
    title, reserved = "peak reserved", subject.peak_reserved_bytes
    if reserved is None:
        return Fact(title, "-", "has no meaning here: the CPU has no caching allocator")
    if subject.replayed is None:
        return Fact(title, words(reserved), subject.basis)
    spare = words(reserved - subject.peak_allocated_bytes - subject.workspace_bytes)
    note = f"{subject.basis} by replaying the caching allocator; {spare} of it fragmentation and rounding"
    return Fact(title, words(reserved), note)


def _growth(subject: Subject, growth: analysis.Growth) -> Fact:
    title, grows, which = "growth per step", growth.bytes_per_step, kind_of_step(subject, growth)
    if growth.irregular_bytes:
        left = words(growth.irregular_bytes)
        seen = f"some of the {growth.steps} {which}steps after the warm-up leave memory behind ({left} in all)"
        return Fact(title, "-", f"unknown: {seen}, others do not; more `--steps` may tell", alarm=True)
    if grows is None:
        least = subject.recording.warmup + analysis.LEAST_GROWING_STEPS
        return Fact(title, "-", f"unknown: needs {least} steps, saw {len(subject.recording.steps)}")
    note = f"{subject.basis} over the {growth.steps} {which}steps after the warm-up"
    return Fact(title, words(grows), note, alarm=grows > 0)


def kind_of_step(subject: Subject, growth: analysis.Growth) -> str:
    """`evaluation `, where there are steps of other kinds, too."""
    return f"{growth.kind} " if len({step.kind for step in subject.recording.steps}) > 1 else ""


def keeps(subject: Subject, keeper: Keeper | None) -> str:
    """`kept by the graph of `total` at train.py:30`."""
    if keeper is None:
        return "kept by something that could not be seen"
    name = f"`{keeper.name}`" if keeper.name else "something without a name"
    if keeper.kind == "graph":
        what = f"the graph of {name}"
    elif keeper.kind == "cycle":
        what = f"{name}, in a reference cycle"
        if keeper.place is None:
            what = "a reference cycle that only Python's cycle collector frees"
    elif keeper.kind == "tensor":
        what = f"{name}, made anew and larger"
    else:
        what = name
    return f"kept by {what}{_at(subject, keeper.place)}{_or_at(subject, keeper.other_places)}"


def _or_at(subject: Subject, places: Sequence[Place]) -> str:
    """`kept` is filled at several lines: which of them ran is not seen."""
    if not places:
        return ""
    shown = ", ".join(subject.where(place) for place in places[:_MOST_PLACES])
    return f", or where else it is filled: {shown}{' ...' if len(places) > _MOST_PLACES else ''}"


def notes(subject: Subject) -> Iterator[tuple[str, list[str]]]:
    """What the numbers rest on and leave out, under titles; lists may be empty."""
    recording = subject.recording
    shapes = dict.fromkeys(shape for step in recording.steps for shape in step.input_shapes)
    seen = "; ".join(" x ".join(map(str, shape)) or "scalar" for shape in shapes)
    yield "Input shapes seen", [seen] if seen else []
    yield (
        "Kernels",
        [
            f"{choice.operation}: {choice.kernel}{_times(choice.count)}, {choice.reason}{_at(subject, choice.place)}"
            for choice in recording.kernels
        ],
    )
    yield (
        "Assumed",
        [
            f"{assumption.what}{_times(assumption.count)}{_at(subject, assumption.place)}"
            for assumption in recording.assumptions
        ],
    )
    yield "Not in these numbers", recording.excluded
    if subject.replayed is not None:
        yield "Allocator settings that the replay ignores", list(subject.replayed.settings.ignored)
    yield "The card, by NVML (measured on cuda)", list(_card(recording.process)) if recording.process else []


def _card(process: ProcessMemory) -> Iterator[str]:
    context = _known(process.context_bytes)
    how = " (by how much the use of the whole card rose)" if process.by_difference else ""
    yield f"this process: {_known(process.process_bytes)}{how}, of it the CUDA context: {context}"
    for pid, name, size in process.other_processes:
        yield f"also on the card: {name} (pid {pid}): {_known(size)}"


def _times(count: int) -> str:
    return f" ({count} times)" if count > 1 else ""


def _at(subject: Subject, place: Place | None) -> str:
    return f" at {subject.where(place)}" if place is not None else ""


def _known(size: int | None) -> str:
    return "unknown" if size is None else words(size)
