"""Which storages of the CPU stand for device memory."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Any, NamedTuple

import torch
from torch.utils._pytree import tree_leaves

from memlint.measure.worker import compat
from memlint.measure.worker.backend import Unsupported
from memlint.measure.worker.backends.cuda_kernels import KERNELS, in_single_precision
from memlint.measure.worker.backends.fake.patches import unpinned
from memlint.measure.worker.patching import Patches
from memlint.measure.worker.tracker import parts

_CPU = torch.device("cpu")
_DENSE = frozenset({torch.Tensor, torch.nn.Parameter})
_STRIDED = torch.strided
_NO_KERNEL = "with arguments from the 'CPU' backend"
_PACK = torch.ops.aten._pack_padded_sequence.default
_NO_HALF = ("not implemented for 'Half'", "not implemented for 'BFloat16'")


class _Facts(NamedTuple):
    """What an operator does, by its schema."""

    operator: Any
    """Kept, since it is known by its identity."""
    plain: Callable[..., Any]
    """What runs on the host's memory."""
    kernel: Callable[..., Any]
    """What runs on device memory."""
    aliases: bool
    """Whether something that it returns may be one of the arguments, or a view of it."""
    makes_one: bool
    """Whether it returns one thing, and that is new."""
    makes_nothing: bool
    """Whether all that it returns are its arguments, or views of them, and it runs as it is."""
    takes_tensors: bool


class _Here(threading.local):
    """Of each thread."""

    forced: bool | None = None
    """The side on which results are, whatever the inputs: True for the device."""
    worked_on_device: bool = False
    """Whether the last operation on tensors was one on device memory."""


class Labels(compat.DispatchMode):
    """An operation's result is on the device when the call asked for `cuda`, or one of its inputs is.

    So is what PyTorch's own code makes out of nothing while it works on device memory, as backward passes do.

    Works below autograd, where a call for `cuda` is one for the CPU: nothing above needs a CUDA build.
    """

    def __init__(self, on_first_label: Callable[[], None]) -> None:
        super().__init__()
        self._on_first_label = on_first_label
        self.ever = False
        """Whether anything was ever put on the device."""
        self._facts: dict[int, _Facts] = {}
        """By the operator's identity, for its hash is slow: so the operator is kept."""
        self._here = _Here()
        self.calls: CodeType | None = None
        """Of the function that runs the program's calls of torch's functions: it has `args`."""

    def install(self, patches: Patches) -> None:
        """A storage has one object in Python as long as it lives: so the label is there."""
        patches.set(torch.UntypedStorage, "_memlint_device", False)

    def on_device(self, tensor: torch.Tensor) -> bool:
        try:
            return self.holds(tensor.untyped_storage())
        except (NotImplementedError, RuntimeError):
            return any(self.on_device(part) for part in parts(compat.unwrapped(tensor)))

    @staticmethod
    def holds(storage: torch.UntypedStorage) -> bool:
        return storage._memlint_device  # type: ignore[no-any-return]

    def put(self, storage: torch.UntypedStorage) -> None:
        """From now on this storage is on the device."""
        if not self.ever:
            self.ever = True
            self._on_first_label()
        storage._memlint_device = True

    @contextmanager
    def results(self, on_device: bool) -> Iterator[None]:
        """What operations make in the block is on the device, or is not."""
        here = self._here
        before, here.forced = here.forced, on_device
        try:
            yield
        finally:
            here.forced = before

    def made(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """What a function makes of data, on the device: a copy, where the function only wraps the host's memory."""
        with self.results(on_device=True):
            result = function(*args, **kwargs)
            if isinstance(result, torch.Tensor) and not self.on_device(result):
                return result.clone()
            return result

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.operate(func, args, kwargs)

    def operate(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Run an operation, and label what it makes."""
        facts = self._facts.get(id(func)) or self._learn(func)
        if facts.makes_nothing and not kwargs:
            try:
                return facts.plain(*args)
            except RuntimeError as error:
                return self._despite(error, func, args, {}, self._any(args))
        asked = False
        if kwargs:
            kwargs = unpinned(kwargs)
            device = kwargs.get("device")
            if device is not None and is_cuda(device):
                asked = True
                kwargs = {**kwargs, "device": _CPU}
        here = self._here
        if facts.takes_tensors:
            labelled = here.worked_on_device = self._any(args) or (bool(kwargs) and self._any(kwargs.values()))
        else:
            labelled = not asked and self.ever and self._works_on_device(sys._getframe(2))
        try:
            run = facts.kernel if labelled else facts.plain
            result = run(*args, **kwargs) if kwargs else run(*args)
        except RuntimeError as error:  # NotImplementedError, too
            result = self._despite(error, func, args, kwargs or {}, labelled)
        forced = here.forced
        if labelled or asked if forced is None else forced:
            if func is _PACK:
                self.put(result[0].untyped_storage())  # the sizes of the batches are the host's
            elif facts.makes_one and type(result) is torch.Tensor and result.layout is _STRIDED:
                self.put(result.untyped_storage())
            else:
                self._label(result, (*args, *(kwargs or {}).values()) if facts.aliases else ())
        return result

    def _learn(self, func: Any) -> _Facts:
        returns = func._schema.returns
        new = [value.alias_info is None for value in returns]
        kernel, plain = KERNELS.get(func), compat.kernel(func)
        facts = self._facts[id(func)] = _Facts(
            func,
            plain,
            kernel or plain,
            not all(new),
            new == [True],
            kernel is None and not any(new),
            any("Tensor" in str(argument.type) for argument in func._schema.arguments),
        )
        return facts

    def _works_on_device(self, caller: FrameType) -> bool:
        """Whether a factory is called by PyTorch's own code, in a backward pass or in a function of the program's call,
        that works on device memory. `caller` is the innermost frame of Python's that is not the instrument's."""
        if caller.f_code is compat.ENGINE:
            return self._here.worked_on_device
        if caller.f_code is not self.calls:
            return False
        given = tree_leaves(caller.f_locals["args"])
        return any(self.on_device(item) for item in given if isinstance(item, torch.Tensor))

    @staticmethod
    def _despite(error: RuntimeError, func: Any, args: Any, kwargs: Any, labelled: bool) -> Any:
        """What a card would give where the CPU has no kernel. Raises Unsupported, or the error."""
        if not labelled:
            raise error
        if _NO_KERNEL in str(error):
            raise Unsupported(f"{func} has a kernel for GPUs only", "try `--backend fake`") from error
        if not any(text in str(error) for text in _NO_HALF):
            raise error
        return in_single_precision(func, args, kwargs)

    def _any(self, arguments: Any) -> bool:
        """Whether a tensor among the arguments is on the device."""
        for argument in arguments:
            if type(argument) in _DENSE and argument.layout is _STRIDED:
                if argument.untyped_storage()._memlint_device:
                    return True
            elif isinstance(argument, torch.Tensor):
                if self.on_device(argument):
                    return True
            elif isinstance(argument, (list, tuple)) and self._any(argument):
                return True
        return False

    def _label(self, result: Any, arguments: Any) -> None:
        """Label what is new: an operation in place leaves its target on the side where it was."""
        if isinstance(result, torch.Tensor):
            dense = type(result) in _DENSE and result.layout is _STRIDED
            for part in (result,) if dense else parts(result):
                storage = part.untyped_storage()
                if not (self.holds(storage) or _has(arguments, storage)):
                    self.put(storage)
        elif isinstance(result, (list, tuple)):
            for item in result:
                self._label(item, arguments)


def is_cuda(device: object) -> bool:
    """Whether a device argument, in any of the forms that torch takes, means the card."""
    if isinstance(device, torch.device):
        return str(device.type) == "cuda"
    if isinstance(device, str):
        return device.startswith("cuda")
    return isinstance(device, int) and not isinstance(device, bool)


def _has(arguments: Any, storage: torch.UntypedStorage) -> bool:
    """Whether a tensor among the arguments has this storage."""
    for argument in arguments:
        if isinstance(argument, torch.Tensor):
            if any(part.untyped_storage()._cdata == storage._cdata for part in parts(argument)):
                return True
        elif isinstance(argument, (list, tuple)) and _has(argument, storage):
            return True
    return False
