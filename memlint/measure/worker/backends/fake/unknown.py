"""Operators whose result, or its size, depends on values: what is known is used, the rest assumed and listed.

And those whose function of shapes is wrong about memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from memlint.measure.worker.compat import FakeTensor

aten = torch.ops.aten

Answer = Callable[[Any, Any, tuple[Any, ...], dict[str, Any]], Any]
"""(mode, operator, arguments, keywords) -> the result, or NotImplemented to run the operator on shapes."""

_answers: dict[Any, Answer] = {}


def answer_for(func: Any) -> Answer | None:
    return _answers.get(func)


def _answers_to(*names: str) -> Callable[[Answer], Answer]:
    """Register an answer for operators, those that this torch has."""

    def register(answer: Answer) -> Answer:
        for name in names:
            packet, overload = name.split(".")
            operator = getattr(getattr(aten, packet, None), overload, None)
            if operator is not None:
                _answers[operator] = answer
        return answer

    return register


@_answers_to("_local_scalar_dense.default")
def _item(mode: Any, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    known = mode.values.of(args[0])
    if known is not None:
        return known.item()
    dtype = args[0].dtype
    if dtype is torch.bool:
        holds = mode.assumptions.at_assertion()
        mode.assumptions.note(
            "what is asserted of the device's values is true"
            if holds
            else "a condition on the device's values is false"
        )
        return holds
    value = 1.0 if dtype.is_floating_point else 1
    mode.assumptions.note(f"a number read from the device is {value}")
    return complex(value) if dtype.is_complex else value


@_answers_to("_to_copy.default")
def _copy_to(mode: Any, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    device = kwargs.get("device")
    if device is None or torch.device(device).type != "cpu" or not isinstance(args[0], FakeTensor):
        return NotImplemented
    dtype = kwargs.get("dtype") or args[0].dtype
    known = mode.values.of(args[0])
    if known is not None:
        return known.to(dtype, copy=True)
    mode.assumptions.note("values copied from the device are zeros")
    with mode.fake_mode.turn, mode.fake_mode:
        like = func(*args, **kwargs)
    return torch.empty_strided(like.shape, like.stride(), dtype=dtype).zero_()


@_answers_to("copy_.default")
def _copy_into_host(mode: Any, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if isinstance(args[0], FakeTensor):
        return NotImplemented
    known = mode.values.of(args[1])
    if known is None:
        mode.assumptions.note("values copied from the device are zeros")
        return args[0].zero_()
    return args[0].copy_(known)


@_answers_to("equal.default", "allclose.default")
def _equal(mode: Any, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    ours, theirs = mode.values.of(args[0]), mode.values.of(args[1])
    if ours is not None and theirs is not None:
        return bool(func(ours, theirs, *args[2:], **kwargs))
    mode.assumptions.note("tensors that are compared are equal")
    return func is not aten.equal.default or bool(args[0].shape == args[1].shape)


@_answers_to("_is_all_true.default")
def _is_all_true(mode: Any, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """torch's own checks of arguments (distributions)."""
    result = mode.run_fake(func, args, kwargs)
    if mode.values.of(args[0]) is None:
        mode.assumptions.note("arguments on the device are within their constraints")
        mode.values.assume(result, True)
        return result
    mode.values.follow(func, args, kwargs, result)
    return result


@_answers_to("_amp_foreach_non_finite_check_and_unscale_.default")
def _unscale(mode: Any, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """GradScaler's check: `found_inf` stays 0, so every optimizer step is taken."""
    mode.assumptions.note("no gradient overflows (GradScaler)")
    mode.run_fake(func, args, kwargs)


def _known_result(mode: Any, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The result in its true size, if all its arguments are known: None where one is not."""
    given = mode.values.given(func, args, kwargs)
    if given is None:
        return None
    return _to_device(mode, func(*given[0], **given[1]))


def _to_device(mode: Any, real: Any) -> Any:
    if not isinstance(real, torch.Tensor):
        return type(real)(_to_device(mode, item) for item in real)
    with mode.fake_mode.turn, mode.fake_mode:
        fake = torch.empty_strided(real.shape, real.stride(), dtype=real.dtype, device="cuda")
    mode.values.learn(fake, real)
    return fake


def _new(mode: Any, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    with mode.fake_mode.turn, mode.fake_mode:
        return torch.empty(shape, dtype=dtype, device="cuda")


@_answers_to("nonzero.default")
def _nonzero(mode: Any, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    known = _known_result(mode, func, args, kwargs)
    if known is not None:
        return known
    mode.assumptions.note_largest("every element is nonzero: the largest that the result can be")
    return _new(mode, (args[0].numel(), args[0].dim()), torch.int64)


@_answers_to("masked_select.default")
def _masked_select(mode: Any, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    shape = torch.broadcast_shapes(args[0].shape, args[1].shape)
    mask = mode.values.of(args[1])
    if mask is not None:
        return _new(mode, (int(mask.expand(shape).sum()),), args[0].dtype)
    mode.assumptions.note_largest("a mask selects every element: the largest that the result can be")
    return _new(mode, (shape.numel(),), args[0].dtype)


@_answers_to("unique_consecutive.default")
def _unique_consecutive(mode: Any, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What is kept is cut out of a block of the input's size (`unique_consecutive_cpu_template`, `compute_unique`)."""
    given = mode.values.given(func, args, kwargs)
    if given is None:
        return _unique(mode, func, args, kwargs)
    return tuple(_in_a_block(mode, item, args[0].numel()) for item in func(*given[0], **given[1]))


def _in_a_block(mode: Any, real: torch.Tensor, elements: int) -> torch.Tensor:
    """A known tensor on the device that keeps a block of so many elements, if it has any."""
    whole = _new(mode, (elements if real.numel() else 0,), real.dtype)
    with mode.fake_mode.turn, mode.fake_mode:
        fake = whole.resize_(real.shape)
    mode.values.learn(fake, real)
    return fake


@_answers_to("_unique2.default", "_unique.default")
def _unique(mode: Any, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    known = _known_result(mode, func, args, kwargs)
    if known is not None:
        return known
    mode.assumptions.note_largest("all elements are distinct: the largest that the result can be")
    size = args[0].numel()
    parts = (
        _new(mode, (size,), args[0].dtype),
        _new(mode, tuple(args[0].shape), torch.int64),
        _new(mode, (size,), torch.int64),
    )
    return parts[: len(func._schema.returns)]


@_answers_to("repeat_interleave.Tensor", "bincount.default")
def _sized_by_values(mode: Any, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    known = _known_result(mode, func, args, kwargs)
    return NotImplemented if known is None else known


@_answers_to("_pack_padded_sequence.default")
def _pack(mode: Any, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The lengths are on the host, and so are the sizes of the batches that come of them."""
    sequences, lengths, batch_first = args
    if not lengths.any():  # copied from the device: they are not known
        mode.assumptions.note_largest("sequences are as long as they can be")
        lengths = torch.full_like(lengths, sequences.shape[1 if batch_first else 0])
    packed, sizes = func(torch.zeros(*sequences.shape[:2], 1), lengths, batch_first)
    return _new(mode, (len(packed), *sequences.shape[2:]), sequences.dtype), sizes


@_answers_to("index.Tensor")
def _index(mode: Any, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    indices = args[1]
    if not any(isinstance(index, torch.Tensor) and index.dtype in (torch.bool, torch.uint8) for index in indices):
        return NotImplemented
    whole: list[Any] = []
    for index in indices:
        if isinstance(index, torch.Tensor) and index.dtype in (torch.bool, torch.uint8):
            whole.extend([_new(mode, (_selected(mode, index),), torch.int64)] * index.dim())
        else:
            whole.append(index)
    result = mode.run_fake(func, (args[0], whole), kwargs)
    mode.values.follow(func, args, kwargs, result)
    return result


def _selected(mode: Any, mask: torch.Tensor) -> int:
    known = mode.values.of(mask)
    if known is not None:
        return int(known.count_nonzero())
    mode.assumptions.note_largest("a mask selects every element: the largest that the result can be")
    return int(mask.numel())


@_answers_to("_nested_tensor_from_mask_left_aligned.default")
def _keeps_padding(mode: Any, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether an encoder in evaluation leaves its padding out."""
    what = "an encoder keeps its padding: on a card it may leave it out, as the mask's values say"
    mode.assumptions.note_largest(what)
    return False


@_answers_to("mse_loss.default", "smooth_l1_loss.default", "binary_cross_entropy.default", "soft_margin_loss.default")
def _reduced_in_place(mode: Any, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """These losses are computed for each element and then reduced in place: a scalar that keeps the whole block
    (`TORCH_META_FUNC(mse_loss)`, `binary_cross_entropy_out_cuda`). Functions of shapes know only the scalar."""
    result = mode.run_fake(func, args, kwargs)
    if result.dim() == 0:
        shape = torch.broadcast_shapes(args[0].shape, args[1].shape)
        whole = _new(mode, shape, result.dtype)
        with mode.fake_mode.turn, mode.fake_mode:
            return whole.resize_(())
    return result


@_answers_to("col2im.default", "im2col.default")
def _in_a_block_of_its_input(mode: Any, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`F.fold` and `F.unfold` resize a block that was made for their input (`col2im_cuda`, `im2col_cuda`)."""
    result = mode.run_fake(func, args, kwargs)
    whole = _new(mode, (max(args[0].numel(), result.numel()),), result.dtype)
    with mode.fake_mode.turn, mode.fake_mode:
        return whole.resize_(result.shape)


@_answers_to("_thnn_fused_lstm_cell.default")
def _lstm_cell(mode: Any, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The function of shapes asks for the device of biases that may not be there."""
    gates, recurrent, state, *biases = args
    if any(bias is not None for bias in biases):
        return NotImplemented
    bias = _new(mode, (gates.shape[1],), gates.dtype)
    return mode.run_fake(func, (gates, recurrent, state, bias, bias), kwargs)


@_answers_to("_fused_sgd_.default", "_fused_sgd_.tensor_lr", "_fused_adagrad_.default", "_fused_adagrad_.tensor_lr")
def _makes_nothing(mode: Any, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """They write into what they are given, and have no function of shapes."""
