"""The backend `cuda` with stand-ins for `torch.cuda` and `pynvml`: no test here has seen a GPU."""

from __future__ import annotations

import os
import pickle
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from recordings import MIB, leaking_training

from memlint.measure.recording import AllocatorPeaks, DeviceInfo, OutOfMemory, ProcessMemory
from memlint.measure.worker import compat
from memlint.measure.worker.backend import Unsupported
from memlint.measure.worker.backends import cuda as cuda_backend
from memlint.measure.worker.backends.cuda import CudaBackend, Peaks
from memlint.measure.worker.nvml import Card, ProcessWatch
from memlint.measure.worker.tracker import Tracker

UUID = "5f9c0d7e-0000-1111-2222-333344445555"
CONTEXT = 400 * MIB


class Allocator:
    """`torch.cuda.memory`, as far as it counts."""

    def __init__(self) -> None:
        self.current = dict.fromkeys(("allocated", "reserved", "requested", "active"), 0)
        self.peak = dict(self.current)

    def hold(self, allocated: int, reserved: int, requested: int) -> None:
        self.current = {"allocated": allocated, "reserved": reserved, "requested": requested, "active": allocated}
        self.peak = {kind: max(self.peak[kind], size) for kind, size in self.current.items()}

    def memory_stats(self, device: Any = None) -> dict[str, int]:
        if device not in {None, 0}:
            return {"allocated_bytes.all.peak": 7}
        return {
            f"{kind}_bytes.all.{what}": values[kind]
            for what, values in (("current", self.current), ("peak", self.peak))
            for kind in values
        }

    def reset_peak_memory_stats(self, device: Any = None) -> None:
        if device in {None, 0}:
            self.peak = dict(self.current)

    def max_memory_allocated(self) -> int:
        """As torch's does, it looks the statistics up in its own module."""
        return self.memory_stats()["allocated_bytes.all.peak"]


@dataclass
class Nvml:
    """`pynvml` of a card with other processes on it. What is in `refuses` raises."""

    processes: dict[int, int | None] = field(default_factory=dict)
    used: int = 0
    refuses: frozenset[str] = frozenset()

    class NVMLError(Exception):
        pass

    def _may(self, what: str) -> None:
        if what in self.refuses:
            raise self.NVMLError(what)

    def nvmlInit(self) -> None:  # noqa: N802 - its name
        self._may("init")

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        self._may("handle")
        self._may(uuid.partition("-")[0])
        assert uuid.endswith(UUID)
        return uuid

    def nvmlDeviceGetMemoryInfo(self, _handle: str) -> SimpleNamespace:  # noqa: N802
        self._may("memory")
        return SimpleNamespace(used=self.used)

    def nvmlDeviceGetComputeRunningProcesses(self, _handle: str) -> list[SimpleNamespace]:  # noqa: N802
        self._may("processes")
        return [SimpleNamespace(pid=pid, usedGpuMemory=size) for pid, size in self.processes.items()]

    def nvmlDeviceGetGraphicsRunningProcesses(self, _handle: str) -> list[SimpleNamespace]:  # noqa: N802
        self._may("processes")
        return []

    def nvmlSystemGetProcessName(self, pid: int) -> bytes:  # noqa: N802
        self._may("names")
        return f"process-{pid}".encode()


class Cuda:
    """`torch.cuda` of one card. The context comes with the first `synchronize`, under the number `host_pid`."""

    def __init__(self, nvml: Nvml | None = None, host_pid: int | None = None) -> None:
        self.memory = Allocator()
        self.memory_stats = self.memory.memory_stats
        self.reset_peak_memory_stats = self.memory.reset_peak_memory_stats
        self.nvml, self.host_pid = nvml, host_pid
        self.synchronized = 0
        self.available = True

    def is_available(self) -> bool:
        return self.available

    def device_count(self) -> int:
        return 2

    def current_device(self) -> int:
        return 0

    def get_device_properties(self, _device: int) -> SimpleNamespace:
        return SimpleNamespace(name="NVIDIA H200", total_memory=141 * 2**30, major=9, minor=0, uuid=UUID)

    def synchronize(self) -> None:
        if not self.synchronized and self.nvml is not None:
            self.nvml.used += CONTEXT
            if self.host_pid is not None:
                self.nvml.processes[self.host_pid] = CONTEXT
        self.synchronized += 1

    def reserve(self, size: int) -> None:
        """What the allocator took from the driver, as NVML sees it."""
        assert self.nvml is not None
        self.nvml.used += size
        if self.host_pid is not None:
            self.nvml.processes[self.host_pid] = (self.nvml.processes[self.host_pid] or 0) + size


class Idle:
    """A meter that nobody asks."""

    allocated = peak = 0

    def reset_peak(self) -> None: ...

    def forget(self) -> None: ...


@pytest.fixture(autouse=True)
def observers(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is told when memory runs out: this build of torch has nobody to tell."""
    found: list[Any] = []
    monkeypatch.setattr(compat, "on_out_of_memory", found.append)
    return found


def backend_on(cuda: Cuda, nvml: Nvml | None, *, keep_history: bool = False) -> CudaBackend:
    return CudaBackend(keep_history=keep_history, cuda=cuda, nvml=nvml or Nvml(refuses=frozenset({"init"})))  # type: ignore[arg-type]


def test_without_a_gpu_it_refuses_and_names_another_backend() -> None:
    cuda = Cuda()
    cuda.available = False
    with pytest.raises(Unsupported) as refusal:
        backend_on(cuda, None).self_test()
    assert "--backend fake" in refusal.value.advice


def test_the_card_and_what_is_left_out() -> None:
    backend = backend_on(Cuda(), None)
    backend.self_test()
    assert backend.device == DeviceInfo("NVIDIA H200", 141 * 2**30, (9, 0))
    assert any("nvidia-ml-py" in item for item in backend.excluded)
    assert any("other 1 visible" in item for item in backend.excluded)


def test_each_step_has_its_own_peaks_and_the_first_has_the_set_up_s() -> None:
    cuda = Cuda()
    backend = backend_on(cuda, None)
    with backend.running(Idle()):
        cuda.memory.hold(500, 900, 480)
        cuda.memory.hold(100, 900, 90)
        cuda.memory.hold(300, 900, 290)
        assert backend.step_ended(0) == AllocatorPeaks(500, 900, 480, 500)
        cuda.memory.hold(400, 1000, 390)
        cuda.memory.hold(100, 1000, 90)
        assert backend.step_ended(1) == AllocatorPeaks(400, 1000, 390, 400)
        assert backend.step_ended(2) == AllocatorPeaks(100, 1000, 90, 100)
    assert cuda.synchronized == 4


def test_a_program_that_asks_for_its_peak_is_told_its_own() -> None:
    cuda = Cuda()
    backend = backend_on(cuda, None)
    with backend.running(Idle()):
        cuda.memory.hold(500, 900, 480)
        cuda.memory.hold(100, 900, 90)
        backend.step_ended(0)
        assert cuda.memory.max_memory_allocated() == 500
        cuda.reset_peak_memory_stats()
        assert cuda.memory.max_memory_allocated() == 100
        cuda.memory.hold(200, 900, 190)
        backend.step_ended(1)
        cuda.memory.hold(50, 900, 40)
        assert cuda.memory_stats()["allocated_bytes.all.peak"] == 200
    assert cuda.memory.memory_stats == cuda.memory_stats


def test_a_program_that_resets_the_peak_takes_none_from_the_step() -> None:
    cuda = Cuda()
    backend = backend_on(cuda, None)
    with backend.running(Idle()):
        cuda.memory.hold(500, 900, 480)
        cuda.memory.hold(100, 900, 90)
        cuda.memory.reset_peak_memory_stats()
        cuda.memory.hold(200, 900, 190)
        assert backend.step_ended(0) == AllocatorPeaks(500, 900, 480, 500)


def test_a_reset_by_torch_accelerator_takes_none_from_the_step_either() -> None:
    cuda = Cuda()
    backend = backend_on(cuda, None)
    with backend.running(Idle()):
        cuda.memory.hold(500, 900, 480)
        cuda.memory.hold(100, 900, 90)
        assert torch.accelerator.memory_stats()["allocated_bytes.all.peak"] == 500
        torch.accelerator.reset_peak_memory_stats()
        assert torch.accelerator.max_memory_allocated() == 100
        assert backend.step_ended(0) == AllocatorPeaks(500, 900, 480, 500)


@pytest.mark.parametrize("device", [1, "cuda:1", torch.device("cuda", 1)])
def test_other_cards_are_left_alone(device: Any) -> None:
    cuda = Cuda()
    peaks = Peaks(cuda)
    with peaks.counted_for_the_program():
        cuda.memory.hold(500, 900, 480)
        cuda.memory.reset_peak_memory_stats(device)
        assert peaks.take() == AllocatorPeaks(500, 900, 480, 500)


def test_tensors_of_the_first_card_are_held() -> None:
    backend = backend_on(Cuda(), None)
    assert not backend.holds(torch.ones(1))
    assert backend.holds(SimpleNamespace(device=torch.device("cuda", 0)))
    assert not backend.holds(SimpleNamespace(device=torch.device("cuda", 1)))


def process_after(nvml: Nvml, host_pid: int | None, *, meanwhile: Any = None) -> ProcessMemory | None:
    """What the recording says of a run that reserves 1 GiB in its first step."""
    cuda = Cuda(nvml, host_pid)
    backend = backend_on(cuda, nvml)
    recording = leaking_training("train.py")
    with backend.running(Idle()):
        cuda.memory.hold(500, 900, 480)
        cuda.reserve(1024 * MIB)
        if meanwhile is not None:
            meanwhile()
        backend.step_ended(0)
    backend.finish(recording)
    return recording.process


def test_the_process_and_its_context() -> None:
    nvml = Nvml({4711: 3 * MIB}, used=3 * MIB)
    assert process_after(nvml, os.getpid()) == ProcessMemory(
        CONTEXT + 1024 * MIB, CONTEXT, ((4711, "process-4711", 3 * MIB),)
    )


def test_in_a_container_the_process_has_another_number() -> None:
    nvml = Nvml({4711: None}, used=3 * MIB)
    assert process_after(nvml, 8_000_001) == ProcessMemory(
        CONTEXT + 1024 * MIB, CONTEXT, ((4711, "process-4711", None),)
    )


def test_where_no_process_is_named_the_whole_card_s_use_counts() -> None:
    assert process_after(Nvml(used=3 * MIB), None) == ProcessMemory(CONTEXT + 1024 * MIB, CONTEXT, by_difference=True)


def test_whoever_comes_later_is_another_process() -> None:
    nvml = Nvml()
    memory = process_after(nvml, os.getpid(), meanwhile=lambda: nvml.processes.update({99: 5 * MIB}))
    assert memory is not None
    assert memory.other_processes == ((99, "process-99", 5 * MIB),)


@pytest.mark.parametrize(
    ("refused", "expected"),
    [
        ({"init"}, None),
        ({"handle"}, None),
        ({"memory", "processes"}, ProcessMemory(None, None, by_difference=True)),
        ({"names", "GPU"}, ProcessMemory(CONTEXT + 1024 * MIB, CONTEXT, ((4711, "unknown", MIB),))),
    ],
)
def test_what_nvml_will_not_say_is_unknown(refused: set[str], expected: ProcessMemory | None) -> None:
    assert process_after(Nvml({4711: MIB}, refuses=frozenset(refused)), os.getpid()) == expected


def test_two_that_appear_at_once_are_told_apart_by_our_own_number() -> None:
    nvml = Nvml()
    card = Card.open(UUID, nvml)
    assert card is not None
    watch = ProcessWatch(card)
    nvml.processes |= {os.getpid(): 10, 99: 20}
    watch.context_created()
    watch.look()
    assert watch.memory() == ProcessMemory(10, 10, ((99, "process-99", 20),))


def test_where_the_card_ran_out(observers: list[Any]) -> None:
    cuda = Cuda()
    backend = backend_on(cuda, None)
    recording = leaking_training("train.py")
    with backend.running(Idle()):
        cuda.memory.hold(600, 900, 580)
        cuda.memory.reset_peak_memory_stats()
        cuda.memory.hold(500, 900, 480)
        (observer,) = observers
        observer(0, 4096, 2**30, 1024)
    backend.finish(recording)
    assert recording.out_of_memory == OutOfMemory(4096, 1024, 500, 900, AllocatorPeaks(600, 900, 580, 600))


def test_the_history_is_torch_s_own_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    noted = []
    monkeypatch.setattr(compat, "record_memory_history", lambda: noted.append("started"))
    monkeypatch.setattr(compat, "memory_history", lambda: {"segments": [], "device_traces": [[]]})
    backend = backend_on(Cuda(), None, keep_history=True)
    recording = leaking_training("train.py")
    with backend.running(Idle()):
        assert noted == ["started"]
    backend.finish(recording)
    assert recording.memory_history is not None
    assert pickle.loads(recording.memory_history) == {"segments": [], "device_traces": [[]]}


def test_where_results_are_to_repeat_attention_s_backward_pass_is_told_strictly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It goes by a switch that would make others raise: a program may ask for what has no deterministic kernel."""
    seen = []

    def operator(name: str) -> Any:
        def run(*_args: Any, **_kwargs: Any) -> str:
            seen.append((name, torch.is_deterministic_algorithms_warn_only_enabled()))
            return name

        return run

    fused, other = operator("fused"), operator("other")
    monkeypatch.setattr(cuda_backend, "_ATTENTION_BACKWARD", {fused})
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        backend = backend_on(Cuda(), None)
        tracker = Tracker(backend, None)
        with backend.running(tracker):
            assert tracker.operate(fused, (), None) == "fused"
            assert tracker.operate(other, (), {}) == "other"
        assert torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
    assert seen == [("fused", False), ("other", True)]
