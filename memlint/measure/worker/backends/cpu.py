"""The backend `cpu`: code written for `cuda` runs for real on the CPU; what stands for device memory is labelled.

Code that never says `cuda` is measured as if all of its tensors were on the device.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from memlint.measure.job import BackendName, Job
from memlint.measure.recording import AllocatorPeaks, Assumption, DeviceInfo, KernelChoice, Recording
from memlint.measure.worker.backend import Meter
from memlint.measure.worker.backends.cuda_namespace import pretended_cuda
from memlint.measure.worker.backends.device_words import DeviceArguments, speak_cuda
from memlint.measure.worker.backends.labels import Labels
from memlint.measure.worker.patching import Patches


def make(_job: Job) -> CpuBackend:
    return CpuBackend()


class CpuBackend:
    name: BackendName = "cpu"

    def __init__(self) -> None:
        self._labels = Labels(self._said_cuda)
        self._meter: Meter | None = None
        self.device = DeviceInfo(f"CPU ({platform.machine()})", 80 << 30, (9, 0))
        self.kernels: list[KernelChoice] = []
        self.excluded: list[str] = ["temporaries inside kernels"]

    @property
    def assumptions(self) -> list[Assumption]:
        if self._labels.ever:
            return []
        return [Assumption("nothing in this code says cuda: all of its tensors count as device memory", None)]

    def self_test(self) -> None:
        return None

    @contextmanager
    def running(self, meter: Meter) -> Iterator[None]:
        self._meter = meter
        with pretended_cuda(meter, self.device), Patches() as patches:
            speak_cuda(patches, self._labels)
            with self._labels, DeviceArguments(self._labels):
                yield

    def holds(self, tensor: torch.Tensor) -> bool:
        return not self._labels.ever or self._labels.on_device(tensor)

    def step_ended(self, _number: int) -> AllocatorPeaks | None:
        return None

    def finish(self, _recording: Recording) -> None:
        return None

    def _said_cuda(self) -> None:
        if self._meter is not None:
            self._meter.forget()
