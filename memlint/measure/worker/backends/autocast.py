"""`torch.autocast("cuda")` on tensors of the CPU: CUDA's lists of operations, on the CPU's key.

PyTorch has a list for each kind of device, and they differ: on a card a softmax, a norm or a loss runs in single
precision. While `cuda` is asked for, the CPU's autocast is on and has CUDA's lists. From then on to the end of the run
`torch.autocast("cpu")` has them, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._pytree import tree_map_only

from memlint.measure.worker import compat
from memlint.measure.worker.patching import Patches

_HALF = (torch.float16, torch.bfloat16)


@contextmanager
def cuda_autocast() -> Iterator[None]:
    lists = _Lists()
    with Patches() as patches:
        patches.callback(lists.remove)
        _state(patches, lists)
        yield


def _state(patches: Patches, lists: _Lists) -> None:
    """What is asked or set of `cuda` is the CPU's."""
    dtype = {"cuda": torch.float16, "cpu": torch.get_autocast_dtype("cpu")}
    is_enabled, set_enabled = torch.is_autocast_enabled, torch.set_autocast_enabled
    set_dtype = torch.set_autocast_dtype

    def set_autocast_enabled(*args: Any) -> None:
        device, enabled = args if len(args) == 2 else ("cuda", args[0])
        if device == "cuda" and enabled:
            lists.install()
        set_enabled("cpu" if device == "cuda" else device, enabled)

    def set_autocast_dtype(device: str, fast: torch.dtype) -> None:
        dtype[device] = fast
        set_dtype("cpu" if device == "cuda" else device, fast)

    def is_autocast_enabled(device: str = "cuda") -> Any:
        return is_enabled("cpu" if device == "cuda" else device)

    words: dict[str, Callable[..., Any]] = {
        "set_autocast_enabled": set_autocast_enabled,
        "set_autocast_dtype": set_autocast_dtype,
        "is_autocast_enabled": is_autocast_enabled,
        "get_autocast_dtype": lambda device: dtype[device],
        "get_autocast_gpu_dtype": lambda: dtype["cuda"],
        "set_autocast_gpu_dtype": lambda fast: set_autocast_dtype("cuda", fast),
    }
    for name, word in words.items():
        patches.set(torch, name, word)


class _Lists:
    """CUDA's lists, registered for the CPU's autocast at the first call for `cuda`."""

    def __init__(self) -> None:
        self._library: Any = None

    def install(self) -> None:
        if self._library is not None:
            return
        self._library = torch.library.Library("aten", "IMPL")
        lists = compat.cuda_autocast_lists()
        known = compat.operators_with_kernel("AutocastCPU")
        for name in sorted(known - lists.lower - lists.single - lists.single_result - lists.promoted):
            self._register(name, torch.library.fallthrough_kernel)
        for name in sorted(lists.lower - known):
            self._register(name, self._cast(name, _lower))
        for name in sorted(lists.single):
            self._register(name, self._cast(name, _single))
        for name in sorted(lists.single_result):
            self._register(name, self._cast(name, _single_result))
        for name, kernel in _NORMS.items():
            self._register(name, kernel)
        for name in sorted(lists.promoted - known):
            self._register(name, self._cast(name, _promoted))

    def remove(self) -> None:
        if self._library is not None:
            self._library._destroy()
            self._library = None

    def _register(self, name: str, kernel: Any) -> None:
        if compat.has_operator(name):
            self._library.impl(name, kernel, "AutocastCPU", allow_override=True)

    @staticmethod
    def _cast(name: str, cast: Callable[[Any, Any, Any], Any]) -> Callable[..., Any]:
        operator = compat.operator(name)

        def run(*args: Any, **kwargs: Any) -> Any:
            with compat.without_autocast():
                args, kwargs = cast(operator, args, kwargs)
                return operator(*args, **kwargs)

        return run


def _to(dtype: torch.dtype) -> Callable[[torch.Tensor], torch.Tensor]:
    def cast(tensor: torch.Tensor) -> torch.Tensor:
        eligible = tensor.is_floating_point() and tensor.dtype not in (torch.float64, dtype)
        return tensor.to(dtype) if eligible else tensor

    return cast


def _lower(_: Any, args: Any, kwargs: Any) -> Any:
    return tree_map_only(torch.Tensor, _to(torch.get_autocast_dtype("cuda")), (args, kwargs))


def _single(_: Any, args: Any, kwargs: Any) -> Any:
    return tree_map_only(torch.Tensor, _to(torch.float32), (args, kwargs))


def _single_result(operator: Any, args: Any, kwargs: Any) -> Any:
    """The operation is told to give single precision, and casts inside."""
    if args[0].dtype not in (*_HALF, torch.float32):
        return args, kwargs
    names = [argument.name for argument in operator._schema.arguments]
    position = names.index("dtype")
    if len(args) > position:
        return (
            args if args[position] is not None else (*args[:position], torch.float32, *args[position + 1 :])
        ), kwargs
    return args, {**kwargs, "dtype": kwargs.get("dtype") or torch.float32}


def _norm(tensor: torch.Tensor, *args: Any) -> Any:
    """`norm(x, p)` and `norm(x, p, dim, keepdim)`, told to give single precision."""
    power, *rest = args or (2,)
    with compat.without_autocast():
        if tensor.dtype not in _HALF:
            return torch.ops.aten.norm(tensor, power, *rest)
        return torch.ops.aten.norm(tensor, power, *rest, dtype=torch.float32)


_NORMS = {"norm.Scalar": _norm, "norm.ScalarOpt_dim": _norm}


def _promoted(_: Any, args: Any, kwargs: Any) -> Any:
    dtypes = [t.dtype for t in torch.utils._pytree.tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
    widest = torch.float32 if torch.float32 in dtypes else torch.get_autocast_dtype("cuda")
    return tree_map_only(torch.Tensor, _to(widest), (args, kwargs))
