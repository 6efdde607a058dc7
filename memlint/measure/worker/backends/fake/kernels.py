"""What a card runs where a CPU build of torch runs something else: composite operators routed as in a CUDA build.

Each is registered for `AutogradCUDA`, above autograd and below autocast, where torch's own composite functions sit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from memlint.measure.recording import KernelChoice, Place
from memlint.measure.worker.backends.fake.attention import Call, attend, choose
from memlint.measure.worker.backends.fake.fused_layers import encoder_layer, multi_head_attention
from memlint.measure.worker.compat import compose_without_cudnn, has_kernel, own_kernels

aten = torch.ops.aten

_RECURRENT = [f"{layer}.{kind}" for layer in ("lstm", "gru", "rnn_tanh", "rnn_relu") for kind in ("input", "data")]
_NOT_COMPOSITE = ("_fused_rms_norm", "silu_backward", "mish_backward")
"""All operators that have a kernel for CUDA and, for others, are composed (so a CUDA build of torch 2.11)."""
_CUDNN_SMALLEST_EPSILON = 1e-5
"""CUDNN_BN_MIN_EPSILON, as torch asks for it."""


def _always(_tensor: torch.Tensor) -> bool:
    return True


class Routes:
    """The routed operators, and which kernel was taken where."""

    def __init__(self, capability: tuple[int, int], place: Callable[[], Place | None]) -> None:
        self._capability = capability
        self._place = place
        self._counts: dict[tuple[str, str, str, Place | None], int] = {}
        self._whole = self.composites() | self.fused_layers(_always)

    def chosen(self) -> list[KernelChoice]:
        return [KernelChoice(*choice, count) for choice, count in self._counts.items()]

    def note(self, operation: str, kernel: str, reason: str) -> None:
        """Count a choice at the line that is running."""
        key = (operation, kernel, reason, self._place())
        self._counts[key] = self._counts.get(key, 0) + 1

    def note_recurrent(self, name: str) -> None:
        self.note(name, "PyTorch's own cells", "cuDNN does not say how much its layers keep for backward")

    @contextmanager
    def registered(self) -> Iterator[None]:
        """The routes hold while the block runs."""
        with own_kernels() as library:
            for name, route in (self.composites() | self.fused_layers(_always)).items():
                library.impl(name, route, "AutogradCUDA")
            for name in _RECURRENT:
                library.impl(name, self._recurrent(name), "AutogradCUDA")
            for name, shapes in _SHAPES.items():
                if not has_kernel(f"aten::{name}", "Meta"):
                    library.impl(name, shapes, "Meta")
            for name in _NOT_COMPOSITE:
                # With a kernel for CUDA, however idle, torch takes the operator whole.
                if not has_kernel(f"aten::{name}", "CUDA"):
                    library.impl(name, _never, "CUDA")
            yield

    def composites(self) -> dict[str, Callable[..., Any]]:
        """The operators that call others, and which depends on the device."""
        return {
            "scaled_dot_product_attention": self._attention,
            "_batch_norm_impl_index": self._batch_norm,
        }

    def fused_layers(self, on_card: Callable[[torch.Tensor], bool]) -> dict[str, Callable[..., Any]]:
        """Layers in evaluation, taken apart: as on a card, where their input counts as one's."""

        def fuses(query: Any, key: Any, value: Any) -> bool:
            call = Call(query, key, value, None, 0.0, False, False, self._capability)
            return on_card(query) and choose(call)[0] != "math"

        attend = partial(multi_head_attention, fuses)
        return {
            "_native_multi_head_attention": attend,
            "_transformer_encoder_layer_fwd": partial(encoder_layer, attend),
        }

    def whole(self, func: Any, on_card: Callable[[torch.Tensor], bool] = _always) -> Callable[..., Any] | None:
        """The route of an operator that reaches the modes whole: in inference mode autograd is passed over."""
        if func.namespace != "aten" or func._overloadname != "default":
            return None
        if on_card is _always:
            return self._whole.get(func._opname)
        return (self.composites() | self.fused_layers(on_card)).get(func._opname)

    def _attention(
        self,
        query: Any,
        key: Any,
        value: Any,
        attn_mask: Any = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        *,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Any:
        if attn_mask is not None and is_causal:
            raise RuntimeError("Explicit attn_mask should not be set when is_causal=True")
        call = Call(query, key, value, attn_mask, dropout_p, is_causal, enable_gqa, self._capability)
        kernel, reason = choose(call)
        self.note("scaled_dot_product_attention", kernel, reason)
        return attend(kernel, call, scale)

    def _recurrent(self, name: str) -> Callable[..., Any]:
        packet, overload = name.split(".")
        operator = getattr(getattr(aten, packet), overload)

        def route(*args: Any, **kwargs: Any) -> Any:
            self.note_recurrent(packet)
            return compose_without_cudnn(operator, args, kwargs)

        return route

    def _batch_norm(
        self,
        input: Any,
        weight: Any,
        bias: Any,
        running_mean: Any,
        running_var: Any,
        training: bool,
        momentum: float,
        eps: float,
        cudnn_enabled: bool,
    ) -> Any:
        """As in Normalization.cpp: cuDNN's kernel keeps no statistics in evaluation, torch's own does."""
        arguments = (input, weight, bias, running_mean, running_var, training, momentum, eps)
        if cudnn_enabled and _cudnn_normalizes(input, weight, bias, running_mean, running_var, training, eps):
            output, mean, variance, reserve = aten.cudnn_batch_norm(*arguments)
            return output, mean, variance, reserve, 1
        reserve = torch.empty(0, dtype=torch.uint8, device=input.device)
        return *aten.native_batch_norm(*arguments), reserve, 0


def _cudnn_normalizes(
    input: Any,
    weight: Any,
    bias: Any,
    running_mean: Any,
    running_var: Any,
    training: bool,
    eps: float,
) -> bool:
    if weight is None or bias is None or eps < _CUDNN_SMALLEST_EPSILON:
        return False
    if torch.bfloat16 in (input.dtype, weight.dtype) or (
        input.dtype is torch.float16 and weight.dtype is not torch.float32
    ):
        return False
    statistics = running_mean is not None and running_var is not None
    if not statistics and not (training and running_mean is None and running_var is None):
        return False
    return input.dim() >= 3 and bool(input.shape[0] <= (880801 if training else 65535))


def _never(*_args: Any, **_kwargs: Any) -> Any:
    raise AssertionError("a fake tensor has no kernel to run")


def _gru_cell(input_gates: Any, hidden_gates: Any, hx: Any, input_bias: Any = None, hidden_bias: Any = None) -> Any:
    """aten/src/ATen/native/cuda/RNN.cu: the new state, and a workspace of five rows for the backward pass."""
    return torch.empty_like(hx, memory_format=torch.contiguous_format), hx.new_empty(hx.shape[0], hx.shape[1] * 5)


def _gru_cell_backward(grad: Any, workspace: Any, has_bias: bool) -> Any:
    batch, hidden = workspace.shape[0], workspace.shape[1] // 5
    gates = [workspace.new_empty(batch, hidden * 3) for _ in range(2)]
    biases = [workspace.new_empty(hidden * 3) if has_bias else None for _ in range(2)]
    return *gates, torch.empty_like(grad, memory_format=torch.contiguous_format), *biases


def _transform_bias_rescale_qkv(qkv: Any, bias: Any, heads: int) -> Any:
    """aten/src/ATen/native/transformers/cuda/attention.cu: one block for queries, keys and values."""
    batch, length, triple = qkv.shape
    return bias.new_empty(3 * batch, heads, length, triple // 3 // heads).split(batch)


_SHAPES: dict[str, Callable[..., Any]] = {
    "_transform_bias_rescale_qkv": _transform_bias_rescale_qkv,
    "_thnn_fused_gru_cell": _gru_cell,
    "_thnn_fused_gru_cell_backward": _gru_cell_backward,
}
"""Operators that have kernels for CUDA and, in torch, no function that gives the shapes of their results."""
