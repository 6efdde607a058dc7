"""CUDA's caching allocator, replayed: what it would reserve for the allocations and releases of a recording.

Written from the behaviour of `DeviceCachingAllocator` in PyTorch's c10/cuda/CUDACachingAllocator.cpp (main, 2025):
rounding, two pools, best fit, splitting, merging, expandable segments. Unvalidated on CUDA: no trace of a real card has
been compared with it yet. One stream; memory is never returned to the driver, so that neither an `empty_cache()` nor
the retry of a full card is replayed; private pools of CUDA graphs are not modelled.
"""

from __future__ import annotations

import re
from bisect import bisect_left, insort
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from memlint.measure.recording import Recording

MIB = 2**20

MIN_BLOCK = 512
"""Sizes are rounded up to a multiple of this many bytes: `kMinBlockSize`."""
SMALL_REQUEST = 1 * MIB
"""The largest request that the small pool serves: `kSmallSize`."""
SMALL_SEGMENT = 2 * MIB
"""What the small pool asks the driver for: `kSmallBuffer`."""
LARGE_SEGMENT = 20 * MIB
"""What the large pool asks the driver for, for requests below `LARGE_REQUEST`: `kLargeBuffer`."""
LARGE_REQUEST = 10 * MIB
"""Requests from here on are given segments of their own size: `kMinLargeAlloc`."""
LARGE_MULTIPLE = 2 * MIB
"""... rounded up to a multiple of this: `kRoundLarge`."""

_POWER2_INTERVALS = 16
"""`roundup_power2_divisions` has a value for each power of 2 from 1 MiB on."""

# Viewers read addresses as doubles: below 2**53 there is room for some 30,000 segments of up to 256 GiB.
_FIRST_ADDRESS = 2**40
_SPACE_BETWEEN_SEGMENTS = 2**38


def block_bytes(size: int) -> int:
    """The bytes of the block that `size` bytes are given; an empty storage is given none."""
    return -(-size // MIN_BLOCK) * MIN_BLOCK


@dataclass(frozen=True)
class Settings:
    """What `PYTORCH_CUDA_ALLOC_CONF` says, as far as the replay follows it; `ignored` names the rest."""

    text: str = ""
    max_split_bytes: int | None = None
    max_non_split_rounding_bytes: int = LARGE_SEGMENT
    expandable_segments: bool = False
    power2_divisions: tuple[int, ...] = (0,) * _POWER2_INTERVALS
    ignored: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Settings:
        """Read the variable's value. What has no place here, or is not written as PyTorch wants it, is ignored."""
        values: dict[str, object] = {}
        ignored = []
        for name, value in _options(text):
            reader = _READERS.get(name)
            if reader is None:
                if not _IRRELEVANT.match(name):
                    ignored.append(f"{name}:{value}")
                continue
            key, read = reader
            try:
                values[key] = read(value)
            except ValueError:
                ignored.append(f"{name}:{value}")
        return cls(text=text, ignored=tuple(ignored), **values)  # type: ignore[arg-type]

    def block_bytes(self, size: int) -> int:
        """What a request of `size` bytes is rounded to: `round_size`."""
        if size <= MIN_BLOCK:
            return MIN_BLOCK
        interval = min(max(size.bit_length() - 1 - (MIB.bit_length() - 1), 0), _POWER2_INTERVALS - 1)
        divisions = self.power2_divisions[interval]
        if divisions > 1 and size > MIN_BLOCK * divisions:
            division = (1 << (size.bit_length() - 1)) // divisions
            return -(-size // division) * division
        return block_bytes(size)


# They change the host's pinned memory, or when locks are held.
_IRRELEVANT = re.compile(r"pinned_|release_lock_on_|graph_capture_record_stream_reuse")


def _options(text: str) -> Iterable[tuple[str, str]]:
    """The `name:value` pairs; a value may be a list in brackets, with commas of its own."""
    for match in re.finditer(r"([^,:\[\]]+):(\[[^\]]*\]|[^,]*)", text.replace(" ", "")):
        yield match[1], match[2]


def _mebibytes(value: str) -> int:
    size = int(value) * MIB
    if size < LARGE_SEGMENT:
        raise ValueError(value)
    return size


def _truth(value: str) -> bool:
    if value not in {"True", "False"}:
        raise ValueError(value)
    return value == "True"


def _divisions(value: str) -> tuple[int, ...]:
    """`8`, or `[256:1,512:2,>:8]`: the number of divisions from a size in MiB up to the next power of 2."""
    if not value.startswith("["):
        return (_power_of_2(value),) * _POWER2_INTERVALS
    table = [0] * _POWER2_INTERVALS
    last = None
    for pair in value.strip("[]").split(","):
        start, _, number = pair.partition(":")
        divisions = 0 if number == "0" else _power_of_2(number)
        if start == ">":
            first = 0 if last is None else last
            table[first:] = [divisions] * (_POWER2_INTERVALS - first)
            continue
        interval = min(_power_of_2(start).bit_length() - 1, _POWER2_INTERVALS - 1)
        if last is None:
            table[:interval] = [divisions] * interval
        table[interval] = divisions
        last = interval
    return tuple(table)


def _power_of_2(text: str) -> int:
    value = int(text)
    if value <= 0 or value & (value - 1):
        raise ValueError(text)
    return value


_READERS = {
    "max_split_size_mb": ("max_split_bytes", _mebibytes),
    "max_non_split_rounding_mb": ("max_non_split_rounding_bytes", _mebibytes),
    "expandable_segments": ("expandable_segments", _truth),
    "roundup_power2_divisions": ("power2_divisions", _divisions),
}


@dataclass(eq=False)
class Block:
    """A piece of a segment: given to a storage, or free (`storage` is None)."""

    address: int
    size: int
    segment: Segment
    previous: Block | None = None
    next: Block | None = None
    storage: int | None = None
    requested: int = 0


@dataclass(eq=False)
class Segment:
    """What one call of the driver gave; with expandable segments a range that grows, one a pool."""

    address: int
    size: int
    is_small: bool
    first: Block | None = None
    last: Block | None = None

    @property
    def blocks(self) -> Iterable[Block]:
        block = self.first
        while block is not None:
            yield block
            block = block.next


@dataclass(frozen=True)
class Action:
    """What the allocator did. `storage` is that of the request; None of a segment's."""

    kind: Literal["alloc", "free", "segment_alloc", "segment_map"]
    address: int
    size: int
    storage: int | None = None


@dataclass(frozen=True)
class Replay:
    """How the replay ended. Peaks in bytes, as the allocator counts: a block that is not split counts whole."""

    settings: Settings
    allocated_peak: int
    reserved_peak: int
    segments: tuple[Segment, ...]
    actions: tuple[Action, ...]

    @property
    def fragmentation(self) -> int:
        """What is reserved at most beyond what is allocated at most."""
        return self.reserved_peak - self.allocated_peak


def replay(recording: Recording, settings: Settings | None = None) -> Replay:
    """What the allocator does with the recording's allocations and releases, in their order.

    The workspaces of libraries are allocated, too, under negative numbers.
    """
    sizes = {storage.id: storage.size for storage in recording.storages}
    allocator = CachingAllocator(settings or Settings())
    workspaces = sorted(recording.workspaces, key=lambda workspace: workspace.born)
    for time, event in enumerate(recording.events):
        while workspaces and workspaces[0].born <= time:
            allocator.allocate(-len(workspaces), workspaces.pop(0).size)
        if event < 0:
            allocator.free(~event)
        elif sizes[event]:
            allocator.allocate(event, sizes[event])
    return allocator.result()


class _Pool:
    """The free blocks of one pool, ordered by size and then by address."""

    def __init__(self) -> None:
        self._order: list[tuple[int, int]] = []
        self._blocks: dict[int, Block] = {}

    def add(self, block: Block) -> None:
        insort(self._order, (block.size, block.address))
        self._blocks[block.address] = block

    def remove(self, block: Block) -> None:
        del self._order[bisect_left(self._order, (block.size, block.address))]
        del self._blocks[block.address]

    def fitting(self, size: int) -> list[Block]:
        """The two smallest blocks that are at least so large, the lower address first among equals."""
        start = bisect_left(self._order, (size, 0))
        return [self._blocks[address] for _, address in self._order[start : start + 2]]


class CachingAllocator:
    """The state of the allocator of one device and one stream."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._pools = {True: _Pool(), False: _Pool()}
        self._segments: list[Segment] = []
        self._used: dict[int, Block] = {}
        self._actions: list[Action] = []
        self._allocated = self._allocated_peak = self._reserved = 0

    def allocate(self, storage: int, requested: int) -> None:
        size = self._settings.block_bytes(requested)
        is_small = size <= SMALL_REQUEST
        block = self._best_fit(size, is_small) or self._from_driver(size, is_small)
        if self._should_split(block, size):
            self._split(block, size)
        block.storage, block.requested = storage, requested
        self._used[storage] = block
        self._allocated += block.size
        self._allocated_peak = max(self._allocated_peak, self._allocated)
        self._actions.append(Action("alloc", block.address, requested, storage))

    def free(self, storage: int) -> None:
        block = self._used.pop(storage, None)
        if block is None:
            return
        self._actions.append(Action("free", block.address, block.requested, storage))
        self._allocated -= block.size
        block.storage, block.requested = None, 0
        for neighbour in (block.previous, block.next):
            if neighbour is not None and neighbour.storage is None:
                self._merge(block, neighbour)
        self._pools[block.segment.is_small].add(block)

    def result(self) -> Replay:
        return Replay(self._settings, self._allocated_peak, self._reserved, tuple(self._segments), tuple(self._actions))

    def _best_fit(self, size: int, is_small: bool) -> Block | None:
        """`get_free_block`."""
        pool = self._pools[is_small]
        candidates = pool.fitting(size)
        if not candidates:
            return None
        # A block that its segment can extend counts as large as it can become: any other is taken first.
        at_the_end = self._settings.expandable_segments and candidates[0].next is None
        block = candidates[1] if at_the_end and len(candidates) > 1 else candidates[0]
        limit = self._settings.max_split_bytes
        if limit is not None:
            if size < limit <= block.size:
                return None
            if size >= limit and block.size >= size + self._settings.max_non_split_rounding_bytes:
                return None
        pool.remove(block)
        return block

    def _from_driver(self, size: int, is_small: bool) -> Block:
        """A block of new memory, at least `size` bytes long: `alloc_block`."""
        if self._settings.expandable_segments:
            return self._expand(size, is_small)
        if is_small:
            length = SMALL_SEGMENT
        elif size < LARGE_REQUEST:
            length = LARGE_SEGMENT
        else:
            length = -(-size // LARGE_MULTIPLE) * LARGE_MULTIPLE
        segment = self._new_segment(length, is_small)
        self._actions.append(Action("segment_alloc", segment.address, length))
        self._reserved += length
        segment.first = segment.last = Block(segment.address, length, segment)
        return segment.first

    def _expand(self, size: int, is_small: bool) -> Block:
        """Map pages at the end of the pool's segment, and join them with a free block there."""
        page = SMALL_SEGMENT if is_small else LARGE_SEGMENT
        found = [segment for segment in self._segments if segment.is_small is is_small]
        segment = found[0] if found else self._new_segment(0, is_small)
        end = segment.last
        free = end if end is not None and end.storage is None else None
        if free is not None and free.size >= size:
            # `max_split_size_mb` kept it from being the best fit; here nobody asks.
            self._pools[is_small].remove(free)
            return free
        length = -(-(size - (free.size if free else 0)) // page) * page
        self._actions.append(Action("segment_map", segment.address + segment.size, length))
        block = Block(segment.address + segment.size, length, segment, previous=end)
        if end is None:
            segment.first = block
        else:
            end.next = block
        segment.last = block
        segment.size += length
        self._reserved += length
        if free is not None:
            self._merge(block, free)
        return block

    def _new_segment(self, size: int, is_small: bool) -> Segment:
        address = _FIRST_ADDRESS + _SPACE_BETWEEN_SEGMENTS * len(self._segments)
        segment = Segment(address, size, is_small)
        self._segments.append(segment)
        return segment

    def _should_split(self, block: Block, size: int) -> bool:
        remaining = block.size - size
        if block.segment.is_small or self._settings.expandable_segments:
            return remaining >= MIN_BLOCK
        limit = self._settings.max_split_bytes
        return remaining > SMALL_REQUEST and (limit is None or size < limit)

    def _split(self, block: Block, size: int) -> None:
        """Cut `block` to `size`; the rest becomes free."""
        rest = Block(block.address + size, block.size - size, block.segment, previous=block, next=block.next)
        if block.next is None:
            block.segment.last = rest
        else:
            block.next.previous = rest
        block.next, block.size = rest, size
        self._pools[block.segment.is_small].add(rest)

    def _merge(self, block: Block, neighbour: Block) -> None:
        """Make a free neighbour part of `block`."""
        self._pools[block.segment.is_small].remove(neighbour)
        block.size += neighbour.size
        if neighbour is block.previous:
            block.address, block.previous = neighbour.address, neighbour.previous
            if block.previous is None:
                block.segment.first = block
            else:
                block.previous.next = block
        else:
            block.next = neighbour.next
            if block.next is None:
                block.segment.last = block
            else:
                block.next.previous = block
