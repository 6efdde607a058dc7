"""The analysis against a simulation that keeps the set of what is alive, and on small runs made by hand."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from recordings import Run, recordings

from memlint.measure import analysis
from memlint.measure.allocator import block_bytes
from memlint.measure.recording import SETUP_STEP, Category, Recording, Storage

KIB = 1024


def simulated(recording: Recording) -> list[list[Storage]]:
    """What is alive after each event."""
    storages = {storage.id: storage for storage in recording.storages}
    alive: dict[int, Storage] = {}
    states = []
    for event in recording.events:
        if event >= 0:
            alive[event] = storages[event]
        else:
            del alive[~event]
        states.append(list(alive.values()))
    return states


def size_of(storages: list[Storage]) -> int:
    return sum(block_bytes(storage.size) for storage in storages)


@given(recordings())
def test_what_is_alive_and_how_much_it_is(recording: Recording) -> None:
    states = simulated(recording)
    assert analysis.live_bytes(recording) == [size_of(state) for state in states]
    for event, state in enumerate(states):
        assert [storage.id for storage in analysis.alive(recording, event)] == sorted(storage.id for storage in state)


@given(recordings())
def test_the_peak_and_what_holds_it(recording: Recording) -> None:
    states = simulated(recording)
    peak = analysis.peak(recording)
    assert peak.bytes == max(map(size_of, states), default=0)
    held = analysis.alive(recording, peak.event)
    assert size_of(held) == peak.bytes
    categories = analysis.by_category(held)
    lines = analysis.by_line(held)
    assert sum(categories.values()) == sum(share.bytes for share in lines) == peak.bytes
    of_lines: Counter[Category] = Counter()
    for share in lines:
        of_lines[share.category] += share.bytes
    assert {category: size for category, size in categories.items() if size} == dict(+of_lines)
    assert [share.bytes for share in lines] == sorted((share.bytes for share in lines), reverse=True)


@given(recordings())
def test_each_step_s_peak_and_end(recording: Recording) -> None:
    sizes = [0, *map(size_of, simulated(recording))]
    assert analysis.step_peaks(recording) == [max(sizes[step.start : step.end + 1]) for step in recording.steps]
    assert analysis.step_ends(recording) == [sizes[step.end] for step in recording.steps]


@given(recordings())
def test_an_event_belongs_to_the_step_in_which_its_storage_was_made(recording: Recording) -> None:
    for storage in recording.storages:
        assert analysis.step_of(recording, storage.born) == storage.step or not recording.steps


@given(recordings())
def test_a_short_timeline_keeps_the_peak(recording: Recording) -> None:
    states = simulated(recording)
    samples = analysis.timeline(recording, 7, lines=3)
    assert len(samples) <= 7
    assert max((sample.bytes for sample in samples), default=0) == analysis.peak(recording).bytes
    for sample in samples:
        assert sample.categories == analysis.by_category(states[sample.event])
        held = [share.bytes for share in analysis.by_line(states[sample.event]) if share.bytes]
        assert [share.bytes for share in sample.lines] == held[:3]


@given(recordings())
def test_saved_tensors_are_those_of_the_moment_when_they_are_most(recording: Recording) -> None:
    saved = [[storage for storage in state if storage.saved] for state in simulated(recording)]
    assert sum(share.bytes for share in analysis.saved_tensors(recording)) == max(map(size_of, saved), default=0)


@given(recordings())
def test_growth_is_never_more_than_what_survives(recording: Recording) -> None:
    growth = analysis.growth(recording)
    settled = recording.steps[recording.warmup :]
    assert growth.steps == len(settled)
    assert (growth.bytes_per_step is None) == (len(settled) < 3 or growth.irregular_bytes > 0)
    if len(settled) < 3:
        return
    survives = size_of(analysis.alive(recording, settled[-1].end - 1))
    assert growth.irregular_bytes <= survives
    assert (growth.bytes_per_step or 0) * (len(settled) - 1) <= survives + len(settled)
    assert bool(growth.lines) == bool(growth.bytes_per_step)


@given(recordings())
def test_no_growth_is_said_only_where_nothing_piles_up(recording: Recording) -> None:
    """What one line and operator made is at no time more than before, but for what is less again later."""
    if analysis.growth(recording).bytes_per_step != 0:
        return
    ends = [analysis.alive(recording, step.end - 1) for step in recording.steps[recording.warmup :]]
    sizes = [Counter((one.place, one.operator, one.category) for one in end if one.size) for end in ends]
    larger = [Counter[object]() for _ in ends]
    for made, end in zip(larger, ends, strict=True):
        for one in end:
            made[one.place, one.operator, one.category] += block_bytes(one.size)
    for maker in set().union(*sizes):
        counts = [end[maker] for end in sizes]
        piles_up = counts == sorted(counts) and counts[0] < counts[-1]
        assert not piles_up or larger[0][maker] >= larger[-1][maker]


def test_a_run_without_events() -> None:
    recording = Run().recording
    assert analysis.peak(recording) == analysis.Peak(-1, 0, SETUP_STEP)
    assert analysis.timeline(recording, 100) == []
    assert analysis.growth(recording) == analysis.Growth(None)


def test_the_first_of_two_equal_peaks_counts() -> None:
    run = Run()
    run.free(run.allocate(1 * KIB))
    run.begin()
    run.free(run.allocate(1 * KIB))
    run.end_step()
    assert analysis.peak(run.recording) == analysis.Peak(0, 1 * KIB, SETUP_STEP)


def leaking(*, keeps: bool, steps: int = 6) -> Run:
    """Parameters; each step an activation of 2 KiB on line 7, of which `keeps` keeps the last 1 KiB."""
    run = Run()
    run.allocate(4 * KIB, Category.PARAMETERS, 1)
    run.begin()
    for _ in range(steps):
        activation = run.allocate(2 * KIB, line=7)
        output = run.allocate(1 * KIB, line=8)
        run.free(activation)
        if not keeps:
            run.free(output)
        run.end_step(graph_nodes=10)
    return run


def test_what_each_step_leaves_behind_and_who_keeps_it() -> None:
    run = leaking(keeps=True)
    run.keep(
        9, "outputs", [storage.id for storage in run.recording.storages if storage.place and storage.place.line == 8]
    )
    growth = analysis.growth(run.recording)
    assert growth.bytes_per_step == 1 * KIB
    (line,) = growth.lines
    assert line.keeper == run.recording.keepers[0]
    assert line.bytes_per_step == 1 * KIB
    assert [(at.place and at.place.line, at.bytes_per_step) for at in line.allocated_at] == [(8, 1 * KIB)]


def test_what_nobody_is_seen_to_keep_has_no_keeper() -> None:
    (line,) = analysis.growth(leaking(keeps=True).recording).lines
    assert line.keeper is None
    assert line.bytes_per_step == 1 * KIB


def test_a_keeper_that_was_not_seen_to_keep_it_is_not_blamed() -> None:
    run = leaking(keeps=True)
    run.keep(9, "total", graph=True)
    (line,) = analysis.growth(run.recording).lines
    assert line.keeper is None


def test_what_two_keep_counts_for_the_first() -> None:
    run = leaking(keeps=True)
    kept = [storage.id for storage in run.recording.storages if storage.place and storage.place.line == 8]
    run.keep(9, "outputs", kept)
    run.keep(10, "total", kept, graph=True)
    assert [line.keeper for line in analysis.growth(run.recording).lines] == run.recording.keepers[:1]


def test_what_is_like_the_kept_is_kept_by_the_same() -> None:
    run = leaking(keeps=True)
    kept = [storage.id for storage in run.recording.storages if storage.place and storage.place.line == 8]
    run.keep(9, "outputs", kept[:-2])
    (line,) = analysis.growth(run.recording).lines
    assert line.keeper == run.recording.keepers[0]
    assert line.bytes_per_step == 1 * KIB


def test_what_is_like_the_kept_of_two_has_no_keeper() -> None:
    run = leaking(keeps=True)
    kept = [storage.id for storage in run.recording.storages if storage.place and storage.place.line == 8]
    run.keep(9, "outputs", kept[2:3])
    run.keep(10, "copies", kept[3:4])
    keepers = [line.keeper for line in analysis.growth(run.recording).lines]
    assert None in keepers and len(keepers) == 3


def test_a_run_that_leaves_nothing_behind_does_not_grow() -> None:
    assert analysis.growth(leaking(keeps=False).recording) == analysis.Growth(0, steps=4)


def test_too_few_steps_say_nothing_about_growth() -> None:
    assert analysis.growth(leaking(keeps=True, steps=4).recording) == analysis.Growth(None, steps=2)


@pytest.mark.parametrize("every", [2, 3])
@pytest.mark.parametrize("phase", [0, 1, 2])
@pytest.mark.parametrize("names_the_last", [True, False])
def test_growth_at_every_other_step_is_unknown_and_not_nothing(every: int, phase: int, names_the_last: bool) -> None:
    run = Run()
    run.begin()
    last = None
    for step in range(6):
        output = run.allocate(1 * KIB, line=8)
        if last is not None:
            run.free(last)
        last = None
        if step % every != phase % every:
            if names_the_last:
                last = output
            else:
                run.free(output)
        run.end_step()
    growth = analysis.growth(run.recording)
    assert growth.bytes_per_step is None
    assert growth.irregular_bytes in {1 * KIB, 2 * KIB}


def test_a_variable_that_is_set_at_some_steps_is_no_growth() -> None:
    run = Run()
    run.begin()
    logged = None
    for step in range(6):
        loss = run.allocate(1 * KIB, line=8)
        if step % 2:
            if logged is not None:
                run.free(logged)
            logged = loss
        else:
            run.free(loss)
        run.end_step()
    assert analysis.growth(run.recording) == analysis.Growth(0, steps=4)


def test_growth_under_batches_of_different_sizes() -> None:
    run = Run()
    run.begin()
    for size in (8, 3, 9, 2, 7, 1):
        batch = run.allocate(size * KIB, line=5)
        run.allocate(1 * KIB, line=8)
        run.end_step()
        run.free(batch)
    growth = analysis.growth(run.recording)
    assert growth.bytes_per_step == 1 * KIB
    assert [at.place and at.place.line for line in growth.lines for at in line.allocated_at] == [8]


def test_the_growth_of_each_kind_of_steps() -> None:
    run = Run()
    run.begin()
    for _ in range(5):
        run.allocate(1 * KIB, line=3)
        run.end_step("training")
    for _ in range(5):
        run.allocate(4 * KIB, line=9)
        run.end_step("evaluation")
    found = analysis.growths(run.recording)
    assert [(one.kind, one.bytes_per_step, one.steps) for one in found] == [
        ("training", 1 * KIB, 3),
        ("evaluation", 4 * KIB, 3),
    ]
    assert analysis.growth(run.recording) == found[1]


def test_batches_that_become_larger_are_no_growth() -> None:
    run = Run()
    run.begin()
    held = run.allocate(1 * KIB)
    for factor in range(2, 8):
        batch = run.allocate(factor * KIB)
        run.free(held)
        held = batch
        run.end_step()
    assert analysis.growth(run.recording) == analysis.Growth(0, steps=4)


def test_training_steps_are_compared_with_training_steps() -> None:
    run = Run()
    run.begin()
    for _ in range(5):
        batch = run.allocate(8 * KIB)
        run.end_step("evaluation")
        run.free(batch)
        run.allocate(1 * KIB, line=3)
        run.end_step("training")
    assert [(one.kind, one.bytes_per_step) for one in analysis.growths(run.recording)] == [
        ("training", 1 * KIB),
        ("evaluation", 0),
    ]


def test_memory_of_the_step_before_at_the_peak() -> None:
    run = Run()
    run.allocate(4 * KIB, Category.PARAMETERS)
    run.begin()
    held = None
    for _ in range(4):
        activation = run.allocate(2 * KIB, line=5)
        if held is not None:
            run.free(held)
        held = activation
        run.end_step()
    peak = analysis.peak(run.recording)
    assert (peak.bytes, peak.step) == (8 * KIB, 1)
    (held_over,) = analysis.by_line(analysis.held_over(run.recording, peak))
    assert (held_over.place and held_over.place.line, held_over.bytes) == (5, 2 * KIB)


def test_graph_nodes_that_pile_up_on_the_host() -> None:
    run = Run()
    run.begin()
    for step in range(6):
        run.end_step(graph_nodes=244 + 192 * step)
    run.keep(30, "total", graph=True)
    run.keep(31, "outputs", holds_graph=True)
    run.keep(32, "numbers")
    host = analysis.host_growth(run.recording)
    assert host.nodes_per_step == 192
    assert host.keepers == tuple(run.recording.keepers[:2])


def test_graph_nodes_that_nobody_counted() -> None:
    run = Run()
    run.begin()
    for _ in range(6):
        run.end_step()
    assert analysis.host_growth(run.recording) == analysis.HostGrowth(None)
    assert analysis.host_growth(leaking(keeps=True).recording) == analysis.HostGrowth(0)
