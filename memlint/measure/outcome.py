"""How a measurement ended."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from memlint.measure.recording import Place, Recording


class Status(str, Enum):
    """The classes of endings."""

    OK = "ok"
    NEVER_STEPPED = "never-stepped"
    """The target ended and no step was seen."""
    USER_EXCEPTION = "user-exception"
    UNSUPPORTED = "unsupported"
    """The backend cannot run this: `advice` says which to try."""
    OUT_OF_MEMORY = "out-of-memory"
    KILLED = "killed"
    """The process was ended by a signal or by memlint's limit on host memory."""
    TIMEOUT = "timeout"


@dataclass(frozen=True)
class Frame:
    """One frame of the user's part of a traceback."""

    place: Place
    text: str


@dataclass(frozen=True)
class Outcome:
    """What came back from the worker.

    There is a recording when `status` is OK, and what had been recorded until then where the run was out of memory.
    """

    status: Status
    message: str = ""
    """One sentence in words; of a user's exception: its type and text."""
    advice: str = ""
    frames: tuple[Frame, ...] = ()
    recording: Recording | None = None
    seconds: float = 0.0
    host_peak_bytes: int | None = None
