"""Work on files in a worker process, so that one that hangs, or takes its process down, costs only itself.

A parser written in native code cannot be interrupted from Python, and a stack overflow in it ends the process:
neither can be bounded within the process itself.
"""

from __future__ import annotations

import multiprocessing
import pickle
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Generic, Literal, TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")
Reason = Literal["timeout", "overflowed", "died", "raised"]

# Forking costs some 10 ms and the worker has every module the parent has. Elsewhere it is missing (Windows) or
# not safe with the system's own libraries (macOS).
START_METHOD = "fork" if sys.platform == "linux" else "spawn"

START_TIMEOUT_SECONDS = 60.0

# The main thread's stack, 8 MiB on Linux and 1 on Windows, is too small for a native parser on deep code: it would
# end the process. Only address space until it is used.
STACK_BYTES = 64 * 2**20

# How a process ends whose stack overflows in native code: by a signal, on Windows with STATUS_STACK_OVERFLOW or
# STATUS_ACCESS_VIOLATION. What runs out of memory is killed or aborts.
_OVERFLOW_SIGNALS = frozenset({"SIGSEGV", "SIGBUS"})
_OVERFLOW_STATUSES = frozenset({0xC00000FD, 0xC0000005})


@dataclass(frozen=True)
class Lost(Generic[Job]):
    """A job that gave no result, and why.

    `timeout`: it took longer than allowed. `overflowed`: native code crashed the worker process, as on a stack
    overflow. `died`: the process ended otherwise (the system's out-of-memory killer). `raised`: the work function
    raised. `detail` says it in words; for `raised` it is the traceback.
    """

    job: Job
    reason: Reason
    detail: str


class WorkerDidNotStart(RuntimeError):  # noqa: N818 - says what happened
    """No worker process could be started: the run cannot go on."""


def run_files(
    jobs: Iterable[Job],
    work: Callable[[Job], Result],
    *,
    timeout: float,
    prepare: Callable[[], object] | None = None,
    start_method: str = START_METHOD,
) -> Iterator[Result | Lost[Job]]:
    """Yield `work(job)` for each job, or `Lost`, in the order of the jobs.

    One worker process handles the jobs one after the other. When a job takes longer than `timeout` seconds (wall
    clock), or the worker ends, that job is lost and a new worker takes the next one. An exception raised by
    `work` is `Lost` too, with its traceback: no job is dropped and none hides the others.

    `work`, `prepare`, the jobs and the results must be picklable; `work` and `prepare` are module-level functions.
    `prepare` runs once in each worker before its first job, off the clock: slow imports go there. `jobs` may be
    endless: one is taken when the outcome of the one before it has been. `start_method` is that of multiprocessing:
    a process with threads does not fork safely.

    The worker ends with the generator: when it is used up, closed, or left by an exception such as Ctrl-C.

    Raises:
        WorkerDidNotStart: a new worker process ended, or stayed silent, before its first job.
    """
    worker: _Worker[Job, Result] | None = None
    try:
        for job in jobs:
            if worker is None or not worker.is_alive():
                worker = _Worker(work, prepare, start_method)
            outcome = worker.run(job, timeout)
            if isinstance(outcome, Lost) and outcome.reason != "raised":
                worker.end()
                worker = None
            yield outcome
    finally:
        if worker is not None:
            worker.end()


class _Worker(Generic[Job, Result]):
    """A worker process, seen from the parent."""

    def __init__(self, work: Callable[[Job], Result], prepare: Callable[[], object] | None, start_method: str) -> None:
        context = multiprocessing.get_context(start_method)
        self._connection, theirs = context.Pipe()
        # mypy knows no Process on the context of a start method that is not a literal.
        self._process = context.Process(  # type: ignore[attr-defined]
            target=_serve, args=(work, prepare, theirs, self._connection), name="memlint-worker", daemon=True
        )
        self._process.start()
        theirs.close()
        self._wait_until_ready()

    def _wait_until_ready(self) -> None:
        failure = f"it said nothing for {START_TIMEOUT_SECONDS:g} s"
        if self._connection.poll(START_TIMEOUT_SECONDS):
            try:
                status, failure = pickle.loads(self._connection.recv_bytes())
            except (EOFError, OSError):
                status, failure = "died", self._how_it_ended()
            if status == "ready":
                return
        self.end()
        raise WorkerDidNotStart(f"the worker process could not start: {failure}")

    def is_alive(self) -> bool:
        return bool(self._process.is_alive())

    def run(self, job: Job, timeout: float) -> Result | Lost[Job]:
        deadline = time.monotonic() + timeout
        try:
            self._connection.send(job)
            if not self._connection.poll(max(0.0, deadline - time.monotonic())):
                return Lost(job, "timeout", f"took longer than {timeout:g} s")
            status, payload = pickle.loads(self._connection.recv_bytes())
        except (EOFError, OSError):
            return self._lost_with_the_process(job)
        if status == "raised":
            return Lost(job, "raised", payload)
        result: Result = payload
        return result

    def _lost_with_the_process(self, job: Job) -> Lost[Job]:
        detail = self._how_it_ended()
        code = self._process.exitcode
        overflowed = code is not None and (code in _OVERFLOW_STATUSES or _signal_name(code) in _OVERFLOW_SIGNALS)
        return Lost(job, "overflowed" if overflowed else "died", detail)

    def _how_it_ended(self) -> str:
        self._process.join(1.0)
        code = self._process.exitcode
        if code is None:
            return "the worker process closed its connection"
        if code >= 0:
            return f"the worker process ended with exit status {code}"
        return f"the worker process was ended by {_signal_name(code)}"

    def end(self) -> None:
        """End the process at once; it holds nothing that is worth waiting for."""
        self._process.kill()
        self._process.join()
        self._process.close()
        self._connection.close()


def _signal_name(exit_code: int) -> str:
    """The signal behind a process's exit code below zero, as multiprocessing gives it."""
    try:
        return signal.Signals(-exit_code).name
    except ValueError:
        return f"signal {-exit_code}"


def _serve(
    work: Callable[[Job], Result],
    prepare: Callable[[], object] | None,
    connection: Connection,
    parents_end: Connection,
) -> None:
    """The worker: ends when the parent closes its end of the connection, or is gone."""
    parents_end.close()  # or a forked worker would hold it open itself, and outlive a killed parent
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.stack_size(STACK_BYTES)
    thread = threading.Thread(target=_work_until_closed, args=(work, prepare, connection))
    thread.start()
    thread.join()


def _work_until_closed(
    work: Callable[[Job], Result], prepare: Callable[[], object] | None, connection: Connection
) -> None:
    if prepare is not None:
        try:
            prepare()
        except Exception:  # noqa: BLE001 - the parent raises it
            connection.send(("raised", traceback.format_exc()))
            return
    connection.send(("ready", ""))
    while True:
        try:
            job: Job = connection.recv()
        except (EOFError, OSError):
            return
        connection.send_bytes(_outcome(work, job))


def _outcome(work: Callable[[Job], Result], job: Job) -> bytes:
    """What `work` gave, pickled: a result that cannot be pickled counts as raised."""
    try:
        return pickle.dumps(("done", work(job)))
    except Exception:  # noqa: BLE001 - the parent reports it
        return pickle.dumps(("raised", traceback.format_exc()))
