"""The peaks of the zoo's programs under one backend: a script, `zoo_peaks.py BACKEND`, that prints them as JSON."""

from __future__ import annotations

import importlib
import json
import sys
import warnings

import torch
from zoo import PROGRAMS, STEPS

from memlint.measure.analysis import peak
from memlint.measure.job import Job, Target
from memlint.measure.worker.session import Session


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
        results[name] = peak(session.recording()).bytes
    sys.stdout.write(json.dumps(results))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
