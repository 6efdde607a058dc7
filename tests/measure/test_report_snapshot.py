"""The snapshot, opened by PyTorch's own viewer of the installed version."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from recordings import MIB, leaking_training, recordings
from torch.cuda import _memory_viz

from memlint.measure.analysis import live_bytes
from memlint.measure.recording import Recording
from memlint.measure.report import snapshot
from memlint.measure.report.subject import Subject


def opened(recording: Recording) -> dict[str, Any]:
    return dict(pickle.loads(snapshot.render(Subject("train.py", recording, Path("/project")))))


@pytest.fixture
def leaking() -> dict[str, Any]:
    return opened(leaking_training("/project/train.py"))


def flames(lines: str) -> Counter[str]:
    """What the viewer would draw, instead of the drawing, for which it would fetch a script."""
    drawn: Counter[str] = Counter()
    for line in lines.splitlines():
        stack, _, size = line.rpartition(" ")
        drawn[stack] += int(size)
    return drawn


def test_the_memory_subcommand_names_lines_and_bytes(leaking: dict[str, Any]) -> None:
    drawn = _memory_viz.memory(leaking, format_flamegraph=flames)
    assert drawn["stream_0;active_allocated;train.py:5:<module>;??:0:aten::mm"] == 6 * 2 * MIB
    assert sum(drawn.values()) == 106 * MIB


def test_the_segments_and_compare_subcommands(leaking: dict[str, Any]) -> None:
    drawn = _memory_viz.segments(leaking, format_flamegraph=flames)
    assert sum(drawn.values()) == 106 * MIB
    before = opened(leaking_training("/project/train.py"))["segments"][:-1]
    assert _memory_viz.compare(before, leaking["segments"], format_flamegraph=flames)


def test_the_stats_subcommand_adds_up(leaking: dict[str, Any]) -> None:
    stats = _memory_viz.segsum(leaking)
    assert "total_reserved: 106.0MiB" in stats
    assert "total_allocated: 77.0MiB" in stats


def test_the_trace_subcommand_prints_every_action(leaking: dict[str, Any]) -> None:
    printed = _memory_viz.trace(leaking)
    assert printed.startswith("Device 0 ----")
    assert printed.count("cudaMalloc(") == len(leaking["segments"])
    assert "{'action'" not in printed


def test_the_plots_hold_the_whole_snapshot(leaking: dict[str, Any]) -> None:
    for plot in [_memory_viz.trace_plot(leaking), _memory_viz.segment_plot(leaking)]:
        assert "snapshot.pickle" in plot and len(plot) > 1000
    assert _memory_viz.trace_plot(leaking, filter_freed=True)


def test_the_viewer_s_command_line_opens_the_file(tmp_path: Path) -> None:
    (tmp_path / "run.pickle").write_bytes(
        snapshot.render(Subject("train.py", leaking_training("/project/train.py"), tmp_path))
    )
    for command in (["stats", "run.pickle"], ["trace_plot", "run.pickle", "-o", "run.html"]):
        viewer = [sys.executable, str(Path(_memory_viz.__file__)), *command]
        subprocess.run(viewer, cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "run.html").stat().st_size > 1000


@settings(max_examples=50)
@given(recordings())
def test_a_viewer_that_replays_the_trace_sees_what_was_recorded(recording: Recording) -> None:
    taken = opened(recording)
    live: dict[int, int] = {}
    for entry in taken["device_traces"][0]:
        if entry["action"] == "alloc":
            assert entry["addr"] not in live
            live[entry["addr"]] = entry["size"]
        elif entry["action"] == "free_completed":
            assert live.pop(entry["addr"]) == entry["size"]
    blocks = {
        block["address"]: block["requested_size"]
        for segment in taken["segments"]
        for block in segment["blocks"]
        if block["state"] == "active_allocated"
    }
    assert blocks == live
    allocated = sum(segment["allocated_size"] for segment in taken["segments"])
    assert allocated == (live_bytes(recording) or [0])[-1]
    _memory_viz.segsum(taken)


def test_a_run_on_cuda_has_pytorch_s_own() -> None:
    recording = leaking_training("/project/train.py")
    recording.memory_history = b"as torch pickled it"
    assert snapshot.render(Subject("train.py", recording, Path())) == b"as torch pickled it"
