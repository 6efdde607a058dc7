"""The ten questions that only a GPU can answer. Each leaves its table in benchmarks/gpu/ before it judges.

Errors are signed and in percent of what CUDA's allocator counted: negative is too little predicted.
"""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import pytest

pytest.importorskip("torch", reason="torch is not installed: nothing of the GPU suite has run")

from gpu_figures import (
    Row,
    agreement,
    order_of_recording,
    order_of_trace,
    replayed_reserved_peak,
    signed_error,
    summary,
)
from gpu_findings import Findings
from gpu_programs import CONVOLUTIONS, PAIRS, RECURRENT, ZOO
from gpu_runs import HERE, ROOT, Runs, on_its_own, program, rule_pair, script, with_layers

from memlint.measure import analysis
from memlint.measure.confirm.verdicts import LEAST_SAVING_BYTES, Grade, Price, Results, compare, judge
from memlint.measure.job import BackendName, Job, Layer, Target
from memlint.measure.outcome import Status
from memlint.measure.recording import Recording
from memlint.measure.report.subject import Subject

MIB = 2**20
RULES = ROOT / "fixtures" / "measured"
LEAKS = sorted((ROOT / "tests" / "measure" / "leaks").glob("*.py"))
MARK = re.compile(r"# leak; fixed: ")

# What is to be claimed only after a run on a card, in percent of the allocated peak: median, 95th percentile.
TARGET_MEDIAN, TARGET_P95, TARGET_P95_CONVOLUTIONS = 2.0, 5.0, 10.0
TARGET_RESERVED_MEDIAN, TARGET_RESERVED_P95 = 5.0, 10.0
# Of a saving: this share of it, or so many bytes.
TARGET_SAVING_PERCENT, TARGET_SAVING_BYTES = 2.0, 2 * MIB


def history(recording: Recording) -> list[dict[str, Any]]:
    """The trace of the first card in PyTorch's own snapshot."""
    assert recording.memory_history is not None
    snapshot = pickle.loads(recording.memory_history)
    return list(snapshot["device_traces"][0])


def test_1_the_peaks_of_the_zoo(runs: Runs, findings: Findings) -> None:
    backends: tuple[BackendName, ...] = ("cuda", "fake", "cpu")
    attempts = iter(runs.attempts([program(name, backend) for name in ZOO for backend in backends]))
    rows: list[Row] = []
    failed: list[Row] = []
    for name in ZOO:
        found = {backend: next(attempts) for backend in backends}
        wrong = [why for why in found.values() if isinstance(why, str)]
        failed += [{"program": name, "failed": wrong}] if wrong else []
        measured = {backend: subject for backend, subject in found.items() if not isinstance(subject, str)}
        if "cuda" in measured:
            rows.append({"program": name, **_errors(**measured)})
    findings.add(1, "Peaks in bytes, and signed errors in percent", rows, _WORKSPACES)
    findings.add(1, "What could not be measured", failed)
    allocated = {row["program"]: row["fake, error"] for row in rows if "fake, error" in row}
    plain = summary([error for name, error in allocated.items() if name not in CONVOLUTIONS | RECURRENT])
    convolutions = summary([error for name, error in allocated.items() if name in CONVOLUTIONS])
    recurrent = summary([error for name, error in allocated.items() if name in RECURRENT])
    reserved = summary([row["replay reserved, error"] for row in rows if "replay reserved, error" in row])
    kinds = {
        "allocated": plain,
        "allocated, convolutions": convolutions,
        "allocated, recurrent (not judged)": recurrent,
        "reserved": reserved,
    }
    findings.add(1, "Errors of fake in all", [{"of": kind, **found} for kind, found in kinds.items()])
    assert failed == []
    assert plain["median_absolute_percent"] <= TARGET_MEDIAN
    assert plain["p95_absolute_percent"] <= TARGET_P95
    assert convolutions["p95_absolute_percent"] <= TARGET_P95_CONVOLUTIONS
    assert reserved["median_absolute_percent"] <= TARGET_RESERVED_MEDIAN
    assert reserved["p95_absolute_percent"] <= TARGET_RESERVED_P95


_WORKSPACES = "`fake` is its peak and, beside it, cuBLAS's workspaces; `cpu` and `tracked on cuda` are tensors alone."


def _errors(cuda: Subject, fake: Subject | None = None, cpu: Subject | None = None) -> Row:
    counted = cuda.counted
    assert counted is not None
    row: Row = {
        "allocated": counted.allocated,
        "requested": counted.requested,
        "active": counted.active,
        "reserved": counted.reserved,
        "tracked on cuda, error": signed_error(cuda.tracked_peak.bytes, counted.allocated),
    }
    if cpu is not None:
        row["cpu, error"] = signed_error(cpu.peak_allocated_bytes, counted.allocated)
    if fake is not None and fake.replayed is not None:
        row["fake, tensors"] = fake.peak_allocated_bytes
        row["fake, workspaces"] = fake.workspace_bytes
        row["fake, error"] = signed_error(fake.peak_allocated_bytes + fake.workspace_bytes, counted.allocated)
        row["replay allocated, error"] = signed_error(fake.replayed.allocated_peak, counted.allocated)
        row["replay reserved, error"] = signed_error(fake.replayed.reserved_peak, counted.reserved)
    return row


def test_2_savings(runs: Runs, findings: Findings) -> None:
    backends: tuple[BackendName, ...] = ("cuda", "fake")
    sides = ("bad", "fixed")
    groups = {name: [program(f"{name}:{side}", backend) for backend in backends for side in sides] for name in PAIRS}
    pairs, failed = runs.groups(groups)
    rows: list[Row] = []
    for name, subjects in pairs.items():
        bad, fixed, predicted_bad, predicted_fixed = [subject.peak_allocated_bytes for subject in subjects]
        measured, predicted = bad - fixed, predicted_bad - predicted_fixed
        rows.append(
            {
                "pair": name,
                "saving on cuda": measured,
                "saving by fake": predicted,
                "difference": predicted - measured,
                "error": signed_error(predicted, measured),
            }
        )
    findings.add(2, "Savings of repaired programs, in bytes", rows)
    findings.add(2, "Repaired programs that could not be measured", failed)
    assert failed == []
    off = [
        row
        for row in rows
        if abs(row["difference"]) > max(TARGET_SAVING_BYTES, TARGET_SAVING_PERCENT / 100 * abs(row["saving on cuda"]))
    ]
    assert off == []
    # Of savings that are not next to nothing, the sign must be right.
    assert [
        row for row in rows if abs(row["saving on cuda"]) > MIB and row["saving by fake"] * row["saving on cuda"] < 0
    ] == []


def test_2_savings_of_every_rule(runs: Runs, findings: Findings) -> None:
    """The pairs from which docs/prices.md is made, each for the steps that it has there."""
    folders = sorted(path.parent for path in RULES.glob("*/bad.py"))
    assert folders
    backends: tuple[BackendName, ...] = ("cuda", "fake")
    pairs, failed = runs.groups(
        {
            folder.name: [rule_pair(folder, side, backend) for backend in backends for side in ("bad", "good")]
            for folder in folders
        }
    )
    rows: list[Row] = [
        {"rule": name, **_compared(*(Price.of(subject.recording) for subject in subjects))}
        for name, subjects in pairs.items()
    ]
    findings.add(2, "Savings of the rules' pairs, in bytes", rows)
    findings.add(2, "Pairs that could not be measured", failed)
    assert failed == []
    counts = [row for row in rows if max(abs(row["saving on cuda"]), abs(row["saving by fake"])) > LEAST_SAVING_BYTES]
    assert [row for row in counts if row["saving by fake"] * row["saving on cuda"] < 0] == []


def _compared(bad: Price, good: Price, predicted_bad: Price, predicted_good: Price) -> Row:
    measured = bad.peak_allocated_bytes - good.peak_allocated_bytes
    predicted = predicted_bad.peak_allocated_bytes - predicted_good.peak_allocated_bytes
    unchecked = Results(Grade.NOT_CHECKED)
    return {
        "saving on cuda": measured,
        "saving by fake": predicted,
        "error": signed_error(predicted, measured),
        "growth on cuda": bad.growth_bytes_per_step,
        "growth by fake": predicted_bad.growth_bytes_per_step,
        "verdict on cuda": judge(bad, good, unchecked).value,
        "verdict by fake": judge(predicted_bad, predicted_good, unchecked).value,
    }


def test_3_the_replay_of_real_traces(runs: Runs, findings: Findings) -> None:
    settings = ("", "expandable_segments:True", "roundup_power2_divisions:4", "max_split_size_mb:64")
    names = ("mlp-adam-foreach", "gpt-math", "resnet")
    cases = {f"{name}, {setting or '(default)'}": (name, setting) for name in names for setting in settings}
    measured, failed = runs.groups(
        {
            case: [program(name, "cuda", layers=[Layer.MEMORY_HISTORY], environment={"PYTORCH_ALLOC_CONF": setting})]
            for case, (name, setting) in cases.items()
        }
    )
    rows: list[Row] = []
    for case, (subject,) in measured.items():
        assert subject.counted is not None
        replayed = replayed_reserved_peak(history(subject.recording), cases[case][1])
        rows.append(
            {
                "program, settings": case,
                "reserved": subject.counted.reserved,
                "replayed": replayed,
                "error": signed_error(replayed, subject.counted.reserved),
            }
        )
    findings.add(3, "The reserved peak, replayed from the allocator's own trace", rows)
    findings.add(3, "Traces that could not be had", failed)
    assert failed == []
    assert [row for row in rows if row["reserved"] != row["replayed"]] == []


def test_4_what_kernels_allocate_for_themselves(findings: Findings) -> None:
    rows = on_its_own("hidden_memory.py")
    findings.add(4, "Memory that no tensor accounts for, in bytes", rows, "Second run of each; `kept`: by the first.")
    assert [row for row in rows if row.get("hidden_bytes", 0) < 0] == []


def test_5_constants(findings: Findings) -> None:
    found = on_its_own("constants.py")
    findings.add(5, "The context, cuBLAS workspaces, and who says what", [found])
    assert found["allocated_by_one_tensor"] == MIB
    assert found["cublas_workspace_float32"] == found["cublas_workspace_predicted"]
    if found.get("nvml_rise") is not None and not found["nvml_by_difference"]:
        # What the allocator takes of the driver is what NVML sees the process take, to a page of the driver's.
        assert abs(found["nvml_rise"] - found["reserved_rise"]) <= 2 * MIB


def test_6_the_order_of_allocations_and_releases(runs: Runs, findings: Findings) -> None:
    names = ("mlp-adam-foreach", "gpt-math", "gpt-checkpoint")
    measured, failed = runs.groups(
        {name: [program(name, "cuda", layers=[Layer.MEMORY_HISTORY], steps=2)] for name in names}
    )
    rows: list[Row] = []
    for name, (subject,) in measured.items():
        recording = subject.recording
        sizes = {storage.id: storage.size for storage in recording.storages}
        ours = order_of_recording(recording.events, sizes)
        rows.append({"program": name, **agreement(ours, order_of_trace(history(recording)))})
    findings.add(6, "The tracker's events in the allocator's trace", rows, "Only theirs: workspaces of kernels.")
    findings.add(6, "Programs that could not be measured", failed)
    assert failed == []
    assert [row for row in rows if row["percent_of_ours"] < 99] == []


def test_7_leaks_and_the_lines_that_keep_them(runs: Runs, findings: Findings) -> None:
    assert LEAKS
    jobs = [script(path.parent, path.name, backend) for path in LEAKS for backend in ("cuda", "cpu")]
    attempts = iter(runs.attempts(jobs))
    rows: list[Row] = []
    for path in LEAKS:
        cuda, cpu = next(attempts), next(attempts)
        row: Row = {"program": path.stem, "line": str(_marked_line(path))}
        rows.append(row)
        if isinstance(cuda, str) or isinstance(cpu, str):
            row["named on cuda"] = [why for why in (cuda, cpu) if isinstance(why, str)]
            continue
        row["named on cuda"] = _named(cuda)
        row["growth on cuda"] = cuda.growth.bytes_per_step
        row["growth on cpu"] = cpu.growth.bytes_per_step
        row["graph nodes on cuda"] = cuda.host_growth.nodes_per_step
    findings.add(7, "The leak zoo", rows)
    assert [row for row in rows if row["named on cuda"] != row["line"]] == []


def _marked_line(path: Path) -> int:
    lines = path.read_text(encoding="utf-8").splitlines()
    return next(number for number, line in enumerate(lines, start=1) if MARK.search(line))


def _named(subject: Subject) -> str:
    places = [keeper.place for keeper in subject.recording.keepers if keeper.place is not None]
    return ", ".join(str(line) for line in sorted({place.line for place in places}))


def test_7_out_of_memory_says_what_held_it(runs: Runs, findings: Findings) -> None:
    job = Job(Target("script", "out_of_memory.py"), "cuda", str(HERE), steps=100_000)
    (outcome,) = runs.outcomes([job])
    assert outcome.status is Status.OUT_OF_MEMORY
    assert outcome.recording is not None
    subject = Subject("out_of_memory.py", outcome.recording, HERE)
    end = subject.recording.out_of_memory
    assert end is not None
    most = subject.lines[0]
    row = {
        "asked for": end.requested,
        "allocated": end.allocated,
        "reserved": end.reserved,
        "line": subject.where(most.place),
    }
    findings.add(7, "Out of memory", [row])
    assert subject.source_line(most.place) == '    kept.append(torch.ones(4 * MIB, device="cuda"))'
    assert most.bytes >= end.allocated // 2


def test_8_whether_results_repeat_and_what_that_costs(runs: Runs, findings: Findings) -> None:
    names = ("mlp-adam-foreach", "gpt-math", "gpt-fused-bfloat16", "resnet", "embeddings")

    def jobs(name: str) -> list[Job]:
        # Two runs that differ in nothing but the order of what is asked of them: each is a process of its own.
        again = {"MEMLINT_AGAIN": "1"}
        hashed = [program(name, "cuda", layers=[Layer.FINGERPRINTS], environment=more) for more in ({}, again)]
        return [*hashed, program(name, "cuda")]

    measured, failed = runs.groups({name: jobs(name) for name in names})
    rows: list[Row] = []
    for name, (first, second, unhashed) in measured.items():
        assert first.recording.fingerprints is not None and second.recording.fingerprints is not None
        rows.append(
            {
                "program": name,
                "two runs are": str(compare(first.recording.fingerprints, second.recording.fingerprints)),
                "peak": unhashed.peak_allocated_bytes,
                "peak, deterministic": first.peak_allocated_bytes,
                "difference": first.peak_allocated_bytes - unhashed.peak_allocated_bytes,
            }
        )
    findings.add(8, "Two runs with deterministic settings, and what the settings cost", rows)
    findings.add(8, "Programs that could not be measured twice", failed)
    assert failed == []
    assert [row for row in rows if not row["two runs are"].startswith("identical")] == []


def test_9_prediction_with_and_without_the_card_in_sight(runs: Runs, findings: Findings) -> None:
    names = ("mlp-adam-foreach", "gpt-fused-bfloat16", "resnet")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0")
    sights = ("", visible)
    measured, failed = runs.groups(
        {
            name: [program(name, "fake", environment={"CUDA_VISIBLE_DEVICES": sight}) for sight in sights]
            for name in names
        }
    )
    rows: list[Row] = [
        {"program": name, "hidden": without.peak_allocated_bytes, "in sight": with_card.peak_allocated_bytes}
        for name, (without, with_card) in measured.items()
    ]
    findings.add(9, "Predicted peaks of a CUDA build, in bytes", rows)
    findings.add(9, "What could not be predicted", failed)
    assert failed == []
    assert [row for row in rows if row["hidden"] != row["in sight"]] == []


@pytest.mark.parametrize("name", ["gpt-math", "resnet", "mlp-adam-foreach"])
def test_10_the_instrument_costs_little_and_changes_no_peak(name: str, runs: Runs, findings: Findings) -> None:
    # One after the other: seconds are compared.
    job = program(name, "cuda", steps=12)
    subject, without = runs.all_of([job]) + runs.all_of([with_layers(job)])
    bare = on_its_own("bare.py", "12", environment=job.environment)
    assert subject.counted is not None and without.counted is not None
    seconds = [median(_after_warmup(recorded)) for recorded in (subject, without)]
    bare_seconds = median(bare["seconds"][2:])
    row = {
        "program": name,
        "peak, bare": bare["peaks"]["allocated"],
        "peak, tracked": without.counted.allocated,
        "peak, all layers": subject.counted.allocated,
        "milliseconds, bare": 1000 * bare_seconds,
        "milliseconds, tracked": 1000 * seconds[1],
        "milliseconds, all layers": 1000 * seconds[0],
        "times bare": round(seconds[0] / bare_seconds, 3),
    }
    findings.add(10, f"The instrument's cost: {name}", [row])
    assert row["peak, bare"] == row["peak, tracked"] == row["peak, all layers"]
    if bare_seconds >= 0.1:
        assert row["times bare"] <= 1.2


@pytest.mark.parametrize("name", ["gpt-math", "resnet", "mlp-adam-foreach"])
def test_10_the_instrument_changes_no_result(name: str, tmp_path: Path, runs: Runs, findings: Findings) -> None:
    def told(job: Job, file: str) -> Job:
        told = {"MEMLINT_RESULTS": str(tmp_path / file), "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
        return replace(job, environment={**job.environment, **told}, allow_write=True)

    job = program(name, "cuda")
    runs.all_of([told(with_layers(job), "tracked"), told(job, "all layers")])
    on_its_own("bare.py", str(job.steps), environment=told(job, "bare").environment)
    bare, *others = ((tmp_path / file).read_text("ascii") for file in ("bare", "tracked", "all layers"))
    equal = [other == bare for other in others]
    row = {"program": name, "tracked": equal[0], "all layers": equal[1]}
    findings.add(
        10, f"Weights and random state after {job.steps} steps, equal bit by bit to the bare program: {name}", [row]
    )
    assert equal == [True, True]


def _after_warmup(subject: Subject) -> Sequence[float]:
    return [step.seconds for step in subject.recording.steps[2:]]


def test_7_growth_on_cuda_is_what_the_allocator_counted(runs: Runs, findings: Findings) -> None:
    """The tracker's slope beside the slope of the allocator's own peaks."""
    names = [name for name in PAIRS if name.endswith("kept")]
    measured, failed = runs.groups({name: [program(f"{name}:bad", "cuda", steps=6)] for name in names})
    rows: list[Row] = []
    for name, (subject,) in measured.items():
        counted = [step.allocator.allocated for step in subject.recording.steps if step.allocator is not None]
        steady = counted[subject.recording.warmup :]
        slope = (steady[-1] - steady[0]) // (len(steady) - 1)
        rows.append({"program": name, "tracked": analysis.growth(subject.recording).bytes_per_step, "counted": slope})
    findings.add(7, "Growth per step, in bytes", rows)
    findings.add(7, "Growth that could not be measured", failed)
    assert failed == []
    assert [row for row in rows if row["tracked"] is None] == []
    assert [row for row in rows if abs(row["tracked"] - row["counted"]) > max(2 * MIB, row["counted"] // 50)] == []
