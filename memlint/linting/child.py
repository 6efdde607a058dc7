"""A child process, and a pipe between it and this one that takes whatever can be pickled.

On Linux the child is forked by hand: to import multiprocessing takes 12 ms, a tenth of what memlint adds to the parse
of a file. Elsewhere, and for a process that has threads, multiprocessing starts it anew.
"""

from __future__ import annotations

import os
import pickle
import select
import signal
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any, Literal, NoReturn

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

StartMethod = Literal["fork", "spawn"]
# Forking costs some 2 ms and the child has every module the parent has. Elsewhere it is missing (Windows) or not safe
# with the system's own libraries (macOS).
START_METHOD: StartMethod = "fork" if sys.platform == "linux" else "spawn"
FORKS = START_METHOD == "fork"

_LENGTH_BYTES = 8
_MILLISECOND = 0.001


class Pipe(ABC):
    """One end of a pipe in both directions."""

    @abstractmethod
    def send(self, message: object) -> None:
        """Raises OSError where nobody listens any more, and what pickle raises."""

    @abstractmethod
    def receive(self) -> Any:
        """The next message; waits for it. Raises EOFError or OSError where none will come."""

    @abstractmethod
    def poll(self, seconds: float) -> bool:
        """Whether there is something to receive, be it the end, within so many seconds."""

    @abstractmethod
    def close(self) -> None: ...


class Child(ABC):
    """A process that runs `serve` with its end of `pipe`, and ends with it."""

    pipe: Pipe

    @abstractmethod
    def is_alive(self) -> bool: ...

    @abstractmethod
    def exit_code(self, patience_seconds: float) -> int | None:
        """How it ended: its exit status, or the number of the signal that ended it, negative. None: it has not."""

    @abstractmethod
    def end(self) -> None:
        """End it at once, and close the pipe."""


def start(serve: Callable[[Pipe], object], method: StartMethod = START_METHOD) -> Child:
    """Start a child. `serve` must be picklable where it is not forked."""
    return _Forked(serve) if method == "fork" else _Spawned(serve)


def ready(pipes: Iterable[Pipe], seconds: float) -> list[Pipe]:
    """Those that can be received from; waits up to so many seconds for the first."""
    by_source = {pipe.source: pipe for pipe in pipes if isinstance(pipe, _SpawnedPipe)}
    if by_source:
        from multiprocessing.connection import wait

        return [by_source[source] for source in wait(list(by_source), seconds)]  # type: ignore[index]
    return _polled({pipe.fileno(): pipe for pipe in pipes if isinstance(pipe, _ForkedPipe)}, seconds)


# --- forked ---


class _ForkedPipe(Pipe):
    def __init__(self, reading: int, writing: int) -> None:
        """The file descriptors of the pipes from and to the other process."""
        self._reading: IO[bytes] = os.fdopen(reading, "rb")
        self._writing: IO[bytes] = os.fdopen(writing, "wb")

    def fileno(self) -> int:
        return self._reading.fileno()

    def send(self, message: object) -> None:
        packed = pickle.dumps(message)
        self._writing.write(len(packed).to_bytes(_LENGTH_BYTES, "little"))
        self._writing.write(packed)
        self._writing.flush()

    def receive(self) -> Any:
        return pickle.loads(self._read(int.from_bytes(self._read(_LENGTH_BYTES), "little")))

    def _read(self, size: int) -> bytes:
        content = self._reading.read(size)
        if len(content) < size:
            raise EOFError
        return content

    def poll(self, seconds: float) -> bool:
        return bool(_polled({self.fileno(): self}, seconds))

    def close(self) -> None:
        self._reading.close()
        with suppress(OSError):  # the other end is gone, with something on its way
            self._writing.close()


def _polled(pipes: dict[int, _ForkedPipe], seconds: float) -> list[Pipe]:
    """Who sends a message gets an answer before the next one: none waits in a buffer, where it would not be seen."""
    poller = select.poll()
    for descriptor in pipes:
        poller.register(descriptor, select.POLLIN)
    return [pipes[descriptor] for descriptor, _ in poller.poll(seconds / _MILLISECOND)]


class _Forked(Child):
    def __init__(self, serve: Callable[[Pipe], object]) -> None:
        their_reading, our_writing = os.pipe()
        our_reading, their_writing = os.pipe()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()  # or the child would write it too
        self._pid = os.fork()
        if self._pid == 0:
            # Else it would keep its own pipe open, and outlive a killed parent.
            os.close(our_reading)
            os.close(our_writing)
            _serve_and_exit(serve, _ForkedPipe(their_reading, their_writing))
        os.close(their_reading)
        os.close(their_writing)
        self.pipe = _ForkedPipe(our_reading, our_writing)
        self._exit_code: int | None = None

    def is_alive(self) -> bool:
        return self.exit_code(0) is None

    def exit_code(self, patience_seconds: float) -> int | None:
        until = time.monotonic() + patience_seconds
        while self._exit_code is None:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            if pid:
                self._exit_code = os.waitstatus_to_exitcode(status)
            elif time.monotonic() >= until:
                return None
            else:
                time.sleep(_MILLISECOND)
        return self._exit_code

    def end(self) -> None:
        if self._exit_code is None:
            os.kill(self._pid, signal.SIGKILL)
            _, status = os.waitpid(self._pid, 0)
            self._exit_code = os.waitstatus_to_exitcode(status)
        self.pipe.close()


def _serve_and_exit(serve: Callable[[Pipe], object], pipe: Pipe) -> NoReturn:
    """In the child: nothing of what the parent was about to do is done here."""
    status = 1
    try:
        sys.stdin = open(os.devnull)  # noqa: PTH123, SIM115 - the terminal is the parent's
        serve(pipe)
        status = 0
    except BaseException:  # noqa: BLE001 - the process ends here
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(status)


# --- spawned ---


class _SpawnedPipe(Pipe):
    def __init__(self, source: Connection) -> None:
        self.source = source

    def send(self, message: object) -> None:
        self.source.send(message)

    def receive(self) -> Any:
        return self.source.recv()

    def poll(self, seconds: float) -> bool:
        return self.source.poll(seconds)

    def close(self) -> None:
        self.source.close()


class _Spawned(Child):
    def __init__(self, serve: Callable[[Pipe], object]) -> None:
        import multiprocessing

        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        self.pipe = _SpawnedPipe(ours)
        self._process = context.Process(target=serve, args=(_SpawnedPipe(theirs),), name="memlint-worker", daemon=True)
        self._process.start()
        theirs.close()

    def is_alive(self) -> bool:
        return self._process.is_alive()

    def exit_code(self, patience_seconds: float) -> int | None:
        self._process.join(patience_seconds)
        return self._process.exitcode

    def end(self) -> None:
        self._process.kill()
        self._process.join()
        self._process.close()
        self.pipe.close()
