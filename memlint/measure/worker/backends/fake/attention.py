"""Which kernel `scaled_dot_product_attention` takes on a card, by torch's own rules, and what that kernel allocates.

Source of the rules: pytorch, aten/src/ATen/native/transformers/cuda/sdp_utils.cpp (the checks, in its order) and
aten/src/ATen/native/transformers/attention.cpp (what is done to masks and head sizes before the kernel).
A CPU build knows none of it and takes the composite `math` path, which holds the whole matrix of weights.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from memlint.measure.worker.compat import sdp_priority

aten = torch.ops.aten

_HALF = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Call:
    """The arguments of one call. Query, key and value are (batch, heads, length, head size) where fused."""

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    mask: torch.Tensor | None
    dropout: float
    causal: bool
    grouped: bool
    capability: tuple[int, int]

    @property
    def needs_grad(self) -> bool:
        return torch.is_grad_enabled() and any(t.requires_grad for t in (self.query, self.key, self.value))

    @property
    def tensors(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return self.query, self.key, self.value


Check = Callable[[Call], "str | None"]
"""Why a kernel cannot take the call, in words; None if it can."""


def _shapes(call: Call) -> str | None:
    if any(tensor.is_nested for tensor in call.tensors):
        return "nested tensors"
    return None if all(tensor.dim() == 4 for tensor in call.tensors) else "not 4-dimensional"


def _no_mask(call: Call) -> str | None:
    return None if call.mask is None else "there is a mask"


def _mask_shape(call: Call) -> str | None:
    if call.mask is None:
        return None
    if call.mask.requires_grad:
        return "the mask needs a gradient"
    (batch, heads, length, _), keys = call.query.shape, call.key.shape[2]
    shape = call.mask.shape
    if len(shape) not in (2, 4) or shape[-2] not in (1, length) or shape[-1] not in (1, keys):
        return "the mask's shape"
    return None if len(shape) == 2 or (shape[0] in (1, batch) and shape[1] in (1, heads)) else "the mask's shape"


def _half(call: Call) -> str | None:
    allowed = _HALF if call.capability >= (8, 0) else (torch.float16,)
    same = call.query.dtype == call.key.dtype == call.value.dtype
    return None if same and call.query.dtype in allowed else f"{call.query.dtype}"


def _any_float(call: Call) -> str | None:
    allowed = (torch.float16, torch.float32) + ((torch.bfloat16,) if call.capability >= (8, 0) else ())
    same = call.query.dtype == call.key.dtype == call.value.dtype
    return None if same and call.query.dtype in allowed else f"{call.query.dtype}"


def _ampere(call: Call) -> str | None:
    return None if (8, 0) <= call.capability <= (12, 1) else f"compute capability {call.capability}"


def _flash_head_size(call: Call) -> str | None:
    sizes = {tensor.shape[-1] for tensor in call.tensors}
    if len(sizes) > 1 or max(sizes) > 256:
        return f"head sizes {sorted(sizes)}"
    size = sizes.pop()
    small_shared_memory = (8, 6) <= call.capability <= (8, 9) or (12, 0) <= call.capability <= (12, 1)
    if call.needs_grad and small_shared_memory and not (size <= 192 or (call.dropout == 0 and size > 224)):
        return f"no backward pass for head size {size} on this card"
    return None


def _square_if_causal(call: Call) -> str | None:
    return "causal, and not square" if call.causal and call.query.shape[-2] != call.key.shape[-2] else None


def _alignment(call: Call) -> int:
    """Of the last dimension, in elements, for the efficient kernel."""
    half = call.query.dtype in _HALF
    tensor_cores = call.capability >= (8, 0) or (call.capability >= (7, 0) and half)
    least = 4 if call.capability >= (8, 0) else 1
    return max(least, 128 // (16 if half else 32)) if tensor_cores else least


def _efficient_head_size(call: Call) -> str | None:
    query, key, value = (tensor.shape[-1] for tensor in call.tensors)
    alignment = _alignment(call)
    good = query == key and query > 0 and value > 0 and query % alignment == 0 and value % alignment == 0
    return None if good else f"head sizes {query}, {key}, {value} (multiples of {alignment} needed)"


def _lengths(call: Call) -> str | None:
    return "a length of 0" if 0 in (call.query.shape[-2], call.key.shape[-2]) else None


def _last_stride(call: Call, single_is_fine: bool) -> str | None:
    packed = all(tensor.stride(-1) == 1 for tensor in call.tensors)
    if not packed and not (single_is_fine and call.query.shape[-1] == 1):
        return "the last dimension is not packed"
    if call.mask is not None and call.mask.stride(-1) != 1:
        return "the mask's last dimension is not packed"
    return None


def _batch_and_heads(call: Call) -> str | None:
    if len({tensor.shape[0] for tensor in call.tensors}) > 1:
        return "different batch sizes"
    query, key, value = (tensor.shape[1] for tensor in call.tensors)
    if call.grouped:
        return None if key == value and query % key == 0 else f"heads {query}, {key}, {value}"
    return None if query == key == value else f"heads {query}, {key}, {value}"


def _cudnn_shapes(call: Call) -> str | None:
    (batch, heads, length, size), keys, out = call.query.shape, call.key.shape[2], call.value.shape[3]
    hopper = call.capability[0] in (9, 10)
    limit = 192 if hopper and (size, out) == (192, 128) else 128
    if max(batch, heads) > 65535 or max(size, out) > limit or size % 8 or out % 8:
        return f"head sizes {size}, {out}"
    if keys == 1 or (length == 1 and call.dropout):
        return "a length of 1"
    return None


def _cudnn_dropout(call: Call) -> str | None:
    return None if (call.dropout * 16).is_integer() else f"dropout {call.dropout} is no multiple of 1/16"


def _deterministic(_call: Call) -> str | None:
    strict = torch.are_deterministic_algorithms_enabled()
    return "not deterministic" if strict and not torch.is_deterministic_algorithms_warn_only_enabled() else None


def _enabled(switch: Callable[[], bool]) -> Check:
    return lambda _call: None if switch() else "switched off"


_FLASH: tuple[Check, ...] = (
    _enabled(torch.backends.cuda.flash_sdp_enabled),
    _shapes,
    _no_mask,
    _flash_head_size,
    _ampere,
    _square_if_causal,
    _half,
    _batch_and_heads,
    _lengths,
    lambda call: _last_stride(call, single_is_fine=True),
)
_EFFICIENT: tuple[Check, ...] = (
    _enabled(torch.backends.cuda.mem_efficient_sdp_enabled),
    _shapes,
    _efficient_head_size,
    _lengths,
    lambda call: _last_stride(call, single_is_fine=False),
    _batch_and_heads,
    _any_float,
)
_CUDNN: tuple[Check, ...] = (
    _enabled(torch.backends.cuda.cudnn_sdp_enabled),
    _shapes,
    _deterministic,
    _half,
    _mask_shape,
    _ampere,
    _cudnn_dropout,
    _lengths,
    lambda call: _last_stride(call, single_is_fine=True),
    _batch_and_heads,
    _cudnn_shapes,
)
_MATH: tuple[Check, ...] = (_enabled(torch.backends.cuda.math_sdp_enabled),)
_CHECKS = {"math": _MATH, "flash": _FLASH, "efficient": _EFFICIENT, "cudnn": _CUDNN}


def _order(capability: tuple[int, int]) -> tuple[str, ...]:
    """The kernels in order of preference: as the program set it, or torch's own order for the card."""
    order = sdp_priority()
    prefers_cudnn = capability[0] in (9, 10) and os.environ.get("TORCH_CUDNN_SDPA_DEPRIORITIZED") != "1"
    if order == ("flash", "efficient", "math", "cudnn") and prefers_cudnn:
        return "cudnn", "flash", "efficient", "math"
    return order


def choose(call: Call) -> tuple[str, str]:
    """The kernel, and why none before it. Raises RuntimeError, as torch does, if all that could are switched off."""
    refused: list[str] = []
    for kernel in _order(call.capability):
        why_not = next((reason for check in _CHECKS[kernel] if (reason := check(call))), None)
        if why_not is None:
            return kernel, "; ".join(refused) or "the first choice"
        refused.append(f"not {kernel}: {why_not}")
    raise RuntimeError(f"No available kernel. Aborting execution. ({'; '.join(refused)})")


def attend(kernel: str, call: Call, scale: float | None) -> Any:
    """What the kernel allocates, as differentiable operators on fake tensors."""
    query, key, value = call.tensors
    if kernel == "flash":
        return _flash(call, scale)
    if kernel == "efficient":
        bias = None if call.mask is None else _aligned(_additive(call.mask, query.dtype), call)
        return aten._scaled_dot_product_efficient_attention(
            query, key, value, bias, call.needs_grad, call.dropout, call.causal, scale=scale
        )[0]
    if kernel == "cudnn":
        bias = None if call.mask is None else _additive(call.mask, query.dtype)
        return aten._scaled_dot_product_cudnn_attention(
            query, key, value, bias, call.needs_grad, call.dropout, call.causal, False, scale=scale
        )[0]
    mask = None if call.mask is None else _additive(call.mask, query.dtype)
    return aten._scaled_dot_product_attention_math(
        query, key, value, mask, call.dropout, call.causal, scale=scale, enable_gqa=call.grouped
    )[0]


def _flash(call: Call, scale: float | None) -> Any:
    """Head sizes are padded to a multiple of 8 before the kernel and cut after it."""
    size = call.query.shape[-1]
    padded = [torch.nn.functional.pad(t, (0, -size % 8)) if size % 8 else t for t in call.tensors]
    out = aten._scaled_dot_product_flash_attention(
        *padded, call.dropout, call.causal, False, scale=size**-0.5 if scale is None else scale
    )[0]
    return out[..., :size] if size % 8 else out


def _additive(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    if mask.dtype is not torch.bool:
        return mask
    lowest = torch.full((), float("-inf"), dtype=dtype, device=mask.device)
    return torch.where(mask, 0.0, lowest)


def _aligned(mask: torch.Tensor, call: Call) -> torch.Tensor:
    """The efficient kernel reads a mask whose rows are 16 elements apart, or a multiple; else it is copied to such."""
    last = mask.shape[-1]
    if mask.stride(-1) != 1 or any(stride % 16 for stride in mask.stride()[:-1]):
        mask = torch.nn.functional.pad(mask, (0, 16 - last % 16))[..., :last]
    (batch, heads, length, _), keys = call.query.shape, call.key.shape[2]
    return mask.expand(batch, heads, length, keys)
