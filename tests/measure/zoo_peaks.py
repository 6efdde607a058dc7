"""What the zoo's programs hold under one backend: a script, `zoo_peaks.py BACKEND [PROGRAM...]`, that prints JSON.

Of each program: its peak, and what is alive when its last forward pass has ended, by operator; bytes. And what is said
of the peak's exactness. With `cpu-as-a-card` a graph made by `create_graph=True` is made in a thread of its own.
"""

from __future__ import annotations

import importlib
import json
import sys
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from zoo import PROGRAMS, STEPS

from memlint.measure.allocator import block_bytes
from memlint.measure.analysis import alive, peak
from memlint.measure.job import Job, Target
from memlint.measure.recording import Phase, Recording
from memlint.measure.worker import compat
from memlint.measure.worker.session import Session


def after_last_forward(recording: Recording) -> dict[str, int]:
    backwards = [s.born for s in recording.storages if s.phase is Phase.BACKWARD and s.step == STEPS - 1]
    if not backwards:
        return {}
    held: Counter[str] = Counter()
    for storage in alive(recording, min(backwards) - 1):
        held[storage.operator] += block_bytes(storage.size)
    return dict(held)


def run_in_a_thread_of_its_own() -> None:
    """A card's backward passes run in one thread that is not the program's: so do those here that make a graph."""
    pool, run = ThreadPoolExecutor(1), getattr(torch.autograd, compat.RUN_BACKWARD)

    def run_backward(*arguments: Any, **keywords: Any) -> Any:
        if not compat.creates_graph(arguments[1:]):
            return run(*arguments, **keywords)
        modes = compat.entered_modes()

        def in_thread() -> Any:
            with modes():
                return run(*arguments, **keywords)

        return pool.submit(in_thread).result()

    pool.submit(int).result()  # its thread is none of the program's
    setattr(torch.autograd, compat.RUN_BACKWARD, run_backward)


def main() -> None:
    backend, _, as_a_card = sys.argv[1].partition("-as-a-")
    if as_a_card:
        run_in_a_thread_of_its_own()
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
        effects = sorted({assumption.effect for assumption in recording.assumptions if assumption.effect})
        results[name] = {"peak": peak(recording).bytes, "held": after_last_forward(recording), "effects": effects}
    sys.stdout.write(json.dumps(results))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
