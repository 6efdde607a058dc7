"""Runs of the GPU suite, each in a process of its own, some at a time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from gpu_figures import Row

from memlint.measure.devices import CARDS
from memlint.measure.job import BackendName, Job, Layer, Target
from memlint.measure.launch import run
from memlint.measure.outcome import Outcome
from memlint.measure.report.subject import Subject

HERE = Path(__file__).parent
ROOT = HERE.parent
SIZE = os.environ.get("MEMLINT_SIZE", "full")
AT_ONCE = max(1, min(12, (os.cpu_count() or 2) * 3 // 4))
"""Processes at a time. Each counts its own allocations, so that they do not disturb one another."""
STEPS = 4
TIMEOUT_SECONDS = 240.0


def program(
    name: str,
    backend: BackendName,
    *,
    layers: Iterable[Layer] = (Layer.LINES, Layer.GROWTH),
    steps: int = STEPS,
    environment: dict[str, str] | None = None,
) -> Job:
    """A job that runs a program of `gpu_programs`."""
    threads = str(max(1, (os.cpu_count() or 2) // AT_ONCE))
    named = {"MEMLINT_PROGRAM": name, "MEMLINT_SIZE": SIZE, "OMP_NUM_THREADS": threads}
    return Job(
        Target("function", "gpu_programs:step"),
        backend,
        str(HERE),
        steps=steps,
        timeout_seconds=TIMEOUT_SECONDS,
        layers=frozenset(layers),
        environment=named | (environment or {}),
        device=this_card() if backend == "fake" else None,
    )


def script(folder: Path, name: str, backend: BackendName) -> Job:
    """A job that runs a script as it is."""
    device = this_card() if backend == "fake" else None
    return Job(Target("script", name), backend, str(folder), timeout_seconds=TIMEOUT_SECONDS, device=device)


def rule_pair(folder: Path, side: str, backend: BackendName) -> Job:
    """A program of `fixtures/measured`: one that has no steps of its own has a function `step`."""
    job = script(folder, f"{side}.py", backend)
    is_function = "\ndef step():" in (folder / f"{side}.py").read_text(encoding="utf-8")
    return replace(job, target=Target("function", f"{side}:step")) if is_function else job


def this_card() -> str | None:
    """The name under which memlint knows the card that is here, so that `fake` pretends the same.

    Of a card that it does not know: one that computes alike. A part of a card is called as the card, and more.
    """
    import torch

    if not torch.cuda.is_available():
        return None
    name, capability = torch.cuda.get_device_name(0), torch.cuda.get_device_capability(0)
    known = [key for key, card in CARDS.items() if name.startswith(card.name)]
    alike = [key for key, card in CARDS.items() if card.capability == capability]
    return next(iter(known + alike), None)


class Runs:
    """Runs jobs, and remembers what came of them."""

    def __init__(self) -> None:
        self._known: dict[str, Outcome] = {}

    def outcomes(self, jobs: Sequence[Job]) -> list[Outcome]:
        """Those of the jobs, in their order."""
        missing = {repr(job): job for job in jobs if repr(job) not in self._known}
        with ThreadPoolExecutor(AT_ONCE) as pool:
            results = pool.map(lambda job: run(job, "discard"), missing.values())
            self._known.update(zip(missing, results, strict=True))
        return [self._known[repr(job)] for job in jobs]

    def attempts(self, jobs: Sequence[Job]) -> list[Subject | str]:
        """What each job measured; of one that could not be, why."""
        return [
            Subject(str(job.target), outcome.recording, HERE)
            if outcome.recording is not None
            else f"{_named(job)} on {job.backend}: {outcome.status.value}: {outcome.message} {outcome.advice}"
            for job, outcome in zip(jobs, self.outcomes(jobs), strict=True)
        ]

    def all_of(self, jobs: Sequence[Job]) -> list[Subject]:
        """What each job measured. Raises AssertionError with what went wrong in any of them."""
        measured, failed = self.groups({"all": jobs})
        assert not failed, failed
        return measured["all"]

    def groups(self, groups: Mapping[str, Sequence[Job]]) -> tuple[dict[str, list[Subject]], list[Row]]:
        """What the jobs of each group measured; of groups in which one could not be measured: why, a row each.

        All jobs run at a time, and a failure takes nothing from the other groups.
        """
        attempts = iter(self.attempts([job for jobs in groups.values() for job in jobs]))
        measured: dict[str, list[Subject]] = {}
        failed: list[Row] = []
        for name, jobs in groups.items():
            found = [next(attempts) for _ in jobs]
            subjects = [attempt for attempt in found if not isinstance(attempt, str)]
            if len(subjects) == len(jobs):
                measured[name] = subjects
            else:
                failed.append({"of": name, "failed": [why for why in found if isinstance(why, str)]})
        return measured, failed


def _named(job: Job) -> str:
    return job.environment.get("MEMLINT_PROGRAM", str(job.target))


def on_its_own(script: str, *arguments: str, environment: dict[str, str] | None = None) -> Any:
    """What a script of this folder prints as JSON; it runs without memlint's instrument.

    Raises AssertionError with its error output where it fails.
    """
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    ran = subprocess.run(
        [sys.executable, str(HERE / script), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_SECONDS,
        cwd=HERE,
        env={**os.environ, "MEMLINT_SIZE": SIZE, "PYTHONPATH": path, **(environment or {})},
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout.splitlines()[-1])


def with_layers(job: Job, *layers: Layer) -> Job:
    return replace(job, layers=frozenset(layers))
