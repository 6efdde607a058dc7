"""Threads that the program starts are followed: PyTorch's modes belong to the thread that entered them."""

from __future__ import annotations

import functools
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from memlint.measure.worker.patching import Patches

_SIGNAL = signal.SIGURG
"""Ignored unless somebody asks for it, and nobody does."""


@contextmanager
def followed_threads(follow: Callable[[Callable[[], None]], None]) -> Iterator[None]:
    """Have `follow` run each `threading.Thread` that is started in the block. Pools start such threads, too."""
    start = threading.Thread.start

    @functools.wraps(start)
    def start_followed(thread: threading.Thread) -> None:
        run = thread.run

        def run_followed() -> None:
            del vars(thread)["run"]  # a cycle, which nobody would collect
            follow(run)

        vars(thread)["run"] = run_followed
        start(thread)

    with Patches() as patches:
        patches.set(threading.Thread, "start", start_followed)
        yield


@contextmanager
def woken_by_a_signal(error: type[BaseException]) -> Iterator[None]:
    """In the block, `wake_main_thread` raises the error in the main thread, which may be waiting for another one."""

    def wake(_number: int, _frame: FrameType | None) -> None:
        raise error

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(_SIGNAL, wake)
    try:
        yield
    finally:
        signal.signal(_SIGNAL, before)


def wake_main_thread() -> None:
    main = threading.main_thread().ident
    if main is not None and callable(signal.getsignal(_SIGNAL)):
        signal.pthread_kill(main, _SIGNAL)
