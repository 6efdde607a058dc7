"""What cuBLAS takes beside the program's tensors, as PyTorch's rules have it."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import pytest
from recordings import MIB, leaking_training

from memlint.measure import analysis
from memlint.measure.allocator import replay
from memlint.measure.job import Job, Target
from memlint.measure.launch import run
from memlint.measure.recording import Workspace
from memlint.measure.report import snapshot
from memlint.measure.report.subject import Subject
from memlint.measure.workspaces import Workspaces

HOPPER, AMPERE = (9, 0), (8, 0)


@pytest.mark.parametrize(
    ("capability", "environment", "expected"),
    [
        (HOPPER, {}, Workspaces(32 * MIB, MIB)),
        (AMPERE, {}, Workspaces(8_519_680, MIB)),
        (HOPPER, {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}, Workspaces(32 * MIB, MIB)),
        (HOPPER, {"CUBLAS_WORKSPACE_CONFIG": ":16:8"}, Workspaces(128 * 1024, 128 * 1024)),
        (HOPPER, {"CUBLAS_WORKSPACE_CONFIG": "much"}, Workspaces(32 * MIB, MIB)),
        (AMPERE, {"CUBLASLT_WORKSPACE_SIZE": "2048"}, Workspaces(8_519_680, 2 * MIB)),
        (AMPERE, {"TORCH_CUBLASLT_UNIFIED_WORKSPACE": "1"}, Workspaces(8_519_680, 0)),
    ],
)
def test_sizes(capability: tuple[int, int], environment: dict[str, str], expected: Workspaces) -> None:
    assert Workspaces.of(capability, environment) == expected


def test_they_raise_the_peak_by_what_is_there_when_it_is_reached() -> None:
    recording = leaking_training("/project/train.py")
    peak = analysis.peak(recording)
    before = replace(recording, workspaces=[Workspace("cuBLAS", 100, 0)])
    assert analysis.workspace_bytes(before) == 512
    last = replace(recording, workspaces=[Workspace("cuBLAS", MIB, len(recording.events) - 1)])
    live = analysis.live_bytes(recording)
    assert analysis.workspace_bytes(last) == max(0, live[-1] + MIB - peak.bytes)
    assert analysis.workspace_bytes(recording) == 0


def test_the_replay_and_the_snapshot_have_them() -> None:
    recording = replace(leaking_training("/project/train.py"), backend="fake")
    plain = replay(recording)
    recording.workspaces.append(Workspace("cuBLAS", 32 * MIB, 0))
    assert replay(recording).reserved_peak == plain.reserved_peak + 32 * MIB
    subject = Subject("train.py", recording, Path("/project"))
    (trace,) = pickle.loads(snapshot.render(subject))["device_traces"]
    assert {"size": 32 * MIB, "frames": []}.items() <= next(
        entry for entry in trace if entry["action"] == "alloc"
    ).items()


def test_a_training_run_has_those_of_two_threads(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(
        "import torch\n"
        "model = torch.nn.Linear(64, 64).cuda()\n"
        "optimizer = torch.optim.SGD(model.parameters())\n"
        "for _ in range(3):\n"
        "    model(torch.ones(8, 64, device='cuda', requires_grad=True)).sum().backward()\n"
        "    optimizer.step()\n"
    )
    outcome = run(Job(Target("script", "train.py"), "fake", str(tmp_path), device="h200-141gb", steps=3), "discard")
    assert outcome.recording is not None, outcome
    made = [(workspace.library, workspace.size) for workspace in outcome.recording.workspaces]
    assert made == [("cuBLAS", 32 * MIB), ("cuBLASLt", MIB), ("cuBLAS", 32 * MIB)]
    assert analysis.workspace_bytes(outcome.recording) == 65 * MIB
