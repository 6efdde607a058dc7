"""The log of device memory against bytes that can be computed by hand."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
import torch
from measuring import measured, measured_function
from torch import nn
from torch.distributed._tools.mem_tracker import MemTracker

from memlint.measure.analysis import live_bytes, peak
from memlint.measure.job import Layer
from memlint.measure.recording import Category, Phase, Recording, Storage

HERE = str(Path(__file__))
KIB = 1024


def allocations(function: Callable[[], object]) -> list[tuple[int, bool]]:
    """Sizes in bytes, and whether each was released before the function returned, less what set-up made."""
    recording = measured_function(function)
    end = recording.steps[0].end
    return [(s.size, s.died is not None and s.died < end) for s in recording.storages]


def test_a_tensor_is_one_storage_until_its_last_reference_goes() -> None:
    def function() -> None:
        x = torch.zeros(1000, device="cuda")
        y = x
        del x
        z = torch.zeros(10, dtype=torch.int64, device="cuda")
        del y, z

    recording = measured_function(function)
    assert [storage.size for storage in recording.storages] == [4000, 80]
    assert recording.events == [0, 1, ~0, ~1]


def test_host_tensors_are_no_device_memory() -> None:
    def function() -> None:
        host = torch.zeros(1000)
        device = host.cuda()
        back = device.cpu()
        del host, device, back

    assert allocations(function) == [(4000, True)]


def test_views_and_operations_in_place_allocate_nothing() -> None:
    def function() -> None:
        x = torch.zeros(8, 128, device="cuda")
        x.view(128, 8).t()[2:].add_(1)
        x.mul_(2).relu_()
        x[0] = 1.0
        x.detach().data.expand(2, 8, 128)

    sizes = [size for size, _ in allocations(function)]
    assert sizes[0] == 4096
    assert all(size <= 8 for size in sizes[1:])  # the scalar that x[0] = 1.0 is filled from


def test_a_resized_storage_is_a_new_block() -> None:
    def function() -> None:
        x = torch.zeros(256, device="cuda")
        x.resize_(512)
        out = torch.empty(0, device="cuda")
        torch.add(x, x, out=out)
        x.untyped_storage().resize_(0)

    recording = measured_function(function)
    assert [storage.size for storage in recording.storages] == [1024, 2048, 2048]
    assert recording.events[:4] == [0, 1, ~0, 2]
    assert recording.events[4] == ~1


def test_set_lets_the_old_storage_go() -> None:
    def function() -> None:
        x = torch.zeros(256, device="cuda")
        y = torch.zeros(512, device="cuda")
        x.set_(y)
        x.data = torch.zeros(128, device="cuda")
        del y

    recording = measured_function(function)
    assert recording.events[:5] == [0, 1, ~0, 2, ~1]


def test_foreach_and_multiple_results_are_all_seen() -> None:
    def function() -> None:
        xs = [torch.zeros(256, device="cuda") for _ in range(3)]
        ys = torch._foreach_mul(xs, 2.0)
        values, indices = torch.max(torch.zeros(4, 64, device="cuda"), dim=1)
        del xs, ys, values, indices

    assert [size for size, _ in allocations(function)] == [1024] * 7 + [16, 32]


def test_a_sparse_tensor_is_its_indices_and_values() -> None:
    def function() -> None:
        dense = torch.zeros(16, 16, device="cuda")
        dense[1, 2] = dense[3, 4] = 1.0
        sparse = dense.to_sparse()
        rows = sparse.to_sparse_csr()
        del sparse, rows

    recording = measured_function(function)
    made = [storage.size for storage in recording.storages if storage.operator.startswith("aten::_to_sparse")]
    assert sorted(made) == sorted([2 * 2 * 8, 2 * 4, 17 * 8, 2 * 8, 2 * 4]) or 2 * 2 * 8 in made


def test_what_a_subclass_holds_is_seen() -> None:
    def function() -> None:
        from torch.testing._internal.two_tensor import TwoTensor

        pair = TwoTensor(torch.zeros(256, device="cuda"), torch.zeros(256, device="cuda"))
        total = pair + pair
        del pair, total

    assert [size for size, _ in allocations(function)] == [1024] * 4


def test_results_of_a_custom_function_belong_to_the_line_that_applies_it() -> None:
    class Double(torch.autograd.Function):  # type: ignore[misc]
        @staticmethod
        def forward(_ctx: Any, x: torch.Tensor) -> torch.Tensor:
            return x * 2

        @staticmethod
        def backward(_ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
            return gradient * 2

    def function() -> None:
        x = torch.zeros(256, device="cuda", requires_grad=True)
        y = Double.apply(x)
        y.sum().backward()

    recording = measured_function(function)
    applied = line_of(function, "Double.apply")
    gradient = next(s for s in recording.storages if s.size == 1024 and s.phase is Phase.BACKWARD)
    assert gradient.place is not None and gradient.place.line == applied


def line_of(function: Callable[..., object], text: str) -> int:
    lines = Path(HERE).read_text().splitlines()
    start = function.__code__.co_firstlineno
    return next(number for number, line in enumerate(lines, 1) if number > start and text in line)


def test_backward_memory_belongs_to_the_forward_line_and_knows_its_caller() -> None:
    def function() -> None:
        x = torch.zeros(256, 256, device="cuda", requires_grad=True)
        hidden = (x @ x).relu()
        loss = hidden.square().sum()
        loss.backward()

    recording = measured_function(function)
    backward = [s for s in recording.storages if s.phase is Phase.BACKWARD]
    assert {s.place.line for s in backward if s.place} == {line_of(function, ".relu()"), line_of(function, ".square()")}
    assert {s.caller.line for s in backward if s.caller} == {line_of(function, "loss.backward()")}
    assert {s.category for s in backward if s.size > 8} == {Category.BACKWARD_TEMPORARIES}


def categories(recording: Recording, step: int) -> dict[Category, int]:
    at = recording.steps[step].end - 1
    found: dict[Category, int] = {}
    for storage in recording.storages:
        if storage.born <= at and (storage.died is None or storage.died > at):
            found[storage.category] = found.get(storage.category, 0) + storage.size
    return found


TRAINING = """
import torch
from torch import nn
model = nn.Linear(64, 32, bias=False).cuda()
optimizer = torch.optim.Adam(model.parameters(), foreach={foreach})
for step in range(20):
    x = torch.zeros(16, 64).cuda()
    optimizer.zero_grad(set_to_none={to_none})
    loss = model(x).sum()
    loss.backward()
    optimizer.step()
"""
WEIGHT = 64 * 32 * 4


@pytest.mark.parametrize("foreach", [True, False])
@pytest.mark.parametrize("to_none", [True, False])
def test_parameters_gradients_and_states(foreach: bool, to_none: bool) -> None:
    recording = measured(TRAINING.format(foreach=foreach, to_none=to_none), Path("train.py"), steps=3)
    at_end = categories(recording, 2)
    assert at_end[Category.PARAMETERS] == WEIGHT
    assert at_end[Category.GRADIENTS] == WEIGHT
    assert at_end[Category.OPTIMIZER_STATE] == 2 * WEIGHT  # the step counter is on the host
    assert at_end[Category.INPUTS] == 16 * 64 * 4
    assert recording.steps[1].input_shapes == ((16, 64),)
    assert [step.kind for step in recording.steps] == ["training"] * 3


def test_parameters_that_a_move_replaces_stay_parameters() -> None:
    def function() -> None:
        model = nn.Sequential(nn.Linear(64, 64, bias=False), nn.BatchNorm1d(64))
        model.cuda().half()
        model(torch.zeros(4, 64, device="cuda", dtype=torch.half))

    recording = measured_function(function)
    parameters = [s.size for s in recording.storages if s.category is Category.PARAMETERS]
    assert sorted(parameters) == sorted([64 * 64 * 2, 128, 128, 128, 128, 8])


def test_weights_of_a_copied_model_are_parameters_even_where_no_module_is_called() -> None:
    def function() -> None:
        layer = nn.MultiheadAttention(64, 4)
        model = nn.Sequential(copy.deepcopy(layer)).cuda()
        x = torch.zeros(2, 1, 64, device="cuda")
        model[0](x, x, x)

    recording = measured_function(function)
    out_proj = [s for s in recording.storages if s.size == 64 * 64 * 4 and s.operator == "aten::_to_copy"]
    assert [s.category for s in out_proj] == [Category.PARAMETERS]


def test_tied_weights_are_counted_once() -> None:
    def function() -> None:
        embedding = nn.Embedding(100, 64, device="cuda")
        head = nn.Linear(64, 100, bias=False, device="cuda")
        head.weight = embedding.weight
        head(embedding(torch.zeros(4, dtype=torch.int64, device="cuda")))

    recording = measured_function(function)
    end = recording.steps[0].end
    weights = [s for s in recording.storages if s.size == 100 * 64 * 4]
    assert [s.category for s in weights if s.died is None or s.died > end // 2] == [Category.PARAMETERS]


@pytest.mark.parametrize("reentrant", [True, False])
def test_what_a_checkpoint_computes_again_is_activations(reentrant: bool) -> None:
    def function() -> None:
        x = torch.zeros(256, 256, device="cuda", requires_grad=True)
        y = torch.utils.checkpoint.checkpoint(block, x, use_reentrant=reentrant)
        y.sum().backward()

    def block(x: torch.Tensor) -> torch.Tensor:
        return (x @ x).sigmoid().exp()

    recording = measured_function(function)
    again = [s for s in recording.storages if s.phase is Phase.BACKWARD and s.category is Category.ACTIVATIONS]
    assert [s.size for s in again] == [256 * 256 * 4] * 3
    assert {s.place.line for s in again if s.place} == {line_of(block, "sigmoid")}
    assert {s.caller.line for s in again if s.caller} == {line_of(function, ".backward()")}
    temporary = [s for s in recording.storages if s.category is Category.BACKWARD_TEMPORARIES and s.size > 4]
    assert line_of(block, "sigmoid") in {s.place.line for s in temporary if s.place}


def test_double_backward() -> None:
    def function() -> None:
        x = torch.zeros(256, device="cuda", requires_grad=True)
        (gradient,) = torch.autograd.grad((x**3).sum(), x, create_graph=True)
        gradient.sum().backward()
        assert x.grad is not None

    recording = measured_function(function)
    assert peak(recording).bytes >= 4 * KIB
    assert live_bytes(recording)[-1] == 0


def test_hooks_run_under_the_instrument() -> None:
    def function() -> None:
        x = torch.zeros(256, device="cuda", requires_grad=True)
        y = x * 2
        y.register_hook(lambda gradient: gradient * 3)
        y.sum().backward()

    recording = measured_function(function)
    hook = [s for s in recording.storages if s.operator == "aten::mul" and s.phase is Phase.BACKWARD]
    assert line_of(function, "register_hook") in {s.caller.line for s in hook if s.caller}


class Nested(torch.autograd.Function):  # type: ignore[misc]
    """Differentiates something else in its backward pass, that something in its own, and so on."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, depth: int) -> torch.Tensor:
        ctx.depth = depth
        ctx.save_for_backward(x)
        return x * 2

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        if ctx.depth:
            with torch.enable_grad():
                inner = ctx.saved_tensors[0].detach().requires_grad_()
                Nested.apply(inner, ctx.depth - 1).exp().sum().backward()
        return gradient * 2, None


def test_nodes_that_run_in_a_thread_of_the_engine_have_their_forward_lines() -> None:
    """From 60 backward passes inside each other on, the engine runs the next in a thread of its own, where no line of
    the user's is on the stack (MAX_DEPTH in torch/csrc/autograd/engine.h)."""

    def function() -> None:
        x = torch.zeros(256, device="cuda", requires_grad=True)
        Nested.apply(x, 64).sum().backward()

    recording = measured_function(function)
    made = [s for s in recording.storages if s.operator == "aten::mul" and s.phase is Phase.BACKWARD and s.size == 1024]
    assert len(made) == 3 * 64 + 1  # forwards, of `exp`, and backwards; the outermost only backwards
    nested = line_of(Nested.backward, "Nested.apply")
    assert {s.place.line for s in made if s.place} >= {nested, line_of(function, "Nested.apply")}
    assert all(s.place is not None and s.place.path == HERE for s in made)


LOADER = """
import torch
from torch.utils.data import DataLoader, TensorDataset
loader = DataLoader(TensorDataset(torch.zeros(64, 16)), batch_size=8, pin_memory=True, num_workers=0)
model = torch.nn.Linear(16, 1).cuda()
for (batch,) in loader:
    model(batch.cuda(non_blocking=True))
"""


def test_a_loader_closes_evaluation_steps() -> None:
    recording = measured(LOADER, Path("evaluate.py"), steps=4)
    assert [step.kind for step in recording.steps] == ["evaluation"] * 4
    assert recording.steps[2].input_shapes == ((8, 16),)


MODEL = """
import torch
from torch import nn
import torch.nn.functional as F
torch.manual_seed(0)
layers = [nn.Linear(64, 128), nn.Dropout(0.1), nn.ReLU(), nn.LayerNorm(128), nn.Linear(128, 10)]
model = nn.Sequential(*layers).to({device!r})
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
losses = []
for step in range(5):
    x, y = torch.randn(32, 64).to({device!r}), torch.randint(0, 10, (32,)).to({device!r})
    loss = F.cross_entropy(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
weights = [p.detach().cpu().clone() for p in model.parameters()]
RESULT.update(losses=losses, weights=weights, state=torch.get_rng_state())
"""

SETS = [
    frozenset[Layer](),
    frozenset({Layer.LINES}),
    frozenset({Layer.LINES, Layer.GROWTH}),
    frozenset({Layer.LINES, Layer.GROWTH, Layer.FINGERPRINTS}),
    frozenset({Layer.SAVED_TENSORS}),
]


def test_results_are_the_same_bit_for_bit_with_and_without_the_instrument() -> None:
    plain: dict[str, Any] = {}
    exec(compile(MODEL.format(device="cpu"), "model.py", "exec"), {"RESULT": plain, "__name__": "__main__"})
    for layers in SETS:
        result: dict[str, Any] = {}
        measured(MODEL.format(device="cpu"), Path("model.py"), steps=6, layers=layers, RESULT=result)
        assert result["losses"] == plain["losses"]
        assert all(map(torch.equal, result["weights"], plain["weights"]))
        assert torch.equal(result["state"], plain["state"])


def signature(recording: Recording) -> list[tuple[int, int]]:
    def size(event: int) -> int:
        storage: Storage = recording.storages[event if event >= 0 else ~event]
        return storage.size

    return [(size(event), 1 if event >= 0 else -1) for event in recording.events]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_log_is_the_same_to_the_byte_with_every_set_of_layers(device: str) -> None:
    logs = [
        signature(measured(MODEL.format(device=device), Path("model.py"), steps=4, layers=layers, RESULT={}))
        for layers in SETS
    ]
    assert logs[0]
    assert all(log == logs[0] for log in logs)


def test_two_runs_have_the_same_fingerprints_and_another_seed_has_others() -> None:
    layers = {Layer.FINGERPRINTS}
    text = MODEL.format(device="cuda")
    one, two, other = (
        measured(version, Path("model.py"), steps=4, layers=layers, RESULT={}).fingerprints
        for version in (text, text, text.replace("manual_seed(0)", "manual_seed(1)"))
    )
    assert one is not None and other is not None
    assert one == two
    assert len(one.losses) == 4
    assert one.losses[0].magnitude > 0
    assert {one.parameters, one.first_gradients, one.random_state}.isdisjoint(
        {other.parameters, other.first_gradients, other.random_state}
    )


def test_saved_tensors_are_marked() -> None:
    def function() -> None:
        x = torch.zeros(256, device="cuda", requires_grad=True)
        y = x.exp()
        z = y + 1
        z.sum().backward()

    recording = measured_function(function, layers={Layer.SAVED_TENSORS})
    assert [s.operator for s in recording.storages if s.saved] == ["aten::exp"]


def exact_peak(recording: Recording) -> int:
    sizes = [size * sign for size, sign in signature(recording)]
    return max(accumulate(sizes))


def test_the_peak_is_that_of_mem_tracker() -> None:
    """PyTorch's own tracker, which rounds only what is on a card. It counts what is given to it; here all is."""

    def step(device: str) -> None:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(128, 256), nn.GELU(), nn.Linear(256, 16)).to(device)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        x = torch.zeros(64, 128, device=device)
        nn.functional.mse_loss(model(x), torch.zeros(64, 16, device=device)).backward()
        optimizer.step()

    recording = measured_function(lambda: step("cpu"))
    tracker = MemTracker()
    with tracker:
        step("cpu")
    assert exact_peak(recording) == tracker.get_tracker_snapshot("peak")[torch.device("cpu")]["Total"]
