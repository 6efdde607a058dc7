"""What `nn.MultiheadAttention` and `nn.TransformerEncoderLayer` run in evaluation without grad: one operator for all.

Its kernel calls others below autograd, where no mode sees them. Here it is taken apart as it is for a card, so that
what it allocates on the way is seen. Sources: pytorch, in aten/src/ATen/native: transformers/cuda/attention.cu
(native_multi_head_attention_cuda, transform_bias_rescale_qkv_cuda), transformers/attention.cpp (bmm_nt, bmm_nn,
masked_softmax), transformers/transformer.cpp (transformer_encoder_layer_forward), cuda/SoftMax.cu
(masked_softmax_cuda).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from memlint.measure.worker.compat import FakeTensor

aten = torch.ops.aten

Fuses = Callable[[Tensor, Tensor, Tensor], bool]
"""Of query, key and value, (batch, heads, length, head size): whether a card has a fused kernel for them."""

_PERSISTENT_ELEMENTS, _PERSISTENT_BYTES = 1024, 4096
"""Rows up to which a card's masked softmax is one kernel; longer ones are masked first."""


def multi_head_attention(
    fuses: Fuses,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    width: int,
    heads: int,
    qkv_weight: Tensor,
    qkv_bias: Tensor,
    out_weight: Tensor,
    out_bias: Tensor,
    mask: Tensor | None = None,
    need_weights: bool = True,
    average_weights: bool = True,
    mask_type: int | None = None,
) -> tuple[Tensor, Tensor | None]:
    """`aten::_native_multi_head_attention`."""
    itself = query is key and key is value
    if itself and mask is None and not need_weights and fuses(*(_by_head(query, heads) for _ in range(3))):
        q, k, v = (_by_head(part, heads) for part in aten.linear(query, qkv_weight, qkv_bias).chunk(3, -1))
        attended = aten.scaled_dot_product_attention(q, k, v)
        attended = attended.transpose(1, 2).reshape(query.shape[0], -1, width)
        return aten.linear(attended, out_weight, out_bias), None
    q, k, v = aten._transform_bias_rescale_qkv(_projected(query, key, value, qkv_weight), qkv_bias, heads)
    batch, _, length, size = q.shape
    together = (batch * heads, length, size)
    scores = torch.bmm(q.view(together), k.view(together).transpose(2, 1)).view(batch, heads, length, length)
    scores = _masked_softmax(scores, mask, mask_type)
    # The queries' memory takes the result.
    torch.bmm(scores.view(batch * heads, length, length), v.view(together), out=q.view(together))
    weights: Tensor | None = scores if need_weights else None
    del scores
    out = aten.linear(q.permute(0, 2, 1, 3).contiguous().view(batch * length, width), out_weight, out_bias)
    if weights is not None and average_weights:
        weights = weights.sum(1)
        weights /= heads
    return out.view(batch, length, width), weights


def _projected(query: Tensor, key: Tensor, value: Tensor, weight: Tensor) -> Tensor:
    """Queries, keys and values side by side, before their biases."""
    if key is not value:
        pairs = zip((query, key, value), weight.chunk(3), strict=True)
    elif query is not key:
        pairs = zip((query, key), weight.split([query.shape[-1], 2 * query.shape[-1]]), strict=True)
    else:
        return torch.matmul(query, weight.t())
    return torch.cat([torch.matmul(tensor, part.t()) for tensor, part in pairs], 2)


def _by_head(packed: Tensor, heads: int) -> Tensor:
    return packed.view(packed.shape[0], -1, heads, packed.shape[-1] // heads).transpose(1, 2)


def _masked_softmax(scores: Tensor, mask: Tensor | None, mask_type: int | None) -> Tensor:
    """`mask_type` 0: (length, length), 1: (batch, length), 2: as the scores. True: left out."""
    if mask is None:
        aten._softmax.out(scores, -1, False, out=scores)
        return scores
    if mask.dtype is not torch.bool:
        mask = mask.to(torch.bool)

    def softmax(masked: Tensor) -> Any:
        """For the values the CPU's own kernel, if there are any."""
        if isinstance(scores, FakeTensor):
            return torch.softmax(masked, -1)
        return aten._masked_softmax(scores, mask, -1, mask_type)

    row = scores.shape[-1]
    whole = mask.expand(scores.shape) if mask_type == 0 else mask
    if row <= _PERSISTENT_ELEMENTS and row * scores.element_size() <= _PERSISTENT_BYTES and whole.is_contiguous():
        return softmax(scores)
    if mask_type == 1:
        whole = mask.view(mask.shape[0], 1, 1, row).expand(scores.shape)
    allocated_in_vain = torch.empty_like(scores)
    result = softmax(scores.masked_fill(whole, float("-inf")))
    del allocated_in_vain
    return result


def encoder_layer(
    attend: Callable[..., Any],
    src: Tensor,
    width: int,
    heads: int,
    qkv_weight: Tensor,
    qkv_bias: Tensor,
    out_weight: Tensor,
    out_bias: Tensor,
    use_gelu: bool,
    norm_first: bool,
    epsilon: float,
    norm_weight_1: Tensor,
    norm_bias_1: Tensor,
    norm_weight_2: Tensor,
    norm_bias_2: Tensor,
    up_weight: Tensor,
    up_bias: Tensor,
    down_weight: Tensor,
    down_bias: Tensor,
    mask: Tensor | None = None,
    mask_type: int | None = None,
) -> Tensor:
    """`aten::_transformer_encoder_layer_fwd`; `attend` is what its attention runs."""

    def first_norm(x: Tensor) -> Tensor:
        return torch.layer_norm(x, (width,), norm_weight_1, norm_bias_1, epsilon)

    def second_norm(x: Tensor) -> Tensor:
        return torch.layer_norm(x, (width,), norm_weight_2, norm_bias_2, epsilon)

    x = first_norm(src) if norm_first else src
    weights = (qkv_weight, qkv_bias, out_weight, out_bias)
    x = attend(x, x, x, width, heads, *weights, mask, False, True, mask_type)[0]
    x.add_(src)
    if not norm_first:
        x = first_norm(x)
    before = x
    if norm_first:
        x = second_norm(x)
    flat = x.view(-1, width)
    hidden = aten._addmm_activation(up_bias, flat, up_weight.t(), use_gelu=use_gelu)
    x = torch.addmm(down_bias, hidden, down_weight.t()).view(src.shape)
    del hidden
    x.add_(before)
    return x if norm_first else second_norm(x)
