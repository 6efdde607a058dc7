"""Run a program under the instrument, in this process."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable
from pathlib import Path

from memlint.measure.job import Job, Layer, Target
from memlint.measure.recording import Recording
from memlint.measure.worker.backends import cpu
from memlint.measure.worker.session import Session

LAYERS = frozenset({Layer.LINES, Layer.GROWTH})


def measured(
    text: str,
    path: Path,
    *,
    steps: int = 6,
    warmup: int = 2,
    with_evaluation: bool = False,
    layers: Iterable[Layer] = LAYERS,
    **names: object,
) -> Recording:
    """The recording of a script on the backend `cpu`. `path` is the name under which it runs; nothing is written.
    The script sees `names` as globals.
    """
    source = textwrap.dedent(text)
    job = Job(
        Target("script", str(path)),
        "cpu",
        str(path.parent),
        steps=steps,
        warmup=warmup,
        with_evaluation=with_evaluation,
        overlay={str(path): source},
        layers=frozenset(layers),
    )
    session = Session(job, cpu.make(job))
    code = compile(source, str(path), "exec")
    with session:
        exec(code, {"__name__": "__main__", "__file__": str(path), "__builtins__": __builtins__, **names})
    return session.recording()


def measured_function(function: Callable[[], object], *, steps: int = 1, layers: Iterable[Layer] = LAYERS) -> Recording:
    """The recording of a function that is called `steps` times."""
    job = Job(Target("function", function.__name__), "cpu", ".", steps=steps, warmup=0, layers=frozenset(layers))
    session = Session(job, cpu.make(job))
    with session:
        session.call_repeatedly(function)
    return session.recording()
