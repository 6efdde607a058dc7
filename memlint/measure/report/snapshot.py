"""The run as a snapshot that PyTorch's memory viewer opens: `torch.cuda._memory_viz`, pytorch.org/memory_viz.

The shape is that of `torch.cuda.memory._snapshot()`. Of a run on CUDA it is PyTorch's own, where it was recorded; else
addresses and segments are those of the allocator's replay.
"""

from __future__ import annotations

import pickle
from typing import Any

from memlint.measure import allocator
from memlint.measure.recording import Storage
from memlint.measure.report.subject import Subject

_STREAM = 0


def render(subject: Subject) -> bytes:
    """The pickled snapshot."""
    return subject.recording.memory_history or pickle.dumps(snapshot(subject))


def snapshot(subject: Subject) -> dict[str, Any]:
    """The snapshot of the replay: what happened, and the segments as they are at the end."""
    recording = subject.recording
    settings = allocator.Settings.parse(recording.allocator_settings)
    replayed = allocator.replay(recording, settings)
    storages = {storage.id: storage for storage in recording.storages}
    trace = [entry for time, action in enumerate(replayed.actions) for entry in _entries(action, storages, time)]
    return {
        "segments": [_segment(segment, storages, settings) for segment in replayed.segments],
        "device_traces": [trace],
        "allocator_settings": {"expandable_segments": settings.expandable_segments},
        "external_annotations": [],
        "memlint": {"target": subject.target, "basis": subject.basis},
    }


def _entries(action: allocator.Action, storages: dict[int, Storage], time: int) -> list[dict[str, object]]:
    kinds = ["free_requested", "free_completed"] if action.kind == "free" else [action.kind]
    storage = _storage(storages, action.storage)
    entry = {
        "addr": action.address,
        "size": action.size,
        "stream": _STREAM,
        "device": 0,
        # The order is all that was recorded of time.
        "time_us": time,
        "frames": _frames(storage),
        "category": "unknown" if storage is None else storage.category.value,
    }
    return [{"action": kind, **entry} for kind in kinds]


def _segment(
    segment: allocator.Segment, storages: dict[int, Storage], settings: allocator.Settings
) -> dict[str, object]:
    used = [block for block in segment.blocks if block.storage is not None]
    allocated = sum(block.size for block in used)
    return {
        "device": 0,
        "address": segment.address,
        "total_size": segment.size,
        "allocated_size": allocated,
        "active_size": allocated,
        "requested_size": sum(block.requested for block in used),
        "stream": _STREAM,
        "segment_type": "small" if segment.is_small else "large",
        "segment_pool_id": (0, 0),
        "is_expandable": settings.expandable_segments,
        "frames": [],
        "blocks": [
            {
                "address": block.address,
                "size": block.size,
                "requested_size": block.requested,
                "state": "inactive" if block.storage is None else "active_allocated",
                "frames": _frames(_storage(storages, block.storage)),
            }
            for block in segment.blocks
        ],
    }


def _storage(storages: dict[int, Storage], number: int | None) -> Storage | None:
    """The program's storage of that number; None for what is free, and for the workspace of a library."""
    return None if number is None else storages.get(number)


def _frames(storage: Storage | None) -> list[dict[str, object]]:
    """Innermost first: the operator, the line it belongs to, and the line that was running, where that is another."""
    if storage is None:
        return []
    places = [place for place in dict.fromkeys((storage.place, storage.caller)) if place is not None]
    return [
        {"filename": "??", "line": 0, "name": storage.operator},
        *({"filename": place.path, "line": place.line, "name": place.function or "<module>"} for place in places),
    ]
