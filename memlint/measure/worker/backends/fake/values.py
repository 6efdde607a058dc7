"""What is known of the values of tensors that have none, and what is assumed where a program asks for more.

A label, a mask or a length that came from the host has values that the host knows. They are kept beside the fake
tensor, one copy a storage, and followed through deterministic operations on known values alone. What depends on
anything else is unknown; when the program asks for it, an assumption is made and listed.
"""

from __future__ import annotations

import linecache
from collections.abc import Callable, Iterable
from typing import Any

import torch

from memlint.measure.recording import Assumption, Effect, Place
from memlint.measure.worker.compat import FakeTensor, WeakIdKeyDictionary

aten = torch.ops.aten

_WHOLE_LIMIT = 1 << 20
"""Whole numbers and truth values (labels, masks, lengths) are followed up to this many elements ..."""
_FLOAT_LIMIT = 256
"""... fractions (scales, decays, counters) up to this many: following activations would be computing the model."""
_ASSUMED_LIMIT = 1 << 26
"""Elements of a tensor of truth values that are all assumed: a second's work to reduce."""


class Assumptions:
    """Values that were asked for and not known."""

    def __init__(self, place: Callable[[], Place | None]) -> None:
        self._place = place
        self._counts: dict[tuple[str, Place | None, Effect], int] = {}

    def note(self, what: str, effect: Effect = None) -> None:
        key = (what, self._place(), effect)
        self._counts[key] = self._counts.get(key, 0) + 1

    def note_largest(self, what: str) -> None:
        """A size that values decide: the largest that it can be is taken."""
        self.note(what, "upper bound")

    def note_once(self, what: str) -> None:
        """Of the run as a whole, and no line of it."""
        self._counts[what, None, None] = 1

    def at_assertion(self) -> bool:
        """Whether the user's line that is running asserts something."""
        place = self._place()
        return place is not None and linecache.getline(place.path, place.line).lstrip().startswith("assert ")

    def listed(self) -> list[Assumption]:
        return [Assumption(what, place, count, effect) for (what, place, effect), count in self._counts.items()]


class KnownValues:
    """The host's copies of what is known, by the storage of the fake tensor that has it."""

    def __init__(self) -> None:
        self._copies = WeakIdKeyDictionary()

    def of(self, tensor: torch.Tensor) -> torch.Tensor | None:
        """The values of a tensor: itself where it is real, a view of the copy where they are known."""
        if not isinstance(tensor, FakeTensor):
            return tensor if tensor.device.type == "cpu" else None
        copy = self._copies.get(tensor.untyped_storage())
        if copy is None:
            return None
        return torch.empty(0, dtype=tensor.dtype).set_(copy, tensor.storage_offset(), tensor.shape, tensor.stride())

    def learn(self, tensor: Any, values: torch.Tensor) -> None:
        """Keep `values` (same shape and dtype) as those of the fake tensor, unless it is large or a part of more."""
        if isinstance(tensor, FakeTensor) and is_small(tensor.dtype, tensor.numel()):
            self._keep(tensor, values)

    def _keep(self, tensor: FakeTensor, values: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage.nbytes() != tensor.numel() * tensor.element_size():
            return
        self._copies[storage] = torch.UntypedStorage(storage.nbytes())
        known = self.of(tensor)
        assert known is not None
        known.copy_(values)

    def assume(self, tensor: FakeTensor, value: bool) -> None:
        """Take every element of a fake tensor for `value`, if it is not too large to say so."""
        if tensor.numel() <= _ASSUMED_LIMIT:
            self._keep(tensor, torch.full((), value).expand(tensor.shape))

    def forget(self, tensor: Any) -> None:
        if isinstance(tensor, FakeTensor):
            self._copies.pop(tensor.untyped_storage(), None)

    def follow(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """After the operation on fakes: compute the values of what it made or changed, or forget them."""
        mutable = func._schema.is_mutable
        if not mutable and not _may_be_known(result):
            return
        if func in _COPIES and mutable and self._overwritten(args):
            return
        if not mutable and all(self.of(tensor) is not None for tensor in _tensors(result)):
            return  # views of what is known
        given = self.given(func, args, kwargs)
        if (given is None or not self._compute(func, given, result)) and mutable:
            self._forget_written(func, args, kwargs)

    def _overwritten(self, args: tuple[Any, ...]) -> bool:
        """`copy_` over a whole tensor: what it held before says nothing."""
        values = self.of(args[1]) if isinstance(args[1], torch.Tensor) else None
        if values is None or self.of(args[0]) is not None:
            return False
        if not is_small(args[0].dtype, args[0].numel()):
            return True
        self.learn(args[0], values.expand(args[0].shape).to(args[0].dtype))
        return True

    def given(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any] | None:
        """The arguments with values in place of fakes, on the CPU; None if one is unknown or the result is random."""
        if torch.Tag.nondeterministic_seeded in func.tags or func in _UNDEFINED:
            return None
        missing = False

        def value(item: Any) -> Any:
            nonlocal missing
            if isinstance(item, torch.Tensor):
                known = self.of(item) if isinstance(item, FakeTensor) or is_small(item.dtype, item.numel()) else None
                missing = missing or known is None
                return known
            if isinstance(item, (list, tuple)):
                return type(item)([value(inner) for inner in item]) if not missing else item
            if isinstance(item, torch.device):
                return torch.device("cpu")
            return item

        positional = []
        for item in args:
            positional.append(value(item))
            if missing:
                return None
        named = {name: value(item) for name, item in kwargs.items()}
        return None if missing else (tuple(positional), named)

    def _compute(self, func: Any, given: tuple[Any, Any], result: Any) -> bool:
        if result is not None and not _may_be_known(result):
            return False
        try:
            computed = func(*given[0], **given[1])
        except (RuntimeError, NotImplementedError, TypeError, IndexError, ValueError):
            return False
        if func._schema.is_mutable:
            return True  # the copies have been written to
        for fake, values in zip(_tensors(result), _tensors(computed), strict=True):
            if fake.shape != values.shape or fake.dtype is not values.dtype:
                return False
            if self.of(fake) is None:
                self.learn(fake, values)
        return True

    def _forget_written(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        for index, argument in enumerate(func._schema.arguments):
            if argument.alias_info is None or not argument.alias_info.is_write:
                continue
            written = args[index] if index < len(args) else kwargs.get(argument.name)
            for tensor in _tensors(written):
                self.forget(tensor)


_COPIES = {aten.copy_.default}
_UNDEFINED = {
    aten.empty.memory_format,
    aten.empty_like.default,
    aten.empty_strided.default,
    aten.new_empty.default,
    aten.new_empty_strided.default,
}


def is_small(dtype: torch.dtype, numel: int) -> bool:
    return numel <= (_FLOAT_LIMIT if dtype.is_floating_point or dtype.is_complex else _WHOLE_LIMIT)


def _may_be_known(result: Any) -> bool:
    if isinstance(result, torch.Tensor):
        return is_small(result.dtype, result.numel())
    return isinstance(result, (list, tuple)) and all(_may_be_known(item) for item in result)


def _tensors(item: Any) -> Iterable[torch.Tensor]:
    if isinstance(item, torch.Tensor):
        return (item,)
    if isinstance(item, (list, tuple)):
        return tuple(tensor for inner in item for tensor in _tensors(inner))
    return ()
