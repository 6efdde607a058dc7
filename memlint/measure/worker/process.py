"""From a job to its outcome, in this process."""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import os
import pickle
import resource
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from memlint.measure.job import PROGRESS_FILE, BackendName, Job, Layer
from memlint.measure.outcome import Frame, Outcome, Status
from memlint.measure.recording import Place, Recording
from memlint.measure.user_code import is_user_file

if TYPE_CHECKING:
    from memlint.measure.worker.imports import Sources
    from memlint.measure.worker.session import Session


def serve(job_end: int, outcome_end: int, crash_file: str) -> None:
    """Do the job, send the outcome, end the process. What goes wrong in memlint itself is left in `crash_file`."""
    os.set_inheritable(outcome_end, False)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # gigabytes in the user's folder, and no write that we refuse
    crash = open(crash_file, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - for as long as the process lives
    faulthandler.enable(crash)
    try:
        with os.fdopen(job_end, "rb") as stream:
            job: Job = pickle.load(stream)
        started = time.monotonic()
        outcome = measured(job, os.path.dirname(crash_file))  # noqa: PTH120
        ended = replace(outcome, seconds=time.monotonic() - started, host_peak_bytes=_host_peak())
        with os.fdopen(outcome_end, "wb") as stream:
            pickle.dump(ended, stream, pickle.HIGHEST_PROTOCOL)
    except BaseException:  # noqa: BLE001 - the parent raises it
        crash.write(traceback.format_exc())
        crash.flush()
    for output in (sys.stdout, sys.stderr):
        output.flush()
    # Neither the target's threads nor its exit handlers are waited for: they may save or upload, and have no steps.
    os._exit(0)


def progress_in(folder: str) -> Callable[[int], None]:
    """Notes the number of steps where the parent finds it, should time run out."""
    file = os.open(os.path.join(folder, PROGRESS_FILE), os.O_WRONLY | os.O_CREAT, 0o600)  # noqa: PTH118

    def note(steps: int) -> None:
        os.pwrite(file, f"{steps:<20}".encode(), 0)

    return note


def measured(job: Job, temporary: str) -> Outcome:
    """Run the job's target under its backend. It may write to the folder `temporary`."""
    try:
        import torch  # noqa: F401
    except (ImportError, OSError) as error:
        return Outcome(
            Status.UNSUPPORTED, f"torch cannot be imported: {error}", "install a torch that this machine can run"
        )
    from memlint.measure.worker import isolation
    from memlint.measure.worker.backend import Unsupported
    from memlint.measure.worker.guard import confine_writes
    from memlint.measure.worker.imports import Importer, Sources
    from memlint.measure.worker.outputs import redirect
    from memlint.measure.worker.session import Session

    try:
        backend = importlib.import_module(f"memlint.measure.worker.backends.{job.backend}").make(job)
        backend.self_test()
    except Unsupported as refusal:
        return Outcome(Status.UNSUPPORTED, str(refusal), refusal.advice)
    isolation.seed(job.seed)
    if job.backend == "cuda" and Layer.FINGERPRINTS in job.layers:
        isolation.be_deterministic()
    isolation.refuse_other_processes(on_a_card=job.backend == "cuda")
    isolation.load_in_this_process(pin_memory=job.backend == "cuda")
    sources = Sources(job.overlay, job.watched)
    Importer(sources, isolation.patches(allow_write=job.allow_write)).install()
    if not job.allow_write:
        isolation.save_nothing()
        redirect(temporary)
        confine_writes(temporary)
    session = Session(job, backend, progress_in(temporary))
    with _host_memory_limited(job.host_memory_limit_bytes):
        ended = _run(job, sources, session)
    recording = session.recording()
    recording.ran_lines = sources.ran_lines()
    return _judged(ended, recording)


def _run(job: Job, sources: Sources, session: Session) -> Outcome:
    """Run the target to its end or to its last step, and say which way it ended. There is no recording yet."""
    from memlint.measure.worker.targets import NoSuchTarget, import_function, run_main

    try:
        with session, _good_exits_are_ends():
            if job.target.kind == "function":
                session.call_repeatedly(import_function(job.target))
            else:
                run_main(job.target, sources)
    except NoSuchTarget as error:
        return Outcome(Status.USER_EXCEPTION, str(error), _WHAT_A_TARGET_IS)
    except SystemExit as end:
        return _exited(end)
    except BaseException as error:  # noqa: BLE001 - whatever the target raises is the outcome
        return _raised(error, job)
    return Outcome(Status.OK)


_WHAT_A_TARGET_IS = "a target is a script, `-m` and a module, or `pkg.mod:function`"


@contextlib.contextmanager
def _good_exits_are_ends() -> Iterator[None]:
    """`sys.exit(main())` at the end of a script is an end like any other, where the status is 0."""
    try:
        yield
    except SystemExit as end:
        if end.code not in {None, 0}:
            raise


def _judged(ended: Outcome, recording: Recording) -> Outcome:
    if ended.status is Status.OUT_OF_MEMORY:
        return replace(ended, recording=recording)
    recording.out_of_memory = None  # the target caught it, and went on
    if ended.status is not Status.OK:
        return ended
    if not recording.steps:
        return Outcome(
            Status.NEVER_STEPPED,
            "the target ended, and no step was seen: no optimizer step, no batch of a DataLoader, no module call",
            "name the function that does one step (`memlint measure pkg.mod:function`), or check that the arguments "
            "after `--` make the target train or evaluate",
        )
    if recording.backend == "fake" and not recording.storages:
        return Outcome(
            Status.UNSUPPORTED,
            "the target ran, and put nothing on `cuda`: there is nothing to predict",
            "`--backend cpu` takes all of a program's tensors for device memory, if it never says cuda",
        )
    return replace(ended, recording=recording)


def _exited(end: SystemExit) -> Outcome:
    """`sys.exit` with a status, as argparse does; or with a text, as for an error."""
    frames = tuple(_frames(end))
    if isinstance(end.code, int):
        message = f"the target exited with status {end.code}"
        return Outcome(Status.USER_EXCEPTION, message, "check the arguments after `--`", frames)
    return Outcome(Status.USER_EXCEPTION, f"the target exited: {end.code}", frames=frames)


def _raised(error: BaseException, job: Job) -> Outcome:
    from memlint.measure.worker.backend import Unsupported
    from memlint.measure.worker.compat import WITHOUT_KERNEL
    from memlint.measure.worker.guard import WriteRefused

    frames = tuple(_frames(error))
    for cause in _chain(error):
        if isinstance(cause, Unsupported):
            return Outcome(Status.UNSUPPORTED, str(cause), cause.advice or _other_backend(job.backend), frames)
    if job.backend == "fake" and WITHOUT_KERNEL in str(error):
        return Outcome(Status.UNSUPPORTED, _in_words(error), _other_backend(job.backend), frames)
    if _is_out_of_memory(error):
        return Outcome(Status.OUT_OF_MEMORY, _out_of_memory_words(error, job), _more_memory(job), frames)
    if isinstance(error, WriteRefused):
        advice = "let it with `--allow-write`, or tell the target to leave that file alone"
        return Outcome(Status.USER_EXCEPTION, str(error), advice, frames)
    return Outcome(Status.USER_EXCEPTION, _in_words(error), frames=frames)


def _more_memory(job: Job) -> str:
    if job.backend == "fake":
        from memlint.measure.worker.backends.fake.host_memory import ADVICE

        return ADVICE
    return "give the target a smaller batch, or measure with `--backend fake`, which holds nothing"


def _is_out_of_memory(error: BaseException) -> bool:
    """On the device or on the host: torch says the latter with a RuntimeError of its CPU allocator."""
    import torch

    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator: can't allocate memory" in str(error)


def _out_of_memory_words(error: BaseException, job: Job) -> str:
    import torch

    from memlint.measure.worker.backends.fake.host_memory import TooLittleHostMemory

    if isinstance(error, TooLittleHostMemory):
        return str(error)
    where = "device" if isinstance(error, torch.OutOfMemoryError) else "host"
    if where == "host" and job.host_memory_limit_bytes is not None:
        return f"out of host memory, which `--memory-limit` holds at {job.host_memory_limit_bytes / 2**30:.1f} GiB"
    return f"out of {where} memory: {_in_words(error)}"


def _other_backend(backend: BackendName) -> str:
    return "try `--backend cpu`, which runs the code for real" if backend != "cpu" else "try `--backend fake`"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The exception and those that led to it."""
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        yield following
        following = following.__cause__ or following.__context__


def _in_words(error: BaseException) -> str:
    text = "".join(traceback.format_exception_only(type(error), error))
    lines = [line for line in text.splitlines() if line.strip()]
    # Of a syntax error, the place comes first; of torch's errors, what was registered where comes last.
    return lines[-1] if isinstance(error, SyntaxError) else lines[0]


def _frames(error: BaseException) -> Iterator[Frame]:
    """The user's part of the traceback, the innermost frame last."""
    for frame in traceback.extract_tb(error.__traceback__):
        if is_user_file(frame.filename):
            yield Frame(Place(frame.filename, frame.lineno or 0, frame.name), (frame.line or "").strip())
    if isinstance(error, SyntaxError) and error.filename is not None:
        yield Frame(Place(error.filename, error.lineno or 0), (error.text or "").strip())


@contextlib.contextmanager
def _host_memory_limited(limit: int | None) -> Iterator[None]:
    """Let the process have this many bytes beyond what it has with torch loaded. Where the system can: Linux.

    Private data, not the address space: torch's libraries and a CUDA context reserve far more of that than they use.
    """
    if limit is None or sys.platform != "linux":
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (_private_data() + limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _private_data() -> int:
    """What RLIMIT_DATA counts, in bytes (proc_pid_status(5))."""
    with open("/proc/self/status", encoding="ascii") as status:  # noqa: PTH123
        kilobytes = next(line.split()[1] for line in status if line.startswith("VmData:"))
    return int(kilobytes) * 1024


def _host_peak() -> int:
    """The most host memory the process has had, in bytes. The system counts in kB, but for macOS: bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
