"""`.cuda()`, `.to("cuda")`, `.device` and their kin, on tensors of the CPU that stand for device memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from memlint.measure.worker import compat
from memlint.measure.worker.backends.labels import Labels, is_cuda
from memlint.measure.worker.patching import Patches

CUDA = torch.device("cuda", 0)
_CPU = torch.device("cpu")

# PyTorch's own, as they were before any patch.
_to: Any = torch.Tensor.to
_device: Any = torch.Tensor.device
_is_cpu: Any = torch.Tensor.is_cpu
_type: Any = torch.Tensor.type
_numpy: Any = torch.Tensor.numpy
_new_tensor: Any = torch.Tensor.new_tensor
_storage_clone: Any = torch.UntypedStorage.clone


class DeviceArguments(TorchFunctionMode):
    """`device="cuda"` of a factory: made on the CPU, and labelled. What says `device="cpu"` never is."""

    def __init__(self, labels: Labels) -> None:
        super().__init__()
        self._labels = labels
        labels.calls = DeviceArguments.call.__code__

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.call(func, args, kwargs)

    def call(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Run a call of one of torch's functions."""
        if not kwargs:
            if func is torch.device and args and type(args[0]) is int:
                return torch.device("cuda", args[0])  # of a bare number PyTorch asks which accelerator there is
            return func(*args)
        device = kwargs.get("device")
        if device is None:
            return func(*args, **kwargs)
        if not is_cuda(device):
            with self._labels.results(on_device=False):
                return func(*args, **kwargs)
        return self._labels.made(func, *args, **{**kwargs, "device": _CPU})


class DeviceWords:
    """The methods of `torch.Tensor` that name a device, for tensors that may stand for device memory."""

    def __init__(self, labels: Labels) -> None:
        self._labels = labels

    def install(self, patches: Patches) -> None:
        on_device = self._labels.on_device
        words: dict[str, Callable[..., Any] | property] = {
            "to": _method(self.to),
            "cuda": _method(self.cuda),
            "cpu": lambda tensor, **kwargs: self._move(tensor, _CPU, kwargs),
            "type": _method(self.type),
            "numpy": _method(self.numpy),
            "new_tensor": _method(self.new_tensor),
            "device": property(lambda tensor: CUDA if on_device(tensor) else _device.__get__(tensor)),
            "is_cuda": property(on_device),
            "is_cpu": property(lambda tensor: not on_device(tensor) and _is_cpu.__get__(tensor)),
            "get_device": lambda tensor: 0 if on_device(tensor) else -1,
        }
        for name, word in words.items():
            patches.set(torch.Tensor, name, word)
        patches.set(torch.UntypedStorage, "cuda", _method(self.storage_to_cuda))
        patches.set(torch.UntypedStorage, "clone", _method(self.storage_clone))
        patches.enter_context(compat.storage_locations(self._location, self._restored))

    def storage_to_cuda(self, storage: torch.UntypedStorage, *_: Any, **__: Any) -> torch.UntypedStorage:
        made: torch.UntypedStorage = _storage_clone(storage)
        self._labels.put(made)
        return made

    def storage_clone(self, storage: torch.UntypedStorage) -> torch.UntypedStorage:
        """`copy.deepcopy(tensor)` goes this way: no operation makes the copy."""
        return self.storage_to_cuda(storage) if self._labels.holds(storage) else _storage_clone(storage)

    def _location(self, storage: Any) -> str | None:
        """What `torch.save` writes beside a storage."""
        return "cuda:0" if self._labels.holds(storage) else None

    def _restored(self, storage: Any, location: str) -> Any:
        """What `torch.load` makes of a storage that goes to the device."""
        if not location.startswith("cuda"):
            return None
        self._labels.put(storage)
        return storage

    def to(self, tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        first = args[0] if args else None
        if isinstance(first, torch.dtype):
            return self._move(tensor, None, _options(*args, **kwargs))
        if isinstance(first, torch.Tensor) or "other" in kwargs:
            return self._move(tensor, *_by_tensor(*args, **kwargs))
        return self._move(tensor, *_by_device(*args, **kwargs))

    def cuda(self, tensor: torch.Tensor, device: Any = None, non_blocking: bool = False, **kwargs: Any) -> Any:
        return self._move(tensor, CUDA if device is None else device, {"non_blocking": non_blocking, **kwargs})

    def type(self, tensor: torch.Tensor, dtype: Any = None, non_blocking: bool = False) -> Any:
        """`x.type()`, `x.type(torch.half)`, `x.type("torch.cuda.HalfTensor")`, `x.type(torch.cuda.HalfTensor)`."""
        if dtype is None:
            name = str(_type(tensor)).removeprefix("torch.cuda.").removeprefix("torch.")
            return ("torch.cuda." if self._labels.on_device(tensor) else "torch.") + name
        if isinstance(dtype, torch.dtype):
            return self._move(tensor, None, {"dtype": dtype, "non_blocking": non_blocking})
        legacy = getattr(torch, (dtype if isinstance(dtype, str) else dtype.__name__).rpartition(".")[2])
        on_device = dtype.startswith("torch.cuda.") if isinstance(dtype, str) else dtype is not legacy
        return self._move(tensor, CUDA if on_device else _CPU, {"dtype": legacy.dtype, "non_blocking": non_blocking})

    def numpy(self, tensor: torch.Tensor, *, force: bool = False) -> Any:
        """Raises TypeError, as CUDA does."""
        if self._labels.on_device(tensor) and not force:
            raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy it first.")
        return _numpy(tensor, force=force)

    def new_tensor(self, tensor: torch.Tensor, data: Any, **kwargs: Any) -> Any:
        if is_cuda(kwargs.pop("device", None) or tensor.device):
            return self._labels.made(_new_tensor, tensor, data, **kwargs)
        with self._labels.results(on_device=False):
            return _new_tensor(tensor, data, **kwargs)

    def _move(self, tensor: torch.Tensor, target: Any, options: dict[str, Any]) -> Any:
        """As `Tensor.to` does it: the tensor itself where nothing changes, else a copy on that side."""
        if target is None:
            return _to(tensor, **options)
        if isinstance(target, (str, torch.device)) and torch.device(target).type not in {"cpu", "cuda"}:
            return _to(tensor, device=target, **options)
        on_device = is_cuda(target)
        if self._labels.on_device(tensor) == on_device:
            return _to(tensor, **options)
        with self._labels.results(on_device):
            return _to(tensor, **{**options, "copy": True})


def _method(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that a class binds to its instances: a bound method would not be."""

    def method(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        return function(tensor, *args, **kwargs)

    return method


# The three ways to call `Tensor.to`, less its device.


def _options(dtype: Any = None, non_blocking: bool = False, copy: bool = False, **keywords: Any) -> dict[str, Any]:
    options = {"non_blocking": non_blocking, "copy": copy, **keywords}
    return options if dtype is None else {"dtype": dtype, **options}


def _by_device(device: Any = None, *args: Any, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
    return device, _options(*args, **kwargs)


def _by_tensor(other: torch.Tensor, *args: Any, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
    return other.device, _options(other.dtype, *args, **kwargs)
