"""What the zoo's programs hold under one backend: a script, `zoo_peaks.py BACKEND [PROGRAM...]`, that prints JSON.

Of each program: its peak, and what is alive when its last forward pass has ended, by operator; bytes.
"""

from __future__ import annotations

import importlib
import json
import sys
import warnings
from collections import Counter

import torch
from zoo import PROGRAMS, STEPS

from memlint.measure.allocator import block_bytes
from memlint.measure.analysis import alive, peak
from memlint.measure.job import Job, Target
from memlint.measure.recording import Phase, Recording
from memlint.measure.worker.session import Session


def after_last_forward(recording: Recording) -> dict[str, int]:
    backwards = [s.born for s in recording.storages if s.phase is Phase.BACKWARD and s.step == STEPS - 1]
    if not backwards:
        return {}
    held: Counter[str] = Counter()
    for storage in alive(recording, min(backwards) - 1):
        held[storage.operator] += block_bytes(storage.size)
    return dict(held)


def main() -> None:
    backend = sys.argv[1]
    make = importlib.import_module(f"memlint.measure.worker.backends.{backend}").make
    warnings.simplefilter("ignore")
    results = {}
    for name in sys.argv[2:] or PROGRAMS:
        job = Job(Target("script", name), backend, ".", steps=STEPS, layers=frozenset())  # type: ignore[arg-type]
        session = Session(job, make(job))
        torch.manual_seed(0)
        with session:
            PROGRAMS[name]()
        recording = session.recording()
        results[name] = {"peak": peak(recording).bytes, "held": after_last_forward(recording)}
    sys.stdout.write(json.dumps(results))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
