"""What a recording says: peaks, what holds them, what grows, what is held over. Pure functions.

All sizes are bytes of allocator blocks: each storage is rounded up to the granularity of CUDA's caching allocator.
A moment is named by an event: the state after `events[event]` has happened; -1 is the state before the first.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from heapq import nlargest
from itertools import accumulate, pairwise

from memlint.measure.allocator import block_bytes
from memlint.measure.recording import SETUP_STEP, Category, Keeper, Phase, Place, Recording, Step, StepKind, Storage

LEAST_GROWING_STEPS = 3
"""Step ends that must be seen after the warm-up before anything is said about growth."""


@dataclass(frozen=True)
class Peak:
    """The moment when most was allocated: the first one, where there are several."""

    event: int
    bytes: int
    step: int


@dataclass(frozen=True)
class LineShare:
    """What one line holds of one category. `place` is None for what no line of the user's code made."""

    place: Place | None
    category: Category
    bytes: int


@dataclass(frozen=True)
class Allocated:
    """What one line adds in a step to what is kept."""

    place: Place | None
    bytes_per_step: int


@dataclass(frozen=True)
class GrowthLine:
    """What keeps memory of each step. `keeper` is None where the worker could not see it."""

    keeper: Keeper | None
    bytes_per_step: int
    allocated_at: tuple[Allocated, ...]


@dataclass(frozen=True)
class Growth:
    """Device memory that each step of one kind leaves behind. `bytes_per_step` is None where the steps do not say:
    there were too few, or some of them left something and others did not (`irregular_bytes`, of all of them)."""

    bytes_per_step: int | None
    lines: tuple[GrowthLine, ...] = ()
    kind: StepKind = "training"
    steps: int = 0
    """How many steps after the warm-up this is said of."""
    irregular_bytes: int = 0


@dataclass(frozen=True)
class HostGrowth:
    """Autograd nodes that each step leaves behind in host memory, and the lines that keep them."""

    nodes_per_step: int | None
    keepers: tuple[Keeper, ...] = ()


@dataclass(frozen=True)
class Sample:
    """The state after an event: by category, and the lines that hold most."""

    event: int
    categories: dict[Category, int]
    lines: tuple[LineShare, ...] = ()

    @property
    def bytes(self) -> int:
        return sum(self.categories.values())


def live_bytes(recording: Recording) -> list[int]:
    """The bytes that are allocated after each event."""
    sizes = {storage.id: block_bytes(storage.size) for storage in recording.storages}
    return list(accumulate(sizes[event] if event >= 0 else -sizes[~event] for event in recording.events))


def peak(recording: Recording) -> Peak:
    """The peak of the whole run, from the set-up on."""
    live = live_bytes(recording)
    if not live:
        return Peak(-1, 0, SETUP_STEP)
    highest = max(live)
    event = live.index(highest)
    return Peak(event, highest, step_of(recording, event))


def workspace_bytes(recording: Recording) -> int:
    """By how much the peak is higher with what libraries take of the allocator for themselves."""
    live = live_bytes(recording) or [0]
    with_workspaces = list(live)
    for workspace in recording.workspaces:
        for event in range(min(workspace.born, len(live) - 1), len(live)):
            with_workspaces[event] += block_bytes(workspace.size)
    return max(with_workspaces) - max(live)


def step_of(recording: Recording, event: int) -> int:
    """The number of the step that an event belongs to; of what follows the last step, that of the next one."""
    starts = [step.start for step in recording.steps]
    index = bisect_right(starts, event) - 1
    if index < 0:
        return SETUP_STEP
    step = recording.steps[index]
    return step.number if event < step.end else step.number + 1


def step_peaks(recording: Recording) -> list[int]:
    """The peak of each step, what was allocated at its start counted in."""
    live = live_bytes(recording)
    return [max([_level(live, step.start), *live[step.start : step.end]]) for step in recording.steps]


def step_ends(recording: Recording) -> list[int]:
    """The bytes that are allocated at the end of each step."""
    live = live_bytes(recording)
    return [_level(live, step.end) for step in recording.steps]


def alive(recording: Recording, event: int) -> list[Storage]:
    """The storages that are allocated after an event."""
    return [
        storage
        for storage in recording.storages
        if storage.born <= event and (storage.died is None or storage.died > event)
    ]


def by_category(storages: Iterable[Storage]) -> dict[Category, int]:
    """The bytes of each category, every category named."""
    sums = dict.fromkeys(Category, 0)
    for storage in storages:
        sums[storage.category] += block_bytes(storage.size)
    return sums


def by_line(storages: Iterable[Storage]) -> tuple[LineShare, ...]:
    """The bytes of each line and category, the most first."""
    sums: Counter[tuple[tuple[str, int], Category]] = Counter()
    places: dict[tuple[str, int], Place | None] = {}
    for storage in storages:
        line = _line(storage.place)
        places.setdefault(line, storage.place)
        sums[line, storage.category] += block_bytes(storage.size)
    ordered = sorted(sums.items(), key=lambda item: (-item[1], item[0][0], item[0][1].value))
    return tuple(LineShare(places[line], category, size) for (line, category), size in ordered)


def growth(recording: Recording) -> Growth:
    """That of the kind of steps that grows most."""
    return max(
        growths(recording), key=lambda one: (one.bytes_per_step or 0, one.irregular_bytes, one.bytes_per_step == 0)
    )


def growths(recording: Recording) -> tuple[Growth, ...]:
    """What the steps of each kind leave behind on the device, once the warm-up is over; training steps first.

    Memory grows where more is allocated at the end of every step than at the end of the one before, and something of
    every step is still there at the end of the last one, or a tensor was made larger, of itself, at every step: batches
    that happen to become larger do not leave anything. Only like ends are alike, and of what other steps made (an
    evaluation between two steps of training) nothing is theirs.
    """
    return tuple(_growth_of(recording, kind, steps) for kind, steps in _settled(recording).items())


def _growth_of(recording: Recording, kind: StepKind, steps: Sequence[Step]) -> Growth:
    if len(steps) < LEAST_GROWING_STEPS:
        return Growth(None, kind=kind, steps=len(steps))
    others = {step.number for step in recording.steps if step.kind != kind}
    at_ends = [[one for one in alive(recording, step.end - 1) if one.step not in others] for step in steps]
    numbers = [step.number for step in steps]
    survivors = [storage for storage in at_ends[-1] if numbers[0] <= storage.step < numbers[-1] and storage.size]
    larger = list(_larger_tensors(recording, steps))
    slope = _slope([_total(storages) for storages in at_ends])
    births = len(steps) - 1
    if not slope or not (larger or {storage.step for storage in survivors} >= set(numbers[:-1])):
        # Batches of different sizes: the ends say little, what piles up does.
        makers = _makers(at_ends)
        survivors = [one for one in survivors if all(more > less for less, more in pairwise(makers[_maker(one)]))]
        slope = _per_step(survivors, births) + sum(line.bytes_per_step for line in larger)
        if not slope:
            left = _left_at_times(at_ends, makers) + _enlarged_at_times(recording, steps)
            return Growth(None if left else 0, kind=kind, steps=len(steps), irregular_bytes=left)
    lines = [
        GrowthLine(keeper, _per_step(kept, births), _allocated_at(kept, births))
        for keeper, kept in _kept(survivors, recording.keepers)
    ]
    ordered = tuple(sorted([*lines, *larger], key=lambda line: -line.bytes_per_step))
    return Growth(slope, ordered, kind, len(steps))


def _makers(at_ends: Sequence[Sequence[Storage]]) -> dict[object, list[int]]:
    """How many storages of each line, operator and category there are at the end of each step."""
    counts = [Counter(_maker(storage) for storage in storages if storage.size) for storages in at_ends]
    return {maker: [count[maker] for count in counts] for maker in set().union(*counts)}


def _left_at_times(at_ends: Sequence[Sequence[Storage]], makers: dict[object, list[int]]) -> int:
    """The bytes of what became more and never less, by some of the steps."""
    more = {maker for maker, counts in makers.items() if counts == sorted(counts) and counts[0] < counts[-1]}
    first, last = (_total(one for one in at_ends[index] if _maker(one) in more) for index in (0, -1))
    return max(0, last - first)


def _larger_tensors(recording: Recording, steps: Sequence[Step]) -> Iterator[GrowthLine]:
    """The tensors that were made anew in each of the steps, larger, of what the same line had made before."""
    keepers = {number: keeper for keeper in recording.keepers for number in keeper.storages if keeper.kind == "tensor"}
    for storage, sizes in _made_larger(recording, steps):
        if sizes.keys() >= {step.number for step in steps}:
            more = round((sizes[steps[-1].number] - sizes[steps[0].number]) / (len(steps) - 1))
            yield GrowthLine(keepers.get(storage.id), more, (Allocated(storage.place, more),))


def _enlarged_at_times(recording: Recording, steps: Sequence[Step]) -> int:
    """The bytes by which such tensors are larger that some of the steps made anew."""
    enlarged = 0
    for _, sizes in _made_larger(recording, steps):
        before = [size for number, size in sizes.items() if number <= steps[0].number]
        enlarged += max(sizes.values()) - max(before) if before else 0
    return enlarged


def _made_larger(recording: Recording, steps: Sequence[Step]) -> Iterator[tuple[Storage, dict[int, int]]]:
    """Of each storage at the end that was made of a smaller one: step -> its bytes at the end of that step."""
    by_id = {storage.id: storage for storage in recording.storages}
    for storage in alive(recording, steps[-1].end - 1):
        sizes: dict[int, int] = {}
        earlier: Storage | None = storage
        while earlier is not None:
            sizes.setdefault(earlier.step, block_bytes(earlier.size))
            earlier = by_id.get(earlier.grown_from) if earlier.grown_from is not None else None
        if storage.grown_from is not None:
            yield storage, sizes


def host_growth(recording: Recording) -> HostGrowth:
    """Autograd nodes that each step leaves behind."""
    found = [_host_growth_of(recording, steps) for steps in _settled(recording).values()]
    return max(found, key=lambda growth: -1 if growth.nodes_per_step is None else growth.nodes_per_step)


def _host_growth_of(recording: Recording, steps: Sequence[Step]) -> HostGrowth:
    counts = [step.graph_nodes for step in steps]
    known = [count for count in counts if count is not None]
    if len(known) < max(LEAST_GROWING_STEPS, len(counts)):
        return HostGrowth(None)
    nodes = _slope(known)
    return HostGrowth(nodes, tuple(keeper for keeper in recording.keepers if nodes and keeper.holds_graph))


def held_over(recording: Recording, at: Peak) -> list[Storage]:
    """What the forward pass of the step before has left at the peak, and is released before the peak's step is over.

    A loop variable still names the last result while the next one is computed: a `del` would lower the peak by it.
    """
    end = next((step.end for step in recording.steps if step.number == at.step), len(recording.events))
    return [
        storage
        for storage in alive(recording, at.event)
        if storage.phase is Phase.FORWARD
        and storage.category in {Category.ACTIVATIONS, Category.INPUTS}
        and storage.step == at.step - 1 > SETUP_STEP
        and storage.died is not None
        and storage.died < end
    ]


def saved_tensors(recording: Recording) -> tuple[LineShare, ...]:
    """What autograd saves for the backward pass, by line, at the moment when that is most."""
    storages = [storage if storage.saved else replace(storage, size=0) for storage in recording.storages]
    moment = peak(replace(recording, storages=storages))
    return by_line(storage for storage in alive(recording, moment.event) if storage.saved)


def timeline(recording: Recording, points: int, lines: int = 0) -> list[Sample]:
    """At most `points` states of the run, in order; the peak of every stretch between two of them is one of them.

    Each says which `lines` lines hold most.
    """
    live = live_bytes(recording)
    stretch = -(-len(live) // max(points, 1)) or 1
    starts = range(0, len(live), stretch)
    chosen = {max(range(start, min(start + stretch, len(live))), key=live.__getitem__) for start in starts}
    storages = {storage.id: storage for storage in recording.storages}
    places = {_line(storage.place): storage.place for storage in recording.storages}
    levels = dict.fromkeys(Category, 0)
    of_lines: Counter[tuple[tuple[str, int], Category]] = Counter()
    samples = []
    for index, event in enumerate(recording.events):
        storage = storages[event if event >= 0 else ~event]
        size = block_bytes(storage.size) if event >= 0 else -block_bytes(storage.size)
        levels[storage.category] += size
        of_lines[_line(storage.place), storage.category] += size
        if index in chosen:
            most = nlargest(lines, of_lines.items(), key=lambda item: item[1])
            shares = tuple(LineShare(places[line], category, held) for (line, category), held in most if held)
            samples.append(Sample(index, dict(levels), shares))
    return samples


def _settled(recording: Recording) -> dict[StepKind, list[Step]]:
    """The steps after the warm-up, those of each kind that has any; training steps first."""
    kinds: dict[StepKind, list[Step]] = {"training": []}
    for step in recording.steps:
        steps = kinds.setdefault(step.kind, [])
        if not step.unfinished:
            steps.append(step)
    settled = {kind: after for kind, steps in kinds.items() if (after := steps[recording.warmup :])}
    return settled or {"training": []}


def _total(storages: Iterable[Storage]) -> int:
    return sum(block_bytes(storage.size) for storage in storages)


def _level(live: Sequence[int], boundary: int) -> int:
    """What is allocated before `events[boundary]`."""
    return live[boundary - 1] if boundary > 0 else 0


def _slope(values: Sequence[int]) -> int:
    """How much is added from one value to the next; 0 unless every one is larger than the one before."""
    if any(later <= earlier for earlier, later in pairwise(values)):
        return 0
    return round((values[-1] - values[0]) / (len(values) - 1))


def _line(place: Place | None) -> tuple[str, int]:
    return ("", 0) if place is None else (place.path, place.line)


def _per_step(storages: Iterable[Storage], births: int) -> int:
    return round(_total(storages) / births)


def _allocated_at(storages: Iterable[Storage], births: int) -> tuple[Allocated, ...]:
    groups: dict[tuple[str, int], list[Storage]] = defaultdict(list)
    for storage in storages:
        groups[_line(storage.place)].append(storage)
    found = [Allocated(group[0].place, _per_step(group, births)) for group in groups.values()]
    return tuple(sorted(found, key=lambda allocated: (-allocated.bytes_per_step, _line(allocated.place))))


def _kept(survivors: Sequence[Storage], keepers: Sequence[Keeper]) -> list[tuple[Keeper | None, list[Storage]]]:
    """The survivors of each keeper, of the first one where there are several; None: nobody was seen to keep them.

    What was made for the step that was running at the end (a batch, asked for before) is not yet seen to be kept. It
    goes to the keeper of its like, made in earlier steps, where that is one.
    """
    owner = {storage: keeper for keeper in reversed(keepers) for storage in keeper.storages}
    of_kind: dict[object, set[Keeper | None]] = defaultdict(set)
    for storage in survivors:
        of_kind[_kind(storage)].add(owner.get(storage.id))
    groups: dict[tuple[object, ...], tuple[Keeper | None, list[Storage]]] = {}
    for storage in survivors:
        alike = of_kind[_kind(storage)] - {None}
        keeper = owner.get(storage.id) or (next(iter(alike)) if len(alike) == 1 else None)
        key = (_line(keeper.place), keeper.kind, keeper.name) if keeper else ()
        groups.setdefault(key, (keeper, []))[1].append(storage)
    return list(groups.values())


def _kind(storage: Storage) -> tuple[object, ...]:
    return *_maker(storage), storage.size


def _maker(storage: Storage) -> tuple[object, ...]:
    return _line(storage.place), storage.operator, storage.category
