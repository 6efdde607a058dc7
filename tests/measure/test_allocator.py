"""The allocator's replay on traces made by hand from CUDACachingAllocator.cpp. None of them was taken from a card."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from recordings import Run, recordings

from memlint.measure.allocator import MIB, MIN_BLOCK, CachingAllocator, Replay, Settings, block_bytes, replay
from memlint.measure.analysis import peak
from memlint.measure.recording import Recording

KIB = 1024


def replayed(*actions: int | tuple[int, str], settings: str = "") -> Replay:
    """A size allocates; `(index, "free")` releases what was allocated as number `index`."""
    allocator = CachingAllocator(Settings.parse(settings))
    count = 0
    for action in actions:
        if isinstance(action, int):
            allocator.allocate(count, action)
            count += 1
        else:
            allocator.free(action[0])
    return allocator.result()


@pytest.mark.parametrize(
    ("size", "block"), [(0, 0), (1, 512), (512, 512), (513, 1024), (MIB, MIB), (MIB + 1, MIB + 512)]
)
def test_sizes_are_rounded_to_512(size: int, block: int) -> None:
    assert block_bytes(size) == block


@pytest.mark.parametrize(
    ("size", "reserved"),
    [
        (1, 2 * MIB),
        (MIB, 2 * MIB),
        (MIB + 1, 20 * MIB),
        (10 * MIB - 512, 20 * MIB),
        (10 * MIB, 10 * MIB),
        (10 * MIB + 1, 12 * MIB),
        (33 * MIB, 34 * MIB),
    ],
)
def test_what_is_asked_of_the_driver(size: int, reserved: int) -> None:
    assert replayed(size).reserved_peak == reserved


def test_small_requests_share_a_segment() -> None:
    assert replayed(*[512 * KIB] * 4).reserved_peak == 2 * MIB
    assert replayed(*[512 * KIB] * 5).reserved_peak == 4 * MIB


def test_small_and_large_requests_never_share_one() -> None:
    assert replayed(2 * MIB, MIB).reserved_peak == 22 * MIB


def test_a_large_block_is_split_only_for_more_than_a_mebibyte() -> None:
    whole = replayed(19 * MIB, (0, "free"), 18 * MIB)
    assert (whole.reserved_peak, whole.allocated_peak) == (20 * MIB, 20 * MIB)
    split = replayed(20 * MIB, (0, "free"), 18 * MIB)
    assert (split.reserved_peak, split.allocated_peak) == (20 * MIB, 20 * MIB)
    assert [block.size for segment in split.segments for block in segment.blocks] == [18 * MIB, 2 * MIB]


def test_the_smallest_block_that_fits_is_taken() -> None:
    trace = replayed(40 * MIB, 30 * MIB, 20 * MIB, (0, "free"), (1, "free"), (2, "free"), 25 * MIB)
    assert trace.reserved_peak == 90 * MIB
    (used,) = [block for segment in trace.segments for block in segment.blocks if block.storage is not None]
    assert used.segment.size == 30 * MIB


def test_of_equal_blocks_the_lower_address_is_taken() -> None:
    trace = replayed(20 * MIB, 20 * MIB, (1, "free"), (0, "free"), 20 * MIB)
    (used,) = [block for segment in trace.segments for block in segment.blocks if block.storage is not None]
    assert used.segment is trace.segments[0]


def test_free_neighbours_are_merged() -> None:
    trace = replayed(5 * MIB, 5 * MIB, 5 * MIB, (0, "free"), (2, "free"), (1, "free"), 20 * MIB)
    assert trace.reserved_peak == 20 * MIB


def test_holes_between_used_blocks_are_fragmentation() -> None:
    trace = replayed(5 * MIB, 5 * MIB, 5 * MIB, 5 * MIB, (0, "free"), (2, "free"), 8 * MIB)
    assert trace.reserved_peak == 40 * MIB
    assert trace.allocated_peak == 20 * MIB
    assert trace.fragmentation == 20 * MIB


def test_nothing_is_returned_to_the_driver() -> None:
    trace = replayed(100 * MIB, (0, "free"), 101 * MIB)
    assert trace.reserved_peak == 202 * MIB


def test_an_empty_storage_is_given_nothing() -> None:
    run = Run()
    run.free(run.allocate(0))
    assert replay(run.recording).reserved_peak == 0


def test_large_blocks_are_not_split_past_max_split_size() -> None:
    trace = (64 * MIB, (0, "free"), 4 * MIB)
    assert replayed(*trace).reserved_peak == 64 * MIB
    assert replayed(*trace, settings="max_split_size_mb:32").reserved_peak == 84 * MIB


def test_a_request_past_max_split_size_takes_a_block_that_is_not_much_larger() -> None:
    settings = "max_split_size_mb:32"
    close = replayed(50 * MIB, (0, "free"), 40 * MIB, settings=settings)
    assert (close.reserved_peak, close.allocated_peak) == (50 * MIB, 50 * MIB)
    assert replayed(64 * MIB, (0, "free"), 40 * MIB, settings=settings).reserved_peak == 104 * MIB


def test_expandable_segments_grow_by_pages() -> None:
    settings = "expandable_segments:True"
    assert replayed(33 * MIB, settings=settings).reserved_peak == 40 * MIB
    assert replayed(512, settings=settings).reserved_peak == 2 * MIB


def test_an_expandable_segment_s_free_end_is_part_of_what_it_grows_to() -> None:
    trace = replayed(15 * MIB, (0, "free"), 30 * MIB, settings="expandable_segments:True")
    assert trace.reserved_peak == 40 * MIB
    assert len(trace.segments) == 1


def test_the_end_of_an_expandable_segment_is_taken_last() -> None:
    trace = replayed(10 * MIB, 5 * MIB, (0, "free"), 5 * MIB - 512, settings="expandable_segments:True")
    third = [block.storage for segment in trace.segments for block in segment.blocks]
    assert third[0] == 2


def test_rounding_to_divisions_of_a_power_of_two() -> None:
    settings = Settings.parse("roundup_power2_divisions:4")
    assert settings.block_bytes(1200 * MIB) == 1280 * MIB
    assert settings.block_bytes(1024 * MIB) == 1024 * MIB
    assert settings.block_bytes(1000) == 1024


def test_divisions_by_size() -> None:
    """As `parseRoundUpPower2Divisions` reads them: `>` begins with the last size that was named."""
    settings = Settings.parse("roundup_power2_divisions:[256:1,512:2,1024:4,>:8]")
    assert settings.block_bytes(300 * MIB) == block_bytes(300 * MIB)
    assert settings.block_bytes(520 * MIB) == 768 * MIB
    assert settings.block_bytes(1100 * MIB) == 1152 * MIB


def test_what_the_replay_does_not_follow_is_said() -> None:
    settings = Settings.parse(
        "garbage_collection_threshold:0.8,max_split_size_mb:64,backend:cudaMallocAsync,pinned_num_register_threads:8"
    )
    assert settings.max_split_bytes == 64 * MIB
    assert settings.ignored == ("garbage_collection_threshold:0.8", "backend:cudaMallocAsync")


def test_what_pytorch_would_refuse_is_ignored() -> None:
    settings = Settings.parse("max_split_size_mb:1,expandable_segments:yes,roundup_power2_divisions:3")
    assert settings.ignored == ("max_split_size_mb:1", "expandable_segments:yes", "roundup_power2_divisions:3")
    assert settings.block_bytes(1200 * MIB) == 1200 * MIB


SETTINGS = ["", "expandable_segments:True", "max_split_size_mb:20", "roundup_power2_divisions:8"]


@given(
    st.sampled_from(SETTINGS),
    st.lists(st.tuples(st.booleans(), st.integers(1, 48 * MIB) | st.integers(1, 2 * MIB)), max_size=40),
)
def test_blocks_always_tile_their_segments(settings: str, actions: list[tuple[bool, int]]) -> None:
    allocator = CachingAllocator(Settings.parse(settings))
    sizes: dict[int, int] = {}
    for number, (frees, size) in enumerate(actions):
        if frees and sizes:
            oldest = next(iter(sizes))
            del sizes[oldest]
            allocator.free(oldest)
        else:
            sizes[number] = size
            allocator.allocate(number, size)
    result = allocator.result()
    used: dict[int, int] = {}
    for segment in result.segments:
        address = segment.address
        was_free = False
        for block in segment.blocks:
            assert block.address == address and block.size % MIN_BLOCK == 0 and block.segment is segment
            assert not (was_free and block.storage is None), "free neighbours are merged"
            was_free = block.storage is None
            address += block.size
            if block.storage is not None:
                used[block.storage] = block.requested
                assert block.size >= block.requested
        assert address == segment.address + segment.size
    assert used == sizes
    assert result.reserved_peak == sum(segment.size for segment in result.segments)
    assert result.reserved_peak >= result.allocated_peak >= sum(sizes.values())


@given(recordings())
def test_of_small_requests_the_allocator_counts_what_the_analysis_does(recording: Recording) -> None:
    """Small requests are always cut to size, so that here both are the same."""
    assert replay(recording).allocated_peak == peak(recording).bytes
