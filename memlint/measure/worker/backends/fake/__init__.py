"""Backend `fake`: the peak of a run on a card, predicted on a machine without one."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from memlint.measure.devices import CARDS, pretended
from memlint.measure.job import BackendName, Job
from memlint.measure.recording import Assumption, DeviceInfo, KernelChoice, Place, Recording
from memlint.measure.worker import compat
from memlint.measure.worker.backend import Meter, Unsupported
from memlint.measure.worker.backends.cuda_namespace import pretended_cuda
from memlint.measure.worker.backends.fake.host_memory import HostMemory
from memlint.measure.worker.backends.fake.kernels import Routes
from memlint.measure.worker.backends.fake.mode import Calls, OnlyCudaIsFake
from memlint.measure.worker.backends.fake.patches import patched_tensors
from memlint.measure.worker.backends.fake.selftest import check
from memlint.measure.worker.backends.fake.values import Assumptions, KnownValues
from memlint.measure.worker.backends.fake.workspaces import UsedWorkspaces
from memlint.measure.worker.lines import Frames, running_node_place
from memlint.measure.worker.patching import Patches
from memlint.measure.worker.tracker import Tracker
from memlint.measure.workspaces import Workspaces

EXCLUDED = (
    "the CUDA context (hundreds of MiB outside PyTorch's allocator)",
    "workspaces of cuDNN; those of cuBLAS are not in the allocated peak, but beside it, and in the reserved one",
    "what kernels allocate for themselves while they run (sorts, convolution searches, attention's backward pass)",
    "cuDNN's reserve space of recurrent layers: predicted by PyTorch's own CUDA cells",
    "NCCL's buffers and other libraries that do not allocate through PyTorch",
    "torch.compile: compiled regions run eagerly, and their peak is that of eager code",
)


class FakeBackend:
    """Tensors on `cuda` have shapes and no values; everything on the host is real."""

    name: BackendName = "fake"

    def __init__(self, device: DeviceInfo) -> None:
        self._device = device
        frames = Frames()

        def place() -> Place | None:
            return frames.innermost() or running_node_place()

        self._assumptions = Assumptions(place)
        self._host = HostMemory(place)
        self._routes = Routes(device.capability, place)
        self._workspaces: UsedWorkspaces | None = None

    def self_test(self) -> None:
        """Raises Unsupported where this torch cannot pretend, or a known program's peak comes out wrong."""
        compat.self_test(lambda: check(self))

    @contextmanager
    def running(self, meter: Meter) -> Iterator[None]:
        with ExitStack() as stack:
            stack.enter_context(compat.cuda_without_a_card())
            stack.enter_context(pretended_cuda(meter, self._device))
            stack.enter_context(compat.fake_cuda_tensors())
            stack.enter_context(patched_tensors())
            patches = stack.enter_context(Patches())
            patches.set(torch, "load", self._host.loading(torch.load))
            stack.callback(register_optimizer_step_pre_hook(_refuse_line_searches).remove)
            stack.enter_context(self._routes.registered())
            stack.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", message="Accessing the data pointer of FakeTensor")
            stack.enter_context(compat.fake_errors_told_once())
            mode = OnlyCudaIsFake(KnownValues(), self._assumptions, self._routes, self._host)
            stack.enter_context(mode)
            stack.enter_context(Calls(mode))
            if isinstance(meter, Tracker):
                mode.workspaces = self._workspaces = UsedWorkspaces(Workspaces.of(self._device.capability), meter.time)
                patches.set(meter, "route", self._route)
            yield

    def _route(self, operator: Any) -> Callable[..., Any] | None:
        """What runs in the place of an operator that PyTorch leaves whole, as it does in inference mode."""
        route = self._routes.whole(operator)
        if route is None:
            return None

        def run(*args: Any, **kwargs: Any) -> Any:
            return (route if isinstance(args[0], compat.FakeTensor) else operator)(*args, **kwargs)

        return run

    def holds(self, tensor: torch.Tensor) -> bool:
        return isinstance(tensor, compat.FakeTensor) and tensor.device.type == "cuda"

    def step_ended(self, _number: int) -> None:
        """There is no allocator to ask."""

    def finish(self, recording: Recording) -> None:
        if self._workspaces is not None:
            last = len(recording.events)
            recording.workspaces = [made for made in self._workspaces.made if made.born <= last]

    @property
    def device(self) -> DeviceInfo:
        return self._device

    @property
    def assumptions(self) -> list[Assumption]:
        return self._assumptions.listed()

    @property
    def kernels(self) -> list[KernelChoice]:
        return self._routes.chosen()

    @property
    def excluded(self) -> list[str]:
        return list(EXCLUDED)


def _refuse_line_searches(optimizer: torch.optim.Optimizer, _args: Any, _kwargs: Any) -> None:
    """Raises Unsupported for L-BFGS: values decide how many iterations a step has, and what its history keeps."""
    parameters = (parameter for group in optimizer.param_groups for parameter in group["params"])
    if isinstance(optimizer, torch.optim.LBFGS) and any(isinstance(item, compat.FakeTensor) for item in parameters):
        raise Unsupported("how much L-BFGS keeps depends on values, which prediction does not have")


def make(job: Job) -> FakeBackend:
    """Raises Unsupported for a card that memlint does not know."""
    try:
        return FakeBackend(pretended(job.device))
    except KeyError as error:
        raise Unsupported(f"no card is called {job.device}", f"one of {', '.join(CARDS)}") from error
