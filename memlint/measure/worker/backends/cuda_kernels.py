"""Operators that only CUDA has, run on the CPU with results of the same sizes.

What they compute on the way is below the tracker, as what a kernel does on a card is: only results are counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils._pytree import tree_leaves, tree_map_only

from memlint.measure.worker import compat
from memlint.measure.worker.backends import recurrent

aten = torch.ops.aten

Kernel = Callable[..., Any]

_HALF = frozenset({torch.float16, torch.bfloat16})


def _sizes(operator: Any, *args: Any, **kwargs: Any) -> Any:
    """The results that the operator would have, without their bytes."""

    def shape_only(tensor: torch.Tensor) -> torch.Tensor:
        return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")

    args, kwargs = tree_map_only(torch.Tensor, shape_only, (args, kwargs))
    return operator(*args, **kwargs)


def _filled(template: torch.Tensor, values: torch.Tensor | None) -> torch.Tensor:
    made = torch.empty_strided(template.shape, template.stride(), dtype=template.dtype, device="cpu")
    if values is not None and made.numel():
        made.copy_(values)
    return made


def _named(operator: Any, args: Any, kwargs: Any) -> dict[str, Any]:
    arguments = operator._schema.arguments
    values = {argument.name: argument.default_value for argument in arguments if argument.has_default_value()}
    values.update(zip((argument.name for argument in arguments), args, strict=False))
    return {**values, **kwargs}


# ---- attention


class _Attention:
    """Attention in single precision, forwards and backwards, from the arguments of any of the fused operators."""

    def __init__(self, call: dict[str, Any], seed: int) -> None:
        self._call = call
        query, key, value = (call[name].float() for name in ("query", "key", "value"))
        self._groups = query.shape[1] // key.shape[1]
        self.query = query
        self.key = key.repeat_interleave(self._groups, 1)
        self.value = value.repeat_interleave(self._groups, 1)
        self.scale = call.get("scale") or query.shape[-1] ** -0.5
        scores = (query @ self.key.transpose(-1, -2)) * self.scale
        if call.get("attn_bias") is not None:
            scores = scores + call["attn_bias"]
        if call.get("is_causal"):
            allowed = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
            scores = scores.masked_fill(~allowed, float("-inf"))
        self.normaliser = scores.logsumexp(-1)
        self.weights = (scores - self.normaliser.unsqueeze(-1)).exp().nan_to_num(0.0)
        self.kept = torch.ones(())
        dropout = call.get("dropout_p") or 0.0
        if dropout:
            generator = torch.Generator("cpu").manual_seed(seed)
            drawn = torch.rand(scores.shape, generator=generator)
            self.kept = (drawn >= dropout).float() / (1 - dropout)
        self.out = (self.weights * self.kept) @ self.value

    def gradients(self, grad_out: torch.Tensor) -> dict[str, torch.Tensor]:
        grad = grad_out.float()
        grad_weights = (grad @ self.value.transpose(-1, -2)) * self.kept
        grad_scores = self.weights * (grad_weights - (grad_weights * self.weights).sum(-1, keepdim=True))
        grad_value = (self.weights * self.kept).transpose(-1, -2) @ grad
        return {
            "query": grad_scores @ self.key * self.scale,
            "key": self._summed(grad_scores.transpose(-1, -2) @ self.query * self.scale),
            "value": self._summed(grad_value),
            "attn_bias": grad_scores,
        }

    def _summed(self, gradient: torch.Tensor) -> torch.Tensor:
        if self._groups == 1:
            return gradient
        batch, heads, *rest = gradient.shape
        return gradient.view(batch, heads // self._groups, self._groups, *rest).sum(2)


def _attend(operator: Any) -> Kernel:
    def run(*args: Any, **kwargs: Any) -> Any:
        call = _named(operator, args, kwargs)
        # Only dropout draws from the generator, as on a card.
        seed = int(torch.randint(2**62, ())) if call["dropout_p"] else 0
        attention = _Attention(call, seed)
        output, normaliser, *others = _sizes(operator, *args, **kwargs)
        return (
            _filled(output, attention.out),
            _filled(normaliser, _fitting(normaliser, attention.normaliser)),
            *(_filled(item, torch.tensor(seed)) if isinstance(item, torch.Tensor) else item for item in others),
        )

    return run


def _fitting(template: torch.Tensor, values: torch.Tensor) -> torch.Tensor | None:
    """The normaliser has a dimension more or is padded in some kernels, and is left out in others."""
    if template.numel() == values.numel():
        return values.view(template.shape)
    missing = template.shape[-1] - values.shape[-1]
    return torch.nn.functional.pad(values, (0, missing)) if missing > 0 else None


def _attend_backward(operator: Any) -> Kernel:
    def run(*args: Any, **kwargs: Any) -> Any:
        call = _named(operator, args, kwargs)
        attention = _Attention(call, int(call["philox_seed"].flatten()[0]))
        gradients = attention.gradients(call["grad_out_" if "grad_out_" in call else "grad_out"])
        templates = _sizes(operator, *args, **kwargs)
        names = ("query", "key", "value", "attn_bias")
        return tuple(
            _filled(template, _reduced(gradients[name], template)) if isinstance(template, torch.Tensor) else template
            for name, template in zip(names, templates, strict=False)
        )

    return run


def _reduced(gradient: torch.Tensor, template: torch.Tensor) -> torch.Tensor | None:
    if template.numel() == 0:
        return None
    return gradient.sum_to_size(template.shape) if gradient.shape != template.shape else gradient


# ---- the rest


def _softmax(operator: Any) -> Kernel:
    """Half-precision scores, weights in single precision: one operation on a card."""

    def run(scores: torch.Tensor, dim: int, half_to_float: bool) -> Any:
        return operator(scores.float() if half_to_float else scores, dim, False)

    return run


def _softmax_backward(operator: Any) -> Kernel:
    def run(grad: torch.Tensor, output: torch.Tensor, dim: int, input_dtype: torch.dtype) -> Any:
        return operator(grad, output, dim, output.dtype).to(input_dtype)

    return run


def _batch_norm(input: Any, weight: Any, bias: Any, mean: Any, variance: Any, training: bool, *rest: Any) -> Any:
    """A card keeps the statistics in evaluation, too: PyTorch's own kernel does, cuDNN's does not."""
    arguments = (input, weight, bias, mean, variance, training, *rest)
    results = aten.native_batch_norm.default(*arguments)
    templates = _sizes(aten.native_batch_norm.default, *arguments)
    pairs = zip(results, templates, strict=True)
    return tuple(
        result if result.numel() == template.numel() else _filled(template, None) for result, template in pairs
    )


def _cudnn_batch_norm(*arguments: Any) -> Any:
    output, mean, variance = aten.native_batch_norm.default(*arguments)
    return output, mean, variance, torch.empty(0, dtype=torch.uint8)


def _cudnn_batch_norm_backward(
    input: Any, grad: Any, weight: Any, mean: Any, variance: Any, saved_mean: Any, saved: Any, eps: float, _: Any
) -> Any:
    arguments = (grad, input, weight, mean, variance, saved_mean, saved, True, eps, [True, True, True])
    return aten.native_batch_norm_backward.default(*arguments)


def _log_sigmoid(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A card keeps nothing for the backward pass (`log_sigmoid_forward_cuda`)."""
    output, _ = aten.log_sigmoid_forward.default(values)
    return output, values.new_empty(0)


def _log_sigmoid_backward(grad: torch.Tensor, values: torch.Tensor, _buffer: torch.Tensor) -> torch.Tensor:
    _, buffer = aten.log_sigmoid_forward.default(values)
    result: torch.Tensor = aten.log_sigmoid_backward.default(grad, values, buffer)
    return result


def _layer_norm(input: torch.Tensor, *others: Any) -> Any:
    """A card keeps mean and deviation in single precision."""
    output, mean, deviation = aten.native_layer_norm.default(input, *others)
    return (output, mean.float(), deviation.float()) if input.dtype in _HALF else (output, mean, deviation)


def _layer_norm_backward(
    grad: torch.Tensor, input: torch.Tensor, shape: Any, mean: torch.Tensor, deviation: torch.Tensor, *others: Any
) -> Any:
    kept = torch.float32 if others[0] is not None and others[0].dtype is torch.float32 else input.dtype
    statistics = (mean.to(kept), deviation.to(kept)) if input.dtype in _HALF else (mean, deviation)
    return aten.native_layer_norm_backward.default(grad, input, shape, *statistics, *others)


def _widening(operator: Any) -> Kernel:
    """Half-precision matrices whose product is in single precision: `torch.addmm(..., out_dtype=torch.float32)`."""
    plain = operator._overloadpacket.default

    def run(*args: Any, out: torch.Tensor | None = None, **kwargs: Any) -> Any:
        *tensors, dtype = args
        product = plain(*(tensor.to(dtype) for tensor in tensors), **kwargs)
        return product if out is None else out.copy_(product)

    return run


def _table() -> dict[Any, Kernel]:
    fused = [getattr(aten, f"_scaled_dot_product_{kind}_attention").default for kind in ("flash", "efficient", "cudnn")]
    backward = [
        getattr(aten, f"_scaled_dot_product_{kind}_attention_backward").default
        for kind in ("flash", "efficient", "cudnn")
    ]
    softmaxes = (aten._softmax.default, aten._log_softmax.default)
    softmaxes_backward = (aten._softmax_backward_data.default, aten._log_softmax_backward_data.default)
    return {
        **{operator: _attend(operator) for operator in fused},
        **{operator: _attend_backward(operator) for operator in backward},
        **{operator: _widening(operator) for operator in _products_of_another_type()},
        **{operator: _softmax(operator) for operator in softmaxes},
        **{operator: _softmax_backward(operator) for operator in softmaxes_backward},
        aten._thnn_fused_lstm_cell.default: recurrent.lstm_cell,
        aten._thnn_fused_lstm_cell_backward_impl.default: recurrent.lstm_cell_backward,
        aten._thnn_fused_gru_cell.default: recurrent.gru_cell,
        aten._thnn_fused_gru_cell_backward.default: recurrent.gru_cell_backward,
        aten.log_sigmoid_forward.default: _log_sigmoid,
        aten.log_sigmoid_backward.default: _log_sigmoid_backward,
        aten.native_layer_norm.default: _layer_norm,
        aten.native_layer_norm_backward.default: _layer_norm_backward,
        aten.native_batch_norm.default: _batch_norm,
        aten.cudnn_batch_norm.default: _cudnn_batch_norm,
        aten.cudnn_batch_norm_backward.default: _cudnn_batch_norm_backward,
    }


def _products_of_another_type() -> Iterator[Any]:
    names = [f"{name}.{overload}" for name in ("mm", "addmm", "bmm", "baddbmm") for overload in ("dtype", "dtype_out")]
    return (operator for name in names if (operator := compat.operator(name)) is not None)


KERNELS = _table()
"""Run in place of the operator where one of its arguments is device memory."""


def in_single_precision(operator: Any, args: Any, kwargs: Any) -> Any:
    """Run an operator that has no kernel for half precision on the CPU. Results and targets keep their precision."""

    def widened(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.float() if tensor.dtype in _HALF else tensor

    half = next(t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor) and widened(t) is not t).dtype
    wide_args, wide_kwargs = tree_map_only(torch.Tensor, widened, (args, kwargs))
    if wide_kwargs.get("dtype") in _HALF:
        wide_kwargs["dtype"] = torch.float32
    result = operator(*wide_args, **wide_kwargs)
    targets = [
        (given, wide)
        for argument, given, wide in zip(operator._schema.arguments, args, wide_args, strict=False)
        if argument.alias_info is not None and argument.alias_info.is_write
    ]
    for given, wide in targets:
        given.copy_(wide)
    if targets and isinstance(result, torch.Tensor):
        return targets[0][0]
    narrow = kwargs.get("dtype", half)
    return tree_map_only(torch.Tensor, lambda t: t.to(narrow) if t.dtype is torch.float32 else t, result)
