"""Functions of torch that a build without CUDA cannot run, and what they come to when there is one card."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.parallel import comm

from memlint.measure.worker import compat
from memlint.measure.worker.backend import Unsupported
from memlint.measure.worker.patching import Patches


def one_card(patches: Patches) -> None:
    """What holds wherever a card is pretended."""
    # Host memory: pinned or not, it is none of the card's, and a program that asks wants to hear that it is.
    patches.set(torch.Tensor, "pin_memory", lambda tensor, *_args, **_kwargs: tensor)
    patches.set(torch.Tensor, "is_pinned", lambda tensor, *_args, **_kwargs: not tensor.is_cuda)
    patches.set(torch.Tensor, "record_stream", lambda _tensor, _stream: None)
    # cuDNN would put a recurrent layer's weights in one buffer: of the same size.
    patches.set(torch.backends.cudnn, "is_acceptable", lambda _tensor: False)
    patches.set(comm, "scatter", _scatter)
    patches.set(torch.autograd.forward_ad, "enter_dual_level", _no_forward_mode)
    for name in ("nested_tensor", "as_nested_tensor", "nested_tensor_from_jagged", "narrow", "masked_select"):
        if hasattr(torch.nested, name):
            patches.set(torch.nested, name, _no_nested_tensors)


def unpinned(options: dict[str, Any]) -> dict[str, Any]:
    """A factory's options for ordinary host memory: to pin it takes CUDA."""
    return {**options, "pin_memory": False} if options.get("pin_memory") else options


@contextmanager
def patched_tensors() -> Iterator[None]:
    with Patches() as patches:
        one_card(patches)
        patches.set(torch.Tensor, "__format__", _format)
        patches.enter_context(compat.loading_to_cuda())
        yield


_plain_format = torch.Tensor.__format__


def _format(tensor: torch.Tensor, specification: str) -> str:
    """`f"{loss:.3f}"`: torch takes the number of plain tensors only."""
    if isinstance(tensor, compat.FakeTensor) and tensor.dim() == 0:
        return format(tensor.item(), specification)
    return str(_plain_format(tensor, specification))


def _no_forward_mode(*_args: Any, **_kwargs: Any) -> Any:
    raise Unsupported("forward-mode differentiation (`torch.func.jvp`, `hessian`) can be measured on a card only")


def _no_nested_tensors(*_args: Any, **_kwargs: Any) -> Any:
    raise Unsupported("nested tensors can be measured on a card only", "give the model padded batches")


def _scatter(
    tensor: torch.Tensor, devices: Sequence[Any] | None = None, *_args: Any, **_kwargs: Any
) -> tuple[Any, ...]:
    """DataParallel on one card hands the whole batch on."""
    if devices is None or len(devices) != 1:
        raise Unsupported("DataParallel over several cards", "measure one card's share of the batch")
    return (tensor.to("cuda"),)
