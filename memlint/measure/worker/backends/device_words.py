"""`.cuda()`, `.to("cuda")`, `.device` and their kin, on tensors of the CPU that stand for device memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from memlint.measure.worker.backends.labels import Labels, is_cuda
from memlint.measure.worker.patching import Patches

CUDA = torch.device("cuda", 0)
_CPU = torch.device("cpu")

# PyTorch's own, as they were before any patch.
_to: Any = torch.Tensor.to
_device: Any = torch.Tensor.device
_is_cpu: Any = torch.Tensor.is_cpu


class DeviceArguments(TorchFunctionMode):
    """`device="cuda"` of a factory: made on the CPU, and labelled."""

    def __init__(self, labels: Labels) -> None:
        super().__init__()
        self._labels = labels

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not kwargs:
            return func(*args)
        device = kwargs.get("device")
        if device is None or not is_cuda(device):
            return func(*args, **kwargs)
        with self._labels.results(on_device=True):
            return func(*args, **{**kwargs, "device": _CPU})


def speak_cuda(patches: Patches, labels: Labels) -> None:
    """Replace the methods of `torch.Tensor` that name a device."""

    def move(tensor: torch.Tensor, target: Any, options: dict[str, Any]) -> Any:
        """As `Tensor.to` does it: the tensor itself where nothing changes, else a copy on that side."""
        if target is None:
            return _to(tensor, **options)
        if isinstance(target, (str, torch.device)) and torch.device(target).type not in {"cpu", "cuda"}:
            return _to(tensor, device=target, **options)
        on_device = is_cuda(target)
        if labels.on_device(tensor) == on_device:
            return _to(tensor, **options)
        with labels.results(on_device):
            return _to(tensor, **{**options, "copy": True})

    def to(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        first = args[0] if args else None
        if isinstance(first, torch.dtype):
            return move(tensor, None, _options(*args, **kwargs))
        if isinstance(first, torch.Tensor) or "other" in kwargs:
            return move(tensor, *_by_tensor(*args, **kwargs))
        return move(tensor, *_by_device(*args, **kwargs))

    def cuda(tensor: torch.Tensor, device: Any = CUDA, non_blocking: bool = False, **kwargs: Any) -> Any:
        return move(tensor, CUDA if device is None else device, {"non_blocking": non_blocking, **kwargs})

    def cpu(tensor: torch.Tensor, **kwargs: Any) -> Any:
        return move(tensor, _CPU, kwargs)

    words: dict[str, Callable[..., Any] | property] = {
        "to": to,
        "cuda": cuda,
        "cpu": cpu,
        "device": property(lambda tensor: CUDA if labels.on_device(tensor) else _device.__get__(tensor)),
        "is_cuda": property(labels.on_device),
        "is_cpu": property(lambda tensor: not labels.on_device(tensor) and _is_cpu.__get__(tensor)),
        "get_device": lambda tensor: 0 if labels.on_device(tensor) else -1,
    }
    for name, word in words.items():
        patches.set(torch.Tensor, name, word)


# The three ways to call `Tensor.to`, less its device.


def _options(dtype: Any = None, non_blocking: bool = False, copy: bool = False, **keywords: Any) -> dict[str, Any]:
    options = {"non_blocking": non_blocking, "copy": copy, **keywords}
    return options if dtype is None else {"dtype": dtype, **options}


def _by_device(device: Any = None, *args: Any, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
    return device, _options(*args, **kwargs)


def _by_tensor(other: torch.Tensor, *args: Any, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
    return other.device, _options(other.dtype, *args, **kwargs)
