"""Weights that are made on the host and only moved cost no host memory.

`torch.empty` on the host costs address space; memory comes when pages are written. So the in-place operators that
initialize a new parameter are noted, and run when something reads it. Moving to `cuda` reads nothing. The random
numbers are drawn all the same, into a small buffer, so that whatever is random later is what it would have been; only
for large models, whose numbers would take many seconds, the program goes on with another seed, and is told so.

A copy of such a weight, in another precision perhaps, is made when it is read, or when its source is to change.

What reads without an operator is known by name (`READERS`). A thread that reads a parameter before its first use by the
thread that made it would see nothing.
"""

from __future__ import annotations

import hashlib
import math
import sys
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch

from memlint.measure.worker.backends.fake.host_memory import HostMemory, lend
from memlint.measure.worker.backends.fake.values import Assumptions
from memlint.measure.worker.compat import FakeTensor

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
_NEW_COPIES = {aten._to_copy.default, aten.clone.default}
_FILLED = {
    aten.empty.memory_format,
    aten.zeros.default,
    aten.ones.default,
    aten.full.default,
    aten.rand.default,
    aten.randn.default,
}
READERS = frozenset(
    getattr(torch.Tensor, name)
    for name in "numpy tolist data_ptr storage share_memory_ __array__ __dlpack__ __reduce_ex__ __deepcopy__".split()
)
"""Methods that read a tensor without an operator that a dispatch mode would see."""


@dataclass(frozen=True)
class _Part:
    """A tensor, by where it lies: a reference to it would keep a module from putting another in its place."""

    storage: torch.UntypedStorage
    dtype: torch.dtype
    shape: torch.Size
    stride: tuple[int, ...]
    offset: int

    @classmethod
    def of(cls, tensor: torch.Tensor) -> _Part:
        return cls(tensor.untyped_storage(), tensor.dtype, tensor.shape, tensor.stride(), tensor.storage_offset())

    def tensor(self) -> torch.Tensor:
        return torch.empty(0, dtype=self.dtype).set_(self.storage, self.offset, self.shape, self.stride)


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

    def run(self, storage: torch.UntypedStorage) -> None:
        part = _Part(storage, self.dtype, self.shape, self.stride, self.offset).tensor()
        if self.random_state is None:
            self.func(part, *self.arguments, **self.keywords)
            return
        generator = self.keywords.get("generator") or torch.default_generator
        now = generator.get_state()
        generator.set_state(self.random_state)
        self.func(part, *self.arguments, **self.keywords)
        generator.set_state(now)


@dataclass(frozen=True)
class _Copy:
    """What a whole storage is to be a copy of, to be made later: as the source is now, so the source is not to change
    before."""

    source: _Part
    target: tuple[torch.dtype, torch.Size, tuple[int, ...], int]


class _Pending:
    """A storage whose values nobody has read yet, what will make them, and those that are to be its copies."""

    __slots__ = ("copies", "fills", "reference", "size")

    def __init__(self, storage: torch.UntypedStorage, gone: Callable[[Any], None]) -> None:
        self.size = storage.nbytes()
        self.fills: list[_Fill | _Copy] = []
        self.copies: list[int] = []
        self.reference = weakref.ref(storage, gone)


class DeferredWeights:
    """Storages of parameters whose values nobody has read yet, each with what will make them."""

    def __init__(self, assumptions: Assumptions, host: HostMemory) -> None:
        self._assumptions = assumptions
        self._host = host
        self._drawn = 0
        self._pending: dict[int, _Pending] = {}

    def run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run an operator on the host, now or later. Raises TooLittleHostMemory."""
        if func is aten.empty.memory_format and _is_weight(args, kwargs):
            return self._unwritten(func, args, kwargs)
        if not self._pending or func.is_view or func in _SHAPE_ONLY:
            return self._run(func, args, kwargs)
        if (func in _RANDOM or func in _POINTWISE) and self._defer(func, args, kwargs):
            return args[0]
        if func in _NEW_COPIES and (copy := self._copied(func, args[0], kwargs)) is not None:
            return copy
        if func is aten.copy_.default and self._overwritten(*args):
            return args[0]
        self.read((args, tuple(kwargs.values())))
        return self._run(func, args, kwargs)

    def read(self, item: Any) -> None:
        """Make the values of all tensors in `item` that are due. Raises TooLittleHostMemory."""
        if isinstance(item, torch.Tensor):
            if not isinstance(item, FakeTensor) and self._pending and item.layout is torch.strided:
                self._make(item.untyped_storage())
        elif isinstance(item, (list, tuple)):
            for inner in item:
                self.read(inner)

    def _unread(self) -> int:
        """Bytes of what nobody has read."""
        return sum(pending.size for pending in list(self._pending.values()))

    def _run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        size = _size_of_result(func, args, kwargs)
        if size < _LEAST_BYTES:
            return func(*args, **kwargs)
        self._host.take(size)
        result = func(*args, **kwargs)
        self._host.holds(result.untyped_storage())
        return result

    def _unwritten(self, func: Any, args: Any, kwargs: Any) -> torch.Tensor:
        """Address space, and no memory."""
        size = _size_of_result(func, args, kwargs)
        lend(size)
        try:
            tensor: torch.Tensor = func(*args, **kwargs)
        except RuntimeError:
            lend(-size)
            raise
        storage = tensor.untyped_storage()
        key = storage._cdata
        self._pending[key] = _Pending(storage, lambda _: self._drop(key))
        return tensor

    def _drop(self, key: int) -> None:
        """It is pending no more: its values are about to be written, or it is gone."""
        pending = self._pending.pop(key, None)
        if pending is not None:
            lend(-pending.size)

    def _defer(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        tensor = args[0]
        pending = self._about_to_change(tensor)
        if pending is None or any(isinstance(argument, torch.Tensor) for argument in args[1:]):
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
        pending.fills.append(_Fill(func, args[1:], kwargs, tensor.dtype, shape, stride, offset, state))
        return True

    def _copied(self, func: Any, source: torch.Tensor, kwargs: dict[str, Any]) -> torch.Tensor | None:
        """A copy, in another precision perhaps, of what nobody has read: to be made when somebody reads it."""
        pending = self._pending.get(source.untyped_storage()._cdata)
        if pending is None or not source.is_contiguous() or kwargs.get("pin_memory"):
            return None
        if kwargs.get("memory_format") not in {None, torch.contiguous_format, torch.preserve_format}:
            return None
        like = {"dtype": kwargs.get("dtype") or source.dtype, "device": torch.device("cpu")}
        copy = self._unwritten(aten.empty.memory_format, (list(source.shape),), like)
        self._note_copy(copy, source, pending)
        return copy

    def _overwritten(self, target: torch.Tensor, source: Any, non_blocking: bool = False) -> bool:
        """`target.copy_(source)` over a whole storage that nobody has read, whose values do not matter then."""
        pending = self._about_to_change(target)
        if pending is None or not _is_whole(target):
            return False
        origin = self._pending.get(source.untyped_storage()._cdata)
        if origin is None or origin is pending or source.shape != target.shape:
            self._host.take(pending.size)
            self._drop(target.untyped_storage()._cdata)
            self._host.holds(target.untyped_storage())
            aten.copy_.default(target, source, non_blocking)
        else:
            pending.fills.clear()
            self._note_copy(target, source, origin)
        return True

    def _note_copy(self, copy: torch.Tensor, source: torch.Tensor, origin: _Pending) -> None:
        key = copy.untyped_storage()._cdata
        origin.copies.append(key)
        target = (copy.dtype, copy.shape, copy.stride(), copy.storage_offset())
        self._pending[key].fills.append(_Copy(_Part.of(source), target))

    def _advance(self, generator: torch.Generator, draws: int, dtype: torch.dtype) -> None:
        self._drawn += draws
        if self._drawn > _MOST_DRAWS:
            self._assumptions.note_once(
                "random numbers after the weights are those of another seed, to save drawing them"
            )
            digest = hashlib.sha256(bytes(generator.get_state().tolist())).digest()
            generator.manual_seed(int.from_bytes(digest[:7], "little"))
            return
        buffer = torch.empty(min(_CHUNK, draws), dtype=dtype)
        while draws > 0:
            buffer[: min(draws, _CHUNK)].uniform_(generator=generator)
            draws -= _CHUNK

    def _make(self, storage: torch.UntypedStorage) -> None:
        pending = self._pending.get(storage._cdata)
        if pending is None:
            return
        self._host.take_read(pending.size, self._unread() - pending.size)
        self._drop(storage._cdata)
        self._host.holds(storage)
        for fill in pending.fills:
            if isinstance(fill, _Fill):
                fill.run(storage)
                continue
            self._make(fill.source.storage)
            dtype, shape, stride, offset = fill.target
            _Part(storage, dtype, shape, stride, offset).tensor().copy_(fill.source.tensor())
        self._make_copies(pending)

    def _about_to_change(self, tensor: torch.Tensor) -> _Pending | None:
        """What is pending of a tensor that is to be written to. Its copies are made first, which makes it, too."""
        key = tensor.untyped_storage()._cdata
        pending = self._pending.get(key)
        if pending is not None:
            self._make_copies(pending)
        return self._pending.get(key)

    def _make_copies(self, origin: _Pending) -> None:
        for key in origin.copies:
            copy = self._pending.get(key)
            storage = copy.reference() if copy is not None else None
            if storage is not None:
                self._make(storage)
        origin.copies.clear()


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


def _is_weight(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether this `torch.empty` makes what a module is to hold. Not indices and masks: their values are followed on to
    the device, see `KnownValues`."""
    dtype = kwargs.get("dtype") or torch.get_default_dtype()
    device = kwargs.get("device")
    return bool(
        dtype.is_floating_point
        and (device is None or torch.device(device).type == "cpu")
        and _size_of_result(aten.empty.memory_format, args, kwargs) >= _LEAST_BYTES
        and _in_constructor()
    )


def _is_whole(tensor: torch.Tensor) -> bool:
    whole = tensor.numel() * tensor.element_size() == tensor.untyped_storage().nbytes()
    return bool(whole and tensor.is_contiguous())


def _size_of_result(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    """The bytes of the tensor that a factory or a copy makes on the host; 0 of anything else."""
    if func in _FILLED:
        dtype: torch.dtype = kwargs.get("dtype") or torch.get_default_dtype()
        return math.prod(args[0]) * int(dtype.itemsize) if kwargs.get("layout") in {None, torch.strided} else 0
    if func in _NEW_COPIES and args[0].layout is torch.strided:
        dtype = kwargs.get("dtype") or args[0].dtype
        return int(args[0].numel()) * int(dtype.itemsize)
    return 0
