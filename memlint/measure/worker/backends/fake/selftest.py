"""What must hold before a prediction is believed: run in a process of its own, before any user code."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from memlint.measure.analysis import peak
from memlint.measure.job import Job, Target
from memlint.measure.worker.compat import FakeTensor

if TYPE_CHECKING:
    from memlint.measure.worker.backends.fake import FakeBackend


class _NoMeter:
    allocated = 0
    peak = 0

    def reset_peak(self) -> None: ...

    def forget(self) -> None: ...


def check(backend: FakeBackend) -> None:
    """Raises AssertionError, or whatever torch raises, where a program that uses each part of the pretence fails."""
    with backend.running(_NoMeter()):
        accelerator = torch.accelerator.current_accelerator()
        assert accelerator is not None and accelerator.type == "cuda", f"the accelerator is {accelerator}"
        _training()
        _attention()
    assert not isinstance(torch.ones(1), FakeTensor)
    _known_peak(backend)


def _training() -> None:
    model = torch.nn.Sequential(
        torch.nn.Linear(8, 16), torch.nn.BatchNorm1d(16), torch.nn.ReLU(), torch.nn.Linear(16, 4)
    )
    first = next(model.parameters())
    optimizer = torch.optim.AdamW(model.parameters())
    model.to("cuda")
    assert next(model.parameters()) is first and first.is_cuda, "a module's parameters lose their identity when moved"
    with torch.autocast("cuda", dtype=torch.bfloat16):
        out = model(torch.randn(32, 8).cuda())
    assert out.dtype is torch.bfloat16, f"autocast gives {out.dtype}"
    out.float().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.is_cuda for parameter in model.parameters())
    optimizer.step()
    state = optimizer.state[first]
    assert state["exp_avg"].is_cuda and state["exp_avg"].shape == first.shape
    assert not state["step"].is_cuda, "Adam counts its steps on the device"
    on_host = out.detach().float().cpu()
    assert type(on_host) is torch.Tensor and len(on_host.tolist()) == 32, "what comes from the device has no values"


def _attention() -> None:
    query = torch.randn(1, 2, 16, 64, device="cuda", dtype=torch.float16, requires_grad=True)
    out = torch.nn.functional.scaled_dot_product_attention(query, query, query)
    assert "FlashAttention" in out.grad_fn.name() or "Cudnn" in out.grad_fn.name() or "Efficient" in out.grad_fn.name()
    out.sum().backward()
    assert query.grad is not None and query.grad.shape == query.shape


_SIDE = 256


def _known_peak(backend: FakeBackend) -> None:
    """A layer's backward pass, whose peak anyone can add up."""
    from memlint.measure.worker.session import Session

    session = Session(Job(Target("script", "self-test"), "fake", ".", layers=frozenset()), backend)
    with session:
        weight = torch.zeros(_SIDE, _SIDE, device="cuda", requires_grad=True)
        inputs = torch.zeros(_SIDE, _SIDE).to("cuda")
        loss = (inputs @ weight).sum()
        loss.backward()
        del loss
    block = _SIDE * _SIDE * 4
    # Weight, inputs and the weight's gradient; the loss and its gradient take a block of 512 bytes each.
    expected, found = 3 * block + 2 * 512, peak(session.recording()).bytes
    assert found == expected, f"a peak of {expected} bytes is predicted as {found}"
