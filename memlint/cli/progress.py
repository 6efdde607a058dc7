"""A progress bar on long runs, on a terminal only."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import TypeVar

_Result = TypeVar("_Result")

# A run that ends sooner is over before a bar says anything.
_SHOW_AFTER_SECONDS = 1.0


def with_progress(results: Iterator[_Result], total: int) -> Iterator[_Result]:
    """Pass the results on, and show on standard error how many of `total` have come."""
    if not sys.stderr.isatty():
        yield from results
        return
    started = time.monotonic()
    with ExitStack() as stack:
        bar: _Bar | None = None
        for done, result in enumerate(results, start=1):
            if bar is None and done < total and time.monotonic() - started > _SHOW_AFTER_SECONDS:
                bar = _Bar(total, stack)
            if bar is not None:
                bar.show(done)
            yield result


class _Bar:
    def __init__(self, total: int, stack: ExitStack) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        # Without a refreshing thread: a replacement worker is forked, and forking wants a single thread.
        self._progress = stack.enter_context(
            Progress(
                TextColumn("checking"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                auto_refresh=False,
                transient=True,
            )
        )
        self._task = self._progress.add_task("", total=total)

    def show(self, done: int) -> None:
        self._progress.update(self._task, completed=done, refresh=True)
