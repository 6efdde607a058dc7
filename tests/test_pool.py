"""The worker process: whatever happens to one job, the others finish, in order."""

from __future__ import annotations

import ctypes
import faulthandler
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import libcst
import pytest

from memlint.linting import pool
from memlint.linting.pool import Lost, WorkerDidNotStart, run_files, run_side_by_side

needs_posix_signals = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")

_prepared: list[bool] = []


def _work(job: str) -> str:
    """Does what the job says."""
    if job == "hang":
        while True:
            pass
    if job == "compute":
        until = time.process_time() + 0.2
        while time.process_time() < until:
            pass
    if job == "sleep":
        time.sleep(60)
    if job == "nap":
        time.sleep(0.6)
    if job == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if job == "crash":
        faulthandler.disable()  # it would write a traceback to the terminal
        ctypes.string_at(0)
    if job == "exit":
        os._exit(7)
    if job == "raise":
        raise ValueError("no such tensor")
    if job in ("pid", "rest"):
        time.sleep(0.01 if job == "rest" else 0)
        return str(os.getpid())
    return job.upper()


def _unpicklable_result(job: str) -> object:
    return lambda: job


def _large_result(job: int) -> bytes:
    return b"x" * job


def _prepare_slowly() -> None:
    time.sleep(0.4)
    _prepared.append(True)


def _parse_conjunction(terms: int) -> str:
    libcst.parse_module(" and ".join(["a"] * terms))
    return "parsed"


def _is_prepared(job: str) -> bool:
    return _prepared == [True]


def _prepare_badly() -> None:
    raise ImportError("no module named libcst")


def test_results_come_in_the_order_of_the_jobs() -> None:
    jobs = [f"file{number}" for number in range(500)]
    assert list(run_files(jobs, _work, timeout=10)) == [job.upper() for job in jobs]


def test_the_work_runs_in_one_other_process() -> None:
    pids = set(run_files(["pid"] * 5, _work, timeout=10))
    assert len(pids) == 1
    assert str(os.getpid()) not in pids


def test_no_jobs_start_no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_Worker", None)
    assert list(run_files([], _work, timeout=10)) == []


def test_a_job_that_hangs_is_lost_and_the_others_finish() -> None:
    started = time.monotonic()
    first, lost, last = run_files(["a", "hang", "b"], _work, timeout=0.3)
    assert (first, last) == ("A", "B")
    assert isinstance(lost, Lost) and lost.reason == "timeout"
    assert time.monotonic() - started < 5


@needs_posix_signals
def test_a_job_that_computes_too_long_is_told_from_one_that_waits_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_PATIENCE", 1000)  # however busy the machine is
    assert list(run_files(["hang"], _work, timeout=0.2)) == [
        Lost("hang", "timeout", "takes more than 0.2 s of CPU time")
    ]
    monkeypatch.setattr(pool, "_PATIENCE", 2)
    assert list(run_files(["sleep"], _work, timeout=0.2)) == [Lost("sleep", "timeout", "is not done after 0.4 s")]


@needs_posix_signals
@pytest.mark.parametrize("processes", [1, 2])
def test_time_in_which_others_compute_is_not_the_job_s(processes: int) -> None:
    """As long by the clock as on a machine that is busy with something else."""
    outcomes = run_side_by_side(["nap", "hang", "nap"], _work, timeout=0.3, processes=processes)
    assert [outcome.reason if isinstance(outcome, Lost) else outcome for outcome in outcomes] == [
        "NAP",
        "timeout",
        "NAP",
    ]


@needs_posix_signals
def test_the_time_of_the_jobs_before_does_not_count() -> None:
    assert list(run_files(["compute"] * 5, _work, timeout=0.4)) == ["COMPUTE"] * 5


@needs_posix_signals
def test_a_job_that_kills_its_process_is_lost_and_the_others_finish() -> None:
    first, lost, last = run_files(["a", "killed", "b"], _work, timeout=10)
    assert (first, last) == ("A", "B")
    assert lost == Lost("killed", "died", "the worker process was ended by SIGKILL")


@needs_posix_signals
def test_a_job_that_crashes_in_native_code_is_told_from_one_that_was_killed() -> None:
    lost, last = run_files(["crash", "b"], _work, timeout=10)
    assert lost == Lost("crash", "overflowed", "the worker process was ended by SIGSEGV")
    assert last == "B"


def test_a_job_that_exits_is_lost_and_the_others_finish() -> None:
    outcomes = list(run_files(["exit", "exit", "b"], _work, timeout=10))
    assert [outcome.reason for outcome in outcomes[:2] if isinstance(outcome, Lost)] == ["died", "died"]
    assert isinstance(outcomes[0], Lost) and "exit status 7" in outcomes[0].detail
    assert outcomes[2] == "B"


def test_a_job_that_raises_is_lost_with_its_traceback_and_keeps_the_worker() -> None:
    before, lost, after = run_files(["pid", "raise", "pid"], _work, timeout=10)
    assert isinstance(lost, Lost)
    assert (lost.job, lost.reason) == ("raise", "raised")
    assert "ValueError: no such tensor" in lost.detail
    assert before == after


def test_a_result_that_cannot_be_pickled_is_lost_with_its_traceback() -> None:
    (lost,) = run_files(["a"], _unpicklable_result, timeout=10)
    assert isinstance(lost, Lost)
    assert lost.reason == "raised"
    assert "pickle" in lost.detail


def test_results_larger_than_a_pipe_holds_arrive() -> None:
    sizes = [10, 10_000_000, 10]
    assert [len(result) for result in run_files(sizes, _large_result, timeout=10) if isinstance(result, bytes)] == sizes


@needs_posix_signals
def test_a_worker_that_dies_between_two_jobs_loses_none() -> None:
    outcomes = run_files(["pid", "b"], _work, timeout=10)
    pid = next(outcomes)
    assert isinstance(pid, str)
    os.kill(int(pid), signal.SIGKILL)
    time.sleep(0.1)
    assert list(outcomes) == ["B"]


def test_a_worker_has_the_stack_that_libcst_needs_for_deep_code() -> None:
    # On the 8 MiB of a main thread LibCST ends the process at 5,000 terms or so.
    (outcome,) = run_files([8000], _parse_conjunction, timeout=60)
    assert outcome == "parsed"


def test_preparation_is_not_on_the_clock() -> None:
    assert list(run_files(["a", "b"], _is_prepared, timeout=0.2, prepare=_prepare_slowly)) == [True, True]


def test_a_worker_that_cannot_be_prepared_is_an_error_with_its_cause() -> None:
    with pytest.raises(WorkerDidNotStart, match="no module named libcst"):
        list(run_files(["a"], _work, timeout=10, prepare=_prepare_badly))


def test_spawned_workers_do_the_same() -> None:
    first, lost, last = run_files(["a", "exit", "b"], _work, timeout=10, start_method="spawn")
    assert (first, last) == ("A", "B")
    assert isinstance(lost, Lost) and lost.reason == "died"


def test_spawned_workers_side_by_side_do_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "START_METHOD", "spawn")
    first, lost, last = run_side_by_side(["a", "exit", "b"], _work, timeout=10, processes=2)
    assert (first, last) == ("A", "B")
    assert isinstance(lost, Lost) and lost.reason == "died"


@needs_posix_signals
def test_a_closed_generator_ends_its_worker() -> None:
    outcomes = run_files(["pid", "a"], _work, timeout=10)
    pid = next(outcomes)
    assert isinstance(pid, str)
    outcomes.close()  # type: ignore[attr-defined]
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid), 0)


@needs_posix_signals
def test_ctrl_c_ends_a_hanging_run_at_once() -> None:
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        list(run_files(["hang"], _work, timeout=30))
    assert time.monotonic() - started < 5


@needs_posix_signals
def test_an_idle_worker_ends_with_a_killed_parent(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        textwrap.dedent(
            """
            import os, signal
            from memlint.linting.pool import run_files

            def work(job):
                return os.getpid()

            if __name__ == "__main__":
                for pid in run_files(["a", "b"], work, timeout=10):
                    print(pid, flush=True)
                    os.kill(os.getpid(), signal.SIGKILL)
            """
        )
    )
    done = subprocess.run(
        [sys.executable, str(script)],
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
        env={**os.environ, "PYTHONPATH": str(Path(pool.__file__).parents[2])},
    )
    pid = int(done.stdout)
    for _ in range(100):
        if not _runs(pid):
            return
        time.sleep(0.05)
    pytest.fail(f"the worker {pid} outlived its parent")


def _runs(pid: int) -> bool:
    """Whether the process runs; one that has ended but that nobody has waited for does not."""
    status = Path(f"/proc/{pid}/stat")
    if status.exists():
        return status.read_text().rsplit(")", 1)[1].split()[0] != "Z"
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return not Path("/proc").exists()


# --- side by side ---


def test_several_processes_give_the_results_in_the_order_of_the_jobs() -> None:
    jobs = [f"file{number}" for number in range(200)]
    assert list(run_side_by_side(jobs, _work, timeout=10, processes=3)) == [job.upper() for job in jobs]


def test_several_processes_share_the_work() -> None:
    pids = set(run_side_by_side(["rest"] * 40, _work, timeout=10, processes=2))
    assert len(pids) == 2


def test_a_slow_job_does_not_hold_up_those_behind_it() -> None:
    started = time.monotonic()
    outcomes = list(run_side_by_side(["hang", *"abcdefgh"], _work, timeout=1, processes=2))
    assert isinstance(outcomes[0], Lost) and outcomes[0].reason == "timeout"
    assert outcomes[1:] == list("ABCDEFGH")
    assert time.monotonic() - started < 5


@needs_posix_signals
def test_workers_that_die_are_lost_with_the_job_that_they_had() -> None:
    jobs = ["a", "killed", "b", "crash", "c", "raise", "exit", "d"]
    outcomes = list(run_side_by_side(jobs, _work, timeout=10, processes=2))
    lost = {outcome.job: outcome.reason for outcome in outcomes if isinstance(outcome, Lost)}
    assert lost == {"killed": "died", "crash": "overflowed", "raise": "raised", "exit": "died"}
    assert [outcome for outcome in outcomes if not isinstance(outcome, Lost)] == ["A", "B", "C", "D"]


@needs_posix_signals
def test_a_closed_run_ends_all_its_workers() -> None:
    outcomes = run_side_by_side(["rest"] * 40, _work, timeout=10, processes=2)
    pids = {int(str(next(outcomes))) for _ in range(30)}
    outcomes.close()  # type: ignore[attr-defined]
    assert len(pids) == 2
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@needs_posix_signals
def test_ctrl_c_ends_all_workers_at_once() -> None:
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        list(run_side_by_side(["hang"] * 4, _work, timeout=30, processes=2))
    assert time.monotonic() - started < 5


def test_no_more_workers_than_jobs_are_started() -> None:
    assert list(run_side_by_side(["a"], _work, timeout=10, processes=8)) == ["A"]
    assert list(run_side_by_side([], _work, timeout=10, processes=8)) == []
