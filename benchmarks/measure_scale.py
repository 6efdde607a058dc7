"""What predicting a model of 1.3 billion parameters takes: seconds, and host memory."""

from __future__ import annotations

import resource
from pathlib import Path

from memlint.measure.analysis import peak
from memlint.measure.job import Job, Target
from memlint.measure.launch import run
from memlint.measure.sizes import words

_SCRIPT = Path(__file__).with_name("gpt_billion.py")


def _cpu_seconds() -> float:
    """Of the processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    for built in ("device", "host"):
        target = Target("script", str(_SCRIPT), (built,))
        before = _cpu_seconds()
        outcome = run(Job(target, "fake", str(_SCRIPT.parent), steps=2, warmup=1), "inherit")
        assert outcome.recording is not None, outcome
        host = words(outcome.host_peak_bytes or 0)
        print(
            f"built on the {built}: predicted {words(peak(outcome.recording).bytes)} in {outcome.seconds:.1f} s "
            f"({_cpu_seconds() - before:.1f} s of a CPU) with {host} of host memory"
        )


if __name__ == "__main__":
    main()
