"""The arithmetic of the GPU suite, and that the suite says so where it cannot run."""

from __future__ import annotations

import json
import math
import pickle
import re
import subprocess
import sys
from pathlib import Path

import gpu_figures
import pytest
import torch
from gpu_findings import Findings
from gpu_programs import PAIRS, PROGRAMS, ZOO
from gpu_runs import program
from hypothesis import given, settings
from hypothesis.strategies import integers, lists
from recordings import leaking_training, recordings

from memlint.measure.allocator import Settings, replay
from memlint.measure.recording import Recording
from memlint.measure.report import snapshot
from memlint.measure.report.subject import Subject

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("predicted", "measured", "percent"), [(95, 100, -5.0), (110, 100, 10.0), (0, 0, 0.0), (1, 0, math.inf)]
)
def test_errors_are_signed_and_in_percent_of_what_was_measured(predicted: int, measured: int, percent: float) -> None:
    assert gpu_figures.signed_error(predicted, measured) == percent


def test_percentiles_are_values_that_occurred() -> None:
    values = [float(value) for value in range(1, 21)]
    assert gpu_figures.percentile(values, 0.95) == 19
    assert gpu_figures.percentile(values, 1) == 20
    assert gpu_figures.percentile([3.0], 0.95) == 3


def test_a_summary_keeps_the_sign_of_the_worst() -> None:
    assert gpu_figures.summary([-4.0, 1.0, 2.0]) == {
        "programs": 3,
        "median_absolute_percent": 2.0,
        "p95_absolute_percent": 4.0,
        "lowest_percent": -4.0,
        "highest_percent": 2.0,
    }


@settings(max_examples=50)
@given(recordings())
def test_a_snapshot_s_trace_is_replayed_as_the_recording_was(recording: Recording) -> None:
    taken = pickle.loads(snapshot.render(Subject("train.py", recording, Path("/project"))))
    trace = taken["device_traces"][0]
    for text in ("", "expandable_segments:True"):
        expected = replay(recording, Settings.parse(text)).reserved_peak
        assert gpu_figures.replayed_reserved_peak(trace, text) == expected
    sizes = {storage.id: storage.size for storage in recording.storages}
    ours = [size for size in gpu_figures.order_of_recording(recording.events, sizes) if size]
    assert gpu_figures.order_of_trace(trace) == ours


def test_what_only_the_allocator_saw_is_no_disagreement() -> None:
    found = gpu_figures.agreement([512, 1024, -512], [512, 7680, 1024, -7680, -512])
    assert found == {"ours": 3, "theirs": 5, "in_order": 3, "only_ours": 0, "only_theirs": 2, "percent_of_ours": 100.0}


def test_another_order_is_one() -> None:
    found = gpu_figures.agreement([512, 1024, -512, -1024], [512, 1024, -1024, -512])
    assert found["in_order"] == 3
    assert found["percent_of_ours"] == 75.0
    assert gpu_figures.agreement([], [])["percent_of_ours"] == 100.0


@settings(max_examples=100)
@given(lists(integers(1, 4)), lists(integers(1, 4)))
def test_the_longest_common_subsequence(ours: list[int], theirs: list[int]) -> None:
    lengths = [[0] * (len(theirs) + 1) for _ in range(len(ours) + 1)]
    for i, one in enumerate(ours):
        for j, other in enumerate(theirs):
            lengths[i + 1][j + 1] = lengths[i][j] + 1 if one == other else max(lengths[i][j + 1], lengths[i + 1][j])
    assert gpu_figures.longest_common_subsequence(ours, theirs) == lengths[-1][-1]


def test_tables_have_every_column_of_every_row() -> None:
    rows: list[gpu_figures.Row] = [{"a": 1234567, "b": 0.5, "its error": 0.25}, {"a": "x|y", "d": True}]
    assert gpu_figures.table(rows).splitlines() == [
        "| a | b | its error | d |",
        "| --- | --- | --- | --- |",
        "| 1,234,567 | 0.500 | +0.250 |  |",
        "| x\\|y |  |  | yes |",
    ]
    assert gpu_figures.table([]) == "(nothing)"


def test_files_are_named_after_the_card_and_torch() -> None:
    assert gpu_figures.slug("NVIDIA H200", "torch", "2.11.0+cu130") == "nvidia-h200-torch-2.11.0-cu130"


def test_findings_are_written_in_both_forms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _device: "NVIDIA H200")
    findings = Findings(tmp_path / "gpu")
    findings.add(3, "Third", [{"program": "mlp", "error": -0.25}], "A note.")
    assert sorted(findings.written) == sorted((tmp_path / "gpu").iterdir()), "what is found first stays, come what may"
    findings.add(1, "First", [{"program": "mlp"}])
    as_json, as_markdown = findings.written
    contents = json.loads(as_json.read_text())
    assert contents["about"]["card"] == "NVIDIA H200"
    assert contents["about"]["torch"] == torch.__version__
    assert contents["items"]["3"]["Third"] == {"rows": [{"program": "mlp", "error": -0.25}], "note": "A note."}
    page = as_markdown.read_text()
    assert (
        page.index("## 1. First") < page.index("## 3. Third") < page.index("A note.") < page.index("| mlp | -0.250 |")
    )


def test_the_suite_without_a_gpu_skips_everything_and_says_so() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "tests_gpu", "-p", "no:cacheprovider"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "torch finds no GPU that it can use: nothing of the GPU suite has run" in ran.stdout
    assert re.search(r"^=+ \d+ skipped in ", ran.stdout, flags=re.MULTILINE)


def test_every_program_of_the_suite_is_named_once() -> None:
    assert len(ZOO) >= 20
    assert set(PROGRAMS) == {*ZOO, *(f"{name}:{side}" for name in PAIRS for side in ("bad", "fixed"))}
    job = program("mlp-sgd", "fake")
    assert job.environment["MEMLINT_PROGRAM"] == "mlp-sgd"
    assert job.target.name == "gpu_programs:step"


def test_traces_leave_out_what_is_no_allocation() -> None:
    taken = snapshot.snapshot(Subject("train.py", leaking_training("/project/train.py"), Path("/project")))
    (trace,) = taken["device_traces"]
    assert {entry["action"] for entry in trace} == {"alloc", "free_requested", "free_completed", "segment_alloc"}
    assert sum(gpu_figures.order_of_trace(trace)) == 77 * 2**20
