"""Composite operators that look at the device: for device memory on the CPU, what they call on a card."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from memlint.measure.worker import compat
from memlint.measure.worker.backends import recurrent
from memlint.measure.worker.backends.fake.kernels import Routes
from memlint.measure.worker.backends.labels import Labels

aten = torch.ops.aten


@contextmanager
def as_on_a_card(labels: Labels, routes: Routes) -> Iterator[None]:
    """The routes hold while the block runs, for device tensors; host tensors go PyTorch's own way."""
    library = torch.library.Library("aten", "IMPL")
    table: dict[str, Callable[..., Any]] = {
        **routes.composites(),
        **recurrent.routes(routes.note_recurrent),
        "dropout": _dropout,
        "_pad_packed_sequence": partial(_pad_packed, labels),
        "_pack_padded_sequence_backward": partial(_pack_padded_backward, labels),
        "softmax.int": _to_single(aten.softmax.int, aten._softmax.default),
        "log_softmax.int": _to_single(aten.log_softmax.int, aten._log_softmax.default),
    }
    try:
        for name, kernel in (("_fused_rms_norm", _rms_norm), ("_fused_rms_norm_backward", _rms_norm_backward)):
            # With a kernel of its own, PyTorch takes the operator whole, as it does on a card.
            if not compat.has_kernel(f"aten::{name}", "CPU"):
                library.impl(name, kernel, "CPU")
        for name, kernel in table.items():
            library.impl(name, _on_device_only(labels, compat.operator(name), kernel), "AutogradCPU")
        for name, kernel in routes.fused_layers(labels.on_device).items():
            library.impl(name, kernel, "AutogradCPU")
        yield
    finally:
        library._destroy()


def route(labels: Labels, routes: Routes, operator: Any) -> Callable[..., Any] | None:
    """What runs in the place of an operator that PyTorch leaves whole, as it does in inference mode."""
    own = routes.whole(operator, labels.on_device)
    if own is None or not compat.is_composite(operator):
        return own
    return _on_device_only(labels, operator, own)


def _on_device_only(labels: Labels, operator: Any, route: Callable[..., Any]) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        if labels.on_device(args[0]):
            return route(*args, **kwargs)
        return compat.compose(operator, args, kwargs)

    return run


def _pad_packed(labels: Labels, *args: Any, **kwargs: Any) -> Any:
    """PyTorch makes a tensor as its argument's options say, and these say `cpu`. The lengths are the host's."""
    with labels.results(on_device=True):
        padded, lengths = compat.compose(aten._pad_packed_sequence.default, args, kwargs)
    with labels.results(on_device=False):
        return padded, lengths.clone()


def _pack_padded_backward(labels: Labels, *args: Any, **kwargs: Any) -> Any:
    with labels.results(on_device=True):
        return compat.compose(aten._pack_padded_sequence_backward.default, args, kwargs)


def _dropout(input: torch.Tensor, p: float, train: bool) -> Any:
    """A card keeps a mask of one byte an element; the CPU one of the input's type."""
    if train and 0 < p < 1 and input.numel():
        return aten.native_dropout(input, p, train)[0]
    return compat.compose(aten.dropout.default, (input, p, train), {})


def _to_single(composite: Any, kernel: Any) -> Callable[..., Any]:
    """Half precision in, single precision out is one operation on a card."""

    def run(input: torch.Tensor, dim: int, dtype: torch.dtype | None = None) -> Any:
        if input.dtype is torch.float16 and dtype is torch.float32:
            return kernel(input, dim, True)
        return compat.compose(composite, (input, dim, dtype), {})

    return run


def _rms_norm(input: torch.Tensor, shape: Sequence[int], weight: torch.Tensor | None, eps: float | None) -> Any:
    dims = tuple(range(-len(shape), 0))
    wide = input.float() if input.dtype in {torch.float16, torch.bfloat16} else input
    eps = torch.finfo(wide.dtype).eps if eps is None else eps
    reciprocal = (wide.square().mean(dims, keepdim=True) + eps).rsqrt()
    out = wide * reciprocal
    return (out if weight is None else out * weight).to(input.dtype), reciprocal


def _rms_norm_backward(
    grad_out: torch.Tensor,
    input: torch.Tensor,
    shape: Sequence[int],
    reciprocal: torch.Tensor,
    weight: torch.Tensor | None,
    mask: Sequence[bool],
) -> Any:
    dims = tuple(range(-len(shape), 0))
    normal = input * reciprocal
    grad = grad_out if weight is None else grad_out * weight
    grad_input = (grad - normal * (grad * normal).mean(dims, keepdim=True)) * reciprocal
    grad_weight = None
    if weight is not None and mask[1]:
        grad_weight = (grad_out * normal).sum_to_size(weight.shape).to(weight.dtype)
    return grad_input.to(input.dtype) if mask[0] else None, grad_weight
