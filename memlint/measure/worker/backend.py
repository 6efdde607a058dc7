"""What a backend is: how device tensors come about, and which storages count as device memory."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

import torch

from memlint.measure.job import BackendName
from memlint.measure.recording import AllocatorPeaks, Assumption, DeviceInfo, KernelChoice, Recording


class Unsupported(Exception):  # noqa: N818 - says what happened
    """This backend cannot do what the target asks. The text says what; `advice` which backend to try."""

    def __init__(self, what: str, advice: str = "") -> None:
        super().__init__(what)
        self.advice = advice


class Meter(Protocol):
    """What the tracker knows while it runs: the answers of `torch.cuda.memory_allocated()` and its kin, in bytes."""

    @property
    def allocated(self) -> int: ...

    @property
    def peak(self) -> int: ...

    def reset_peak(self) -> None: ...

    def forget(self) -> None:
        """What was seen so far turned out to be host memory."""


class Backend(Protocol):
    """One way to run code that says `cuda`.

    `running` is entered before the tracker's own mode and so works below it: the tracker sees the results of an
    operation after the backend has made or labelled them.
    """

    name: BackendName

    def self_test(self) -> None:
        """Raise Unsupported where a wrong number would come out: before any user code runs."""

    def running(self, meter: Meter) -> AbstractContextManager[None]:
        """Patches and modes, for as long as user code runs."""

    def holds(self, tensor: torch.Tensor) -> bool:
        """Whether the tensor's storage is device memory."""

    def step_ended(self, number: int, /) -> AllocatorPeaks | None:
        """What the allocator counted since the step before ended, where there is one."""

    def finish(self, recording: Recording, /) -> None:
        """Add what only the backend knows, when the run is over."""

    @property
    def device(self) -> DeviceInfo: ...

    @property
    def assumptions(self) -> list[Assumption]: ...

    @property
    def kernels(self) -> list[KernelChoice]: ...

    @property
    def excluded(self) -> list[str]: ...
