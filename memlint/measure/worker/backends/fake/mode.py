"""Only `cuda` is fake: what touches it has shapes and no values, everything else runs as it is.

So loaders, tokenizers, files and metrics work, and device memory costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch.overrides import TorchFunctionMode

from memlint.measure.worker.backend import Unsupported
from memlint.measure.worker.backends.fake.deferred import READERS, DeferredWeights
from memlint.measure.worker.backends.fake.host_memory import HostMemory
from memlint.measure.worker.backends.fake.kernels import Routes
from memlint.measure.worker.backends.fake.patches import unpinned
from memlint.measure.worker.backends.fake.unknown import answer_for
from memlint.measure.worker.backends.fake.values import Assumptions, KnownValues
from memlint.measure.worker.backends.fake.workspaces import UsedWorkspaces
from memlint.measure.worker.compat import (
    UNKNOWN_OPERATOR_ERRORS,
    UNKNOWN_VALUE_ERRORS,
    WITHOUT_KERNEL,
    FakeTensor,
    OneFakeMode,
    TorchDispatchMode,
)

_ADVICE = "try `--backend cpu`"


class OnlyCudaIsFake(TorchDispatchMode):
    """Runs each operator on fake tensors if one of its arguments is fake or it asks for `cuda`, and for real if not."""

    def __init__(self, values: KnownValues, assumptions: Assumptions, routes: Routes, host: HostMemory) -> None:
        super().__init__()
        self.values = values
        self.assumptions = assumptions
        self.deferred = DeferredWeights(assumptions, host)
        self._routes = routes
        self.workspaces: UsedWorkspaces | None = None
        self.fake_mode = OneFakeMode()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not _has_fake(args) and not _is_cuda(kwargs.get("device")) and not (kwargs and _has_fake(kwargs.values())):
            return self.deferred.run(func, args, unpinned(kwargs))
        answer = answer_for(func)
        if answer is not None:
            result = answer(self, func, args, kwargs)
            if result is not NotImplemented:
                return result
        route = self._routes.whole(func)  # where the tracker has not asked for it
        if route is not None:
            with self:
                return route(*args, **kwargs)
        result = self.run_fake(func, args, kwargs)
        if self.workspaces is not None:
            self.workspaces.note(func, args)
        self.values.follow(func, args, kwargs, result)
        return result

    def run_fake(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Shapes only. Raises Unsupported where the operator has none without values."""
        try:
            with self.fake_mode.turn, self.fake_mode:
                result = func(*args, **kwargs)
        except UNKNOWN_VALUE_ERRORS as error:
            raise Unsupported(
                f"the result of {func} depends on values, which prediction does not have", _ADVICE
            ) from error
        except UNKNOWN_OPERATOR_ERRORS as error:
            raise Unsupported(f"{func} has no shape function, so its result cannot be predicted", _ADVICE) from error
        except NotImplementedError as error:
            if WITHOUT_KERNEL not in str(error):
                raise
            raise Unsupported(f"{func} has no shape function, so its result cannot be predicted", _ADVICE) from error
        return self._real_on_host(result, args)

    def _real_on_host(self, result: Any, args: tuple[Any, ...]) -> Any:
        """Tensors on the host are real, what the device knew is gone: an argument written to stays what it was."""
        if isinstance(result, FakeTensor):
            if result.layout is not torch.strided:
                raise Unsupported(
                    "how much a sparse tensor holds depends on values, which prediction does not have", _ADVICE
                )
            if result.device.type == "cuda":
                return result
            if args and isinstance(args[0], torch.Tensor) and not isinstance(args[0], FakeTensor):
                return args[0]
            self.assumptions.note("values that come from the device are zeros on the host")
            return torch.zeros(result.shape, dtype=result.dtype)
        if type(result) in (tuple, list):
            return type(result)(self._real_on_host(item, ()) for item in result)
        return result


def _has_fake(items: Any) -> bool:
    for item in items:
        if isinstance(item, FakeTensor):
            return True
        if isinstance(item, (list, tuple)) and _has_fake(item):
            return True
    return False


def _is_cuda(device: Any) -> bool:
    return device is not None and torch.device(device).type == "cuda"


class Calls(TorchFunctionMode):
    """What can only be told by the name that a program calls.

    `isnan`, `isinf` and `isfinite` are comparisons like any other underneath: they are answered as for a training run
    that goes well. `numpy()` and its like read a tensor's memory without any operator.
    """

    _SOUND: ClassVar[dict[Any, bool]] = {
        torch.isnan: False,
        torch.Tensor.isnan: False,
        torch.isinf: False,
        torch.Tensor.isinf: False,
        torch.isfinite: True,
        torch.Tensor.isfinite: True,
    }

    def __init__(self, mode: OnlyCudaIsFake) -> None:
        super().__init__()
        self._mode = mode

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in READERS:
            self._mode.deferred.read(args[0])
        result = func(*args, **kwargs) if kwargs else func(*args)
        sound = self._SOUND.get(func)
        if sound is None or not isinstance(result, FakeTensor) or self._mode.values.of(result) is not None:
            return result
        self._mode.assumptions.note("values on the device are finite")
        self._mode.values.assume(result, sound)
        return result
