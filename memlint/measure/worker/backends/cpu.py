"""The backend `cpu`: code written for `cuda` runs for real on the CPU; what stands for device memory is labelled.

Code that never says `cuda` is measured as if all of its tensors were on the device.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import torch

from memlint.measure.devices import pretended
from memlint.measure.job import BackendName, Job
from memlint.measure.recording import AllocatorPeaks, Assumption, DeviceInfo, KernelChoice, Recording
from memlint.measure.worker import compat
from memlint.measure.worker.backend import Meter
from memlint.measure.worker.backends.autocast import cuda_autocast
from memlint.measure.worker.backends.composites import as_on_a_card, route
from memlint.measure.worker.backends.cuda_namespace import pretended_cuda
from memlint.measure.worker.backends.device_words import DeviceArguments, DeviceWords
from memlint.measure.worker.backends.fake.kernels import Routes
from memlint.measure.worker.backends.fake.patches import one_card
from memlint.measure.worker.backends.labels import Labels
from memlint.measure.worker.lines import Frames
from memlint.measure.worker.patching import Patches
from memlint.measure.worker.tracker import Tracker

EXCLUDED = (
    "the CUDA context, and workspaces of cuBLAS and cuDNN: there is no card",
    "what kernels allocate for themselves while they run",
)


def make(job: Job) -> CpuBackend:
    return CpuBackend(pretended(job.device))


class CpuBackend:
    """Operations run on the CPU, in the form that they have on a card."""

    name: BackendName = "cpu"

    def __init__(self, card: DeviceInfo) -> None:
        self.device = DeviceInfo(f"CPU ({platform.machine()})", card.total_bytes, card.capability)
        self._labels = Labels(self._said_cuda)
        self._routes = Routes(card.capability, Frames().innermost)
        self._meter: Meter | None = None

    @property
    def assumptions(self) -> list[Assumption]:
        if self._labels.ever:
            return []
        return [Assumption("nothing in this code says cuda: all of its tensors count as device memory", None)]

    @property
    def kernels(self) -> list[KernelChoice]:
        return self._routes.chosen()

    @property
    def excluded(self) -> list[str]:
        return list(EXCLUDED)

    def self_test(self) -> None:
        """Raises Unsupported where PyTorch's lists of autocast operations are not as known."""
        compat.cuda_autocast_lists()

    @contextmanager
    def running(self, meter: Meter) -> Iterator[None]:
        self._meter = meter
        with ExitStack() as stack:
            stack.enter_context(pretended_cuda(meter, self.device))
            patches = stack.enter_context(Patches())
            one_card(patches)
            self._labels.install(patches)
            DeviceWords(self._labels).install(patches)
            stack.enter_context(cuda_autocast())
            stack.enter_context(as_on_a_card(self._labels, self._routes))
            if isinstance(meter, Tracker):
                meter.sees_aliases = True
                patches.set(meter, "operate", self._labels.operate)
                patches.set(meter, "route", partial(route, self._labels, self._routes))
                patches.set(meter, "call", DeviceArguments(self._labels).call)
            else:
                stack.enter_context(self._labels)
                stack.enter_context(DeviceArguments(self._labels))
            yield

    def holds(self, tensor: torch.Tensor) -> bool:
        labels = self._labels
        return not labels.ever or labels.holds(tensor.untyped_storage())

    def step_ended(self, _number: int) -> AllocatorPeaks | None:
        return None

    def finish(self, _recording: Recording) -> None:
        return None

    def _said_cuda(self) -> None:
        if self._meter is not None:
            self._meter.forget()
        if isinstance(self._meter, Tracker):
            self._meter.sees_aliases = False
