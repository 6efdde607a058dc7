"""The log of device memory: each storage from the operation that made it to its release."""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from memlint.measure.recording import SETUP_STEP, Category, Phase, Place, Storage
from memlint.measure.worker import compat
from memlint.measure.worker.backend import Backend
from memlint.measure.worker.lines import Frames, place_of

GRANULARITY = 512
"""The CUDA caching allocator gives whole blocks of 512 bytes (kMinBlockSize in c10/cuda/CUDACachingAllocator.cpp)."""

_RESIZING = ("aten::resize", "aten::set_", "aten::_resize", "aten::sparse_resize")
_JOINING = frozenset({"aten::cat", "aten::stack"})
_COPYING = frozenset({torch.ops.aten._to_copy.default, torch.ops.aten.clone.default})
"""What brings a tensor from the host."""
_PLAIN = frozenset({torch.Tensor, torch.nn.Parameter})
_STRIDED = torch.strided
_OWN_FRAMES = 3
"""From the function that asks for lines to that which is called for an operation, both included."""
_WHOLE = frozenset({"aten::scaled_dot_product_attention", "aten::batch_norm", "aten::_batch_norm_impl_index"})
"""Composite operations for which the backend chooses a kernel."""


# What is asked for every operation.
_without_torch_function = compat.without_torch_function
_running_node = compat.running_node
_is_inference_mode = torch.is_inference_mode_enabled


def rounded(size: int) -> int:
    return -(-size // GRANULARITY) * GRANULARITY


def _operate(func: Any, args: Any, kwargs: Any) -> Any:
    return func(*args, **kwargs) if kwargs else func(*args)


class _Facts(NamedTuple):
    """What an operator does, by its schema."""

    operator: Any
    """Kept, since it is known by its identity."""
    name: str
    copies: bool
    """Whether it may bring a tensor from the host."""
    resizes: bool
    """Whether its result may be a storage that was there before, with another size."""
    aliases: bool
    """Whether all that it returns are views of its arguments, or they themselves: there is nothing new to see."""
    joins: bool
    """Whether it joins a list of tensors to one."""


class _Live(weakref.ref[torch.UntypedStorage]):
    """A storage that is alive, and the record that stands for it. Tells of its end."""

    __slots__ = ("key", "record")
    key: int
    record: Storage


_Origin = tuple[Category, Phase, "Place | None", "Place | None"]
"""What all that one operation makes has in common: category, phase, line and caller."""


class Tracker(compat.DispatchMode):
    """Sees every operation below autograd. Entered after the backend's modes, so that it sees their results.

    A `Meter`: sizes that it answers are rounded, as the CUDA caching allocator counts; those of the log are not.
    """

    def __init__(self, backend: Backend, frames: Frames | None) -> None:
        super().__init__()
        self.storages: list[Storage] = []
        self.events: list[int] = []
        self.phase = Phase.SETUP
        self.optimizing = 0
        """The thread that the phase of an optimizer is of."""
        self.recomputing: Callable[[], bool] = bool
        """Whether the backward pass is running a forward pass again."""
        self.arrivals: list[tuple[int, tuple[int, ...]]] = []
        """Time and shape of each tensor that came from the host."""
        self.backward_caller: Place | None = None
        self.operate: Callable[[Any, Any, Any], Any] = _operate
        """Runs an operation. A backend may put its own here: a mode of its own would cost as much as this one again."""
        self.call: Callable[[Any, Any, Any], Any] = _operate
        """The same above autograd: runs a call of one of torch's functions."""
        self.route: Callable[[Any], Callable[..., Any] | None] = lambda _operator: None
        """How the backend takes a composite operation apart, where it chooses a kernel."""
        self.sees_aliases = False
        """Whether a view may be the first that is seen of a storage."""
        self.allocated = 0
        self.peak = 0
        self.last_operation = 0
        """The time after it."""
        self.in_native_threads = False
        """Whether threads that Python did not start have made storages, outside of backward passes."""
        self._forgotten = (0, 0)
        self._backend = backend
        # The other backends make every device tensor in an operation that is seen here.
        self._sees_inputs = backend.name == "cuda"
        self._frames = frames
        self._live: dict[int, _Live] = {}
        self._holds = backend.holds
        self._on_release = self._released
        self._facts: dict[int, _Facts] = {}
        self._lock = threading.RLock()
        """Held while the log is written: threads of the program take turns between any two of our steps."""
        self._composite: dict[Any, Callable[..., Any] | None] = {}

    def time(self) -> int:
        return len(self.events)

    def reset_peak(self) -> None:
        self.peak = self.allocated

    def record_of(self, tensor: torch.Tensor) -> Storage | None:
        """The storage of a dense tensor, where it is device memory and alive."""
        try:
            live = self._live.get(tensor.untyped_storage()._cdata)
        except (NotImplementedError, RuntimeError):
            return None
        return live.record if live is not None else None

    def records_of(self, tensor: torch.Tensor) -> Iterable[Storage]:
        """The storages of any tensor; one that was not seen before is taken in."""
        if type(tensor) in _PLAIN and tensor.layout is _STRIDED:
            record = self.record_of(tensor)
            if record is not None:
                return (record,)
        return self._records_of_parts(compat.unwrapped(tensor))

    def _records_of_parts(self, tensor: torch.Tensor) -> Iterator[Storage]:
        for part in parts(tensor):
            key = part.untyped_storage()._cdata
            if key not in self._live:
                self._see((part,), "external")
            live = self._live.get(key)
            if live is not None:
                yield live.record

    def forget(self) -> None:
        """What was seen so far turned out to be host memory. Times go on; `log` leaves it out."""
        self._forgotten = (len(self.storages), len(self.events))
        self._live.clear()
        self.allocated = self.peak = 0

    def log(self, end: int | None = None) -> tuple[list[Storage], list[int], int]:
        """Storages and events up to a time, numbered from 0, and the time at which they begin."""
        first_id, first_event = self._forgotten
        last = len(self.events) if end is None else end
        storages = [
            replace(
                storage,
                id=storage.id - first_id,
                born=storage.born - first_event,
                died=None if storage.died is None or storage.died >= last else storage.died - first_event,
                grown_from=next(iter(self.logged(() if storage.grown_from is None else (storage.grown_from,))), None),
            )
            for storage in self.storages[first_id:]
            if storage.born < last
        ]
        events = [event - first_id if event >= 0 else event + first_id for event in self.events[first_event:last]]
        return storages, events, first_event

    def logged(self, storages: Iterable[int]) -> tuple[int, ...]:
        """The numbers of storages as they are now, in the numbers that `log` gives them."""
        first_id, _ = self._forgotten
        return tuple(number - first_id for number in storages if number >= first_id)

    def live_records(self) -> list[Storage]:
        return [live.record for live in self._live.values()]

    def grown_over(self, record: Storage) -> Iterator[Storage]:
        """A storage, and those that it was made larger of, back to the first."""
        while True:
            yield record
            if record.grown_from is None:
                return
            record = self.storages[record.grown_from]

    def storage_resized(self, storage: torch.UntypedStorage) -> None:
        """Called after the bytes of a storage were replaced."""
        live = self._live.get(storage._cdata)
        if live is None or live.record.size == storage.nbytes():
            return
        old = live.record
        with self._lock:
            if storage.nbytes():
                live.record = self._born(storage.nbytes(), "aten::resize_", (old.category, *self._origin()[1:]))
                live.record.grown_from = old.id if old.size < storage.nbytes() else None
            else:
                self._live.pop(storage._cdata)
            self._died(old)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with _without_torch_function():
            if types and any(is_traceable_wrapper_subclass_type(kind) for kind in types):
                return NotImplemented  # the subclass takes its operation apart, and this mode sees the parts
            if _is_inference_mode() and (apart := self._apart(func)) is not None:
                with self:  # without autograd, PyTorch does not take composite operations apart before it asks a mode
                    return apart(*args, **(kwargs or {}))
            if self._sees_inputs:
                self._take_in(args)
            result = self.operate(func, args, kwargs)
            # An operator is one object, whose hash is slow.
            facts = self._facts.get(id(func)) or self._learn(func)
            if facts.aliases and not self.sees_aliases:
                pass
            elif isinstance(result, torch.Tensor):
                self._see((result,), facts.name, facts.copies and self._is_host(args[0]))
                if facts.resizes:
                    self._check_sizes(result)
                elif facts.joins:
                    self._note_growing(args[0], result)
            elif isinstance(result, (tuple, list)):
                self._see(result, facts.name)
            self.last_operation = len(self.events)
            return result

    def _note_growing(self, joined: Iterable[torch.Tensor], result: torch.Tensor) -> None:
        made = self.record_of(result)
        if made is None:
            return
        known = [record for tensor in joined if (record := self.record_of(tensor)) is not None]
        before = [r for r in known if (r.place, r.operator) == (made.place, made.operator) and r.size < made.size]
        made.grown_from = max((record.id for record in before), default=None)

    def _take_in(self, arguments: Any) -> None:
        """Take in device storages that nobody has seen made: another thread may have."""
        self._see(arguments, "external")
        for argument in arguments:
            if isinstance(argument, (list, tuple)):
                self._take_in(argument)

    def _is_host(self, tensor: torch.Tensor) -> bool:
        return all(part.untyped_storage()._cdata not in self._live for part in parts(tensor))

    def _see(self, items: Iterable[Any], operator: str, from_host: bool = False) -> None:
        """Take in what is new among the tensors that one operation has made."""
        origin: _Origin | None = None
        for tensor in items:
            if not isinstance(tensor, torch.Tensor):
                continue
            if not (type(tensor) in _PLAIN and tensor.layout is _STRIDED) and not is_plain(tensor):
                self._see(parts(tensor), operator, from_host)
                continue
            storage = tensor.untyped_storage()
            key = storage._cdata
            if key in self._live or not self._holds(tensor):
                continue
            size = storage.nbytes()
            if size == 0:
                continue
            if origin is None:
                origin = self._origin()
                if from_host:
                    origin = (Category.INPUTS, *origin[1:])
            live = _Live(storage, self._on_release)
            live.key = key
            with self._lock:
                if from_host:
                    self.arrivals.append((len(self.events), tuple(tensor.shape)))
                live.record = self._born(size, operator, origin)
                self._live[key] = live

    def _origin(self) -> _Origin:
        frames = self._frames
        node = _running_node()
        if node is not None:
            recomputing = self.recomputing()
            category = Category.ACTIVATIONS if recomputing else Category.BACKWARD_TEMPORARIES
            return (category, Phase.BACKWARD, *self._lines(node, recomputing))
        phase = self.phase
        if phase is Phase.OPTIMIZER and self.optimizing != threading.get_ident():
            phase = Phase.FORWARD  # another thread is in an optimizer
        place = frames.innermost(_OWN_FRAMES) if frames is not None else None
        if place is None and not self.in_native_threads:
            self.in_native_threads = threading.get_ident() not in {thread.ident for thread in threading.enumerate()}
        return Category.ACTIVATIONS if phase is Phase.FORWARD else Category.OTHER, phase, place, place

    def _lines(self, node: Any, recomputing: bool) -> tuple[Place | None, Place | None]:
        """The line that what a backward pass makes belongs to, and the one that runs."""
        if self._frames is None:
            return None, None
        if recomputing:
            return self._frames.innermost(), self.backward_caller
        # Of PyTorch's own nodes the user's line is that of the whole pass. A GPU's pass runs in a thread that has none.
        try:
            own = sys._getframe(_OWN_FRAMES + 1).f_code is compat.ENGINE
        except ValueError:  # the stack of a thread of the engine's own
            own = True
        caller = self.backward_caller if own else self._frames.innermost() or self.backward_caller
        return place_of(node) or caller, caller

    def _born(self, size: int, operator: str, origin: _Origin) -> Storage:
        category, phase, place, caller = origin
        # By position: this is done for every storage, and names take time.
        record = Storage(
            len(self.storages), size, category, phase, SETUP_STEP, operator, place, caller, len(self.events)
        )
        self.storages.append(record)
        self.events.append(record.id)
        self.allocated += rounded(size)
        self.peak = max(self.peak, self.allocated)
        return record

    def _released(self, live: _Live) -> None:
        with self._lock:
            if self._live.get(live.key) is live:
                del self._live[live.key]
                self._died(live.record)

    def _died(self, record: Storage) -> None:
        record.died = len(self.events)
        self.events.append(~record.id)
        self.allocated -= rounded(record.size)

    def _apart(self, func: Any) -> Callable[..., Any] | None:
        """What calls the operations that a composite one is made of."""
        if func not in self._composite:
            own = self.route(func)
            composite = func._schema.name not in _WHOLE and compat.is_composite(func)
            self._composite[func] = own or (func.decompose if composite else None)
        return self._composite[func]

    def _learn(self, func: Any) -> _Facts:
        schema = func._schema
        resizes = schema.name.startswith(_RESIZING) or any(argument.is_out for argument in schema.arguments)
        aliases = not resizes and all(value.alias_info is not None for value in schema.returns)
        facts = self._facts[id(func)] = _Facts(
            func, schema.name, func in _COPYING, resizes, aliases, schema.name in _JOINING
        )
        return facts

    def _check_sizes(self, result: torch.Tensor) -> None:
        for part in parts(result):
            self.storage_resized(part.untyped_storage())


def is_traceable_wrapper_subclass_type(kind: type) -> bool:
    return hasattr(kind, "__tensor_flatten__") and hasattr(kind, "__tensor_unflatten__")


def is_plain(tensor: torch.Tensor) -> bool:
    """Whether its storage is all that it has."""
    return tensor.layout is torch.strided and (type(tensor) in _PLAIN or not is_traceable_wrapper_subclass(tensor))


def parts(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    """The dense tensors that hold a tensor's bytes: those of a sparse tensor, or inside a wrapper."""
    if is_plain(tensor):
        yield tensor
    elif is_traceable_wrapper_subclass(tensor):
        names, _ = tensor.__tensor_flatten__()
        for name in names:
            yield from parts(getattr(tensor, name))
    elif tensor.layout is torch.sparse_coo:
        yield tensor._indices()
        yield tensor._values()
    elif tensor.layout in {torch.sparse_csr, torch.sparse_bsr}:
        yield from (tensor.crow_indices(), tensor.col_indices(), tensor.values())
    elif tensor.layout in {torch.sparse_csc, torch.sparse_bsc}:
        yield from (tensor.ccol_indices(), tensor.row_indices(), tensor.values())
    elif tensor.layout is torch.strided:
        yield tensor
