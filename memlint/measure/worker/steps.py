"""Where a step ends, seen from what the program calls.

* It trains with an optimizer: a step ends when the optimizer has stepped; with several (a GAN), when all of the step's
  have. Batches in between are gradient accumulation.
* Batches that pass without a backward pass are steps of an evaluation.
* Where there is neither an optimizer nor a loader, a step ends when the model is called again.
* A function that is called N times: a step is a call, unless the first call takes N steps by itself.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from typing import Any, Literal

_GONE = object()

Kind = Literal["training", "evaluation", "call"]


@dataclass(frozen=True)
class Mark:
    """A moment: the time of the event log, seconds of a clock, and what is alive."""

    time: int
    seconds: float
    allocated: int = 0
    """Bytes of device memory."""
    graph_nodes: int = 0
    """Autograd nodes."""


@dataclass(frozen=True)
class Span:
    """A step, before anything else is known of it."""

    kind: Kind
    start: Mark
    end: Mark
    unfinished: bool = False
    """The program ended in it."""


class Loaders:
    """Which loaders the training's batches come from, and when they are to end, so that the evaluation comes next."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._asked: dict[Hashable, weakref.ref[Any]] = {}
        """Loader -> its iterator, of those that were asked for a batch since an optimizer has stepped."""
        self._training: dict[Hashable, weakref.ref[Any]] = {}
        """The same of those that gave what was trained with."""

    def trained(self) -> None:
        """An optimizer has stepped."""
        self._training.update(self._asked)
        self._asked.clear()

    def is_over(self, iterator: object, trained: int, grad_enabled: bool) -> bool:
        """Whether this iterator over a loader is to give no more batches, after so many steps of training.

        Each further epoch has a step, for programs that count on one.
        """
        # Each loader has a sampler of its own; two loaders may share their data.
        loader = id(getattr(iterator, "_index_sampler", iterator))
        self._asked[loader] = weakref.ref(iterator)
        last = self._training.get(loader)
        return trained >= self._steps and grad_enabled and last is not None and last() is iterator


class Steps:
    """Told what the program does, in order; answers with the steps. Keys stand for objects, and are compared only."""

    def __init__(self, now: Callable[[], Mark]) -> None:
        self.spans: list[Span] = []
        self.closings = 0
        """How often a step was closed; a call takes back what closed inside."""
        self.has_optimizer = False
        """Whether the program has made one of PyTorch's optimizers."""
        self._now = now
        self._start: Mark | None = None
        """Where the open step began."""
        self._stepped: list[Hashable] = []
        """The optimizers that have stepped in the open step."""
        self._last_stepped: Mark | None = None
        self._expected: frozenset[Hashable] = frozenset()
        """The optimizers that closed the step before."""
        self._loader: Hashable | None = None
        self._module: Hashable | None = None
        self._differentiated = False
        """Since the last batch, or the last call of the model."""
        self._used = False
        """Whether a model has run since the last batch: who counts the words of a data set takes no step."""
        self._calls = 0
        self._before_call = 0

    @property
    def begun(self) -> bool:
        return self._start is not None

    def count(self, kind: Kind) -> int:
        return sum(span.kind == kind for span in self.spans)

    def optimizer_stepped(self, key: Hashable) -> None:
        now = self._begin()
        if key in self._stepped:
            self._close("training", self._last_stepped or now)
        self._stepped.append(key)
        self._last_stepped = now
        self._loader = None
        if self._expected and self._expected <= set(self._stepped):
            self._close("training", now)

    def gone(self, key: Hashable) -> None:
        """An optimizer or a model is no more: the program makes a new one each step."""
        if key in self._stepped and self._last_stepped is not None:
            self._close("training", self._last_stepped)
        if key == self._module:
            self._module = _GONE

    def backward_started(self) -> None:
        self._begin()
        self._differentiated = self._used = True

    def batch_asked(self, loader: Hashable) -> None:
        now = self._begin()
        if loader == self._loader and self._used and not self._stepped:
            self._close_without_optimizer(now)
        self._loader = loader
        self._differentiated = self._used = False

    def model_called(self, module: Hashable) -> None:
        now = self._begin()
        self._used = True
        if self.has_optimizer or self._loader is not None:
            return
        if self._module is None:
            self._module = module
        elif self._module in {module, _GONE}:
            self._module = module
            self._close_without_optimizer(now)
            self._differentiated = False

    def call_started(self) -> None:
        self._begin()
        self._before_call = len(self.spans)
        self._calls += 1

    def call_ended(self) -> None:
        """What the hooks saw inside the call is not a step: the call is."""
        start = self._begin()
        if len(self.spans) > self._before_call:
            start = self.spans[self._before_call].start
            del self.spans[self._before_call :]
        elif self._start is not None:
            start = self._start
        self._start = start
        self._close("call", self._now())

    def ended(self, last: Mark) -> None:
        """The target has ended: the model's last call is a step, too, up to the last operation. What came after is the
        end of the program's own variables."""
        if self._module is not None and self._start is not None and not self._stepped and last.time > self._start.time:
            self._close_without_optimizer(last)
            self.spans[-1] = replace(self.spans[-1], unfinished=True)

    def _begin(self) -> Mark:
        now = self._now()
        if self._start is None:
            self._start = now
        return now

    def _close_without_optimizer(self, now: Mark) -> None:
        if not self._differentiated:
            self._close("evaluation", now)
        elif not self.has_optimizer:
            self._close("training", now)

    def _close(self, kind: Kind, end: Mark) -> None:
        assert self._start is not None
        self.closings += 1
        self.spans.append(Span(kind, self._start, end))
        self._start = end
        if kind == "training":
            self._expected = frozenset(self._stepped)
        self._stepped.clear()
