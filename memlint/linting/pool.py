"""Work on files in a worker process, so that one that hangs, or takes its process down, costs only itself.

A parser written in native code cannot be interrupted from Python, and a stack overflow in it ends the process:
neither can be bounded within the process itself.
"""

from __future__ import annotations

import gc
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Generic, Literal, TypeVar

from memlint.linting.child import START_METHOD, Pipe, StartMethod, ready, start

Job = TypeVar("Job")
Result = TypeVar("Result")
Reason = Literal["timeout", "overflowed", "died", "raised"]

START_TIMEOUT_SECONDS = 60.0
# From the end of its pipe to that of the process.
_LONGEST_END_SECONDS = 1.0

# A job's time is the CPU time of its worker: what else the machine does is not the file's fault. The system counts it
# and ends the process, also in native code. Windows has no such timer; there the clock on the wall decides.
_COUNTS_CPU_TIME = hasattr(signal, "ITIMER_PROF")
# A worker that waits for something uses none: so much longer by the clock, it is given up all the same.
_PATIENCE = 10 if _COUNTS_CPU_TIME else 1

_LONGEST_RUN = 64
# The little garbage that there is comes to some 5 kB a file.
_COLLECT_EVERY = 1000

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

    `timeout`: it took more time than allowed. `overflowed`: native code crashed the worker process, as on a stack
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
    start_method: StartMethod = START_METHOD,
) -> Iterator[Result | Lost[Job]]:
    """Yield `work(job)` for each job, or `Lost`, in the order of the jobs: one after the other.

    One worker process handles the jobs one after the other. When a job takes more than `timeout` seconds of CPU time
    (or ten times as long by the clock; on Windows, `timeout` seconds by the clock), or the worker ends, that job is
    lost and a new worker takes the next one. An exception raised by `work` is `Lost` too, with its traceback: no job is
    dropped and none hides the others.

    `work`, `prepare`, the jobs and the results must be picklable; `work` and `prepare` are module-level functions.
    `prepare` runs once in each worker before its first job, off the clock: slow imports go there. `jobs` may be
    endless: one is taken when the outcome of the one before it has been. A process with
    threads does not fork safely: it says `start_method="spawn"`.

    The worker ends with the generator: when it is used up, closed, or left by an exception such as Ctrl-C.

    Raises:
        WorkerDidNotStart: a new worker process ended, or stayed silent, before its first job.
    """
    worker: _Worker[Job, Result] | None = None
    try:
        for job in jobs:
            if worker is None or not worker.is_alive():
                worker = _Worker(work, prepare, timeout, start_method)
            outcome = worker.run(job)
            if isinstance(outcome, Lost) and outcome.reason != "raised":
                worker.end()
                worker = None
            yield outcome
    finally:
        if worker is not None:
            worker.end()


def run_side_by_side(
    jobs: Sequence[Job],
    work: Callable[[Job], Result],
    *,
    timeout: float,
    processes: int,
    prepare: Callable[[], object] | None = None,
) -> Iterator[Result | Lost[Job]]:
    """The same as `run_files`, in the same order, by several worker processes at once."""
    crew = _Crew(jobs, work, prepare, timeout)
    benches = [_Bench[Job, Result]() for _ in range(processes)]
    try:
        for index in range(len(jobs)):
            while index not in crew.outcomes:
                crew.hand_out(benches)
                crew.collect(benches)
            yield crew.outcomes.pop(index)
    finally:
        for bench in benches:
            bench.clear()


class _Bench(Generic[Job, Result]):
    """The place of one worker: the process, the jobs set aside for it, and the one that it has."""

    def __init__(self) -> None:
        self.worker: _Worker[Job, Result] | None = None
        self.waiting: Iterator[int] = iter(())
        self.index: int | None = None
        self.deadline = 0.0

    def clear(self) -> None:
        if self.worker is not None:
            self.worker.end()
        self.worker = None


class _Crew(Generic[Job, Result]):
    """Hands the jobs out in runs of neighbours: what a worker has read for one file of a folder serves the next."""

    def __init__(
        self,
        jobs: Sequence[Job],
        work: Callable[[Job], Result],
        prepare: Callable[[], object] | None,
        timeout: float,
    ) -> None:
        self.outcomes: dict[int, Result | Lost[Job]] = {}
        self._jobs = jobs
        self._work = work
        self._prepare = prepare
        self._timeout = timeout
        self._taken = 0

    def hand_out(self, benches: Sequence[_Bench[Job, Result]]) -> None:
        for bench in benches:
            if bench.index is not None:
                continue
            index = next(bench.waiting, None)
            if index is None:
                bench.waiting = self._next_run(len(benches))
                index = next(bench.waiting, None)
            if index is None:
                continue
            if bench.worker is None or not bench.worker.is_alive():
                bench.clear()
                bench.worker = _Worker(self._work, self._prepare, self._timeout, START_METHOD)
            bench.index, bench.deadline = index, time.monotonic() + self._timeout * _PATIENCE
            bench.worker.begin(self._jobs[index])

    def _next_run(self, benches: int) -> Iterator[int]:
        """Shorter ones towards the end, so that no worker is left alone with many."""
        left = len(self._jobs) - self._taken
        first = self._taken
        self._taken += max(1, min(_LONGEST_RUN, left // (3 * benches))) if left else 0
        return iter(range(first, self._taken))

    def collect(self, benches: Sequence[_Bench[Job, Result]]) -> None:
        """Wait until a worker is done, or has taken too long."""
        busy = {bench.worker.pipe: bench for bench in benches if bench.worker and bench.index is not None}
        nearest = min(bench.deadline for bench in busy.values())
        answering = ready(busy, max(0.0, nearest - time.monotonic()))
        for pipe, bench in busy.items():
            if pipe in answering or bench.deadline <= time.monotonic():
                self._finish(bench, in_time=pipe in answering)

    def _finish(self, bench: _Bench[Job, Result], *, in_time: bool) -> None:
        assert bench.worker is not None and bench.index is not None
        job = self._jobs[bench.index]
        outcome = bench.worker.outcome(job) if in_time else bench.worker.waited_in_vain(job)
        if isinstance(outcome, Lost) and outcome.reason != "raised":
            bench.clear()
        self.outcomes[bench.index], bench.index = outcome, None


class _Worker(Generic[Job, Result]):
    """A worker process, seen from the parent."""

    def __init__(
        self,
        work: Callable[[Job], Result],
        prepare: Callable[[], object] | None,
        timeout: float,
        start_method: StartMethod,
    ) -> None:
        self._timeout = timeout
        self._child = start(partial(_serve, work, prepare, timeout), start_method)
        self.pipe = self._child.pipe
        self._wait_until_ready()

    def _wait_until_ready(self) -> None:
        failure = f"it said nothing for {START_TIMEOUT_SECONDS:g} s"
        if self.pipe.poll(START_TIMEOUT_SECONDS):
            try:
                status, failure = self.pipe.receive()
            except (EOFError, OSError):
                status, failure = "died", self._how_it_ended()
            if status == "ready":
                return
        self.end()
        raise WorkerDidNotStart(f"the worker process could not start: {failure}")

    def is_alive(self) -> bool:
        return self._child.is_alive()

    def run(self, job: Job) -> Result | Lost[Job]:
        self.begin(job)
        return self.outcome(job) if self.pipe.poll(self._timeout * _PATIENCE) else self.waited_in_vain(job)

    def waited_in_vain(self, job: Job) -> Lost[Job]:
        return Lost(job, "timeout", f"is not done after {self._timeout * _PATIENCE:g} s")

    def begin(self, job: Job) -> None:
        with suppress(OSError):  # the worker is gone: its outcome will say so
            self.pipe.send(job)

    def outcome(self, job: Job) -> Result | Lost[Job]:
        """What became of the job; waits for it."""
        try:
            status, payload = self.pipe.receive()
        except (EOFError, OSError):
            return self._lost_with_the_process(job)
        if status == "raised":
            return Lost(job, "raised", payload)
        result: Result = payload
        return result

    def _lost_with_the_process(self, job: Job) -> Lost[Job]:
        detail = self._how_it_ended()
        code = self._child.exit_code(0)
        if _COUNTS_CPU_TIME and code == -signal.SIGPROF:
            return Lost(job, "timeout", f"takes more than {self._timeout:g} s of CPU time")
        overflowed = code is not None and (code in _OVERFLOW_STATUSES or _signal_name(code) in _OVERFLOW_SIGNALS)
        return Lost(job, "overflowed" if overflowed else "died", detail)

    def _how_it_ended(self) -> str:
        code = self._child.exit_code(_LONGEST_END_SECONDS)
        if code is None:
            return "the worker process closed its connection"
        if code >= 0:
            return f"the worker process ended with exit status {code}"
        return f"the worker process was ended by {_signal_name(code)}"

    def end(self) -> None:
        """End the process at once; it holds nothing that is worth waiting for."""
        self._child.end()


def _signal_name(exit_code: int) -> str:
    """The signal behind a process's exit code below zero."""
    try:
        return signal.Signals(-exit_code).name
    except ValueError:
        return f"signal {-exit_code}"


def _serve(work: Callable[[Job], Result], prepare: Callable[[], object] | None, timeout: float, pipe: Pipe) -> None:
    """The worker: ends when the parent closes its end of the pipe, or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if _COUNTS_CPU_TIME:
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
    if _has_large_stack():
        _work_until_closed(work, prepare, timeout, pipe)
        return
    threading.stack_size(STACK_BYTES)
    thread = threading.Thread(target=_work_until_closed, args=(work, prepare, timeout, pipe))
    thread.start()
    thread.join()


def _has_large_stack() -> bool:
    """Whether the main thread has one from now on: on Linux it grows up to a limit that a process may raise.

    To a thread glibc gives memory page by page: 5,000 system calls for a file of 1,400 lines.
    """
    if sys.platform != "linux":
        return False
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_STACK)
    if most != resource.RLIM_INFINITY and most < STACK_BYTES:
        return False
    resource.setrlimit(resource.RLIMIT_STACK, (STACK_BYTES, most))
    return True


def _work_until_closed(
    work: Callable[[Job], Result], prepare: Callable[[], object] | None, timeout: float, pipe: Pipe
) -> None:
    # What is imported is here to stay, and a tree is many objects and no garbage: looking for some costs a tenth.
    gc.disable()
    if prepare is not None:
        try:
            prepare()
        except Exception:  # noqa: BLE001 - the parent raises it
            pipe.send(("raised", _traceback()))
            return
    gc.freeze()
    pipe.send(("ready", ""))
    for number in count(1):
        try:
            job: Job = pipe.receive()
        except (EOFError, OSError):
            return
        _allow_cpu_time(timeout)
        outcome = _outcome(work, job)
        _allow_cpu_time(0.0)
        try:
            pipe.send(outcome)
        except OSError:
            return
        except Exception:  # noqa: BLE001 - the parent reports it
            pipe.send(("raised", _traceback()))
        if number % _COLLECT_EVERY == 0:
            gc.collect()


# Python has frames in pieces of 16 KiB, and maps and unmaps one whenever calls go forth and back over the end of the
# one before: 1,300 times for a file of 1,400 lines. A frame that wants a MiB has a piece of its own, with as much again
# for those of the calls within. Only address space until it is used.
_work_until_closed.__code__ = _work_until_closed.__code__.replace(co_stacksize=2**17)


def _allow_cpu_time(seconds: float) -> None:
    """From now on; 0: as much as it takes."""
    if _COUNTS_CPU_TIME:
        signal.setitimer(signal.ITIMER_PROF, seconds)


def _outcome(work: Callable[[Job], Result], job: Job) -> tuple[str, Result | str]:
    try:
        return "done", work(job)
    except Exception:  # noqa: BLE001 - the parent reports it
        return "raised", _traceback()


def _traceback() -> str:
    import traceback  # takes 2 ms to import, and is seldom needed

    return traceback.format_exc()
