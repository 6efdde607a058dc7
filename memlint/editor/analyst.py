"""Analysis off the protocol's loop: one process works, one thread feeds it, newer texts replace older ones."""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from memlint.linting.finding import FileResult, FixResult
from memlint.linting.policy import Policy
from memlint.linting.pool import Lost, WorkerDidNotStart, run_files


@dataclass(frozen=True)
class Task:
    """A text to check or to fix. `epoch` grows when something else on disk has changed, which is then read anew."""

    kind: Literal["check", "fix"]
    path: str
    content: bytes
    policy: Policy
    epoch: int


class Superseded(Exception):  # noqa: N818 - says what happened
    """A newer version of the text was handed in before this one was begun."""


@dataclass(frozen=True)
class _Order:
    task: Task
    future: asyncio.Future[FileResult | FixResult]


class Analyst:
    """Works off tasks, the oldest first. Belongs to the event loop that it is made in."""

    def __init__(self, *, timeout_seconds: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._timeout = timeout_seconds
        self._waiting: OrderedDict[tuple[str, str], _Order] = OrderedDict()
        self._taken: deque[_Order] = deque()
        self._changed = threading.Condition()
        self._ended = False
        self._failure: FileResult | None = None
        """Why nothing can be worked off any more."""
        self._thread = threading.Thread(target=self._work, name="memlint-analyst", daemon=True)
        self._thread.start()

    async def check(self, task: Task) -> FileResult:
        """Raises Superseded."""
        result = await self._ordered(task)
        assert isinstance(result, FileResult)
        return result

    async def fix(self, task: Task) -> FixResult:
        """Raises Superseded."""
        result = await self._ordered(task)
        assert isinstance(result, FixResult)
        return result

    def end(self) -> None:
        """Take no more tasks; the process ends with the one that it has."""
        with self._changed:
            self._ended = True
            self._changed.notify()

    async def _ordered(self, task: Task) -> FileResult | FixResult:
        order = _Order(task, self._loop.create_future())
        with self._changed:
            if self._failure is not None:
                return _in_kind(task, self._failure)
            superseded = self._waiting.pop((task.kind, task.path), None)
            self._waiting[task.kind, task.path] = order
            self._changed.notify()
        if superseded is not None and not superseded.future.done():
            superseded.future.set_exception(Superseded)
        return await order.future

    def _work(self) -> None:
        try:
            # This process has threads, with which forking is not safe.
            outcomes = run_files(self._tasks(), work, timeout=self._timeout, prepare=prepare, start_method="spawn")
            for outcome in outcomes:
                order = self._taken.popleft()
                result = _lost(outcome) if isinstance(outcome, Lost) else outcome
                self._loop.call_soon_threadsafe(_settle, order.future, result)
        except WorkerDidNotStart as error:
            trouble = FileResult("", trouble=str(error))
            with self._changed:
                self._failure = trouble
                left = [*self._taken, *self._waiting.values()]
            for order in left:
                self._loop.call_soon_threadsafe(_settle, order.future, _in_kind(order.task, trouble))

    def _tasks(self) -> Iterator[Task]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._ended)
                if self._ended:
                    return
                _, order = self._waiting.popitem(last=False)
            self._taken.append(order)
            yield order.task


def _settle(future: asyncio.Future[FileResult | FixResult], result: FileResult | FixResult) -> None:
    if not future.done():
        future.set_result(result)


def _lost(lost: Lost[Task]) -> FileResult | FixResult:
    return _in_kind(lost.job, FileResult(lost.job.path, trouble=f"the check broke off ({lost.reason}): {lost.detail}"))


def _in_kind(task: Task, trouble: FileResult) -> FileResult | FixResult:
    return trouble if task.kind == "check" else FixResult(task.path, task.content, task.content, {}, trouble)


_epoch = 0


def prepare() -> None:
    """In the worker: what takes long to import is there before the first text is."""
    import memlint.linting.lint  # noqa: F401
    from memlint.linting.registry import rule_classes

    rule_classes()


def work(task: Task) -> FileResult | FixResult:
    """In the worker."""
    global _epoch  # noqa: PLW0603 - the worker's own
    from memlint.linting.lint import fix, forget_projects, lint

    if task.epoch != _epoch:
        forget_projects()
        _epoch = task.epoch
    if task.kind == "check":
        return lint(task.path, task.content, task.policy)
    return fix(task.path, task.content, task.policy, unsafe=False)
