"""Weights that are made on the host cost host memory only if their values are read. A script: see `checks.py`."""

from __future__ import annotations

import copy
import io
import resource
from collections.abc import Callable

import torch
from checks import NoMeter, check, run_checks
from torch import nn

from memlint.measure.job import Job, Target
from memlint.measure.worker.backends.fake import FakeBackend, make

_SIDE = 1031  # odd on purpose: the last group of 16 random numbers is not full
BACKEND: FakeBackend = make(Job(Target("script", "weights"), "fake", "."))


class Layer(nn.Module):
    def __init__(self, side: int = _SIDE) -> None:
        super().__init__()
        self.linear = nn.Linear(side, side)
        self.embedding = nn.Embedding(side, side, padding_idx=3)
        nn.init.trunc_normal_(self.embedding.weight[:, :1].detach(), std=0.02)
        nn.init.normal_(self.linear.weight, std=0.02)


def host_peak() -> int:
    """Bytes of memory that the process had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def plain(build: Callable[[], object]) -> object:
    """What `build` gives without the instrument, and the random state after it."""
    with torch.utils._python_dispatch._disable_current_modes():
        torch.manual_seed(5)
        return build()


def weights() -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in Layer().parameters()]


@check
def values_that_are_read_are_right() -> None:
    expected = plain(weights)
    torch.manual_seed(5)
    found = weights()
    assert isinstance(expected, list)
    assert all(torch.equal(one, other) for one, other in zip(expected, found, strict=True))


@check
def random_numbers_afterwards_are_the_same() -> None:
    expected = plain(lambda: (Layer(), torch.rand(7))[1])
    torch.manual_seed(5)
    layer = Layer().cuda()
    assert layer.linear.weight.is_cuda
    assert torch.equal(torch.rand(7), expected)


@check
def numpy_reads() -> None:
    expected = plain(lambda: Layer().linear.weight.detach().numpy().copy())
    torch.manual_seed(5)
    assert (Layer().linear.weight.detach().numpy() == expected).all()


@check
def deepcopy_reads() -> None:
    expected = plain(lambda: Layer().linear.weight.detach().clone())
    torch.manual_seed(5)
    twin = copy.deepcopy(Layer())
    assert torch.equal(twin.linear.weight, expected)


@check
def saving_reads() -> None:
    expected = plain(lambda: Layer().embedding.weight.detach().clone())
    torch.manual_seed(5)
    buffer = io.BytesIO()
    torch.save(Layer().state_dict(), buffer)
    buffer.seek(0)
    assert torch.equal(torch.load(buffer)["embedding.weight"], expected)


@check
def a_forward_pass_on_the_host_reads() -> None:
    expected = plain(lambda: Layer().linear(torch.ones(1, _SIDE)).detach())
    torch.manual_seed(5)
    assert torch.equal(Layer().linear(torch.ones(1, _SIDE)), expected)


@check
def indices_are_made_at_once() -> None:
    class Indexed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("places", torch.empty(300_000, dtype=torch.long).fill_(7))

    assert int(Indexed().cuda().places.max()) == 7


@check
def copies_of_weights_are_as_their_source_was() -> None:
    def build() -> list[torch.Tensor]:
        layer = Layer()
        half = layer.linear.weight.detach().to(torch.bfloat16)
        twin = copy.deepcopy(layer)
        with torch.no_grad():
            layer.linear.weight.mul_(2)
            nn.init.zeros_(layer.embedding.weight)
        other = Layer()
        other.load_state_dict(twin.state_dict())
        nn.init.ones_(twin.linear.weight)
        return [
            tensor.detach().clone() for tensor in (half, *twin.parameters(), *other.parameters(), layer.linear.weight)
        ]

    expected = plain(build)
    torch.manual_seed(5)
    found = build()
    assert isinstance(expected, list)
    assert all(torch.equal(one, other) for one, other in zip(expected, found, strict=True))


@check
def a_checkpoint_replaces_what_was_to_be_drawn() -> None:
    saved = {name: torch.full(tensor.shape, 3.0) for name, tensor in Layer().state_dict().items()}
    layer = Layer()
    layer.load_state_dict(saved)
    assert all(bool((parameter == 3).all()) for parameter in layer.parameters())


@check
def converted_weights_cost_no_memory() -> None:
    before = host_peak()
    model = nn.ModuleList(nn.Linear(4096, 4096) for _ in range(8))
    twin = copy.deepcopy(model)
    model.half().cuda()
    twin.to(torch.bfloat16).to("cuda")
    assert {parameter.dtype for parameter in twin.parameters()} == {torch.bfloat16}
    assert host_peak() - before < 64 << 20


@check
def moved_weights_cost_no_memory() -> None:
    before = host_peak()
    model = nn.ModuleList(nn.Linear(4096, 4096) for _ in range(8))
    for layer in model:
        nn.init.xavier_normal_(layer.weight)
    model.to("cuda")
    assert sum(parameter.numel() * 4 for parameter in model.parameters()) > 500 << 20
    assert host_peak() - before < 64 << 20


@check
def large_models_go_on_with_another_seed() -> None:
    assert any("another seed" in assumption.what for assumption in BACKEND.assumptions)
    torch.manual_seed(5)
    first = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(first, torch.rand(3))


if __name__ == "__main__":
    with BACKEND.running(NoMeter()):
        run_checks()
