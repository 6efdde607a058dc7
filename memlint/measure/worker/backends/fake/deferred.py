"""Weights that are made on the host and only moved cost no host memory.

`torch.empty` on the host costs address space; memory comes when pages are written. So the in-place operators that
initialize a new parameter are noted, and run when something reads it. Moving to `cuda` reads nothing. The random
numbers are drawn all the same, into a small buffer, so that whatever is random later is what it would have been; only
for large models, whose numbers would take many seconds, the program goes on with another seed, and is told so.

What reads without an operator is known by name (`READERS`). A thread that reads a parameter before its first use by the
thread that made it would see nothing.
"""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch

from memlint.measure.worker.backends.fake.values import Assumptions
from memlint.measure.worker.compat import FakeTensor, WeakIdKeyDictionary

aten = torch.ops.aten

_LEAST_BYTES = 1 << 20
"""Smaller tensors are not worth it."""
_CHUNK = 1 << 20
"""Elements of the buffer that random numbers are drawn into."""
_MOST_DRAWS = 1 << 27
"""Random numbers drawn for nobody: this many take a second or two."""

_RANDOM = {aten.uniform_.default, aten.normal_.default}
_POINTWISE = {
    aten.zero_.default,
    aten.fill_.Scalar,
    aten.mul_.Tensor,
    aten.mul_.Scalar,
    aten.add_.Tensor,
    aten.add_.Scalar,
    aten.sub_.Tensor,
    aten.div_.Tensor,
    aten.erfinv_.default,
    aten.clamp_.default,
}
_SHAPE_ONLY = {
    aten.empty_like.default,
    aten.zeros_like.default,
    aten.ones_like.default,
    aten.new_empty.default,
    aten.new_zeros.default,
    aten.new_ones.default,
}
READERS = frozenset(
    getattr(torch.Tensor, name)
    for name in "numpy tolist data_ptr storage share_memory_ __array__ __dlpack__ __reduce_ex__ __deepcopy__".split()
)
"""Methods that read a tensor without an operator that a dispatch mode would see."""


@dataclass(frozen=True)
class _Fill:
    """An in-place operator on a part of a storage, to be run later."""

    func: Any
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    dtype: torch.dtype
    shape: torch.Size
    stride: tuple[int, ...]
    offset: int
    random_state: torch.Tensor | None


class DeferredWeights:
    """Storages of parameters whose values nobody has read yet, each with what will make them."""

    def __init__(self, assumptions: Assumptions) -> None:
        self._assumptions = assumptions
        self._drawn = 0
        self._pending = WeakIdKeyDictionary()

    def run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run an operator on the host, now or later."""
        if func is aten.empty.memory_format:
            return self._noticed(func(*args, **kwargs))
        if not self._pending or func.is_view or func in _SHAPE_ONLY:
            return func(*args, **kwargs)
        if (func in _RANDOM or func in _POINTWISE) and self._defer(func, args, kwargs):
            return args[0]
        self.read((args, tuple(kwargs.values())))
        return func(*args, **kwargs)

    def read(self, item: Any) -> None:
        """Make the values of all tensors in `item` that are due."""
        if isinstance(item, torch.Tensor):
            if not isinstance(item, FakeTensor) and self._pending:
                self._make(item)
        elif isinstance(item, (list, tuple)):
            for inner in item:
                self.read(inner)

    def _noticed(self, tensor: torch.Tensor) -> torch.Tensor:
        large = tensor.numel() * tensor.element_size() >= _LEAST_BYTES
        # Not indices and masks: their values are followed on to the device, see `KnownValues`.
        if large and tensor.dtype.is_floating_point and tensor.device.type == "cpu" and _in_constructor():
            self._pending[tensor.untyped_storage()] = []
        return tensor

    def _defer(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        tensor = args[0]
        fills = self._pending.get(tensor.untyped_storage())
        if fills is None or any(isinstance(argument, torch.Tensor) for argument in args[1:]):
            return False
        state = None
        if func in _RANDOM:
            draws = _draws(func, tensor)
            if draws is None:
                return False
            generator = kwargs.get("generator") or torch.default_generator
            state = generator.get_state()
            self._advance(generator, draws, tensor.dtype)
        shape, stride, offset = tensor.shape, tensor.stride(), tensor.storage_offset()
        fills.append(_Fill(func, args[1:], kwargs, tensor.dtype, shape, stride, offset, state))
        return True

    def _advance(self, generator: torch.Generator, draws: int, dtype: torch.dtype) -> None:
        self._drawn += draws
        if self._drawn > _MOST_DRAWS:
            self._assumptions.note_once(
                "random numbers after the weights are those of another seed, to save drawing them"
            )
            digest = hashlib.sha256(generator.get_state().numpy().tobytes()).digest()
            generator.manual_seed(int.from_bytes(digest[:7], "little"))
            return
        buffer = torch.empty(min(_CHUNK, draws), dtype=dtype)
        while draws > 0:
            buffer[: min(draws, _CHUNK)].uniform_(generator=generator)
            draws -= _CHUNK

    def _make(self, tensor: torch.Tensor) -> None:
        if tensor.layout is not torch.strided:
            return
        storage = tensor.untyped_storage()
        for fill in self._pending.pop(storage, ()):
            part = torch.empty(0, dtype=fill.dtype).set_(storage, fill.offset, fill.shape, fill.stride)
            if fill.random_state is None:
                fill.func(part, *fill.arguments, **fill.keywords)
                continue
            generator = fill.keywords.get("generator") or torch.default_generator
            now = generator.get_state()
            generator.set_state(fill.random_state)
            fill.func(part, *fill.arguments, **fill.keywords)
            generator.set_state(now)


def _in_constructor() -> bool:
    """Whether a module is being constructed."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == "__init__" and isinstance(frame.f_locals.get("self"), torch.nn.Module):
            return True
        frame = frame.f_back
    return False


def _draws(func: Any, tensor: torch.Tensor) -> int | None:
    """How many numbers the operator draws, one an element in order; None where that is not known.

    `normal_` makes 16 numbers at a time of 16 others, and where the last group is not full, of 16 more
    (aten/src/ATen/native/cpu/DistributionTemplates.h).
    """
    if not tensor.is_contiguous() or tensor.numel() < 16:
        return None
    rest = tensor.numel() % 16
    if func is aten.uniform_.default or rest == 0:
        return int(tensor.numel())
    return int(tensor.numel()) + 16 if tensor.dtype in (torch.float32, torch.float64) else None
