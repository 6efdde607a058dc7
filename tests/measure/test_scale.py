"""A model of 1.3 billion parameters is predicted in little host memory, wherever it is built."""

from __future__ import annotations

from pathlib import Path

import pytest

from memlint.measure.analysis import peak
from memlint.measure.job import Job, Target
from memlint.measure.launch import run

_SCRIPT = Path(__file__).parent.parent.parent / "benchmarks" / "gpt_billion.py"
# Four bytes each of weights, gradients and two moments.
_LEAST = 16 * 1_313_722_368


@pytest.mark.parametrize("built", ["device", "host"])
def test_billion_parameters_take_little_host_memory(built: str) -> None:
    target = Target("script", str(_SCRIPT), (built,))
    outcome = run(Job(target, "fake", str(_SCRIPT.parent), steps=2, warmup=1, timeout_seconds=300), "discard")

    assert outcome.recording is not None
    assert outcome.host_peak_bytes is not None
    assert outcome.host_peak_bytes < 1 << 30
    assert peak(outcome.recording).bytes > _LEAST
