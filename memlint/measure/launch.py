"""Starts the worker for a job, and waits for its outcome no longer than the job allows."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pickle
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

from memlint.measure.job import PROGRESS_FILE, BackendName, Job
from memlint.measure.outcome import Frame, Outcome, Status
from memlint.measure.recording import Place
from memlint.measure.user_code import is_user_file

Output = Literal["inherit", "stderr", "discard"]
"""Where the target's output goes. `inherit`: both its streams are ours; `stderr`: both go to standard error."""

# Started by path: with `-m` Python would put the current folder first on the import path, and a `types.py` that
# lies there would be imported by the worker itself.
_WORKER = Path(__file__).with_name("worker") / "__main__.py"

# The worker has sent its outcome before it ends; this is only for reading what is still in the pipe.
_DRAIN_SECONDS = 10.0
_PROBE_SECONDS = 120.0
# How long a target that is out of time has to say where it is.
_LAST_WORDS_SECONDS = 2.0
# NVIDIA's driver, on Linux, in WSL, on Jetson; AMD's.
_GPU_DEVICES = ("/dev/nvidiactl", "/dev/dxg", "/dev/nvmap", "/dev/kfd")

# "pip install" in whichever way the project does it: what is missing is the extra, in the project's own environment.
TORCH_IS_MISSING = (
    "memlint runs your code to measure it, and finds no torch to run it with: install `memlint-torch[measure]` in the "
    "environment that your code runs in, and call memlint from there"
)


class WorkerFailed(Exception):  # noqa: N818 - says what happened
    """The worker broke off by a fault of memlint's own. The text is its traceback."""


class CannotMeasure(Exception):  # noqa: N818 - says what happened
    """This machine or this environment cannot run any target. The text says what to do."""


def require_torch() -> None:
    """Raise CannotMeasure where no target can be run. Imports nothing."""
    if sys.platform == "win32":
        raise CannotMeasure("memlint measures on Linux and macOS; on Windows, run it in WSL")
    if importlib.util.find_spec("torch") is None:
        raise CannotMeasure(TORCH_IS_MISSING)


def best_backend() -> BackendName:
    """`cuda` where torch can use a GPU, else `fake`.

    Torch is only asked where there is a driver that it could use, and in a process of its own.
    """
    if not any(Path(device).exists() for device in _GPU_DEVICES):
        return "fake"
    try:
        asked = subprocess.run(
            [sys.executable, "-c", "import torch; print(torch.cuda.is_available())"],
            cwd=sys.prefix,  # not the current folder: a torch.py may lie there
            capture_output=True,
            text=True,
            timeout=_PROBE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "fake"
    return "cuda" if asked.stdout.split()[-1:] == ["True"] else "fake"


def run(job: Job, output: Output = "inherit") -> Outcome:
    """Run the job in a fresh interpreter, and end its whole process group when it is over.

    Raises WorkerFailed.
    """
    with tempfile.TemporaryDirectory(prefix="memlint-", ignore_cleanup_errors=True) as temporary:
        return _Worker(job, Path(temporary), output).outcome()


class _Worker:
    def __init__(self, job: Job, temporary: Path, output: Output) -> None:
        self._job = job
        self._crash = temporary / "crash.txt"
        self._started = time.monotonic()
        self._received = b""
        with _pipe() as (job_end, our_job_end), _pipe() as (our_outcome_end, outcome_end):
            self._process = subprocess.Popen(
                [sys.executable, str(_WORKER), str(job_end), str(outcome_end), str(self._crash)],
                cwd=job.folder,
                env=_environment(job, temporary),
                stdin=subprocess.DEVNULL,
                stdout=_stream(output),
                stderr=subprocess.DEVNULL if output == "discard" else None,
                pass_fds=(job_end, outcome_end),
                start_new_session=True,
            )
            self._our_job_end = os.dup(our_job_end)
            self._our_outcome_end = os.dup(our_outcome_end)

    def outcome(self) -> Outcome:
        reader = threading.Thread(target=self._read, daemon=True)
        reader.start()
        try:
            with contextlib.suppress(BrokenPipeError), os.fdopen(self._our_job_end, "wb") as stream:
                pickle.dump(self._job, stream)
            self._process.wait(self._job.timeout_seconds)
        except subprocess.TimeoutExpired:
            return replace(_timed_out(self._job, self._steps()), frames=self._last_frames())
        finally:
            self._end_group()
            # What the target started and left behind may hold the pipe open, so its end is not waited for.
            reader.join(_DRAIN_SECONDS)
        if self._received:
            outcome: Outcome = pickle.loads(self._received)
            return outcome
        return self._without_a_word()

    def _read(self) -> None:
        with os.fdopen(self._our_outcome_end, "rb") as stream:
            self._received = stream.read()

    def _steps(self) -> int:
        try:
            return int(self._crash.with_name(PROGRESS_FILE).read_text("ascii"))
        except (OSError, ValueError):
            return 0

    def _last_frames(self) -> tuple[Frame, ...]:
        """Where the target is: an abort makes Python write it down."""
        self._process.send_signal(signal.SIGABRT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_LAST_WORDS_SECONDS)
        return tuple(_crash_frames(self._last_words()))

    def _last_words(self) -> str:
        return self._crash.read_text("utf-8", "replace") if self._crash.is_file() else ""

    def _end_group(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _without_a_word(self) -> Outcome:
        """The process is gone, and has said nothing."""
        crash = self._last_words()
        if crash.startswith("Traceback"):
            raise WorkerFailed(crash)
        code = self._process.returncode
        seconds = time.monotonic() - self._started
        message, advice = _killed(code) if code < 0 else _left(code)
        return Outcome(Status.KILLED, message, advice, frames=tuple(_crash_frames(crash)), seconds=seconds)


def _environment(job: Job, temporary: Path) -> dict[str, str]:
    """The worker's environment: ours, with switches that keep the target off the network and out of the home folder,
    then what the job says."""
    quiet = {
        # Sets of strings have the same order in every run.
        "PYTHONHASHSEED": str(job.seed % 2**32),
        "PYTHONDONTWRITEBYTECODE": "1",
        "TMPDIR": str(temporary),
        "MPLBACKEND": "Agg",  # a window would wait for somebody to close it
        "MPLCONFIGDIR": str(temporary),
        "TORCHINDUCTOR_CACHE_DIR": str(temporary / "inductor"),
        "TRITON_CACHE_DIR": str(temporary / "triton"),
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_DATASETS_CACHE": str(_view_of(_datasets_cache(), temporary / "datasets")),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "HF_DEACTIVATE_ASYNC_LOAD": "1",  # weights are allocated in the same order in each run
        "WANDB_MODE": "disabled",
        "WANDB_SILENT": "true",
        "NEPTUNE_MODE": "debug",
        "MLFLOW_TRACKING_URI": (temporary / "mlruns").as_uri(),
        "COMET_OFFLINE_DIRECTORY": str(temporary),
    }
    if job.backend == "fake":
        quiet["CUDA_VISIBLE_DEVICES"] = ""  # a card that is there is not to be woken, nor to answer
        quiet["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # who asks for one starts nothing that a fork could not use
    return {**os.environ, **quiet, **job.environment}


def _datasets_cache() -> Path:
    """Where Hugging Face's `datasets` keeps what it has prepared."""
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    return Path(os.environ.get("HF_DATASETS_CACHE") or home / "datasets")


def _view_of(folder: Path, view: Path) -> Path:
    """A folder in which what the other one holds can be read, and anything else be written."""
    view.mkdir()
    with contextlib.suppress(OSError):
        for entry in folder.iterdir():
            (view / entry.name).symlink_to(entry)
    return view


def _stream(output: Output) -> int | None:
    if output == "discard":
        return subprocess.DEVNULL
    return 2 if output == "stderr" else None


@contextlib.contextmanager
def _pipe() -> Iterator[tuple[int, int]]:
    """A pipe's two ends, closed at the end: whoever needs one for longer has a duplicate."""
    ends = os.pipe()
    try:
        yield ends
    finally:
        for end in ends:
            os.close(end)


def _timed_out(job: Job, steps: int) -> Outcome:
    made = f"it had made {steps} of {job.steps} steps" if steps else "it had not made a step"
    return Outcome(
        Status.TIMEOUT,
        f"the target was stopped after {job.timeout_seconds:g} s: {made}",
        "allow more with `--timeout`, ask for fewer `--steps`, or give the target less data",
        seconds=job.timeout_seconds,
    )


def _killed(code: int) -> tuple[str, str]:
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    if name == "SIGKILL":
        return (
            "the target's process was killed, as the system does when host memory runs out",
            "give it a smaller batch or model, or try `--backend fake`, which computes nothing on the device",
        )
    return f"the target's process was ended by {name}", "try another `--backend`"


def _left(code: int) -> tuple[str, str]:
    return (
        f"the target ended its own process with exit status {code}",
        "it must return or raise instead, so that memlint can say what it has recorded",
    )


_CRASH_FRAME = re.compile(r'^  File "(?P<path>.+)", line (?P<line>\d+) in (?P<function>.+)$', re.MULTILINE)


def _crash_frames(crash: str) -> Iterator[Frame]:
    """The user's frames in what faulthandler wrote, which has the innermost first; ours has it last."""
    for match in reversed(list(_CRASH_FRAME.finditer(crash))):
        if is_user_file(match["path"]):
            yield Frame(Place(match["path"], int(match["line"]), match["function"]), "")
