"""Which kernel of attention a card takes. Shapes are all that counts, so tensors on `meta` do."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from memlint.measure.worker.backends.fake.attention import Call, choose

AMPERE, TURING, HOPPER, ADA = (8, 0), (7, 5), (9, 0), (8, 9)
HALF, BFLOAT16, FLOAT = torch.float16, torch.bfloat16, torch.float32


def call(
    dtype: torch.dtype = HALF,
    capability: tuple[int, int] = AMPERE,
    shape: tuple[int, ...] = (2, 4, 128, 64),
    key: tuple[int, ...] | None = None,
    value: tuple[int, ...] | None = None,
    grad: bool = True,
    **options: Any,
) -> Call:
    key = key or shape
    tensors = [torch.empty(size, dtype=dtype, device="meta", requires_grad=grad) for size in (shape, key, value or key)]
    defaults: dict[str, Any] = {"mask": None, "dropout": 0.0, "causal": False, "grouped": False}
    return Call(*tensors, **{**defaults, **options, "capability": capability})


def mask(*shape: int, dtype: torch.dtype = torch.bool) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


@pytest.mark.parametrize(
    ("made", "kernel"),
    [
        pytest.param(call(), "flash", id="half precision"),
        pytest.param(call(BFLOAT16), "flash", id="bfloat16"),
        pytest.param(call(FLOAT), "efficient", id="flash takes no single precision"),
        pytest.param(call(torch.float64), "math", id="nothing fused takes double precision"),
        pytest.param(call(causal=True), "flash", id="causal"),
        pytest.param(call(causal=True, key=(2, 4, 96, 64)), "efficient", id="causal and not square"),
        pytest.param(call(mask=mask(128, 128)), "efficient", id="flash takes no mask"),
        pytest.param(call(mask=mask(2, 1, 128, 128)), "efficient", id="a mask for each of the batch"),
        pytest.param(call(dropout=0.1), "flash", id="dropout"),
        pytest.param(call(capability=TURING), "efficient", id="flash needs Ampere"),
        pytest.param(call(BFLOAT16, TURING), "math", id="no bfloat16 before Ampere"),
        pytest.param(call(capability=HOPPER), "cudnn", id="Hopper prefers cuDNN"),
        pytest.param(call(capability=HOPPER, dropout=0.1), "flash", id="cuDNN's dropout goes by sixteenths"),
        pytest.param(call(FLOAT, HOPPER), "efficient", id="cuDNN takes no single precision"),
        pytest.param(call(capability=HOPPER, mask=mask(128, 128)), "cudnn", id="cuDNN takes masks"),
        pytest.param(call(shape=(2, 4, 128, 60)), "flash", id="flash pads the head size"),
        pytest.param(call(FLOAT, shape=(2, 4, 128, 62)), "math", id="the efficient kernel does not"),
        pytest.param(call(shape=(2, 4, 128, 320)), "efficient", id="flash stops at 256"),
        pytest.param(
            call(capability=ADA, shape=(2, 4, 128, 224)), "efficient", id="no backward for 224 on small cards"
        ),
        pytest.param(call(capability=ADA, shape=(2, 4, 128, 224), grad=False), "flash", id="but a forward pass"),
        pytest.param(call(shape=(4, 128, 64)), "math", id="fused kernels take four dimensions"),
        pytest.param(call(key=(2, 2, 128, 64)), "math", id="fewer keys' heads and no grouping"),
        pytest.param(call(key=(2, 2, 128, 64), grouped=True), "flash", id="grouped heads"),
        pytest.param(call(value=(2, 4, 128, 32)), "efficient", id="values of another head size"),
    ],
)
def test_kernel(made: Call, kernel: str) -> None:
    assert choose(made)[0] == kernel


def test_what_the_program_switches_off_is_not_taken() -> None:
    with sdpa_kernel(SDPBackend.EFFICIENT_ATTENTION):
        assert choose(call())[0] == "efficient"
    with sdpa_kernel(SDPBackend.MATH):
        assert choose(call())[0] == "math"
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION), pytest.raises(RuntimeError, match="No available kernel"):
        choose(call(FLOAT))


def test_order_that_the_program_sets() -> None:
    with sdpa_kernel([SDPBackend.MATH, SDPBackend.FLASH_ATTENTION], set_priority=True):
        assert choose(call())[0] == "math"


def test_reason_names_the_kernels_passed_over() -> None:
    assert choose(call())[1] == "the first choice"
    assert choose(call(mask=mask(128, 128)))[1] == "not flash: there is a mask"


def test_heads_side_by_side_are_packed() -> None:
    fused = torch.empty(2, 128, 3, 4, 64, dtype=HALF, device="meta").permute(2, 0, 3, 1, 4)
    query, key, value = fused
    assert choose(Call(query, key, value, None, 0.0, True, False, AMPERE))[0] == "flash"
    crossed = query.transpose(-1, -2).contiguous().transpose(-1, -2)
    assert choose(Call(crossed, key, value, None, 0.0, False, False, AMPERE))[0] == "math"
