"""Threads that the program starts are measured as the one that it began in."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
from measuring import measured

from memlint.measure.analysis import peak
from memlint.measure.job import Job, Layer, Target
from memlint.measure.launch import run
from memlint.measure.recording import Category, Recording

TRAINING = """
import threading
import torch
from torch import nn

model = nn.Sequential(nn.Linear(256, 512), nn.ReLU(), nn.Linear(512, 1)).cuda()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

def step():
    inputs = torch.ones(64, 256).cuda()
    hidden = model(inputs)
    loss = hidden.square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()

for number in range(8):
    {call}
"""
IN_A_THREAD = "thread = threading.Thread(target=step); thread.start(); thread.join()"


def log(recording: Recording) -> list[tuple[object, ...]]:
    """What happened, in order: which line made what, and what was released."""

    def words(event: int) -> tuple[object, ...]:
        storage = recording.storages[event if event >= 0 else ~event]
        line = storage.place.line if storage.place else None
        return (event >= 0, storage.size, storage.operator, storage.category, storage.phase, line)

    return [words(event) for event in recording.events]


def test_steps_in_threads_are_those_of_one_thread() -> None:
    there = measured(TRAINING.format(call=IN_A_THREAD), Path("train.py"))
    here = measured(TRAINING.format(call="step()"), Path("train.py"))
    assert [step.kind for step in there.steps] == ["training"] * 6
    assert log(there) == log(here)
    assert {storage.category for storage in there.storages} >= {Category.GRADIENTS, Category.ACTIVATIONS}


def allocations(recording: Recording) -> list[tuple[object, ...]]:
    """When a pool lets a result go depends on who of the two threads is faster; what is made does not."""
    return [entry for entry in log(recording) if entry[0]]


def test_two_runs_with_a_pool_allocate_the_same_in_the_same_order() -> None:
    text = """
        import torch
        from concurrent.futures import ThreadPoolExecutor

        model = torch.nn.Linear(64, 64).cuda().eval()

        def predict(size):
            return model(torch.ones(size, 64).cuda()).relu()

        with ThreadPoolExecutor(1) as pool:
            for size in [8, 16, 32]:
                pool.submit(predict, size).result()
        """
    one, two = (measured(text, Path("serve.py")) for _ in range(2))
    assert allocations(one) == allocations(two)
    assert {8 * 64 * 4, 16 * 64 * 4, 32 * 64 * 4} <= {storage.size for storage in one.storages}
    made = {storage.place.line for storage in one.storages if storage.place and storage.operator == "aten::relu"}
    assert made == {8}


def test_threads_at_the_same_time_lose_nothing() -> None:
    text = """
        import threading, torch

        start = threading.Barrier(4)

        def work(number):
            start.wait()
            for _ in range(200):
                x = torch.ones(number + 1, 128, device="cuda")
                y = torch.ones(number + 1, 128, device="cpu")
                z = x + x
                assert z.is_cuda and not y.is_cuda

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        """
    recording = measured(text, Path("threads.py"))
    assert sorted(storage.id for storage in recording.storages) == list(range(4 * 400))
    assert all(storage.died is not None for storage in recording.storages)
    alive: set[int] = set()
    for event in recording.events:
        (alive.add if event >= 0 else alive.remove)(event if event >= 0 else ~event)
    assert not alive


def test_a_thread_that_has_made_enough_steps_ends_the_program_that_waits_for_it(tmp_path: Path) -> None:
    text = TRAINING.format(call="pass") + textwrap.dedent("""
        import queue

        results = queue.Queue()

        def train():
            while True:
                step()
            results.put("done")

        threading.Thread(target=train, daemon=True).start()
        results.get()
        """)
    path = tmp_path / "train.py"
    path.write_text(text)
    outcome = run(Job(Target("script", str(path)), "cpu", str(tmp_path), steps=3), "discard")
    assert outcome.recording is not None, outcome.message
    assert [step.kind for step in outcome.recording.steps] == ["training"] * 3


def test_what_autograd_saves_in_a_thread_is_marked() -> None:
    recording = measured(TRAINING.format(call=IN_A_THREAD), Path("train.py"), layers={Layer.SAVED_TENSORS})
    assert any(storage.saved for storage in recording.storages)


@pytest.mark.parametrize("call", [IN_A_THREAD, "step()"], ids=["thread", "main"])
def test_a_prediction_follows_threads(tmp_path: Path, call: str) -> None:
    path = tmp_path / "train.py"
    path.write_text(TRAINING.format(call=call))
    outcome = run(Job(Target("script", str(path)), "fake", str(tmp_path)), "discard")
    assert outcome.recording is not None, outcome.message
    assert peak(outcome.recording).bytes == peak(measured(TRAINING.format(call="step()"), path)).bytes


BACKWARD = """
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

class Scale(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, grad):
        twice = torch.cat([grad, grad])
        return twice[: len(grad)] * 2

def block(x):
    wide = up(x)
    return down(wide.relu())

up, down = nn.Linear(64, 512).cuda(), nn.Linear(512, 64).cuda()
optimizer = torch.optim.SGD([*up.parameters(), *down.parameters()], lr=0.1)
for reentrant in (True, False, True, False):
    x = torch.ones(32, 64, device="cuda", requires_grad=True)
    y = Scale.apply(checkpoint(block, x, use_reentrant=reentrant))
    y.register_hook(lambda grad: grad.clone())
    y.square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()
"""


def test_what_autograd_runs_in_threads_of_its_own_has_the_lines_it_has_in_ours(tmp_path: Path) -> None:
    """Of tensors on `cuda` autograd runs the nodes in a thread of C++; on `cpu` in the one that asks for them."""
    path = tmp_path / "train.py"
    path.write_text(BACKWARD)
    made = []
    for backend in ("fake", "cpu"):
        outcome = run(Job(Target("script", str(path)), backend, str(tmp_path), steps=4), "discard")
        assert outcome.recording is not None, outcome.message
        made.append(
            [
                (storage.size, storage.category, storage.phase, storage.step, storage.place, storage.caller)
                for storage in outcome.recording.storages
            ]
        )
    assert made[0] == made[1]
    text = [line.strip() for line in BACKWARD.splitlines()]
    backward = [(place, caller) for _, _, phase, _, place, caller in made[0] if phase == "backward"]
    assert {"wide = up(x)", "return down(wide.relu())"} <= {text[place.line - 1] for place, _ in backward if place}
    callers = {text[caller.line - 1] for _, caller in backward if caller}
    assert {"twice = torch.cat([grad, grad])", "y.square().mean().backward()"} <= callers


def test_threads_of_native_code_are_said_to_have_no_lines(tmp_path: Path) -> None:
    text = """
        import torch

        @torch.jit.script
        def double(x: torch.Tensor) -> torch.Tensor:
            return x * 2

        @torch.jit.script
        def forked(x: torch.Tensor) -> torch.Tensor:
            return torch.jit.wait(torch.jit.fork(double, x))

        model = torch.nn.Linear(4, 4).to("cuda")
        with torch.no_grad():
            for _ in range(4):
                {call}(model(torch.ones(2, 4, device="cuda")))
    """
    path = tmp_path / "forks.py"
    path.write_text(textwrap.dedent(text.format(call="forked")), "utf-8")  # TorchScript reads the file
    (assumption,) = measured(path.read_text("utf-8"), path).assumptions
    assert "torch.jit.fork" in assumption.what
    assert not measured(path.read_text("utf-8").replace("forked(model", "double(model"), path).assumptions
