"""The measurement as JSON. The format is an interface: docs/measure-json.md says what each key means."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict

from memlint import __version__
from memlint.measure import analysis
from memlint.measure.job import Layer
from memlint.measure.recording import AllocatorPeaks, Keeper, Place, StepKind
from memlint.measure.report.subject import Subject

SCHEMA_VERSION = 1


def render(subject: Subject) -> str:
    return json.dumps(measurement(subject), indent=2)


def measurement(subject: Subject) -> dict[str, object]:
    """The object that is printed."""
    recording, host = subject.recording, subject.host_growth
    device = recording.device
    return {
        "schema_version": SCHEMA_VERSION,
        "memlint_version": __version__,
        "torch_version": recording.torch_version,
        "target": subject.target,
        "backend": recording.backend,
        "basis": subject.basis,
        "device": {
            "name": device.name,
            "total_bytes": subject.card_bytes,
            "capability": None if subject.card_bytes is None else list(device.capability),
        },
        "steps": len(recording.steps),
        "warmup": recording.warmup,
        "peak_allocated_bytes": subject.peak_allocated_bytes,
        "peak_reserved_bytes": subject.peak_reserved_bytes,
        "peak_is_upper_bound": subject.is_upper_bound,
        "peak_requested_bytes": subject.counted.requested if subject.counted else None,
        "peak_step": subject.tracked_peak.step,
        "untracked_bytes": subject.untracked_bytes,
        "workspace_bytes": subject.workspace_bytes,
        "growth_bytes_per_step": subject.growth.bytes_per_step,
        "growth": [_growth(subject, growth.kind, line) for growth, line in subject.growing],
        "growth_of_kinds": [
            {
                "step_kind": one.kind,
                "steps": one.steps,
                "bytes_per_step": one.bytes_per_step,
                "irregular_bytes": one.irregular_bytes,
            }
            for one in subject.growths
        ],
        "held_over_bytes": sum(share.bytes for share in subject.held_over),
        "held_over": _shares(subject, subject.held_over),
        "graph_nodes_per_step": host.nodes_per_step,
        "graph_nodes_kept_by": [_keeper(subject, keeper) for keeper in host.keepers],
        "categories": {category.value: size for category, size in subject.categories.items()},
        "lines": _shares(subject, subject.lines),
        "saved_tensors": _saved(subject),
        "per_step": _steps(subject),
        "replay": _replay(subject),
        "kernels": [
            {
                "operation": choice.operation,
                "kernel": choice.kernel,
                "reason": choice.reason,
                "count": choice.count,
                **_place(subject, choice.place),
            }
            for choice in recording.kernels
        ],
        "assumptions": [
            {
                "what": assumption.what,
                "count": assumption.count,
                "effect": assumption.effect,
                **_place(subject, assumption.place),
            }
            for assumption in recording.assumptions
        ],
        "excluded": list(recording.excluded),
        "process": _process(subject),
        "out_of_memory": _out_of_memory(subject),
    }


def _place(subject: Subject, place: Place | None) -> dict[str, object]:
    if place is None:
        return {"path": None, "line": None}
    return {"path": subject.shown(place.path), "line": place.line}


def _shares(subject: Subject, shares: Iterable[analysis.LineShare]) -> list[dict[str, object]]:
    return [
        {**_place(subject, share.place), "category": share.category.value, "bytes": share.bytes} for share in shares
    ]


def _growth(subject: Subject, kind: StepKind, line: analysis.GrowthLine) -> dict[str, object]:
    return {
        **_keeper(subject, line.keeper),
        "step_kind": kind,
        "bytes_per_step": line.bytes_per_step,
        "allocated_at": [
            {**_place(subject, allocated.place), "bytes_per_step": allocated.bytes_per_step}
            for allocated in line.allocated_at
        ],
    }


def _keeper(subject: Subject, keeper: Keeper | None) -> dict[str, object]:
    if keeper is None:
        return {**_place(subject, None), "kept_by": None, "kind": None, "other_places": []}
    return {
        **_place(subject, keeper.place),
        "kept_by": keeper.name,
        "kind": keeper.kind,
        "other_places": [_place(subject, place) for place in keeper.other_places],
    }


def _saved(subject: Subject) -> list[dict[str, object]] | None:
    if Layer.SAVED_TENSORS not in subject.recording.layers:
        return None
    return _shares(subject, analysis.saved_tensors(subject.recording))


def _steps(subject: Subject) -> list[dict[str, object]]:
    recording = subject.recording
    peaks, ends = analysis.step_peaks(recording), analysis.step_ends(recording)
    return [
        {
            "number": step.number,
            "kind": step.kind,
            "seconds": step.seconds,
            "peak_allocated_bytes": step.allocator.allocated if step.allocator else peak,
            "end_allocated_bytes": end,
            "allocator": _allocator(step.allocator),
            "input_shapes": [list(shape) for shape in step.input_shapes],
            "graph_nodes": step.graph_nodes,
        }
        for step, peak, end in zip(recording.steps, peaks, ends, strict=True)
    ]


def _allocator(peaks: AllocatorPeaks | None) -> dict[str, int] | None:
    if peaks is None:
        return None
    return asdict(peaks)


def _replay(subject: Subject) -> dict[str, object] | None:
    replayed = subject.replayed
    if replayed is None:
        return None
    return {
        "allocated_peak_bytes": replayed.allocated_peak,
        "reserved_peak_bytes": replayed.reserved_peak,
        "segments": len(replayed.segments),
        "fragmentation_bytes": replayed.fragmentation,
        "settings": replayed.settings.text,
        "ignored_settings": list(replayed.settings.ignored),
    }


def _process(subject: Subject) -> dict[str, object] | None:
    process = subject.recording.process
    if process is None:
        return None
    return {
        "process_bytes": process.process_bytes,
        "context_bytes": process.context_bytes,
        "by_difference": process.by_difference,
        "other_processes": [{"pid": pid, "name": name, "bytes": size} for pid, name, size in process.other_processes],
    }


def _out_of_memory(subject: Subject) -> dict[str, int] | None:
    end = subject.recording.out_of_memory
    if end is None:
        return None
    return {
        "requested_bytes": end.requested,
        "card_free_bytes": end.card_free,
        "allocated_bytes": end.allocated,
        "reserved_bytes": end.reserved,
    }
