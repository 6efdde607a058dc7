"""The JSON output against its schema, its documentation, and the numbers of a run made by hand."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from recordings import MIB, Run, leaking_training, recordings

from memlint.measure.job import Layer
from memlint.measure.recording import AllocatorPeaks, OutOfMemory, ProcessMemory, Recording
from memlint.measure.report import as_json
from memlint.measure.report.subject import Subject

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "docs" / "measure-json.schema.json").read_text(encoding="utf-8"))
jsonschema.Draft202012Validator.check_schema(SCHEMA)
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def printed(recording: Recording, folder: Path = Path("/project")) -> dict[str, Any]:
    measurement = json.loads(as_json.render(Subject("train.py", recording, folder)))
    VALIDATOR.validate(measurement)
    return dict(measurement)


@given(recordings())
def test_every_run_fits_the_schema_and_its_parts_add_up(recording: Recording) -> None:
    measurement = printed(recording)
    assert sum(measurement["categories"].values()) == measurement["peak_allocated_bytes"]
    assert sum(line["bytes"] for line in measurement["lines"]) == measurement["peak_allocated_bytes"]
    assert len(measurement["per_step"]) == measurement["steps"]


def test_the_numbers_of_a_run_made_by_hand() -> None:
    measurement = printed(leaking_training("/project/src/train.py"))
    assert measurement["basis"] == "predicted"
    assert measurement["steps"] == 6
    assert measurement["peak_step"] == 5
    # Parameters, gradients, optimizer state; then the batch, the hidden layer, six outputs, a loss, a temporary.
    assert measurement["peak_allocated_bytes"] == (16 + 16 + 32 + 3 + 12 + 6 * 2 + 1 + 6) * MIB + 512
    assert measurement["growth_bytes_per_step"] == 2 * MIB
    assert measurement["growth"] == [
        {
            "path": "src/train.py",
            "line": 9,
            "kept_by": "outputs",
            "kind": "container",
            "other_places": [],
            "step_kind": "training",
            "bytes_per_step": 2 * MIB,
            "allocated_at": [{"path": "src/train.py", "line": 5, "bytes_per_step": 2 * MIB}],
        }
    ]
    assert measurement["graph_nodes_per_step"] == 12
    assert measurement["lines"][0] == {"path": None, "line": None, "category": "optimizer_state", "bytes": 32 * MIB}
    assert measurement["saved_tensors"] is None
    assert measurement["peak_reserved_bytes"] == measurement["replay"]["reserved_peak_bytes"]
    assert measurement["peak_reserved_bytes"] >= measurement["peak_allocated_bytes"]
    assert measurement["per_step"][0]["input_shapes"] == [[8, 3, 32, 32], [8]]


def test_the_loss_of_the_step_before_is_held_over() -> None:
    run = Run()
    run.begin()
    loss = run.allocate(1 * MIB, line=6)
    run.end_step()
    run.allocate(1 * MIB, line=6)
    run.free(loss)
    run.end_step()
    measurement = printed(run.recording)
    assert measurement["held_over_bytes"] == 1 * MIB
    assert measurement["held_over"] == [{"path": "train.py", "line": 6, "category": "activations", "bytes": 1 * MIB}]


def test_saved_tensors_where_they_were_recorded() -> None:
    recording = leaking_training("/project/train.py")
    recording.layers |= {Layer.SAVED_TENSORS}
    assert printed(recording)["saved_tensors"] == [
        {"path": "train.py", "line": 5, "category": "activations", "bytes": (12 + 6 * 2) * MIB + 512}
    ]


def test_reserved_memory_is_null_on_the_cpu() -> None:
    recording = leaking_training("/project/train.py")
    recording.backend = "cpu"
    measurement = printed(recording)
    assert measurement["peak_reserved_bytes"] is None
    assert measurement["replay"] is None
    assert measurement["basis"] == "measured on cpu"


def test_on_cuda_the_peaks_are_the_allocator_s() -> None:
    recording = leaking_training("/project/train.py")
    recording.backend = "cuda"
    recording.steps = [
        replace(step, allocator=AllocatorPeaks(100 * MIB + step.number, 200 * MIB, 90 * MIB, 100 * MIB))
        for step in recording.steps
    ]
    recording.process = ProcessMemory(700 * MIB, 400 * MIB, ((1, "python", None),))
    measurement = printed(recording)
    assert measurement["peak_allocated_bytes"] == 100 * MIB + 5
    assert measurement["peak_reserved_bytes"] == 200 * MIB
    assert measurement["peak_requested_bytes"] == 90 * MIB
    assert measurement["untracked_bytes"] == 100 * MIB + 5 - sum(measurement["categories"].values())
    assert measurement["replay"] is None
    assert measurement["process"]["other_processes"] == [{"pid": 1, "name": "python", "bytes": None}]


def test_where_the_card_ran_out_of_memory() -> None:
    recording = leaking_training("/project/train.py")
    recording.backend = "cuda"
    recording.out_of_memory = OutOfMemory(
        5 * MIB, 1 * MIB, 120 * MIB, 130 * MIB, AllocatorPeaks(125 * MIB, 130 * MIB, 119 * MIB, 125 * MIB)
    )
    measurement = printed(recording)
    assert measurement["out_of_memory"] == {
        "requested_bytes": 5 * MIB,
        "card_free_bytes": 1 * MIB,
        "allocated_bytes": 120 * MIB,
        "reserved_bytes": 130 * MIB,
    }
    assert measurement["peak_allocated_bytes"] == 125 * MIB
    assert measurement["peak_reserved_bytes"] == 130 * MIB
    assert measurement["peak_requested_bytes"] == 119 * MIB


@pytest.mark.parametrize("key", SCHEMA["required"])
def test_every_key_is_documented(key: str) -> None:
    page = (ROOT / "docs" / "measure-json.md").read_text(encoding="utf-8")
    assert re.search(rf"^\|[^|]*`{key}`[^|]*\|", page, flags=re.MULTILINE)
