"""What attention allocates on a card, kernel by kernel. A script: see `checks.py`.

The numbers are those of the kernels' results: query, key, value, output and their gradients are 16 MiB each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from checks import check, run_checks
from torch.nn import functional as F  # noqa: N812 - its usual name
from torch.nn.attention import SDPBackend, sdpa_kernel

from memlint.measure.analysis import peak
from memlint.measure.job import Job, Target
from memlint.measure.worker.backends.fake import FakeBackend, make
from memlint.measure.worker.session import Session

SHAPE = (4, 16, 2048, 64)
TENSOR = 4 * 16 * 2048 * 64 * 2
ROWS = 4 * 16 * 2048 * 4
"""One number in single precision for each query: what a fused kernel keeps for its backward pass."""
WEIGHTS = 4 * 16 * 2048 * 2048 * 2
"""What the unfused path keeps."""


@contextmanager
def session(device: str | None = None) -> Iterator[tuple[Session, FakeBackend]]:
    job = Job(Target("script", "attention"), "fake", ".", layers=frozenset(), device=device)
    backend = make(job)
    measured = Session(job, backend)
    with measured:
        yield measured, backend


def peak_of(attend: Callable[[Any, Any, Any], Any], grad: bool = True, device: str | None = None) -> tuple[int, str]:
    """The peak of a forward and a backward pass, and the kernel."""
    with session(device) as (measured, backend):
        q, k, v = (torch.randn(SHAPE, device="cuda", dtype=torch.float16, requires_grad=grad) for _ in range(3))
        out = attend(q, k, v)
        if grad:
            out.backward(torch.ones_like(out))
    (choice,) = backend.kernels
    return peak(measured.recording()).bytes, choice.kernel


def causal(q: Any, k: Any, v: Any) -> Any:
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


@check
def flash() -> None:
    bytes_, kernel = peak_of(causal)
    assert kernel == "flash"
    # Query, key, value, output, the output's gradient; three gradients; the seed and offset of the random numbers.
    assert bytes_ == 8 * TENSOR + ROWS + 2 * 512


@check
def flash_in_inference_mode() -> None:
    with torch.inference_mode():
        bytes_, kernel = peak_of(causal, grad=False)
    assert kernel == "flash"
    assert 4 * TENSOR <= bytes_ <= 4 * TENSOR + ROWS + 2 * 512


@check
def cudnn_on_hopper() -> None:
    bytes_, kernel = peak_of(causal, device="h100-80gb")
    assert kernel == "cudnn"
    assert bytes_ == 8 * TENSOR + ROWS + 2 * 512


@check
def efficient_with_a_mask() -> None:
    def attend(q: Any, k: Any, v: Any) -> Any:
        mask = torch.ones(2048, 2048, dtype=torch.bool, device="cuda").tril()
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)

    bytes_, kernel = peak_of(attend)
    assert kernel == "efficient"
    # The kernel's gradients are laid out with the heads inside, so that each is copied as it is added up: by then what
    # the kernel kept is gone.
    assert bytes_ == 9 * TENSOR


@check
def math_keeps_the_weights() -> None:
    with sdpa_kernel(SDPBackend.MATH):
        bytes_, kernel = peak_of(causal)
    assert kernel == "math"
    assert bytes_ > 2 * WEIGHTS


@check
def padded_head_size() -> None:
    with session() as (measured, backend):
        q = torch.randn(1, 2, 64, 60, device="cuda", dtype=torch.float16)
        assert F.scaled_dot_product_attention(q, q, q).shape == q.shape
    assert backend.kernels[0].kernel == "flash"
    padded = 2 * 64 * 64 * 2
    assert peak(measured.recording()).bytes >= 4 * padded


@check
def choices_are_counted_by_line() -> None:
    with session() as (_, backend):
        q = torch.randn(1, 2, 64, 64, device="cuda", dtype=torch.float16)
        for _ in range(3):
            F.scaled_dot_product_attention(q, q, q)
    (choice,) = backend.kernels
    assert choice.count == 3
    assert choice.place is not None
    assert choice.place.path == __file__


def layer_in_evaluation(dtype: torch.dtype, **options: Any) -> tuple[int, list[str]]:
    """What a layer of attention takes beside its input and weights, and its kernels."""
    with session() as (_, backend):
        x = torch.zeros(2, 64, 128, device="cuda", dtype=dtype)
        layer = torch.nn.MultiheadAttention(128, 4, batch_first=True).eval().to("cuda", dtype)
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        with options.pop("grad_off", torch.no_grad)():
            layer(x, x, x, **options)
        taken = torch.cuda.max_memory_allocated() - before
    return taken, [choice.kernel for choice in backend.kernels]


ONE = 2 * 64 * 128 * 2
"""A tensor as large as the layer's input, in half precision."""
ATTENTION = 2 * 4 * 64 * 64 * 2
"""The weights of all heads."""


@check
def a_layer_in_evaluation_fuses() -> None:
    fused = layer_in_evaluation(torch.float16, need_weights=False)
    # Queries, keys and values in one, the kernel's result, and the layer's.
    assert fused == (5 * ONE, ["flash"]), fused
    assert layer_in_evaluation(torch.float16, need_weights=False, grad_off=torch.inference_mode) == fused


@check
def a_layer_that_gives_weights_computes_them() -> None:
    taken, kernels = layer_in_evaluation(torch.float16)
    # Queries, keys and values, the weights, the result in another order (it took the queries' memory), and the layer's.
    assert (taken, kernels) == (3 * ONE + ATTENTION + 2 * ONE, [])
    assert layer_in_evaluation(torch.float16, grad_off=torch.inference_mode) == (taken, kernels)


@check
def an_encoder_s_padding_depends_on_values() -> None:
    with session() as (_, backend):
        encoder = torch.nn.TransformerEncoder(torch.nn.TransformerEncoderLayer(64, 4, 64, batch_first=True), 1)
        padding = torch.zeros(2, 16, dtype=torch.bool, device="cuda")
        with torch.no_grad():
            encoder.eval().cuda()(torch.zeros(2, 16, 64, device="cuda"), src_key_padding_mask=padding)
    assert "keeps its padding" in backend.assumptions[0].what


if __name__ == "__main__":
    run_checks()
