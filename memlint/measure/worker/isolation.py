"""Makes a run repeatable and harmless: seeds, no loader workers, nothing saved, nothing logged, nothing uploaded."""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import random
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import torch

from memlint.measure.worker.backend import Unsupported
from memlint.measure.worker.imports import Patch

# What needs worker processes: without them these options are refused, or mean nothing.
_WORKER_OPTIONS = {
    "num_workers": 0,
    "prefetch_factor": None,
    "persistent_workers": False,
    "multiprocessing_context": None,
    "timeout": 0,
}


_OTHER_ATTENTION = "measure with `scaled_dot_product_attention` in its place"
_ONE_PROCESS = "measure what one process does alone: the script without its launcher, or `pkg.mod:function` for a step"


def seed(number: int) -> None:
    """Seed Python, numpy (where it is installed) and torch with every device."""
    random.seed(number)
    torch.manual_seed(number)
    numpy = sys.modules.get("numpy")  # torch has imported it where it is installed
    if numpy is not None:
        numpy.random.seed(number % 2**32)


def be_deterministic() -> None:
    """Kernels that give the same bits each time, where there are some: pytorch.org/docs/stable/notes/randomness.html.

    They may need more memory than the others, so a run with them is not the one that is priced. Of the fused kernels of
    attention, cuDNN's has no such backward pass, and the others need to be told (`backends.cuda`).
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = False
    torch.backends.cuda.enable_cudnn_sdp(False)
    torch.use_deterministic_algorithms(True, warn_only=True)


def load_in_this_process(*, pin_memory: bool) -> None:
    """Every DataLoader works without workers: the batches and their order are the same, and all is seen.

    `pin_memory`: whether there is a device that it makes sense for.
    """
    fixed = _WORKER_OPTIONS if pin_memory else {**_WORKER_OPTIONS, "pin_memory": False}
    loader = torch.utils.data.DataLoader
    made = loader.__init__
    signature = inspect.signature(made)

    @functools.wraps(made)
    def init(*args: Any, **kwargs: Any) -> None:
        given = signature.bind(*args, **kwargs)
        asked = {name: value for name, value in fixed.items() if name in given.arguments}
        given.arguments.update(asked)
        made(*given.args, **given.kwargs)

    loader.__init__ = init


def refuse_other_processes(*, on_a_card: bool) -> None:
    """What a process does alone is measured: `torch.multiprocessing.spawn` would train in others, out of sight.
    Without a card there is no NCCL, and what C++ allocates for DistributedDataParallel is no tensor of the device.
    Raises Unsupported when the target asks for any of them."""

    def start_processes(*_args: Any, **_kwargs: Any) -> None:
        raise Unsupported("the target trains in processes that it starts, and only its own is measured", _ONE_PROCESS)

    for name in ("torch.multiprocessing", "torch.multiprocessing.spawn"):
        vars(importlib.import_module(name))["start_processes"] = start_processes
    if not torch.distributed.is_available() or on_a_card:
        return
    init = torch.distributed.init_process_group

    @functools.wraps(init)
    def without_nccl(backend: Any = None, *args: Any, **kwargs: Any) -> None:
        if "nccl" in str(backend).lower():
            raise Unsupported("a process group over NCCL needs GPUs", _ONE_PROCESS)
        init(backend, *args, **kwargs)

    def no_copies(*_args: Any, **_kwargs: Any) -> None:
        raise Unsupported("the gradients' copies that DistributedDataParallel keeps are not counted here", _ONE_PROCESS)

    torch.nn.parallel.DistributedDataParallel.__init__ = no_copies
    torch.distributed.init_process_group = torch.distributed.distributed_c10d.init_process_group = without_nccl


def save_nothing() -> None:
    """`torch.save` to a path does nothing; to a buffer in memory it still writes."""
    save = torch.save

    @functools.wraps(save)
    def to_buffers_only(obj: object, f: Any, *args: Any, **kwargs: Any) -> None:
        if not isinstance(f, (str, os.PathLike)):
            save(obj, f, *args, **kwargs)

    torch.save = to_buffers_only


def patches(*, allow_write: bool) -> dict[str, Patch]:
    """What to do to modules that save, log or upload, or that cannot be measured, when they have been imported.

    The libraries that have a switch in the environment (wandb, neptune, the Hugging Face hub) are told there:
    `memlint.measure.launch`.
    """
    loggers: dict[str, Patch] = {
        "aim": _silence("Run"),
        "aim.sdk.run": _silence("Run"),
        "clearml": _silence("Task", "Logger"),
        "comet_ml": _silence(
            "Experiment",
            "ExistingExperiment",
            "OfflineExperiment",
            "ExistingOfflineExperiment",
            "start",
            "login",
            "init",
        ),
        "mlflow": _local_mlflow,
    }
    writers: dict[str, Patch] = {
        "torch.utils.tensorboard": _silence("SummaryWriter"),
        "torch.utils.tensorboard.writer": _silence("SummaryWriter"),
        "tensorboardX": _silence("SummaryWriter"),
        "safetensors.torch": _stub("save_file", "save_model"),
        "safetensors.numpy": _stub("save_file"),
    }
    refused: dict[str, Patch] = {"torch.nn.attention.flex_attention": _refuse_flex_attention}
    return refused | loggers if allow_write else refused | loggers | writers


class Silent:
    """Stands for a logger: whatever is asked of it, it gives itself and does nothing."""

    def __init__(self, *_args: object, **_kwargs: object) -> None:
        pass

    def __call__(self, *_args: object, **_kwargs: object) -> Silent:
        return self

    def __getattr__(self, name: str) -> Silent:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __getitem__(self, _key: object) -> Silent:
        return self

    def __setitem__(self, _key: object, _value: object) -> None:
        pass

    def __iter__(self) -> Iterator[object]:
        return iter(())

    def __enter__(self) -> Silent:
        return self

    def __exit__(self, *_error: object) -> None:
        pass

    def __str__(self) -> str:
        return ""


class _SilentType(type):
    """So that class methods, `Task.init(...)`, are silent, too."""

    def __getattr__(cls, name: str) -> Silent:
        if name.startswith("__"):
            raise AttributeError(name)
        return Silent()


class SilentClass(Silent, metaclass=_SilentType):
    """Stands for a logger's class."""


def _silence(*names: str) -> Patch:
    def patch(module: ModuleType) -> None:
        for name in names:
            if hasattr(module, name):
                setattr(module, name, SilentClass)

    return patch


def _stub(*names: str) -> Patch:
    def patch(module: ModuleType) -> None:
        for name in names:
            if hasattr(module, name):
                setattr(module, name, _nothing)

    return patch


def _refuse_flex_attention(module: ModuleType) -> None:
    """It is one kernel only where it is compiled, and the compiler is left out."""

    def refuse(*_args: Any, **_kwargs: Any) -> None:
        raise Unsupported("flex_attention runs compiled on a card, and compiled code is not measured", _OTHER_ATTENTION)

    vars(module)["flex_attention"] = refuse


def _nothing(*_args: object, **_kwargs: object) -> None:
    pass


def _local_mlflow(module: ModuleType) -> None:
    """It logs into the temporary folder that the environment names, whatever server the target asks for."""
    for name in ("set_tracking_uri", "set_registry_uri"):
        if hasattr(module, name):
            setattr(module, name, _nothing)
