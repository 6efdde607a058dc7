"""Backend `cuda`: a real step on the GPU, counted by CUDA's caching allocator; the tracker runs beside it.

It has not run on a GPU yet: its tests put stand-ins in the place of `torch.cuda` and `pynvml`.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch

from memlint.measure.job import BackendName, Job, Layer
from memlint.measure.recording import AllocatorPeaks, Assumption, DeviceInfo, KernelChoice, OutOfMemory, Recording
from memlint.measure.worker import compat
from memlint.measure.worker.backend import Meter, Unsupported
from memlint.measure.worker.nvml import Card, ProcessWatch
from memlint.measure.worker.patching import Patches
from memlint.measure.worker.tracker import Tracker


def make(job: Job) -> CudaBackend:
    return CudaBackend(keep_history=Layer.MEMORY_HISTORY in job.layers)


class CudaBackend:
    """The first visible card. What a program does on others is not counted."""

    name: BackendName = "cuda"

    def __init__(self, *, keep_history: bool, cuda: Any = torch.cuda, nvml: ModuleType | None = None) -> None:
        self._cuda = cuda
        self._nvml = nvml or _pynvml()
        self._keep_history = keep_history
        self._peaks = Peaks(cuda)
        self._watch: ProcessWatch | None = None
        self._out_of_memory: OutOfMemory | None = None
        self.assumptions: list[Assumption] = []
        self.kernels: list[KernelChoice] = []

    def self_test(self) -> None:
        """Raises Unsupported where torch has no GPU to use."""
        if not self._cuda.is_available():
            raise Unsupported("torch finds no GPU that it can use", "try `--backend fake`, which predicts for one")

    @contextmanager
    def running(self, meter: Meter) -> Iterator[None]:
        self._open_context()
        if isinstance(meter, Tracker) and torch.are_deterministic_algorithms_enabled():
            meter.operate = _strictly
        compat.on_out_of_memory(self._ran_out)
        if self._keep_history:
            compat.record_memory_history()
        with self._peaks.counted_for_the_program():
            yield

    def holds(self, tensor: torch.Tensor) -> bool:
        return bool(tensor.device.type == "cuda" and tensor.device.index == 0)

    def step_ended(self, _number: int) -> AllocatorPeaks:
        self._cuda.synchronize()
        if self._watch is not None:
            self._watch.look()
        return self._peaks.take()

    def finish(self, recording: Recording) -> None:
        if self._watch is not None:
            self._watch.look()
            recording.process = self._watch.memory()
        if self._keep_history:
            recording.memory_history = pickle.dumps(compat.memory_history())
        recording.out_of_memory = self._out_of_memory

    @property
    def device(self) -> DeviceInfo:
        card = self._cuda.get_device_properties(0)
        return DeviceInfo(card.name, card.total_memory, (card.major, card.minor))

    @property
    def excluded(self) -> list[str]:
        excluded = ["memory that libraries take outside PyTorch's allocator: the CUDA context, NCCL"]
        if self._watch is None:
            excluded.append("what the process takes of the card in all: NVML cannot be asked (install nvidia-ml-py)")
        if self._cuda.device_count() > 1:
            excluded.append(f"the other {self._cuda.device_count() - 1} visible cards")
        return excluded

    def _open_context(self) -> None:
        """Make the CUDA context, with a look at the card before and after."""
        card = None if self._nvml is None else Card.open(str(self._cuda.get_device_properties(0).uuid), self._nvml)
        if card is not None:
            self._watch = ProcessWatch(card)
        self._cuda.synchronize()
        if self._watch is not None:
            self._watch.context_created()

    def _ran_out(self, _device: int, requested: int, _total: int, free: int) -> None:
        """The last time counts: a program may catch the error and go on."""
        stats = self._peaks.stats()
        allocated, reserved = stats["allocated_bytes.all.current"], stats["reserved_bytes.all.current"]
        self._out_of_memory = OutOfMemory(requested, free, allocated, reserved, self._peaks.so_far())


class Peaks:
    """The allocator's peaks since a step ended, and beside them those that the program asks for and resets itself."""

    def __init__(self, cuda: Any) -> None:
        self._cuda = cuda
        self._stats = cuda.memory.memory_stats
        self._reset = cuda.memory.reset_peak_memory_stats
        self._of_step: dict[str, int] = {}
        self._of_program: dict[str, int] = {}

    def take(self) -> AllocatorPeaks:
        """The peaks since the last time, or since the process began."""
        taken = self.so_far()
        self._harvest()
        self._of_step = {}
        return taken

    def so_far(self) -> AllocatorPeaks:
        """The same, without an end to it."""
        stats = self.stats()
        keys = [f"{kind}_bytes.all.peak" for kind in _KINDS]
        return AllocatorPeaks(*(max(stats[key], self._of_step.get(key, 0)) for key in keys))

    def stats(self) -> dict[str, Any]:
        """The allocator's own statistics, peaks of the step that is running."""
        stats: dict[str, Any] = self._stats(0)
        return stats

    @contextmanager
    def counted_for_the_program(self) -> Iterator[None]:
        """While it runs, `torch.cuda` answers as if nobody but the program had reset its peaks."""
        with Patches() as patches:
            # `torch.accelerator` counts with the same allocator.
            for module in (self._cuda, self._cuda.memory, torch.accelerator, torch.accelerator.memory):
                patches.set(module, "memory_stats", self._memory_stats)
                patches.set(module, "reset_peak_memory_stats", self._reset_peak_memory_stats)
            yield

    def _harvest(self) -> None:
        for key, value in self.stats().items():
            if key.endswith(".peak"):
                self._of_step[key] = max(value, self._of_step.get(key, 0))
                self._of_program[key] = max(value, self._of_program.get(key, 0))
        self._reset(0)

    def _memory_stats(self, device: Any = None) -> dict[str, Any]:
        stats: dict[str, Any] = self._stats(device)
        if self._is_ours(device):
            stats.update({key: max(value, stats[key]) for key, value in self._of_program.items()})
        return stats

    def _reset_peak_memory_stats(self, device: Any = None) -> None:
        if not self._is_ours(device):
            self._reset(device)
            return
        self._harvest()
        self._of_program = {}

    def _is_ours(self, device: Any) -> bool:
        if device is None:
            return bool(self._cuda.current_device() == 0)
        return (device if isinstance(device, int) else torch.device(device).index or 0) == 0


_KINDS = ("allocated", "reserved", "requested", "active")

_ATTENTION_BACKWARD = frozenset(
    getattr(torch.ops.aten, f"_scaled_dot_product_{kind}_attention_backward").default for kind in ("flash", "efficient")
)


def _strictly(operator: Any, args: Any, kwargs: Any) -> Any:
    """Run an operation, and fused attention's backward pass in its deterministic form.

    It has one, and takes it only where `warn_only` is off (`_flash_attention_backward` in attention_backward.cu).
    """
    lenient = torch.is_deterministic_algorithms_warn_only_enabled()
    if operator not in _ATTENTION_BACKWARD or not lenient:
        return operator(*args, **(kwargs or {}))
    torch.use_deterministic_algorithms(True, warn_only=False)
    try:
        return operator(*args, **(kwargs or {}))
    finally:
        torch.use_deterministic_algorithms(True, warn_only=True)


def _pynvml() -> ModuleType | None:
    try:
        import pynvml
    except ImportError:
        return None
    return pynvml  # type: ignore[no-any-return]
