"""Where steps end, in programs as people write them."""

from __future__ import annotations

import sys
from itertools import groupby
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from measuring import measured, measured_function
from torch import nn

from memlint.measure import analysis
from memlint.measure.recording import SETUP_STEP, Category, Recording

HEAD = """
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
model = nn.Linear(8, 1).cuda()
def batch():
    return torch.zeros(4, 8).cuda()
def loader(batches):
    return DataLoader(TensorDataset(torch.zeros(4 * batches, 8)), batch_size=4)
def evaluate(batches):
    with torch.no_grad():
        for (x,) in loader(batches):
            model(x.cuda())
"""


def run(text: str, steps: int = 4, **names: Any) -> Recording:
    return measured(HEAD + text, Path("program.py"), steps=steps, **names)


def kinds(recording: Recording) -> list[str]:
    return [step.kind for step in recording.steps]


def test_an_optimizer_step_ends_a_training_step() -> None:
    log: list[int] = []
    recording = run(
        """
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for step in range(100):
    optimizer.zero_grad()
    model(batch()).sum().backward()
    optimizer.step()
    LOG.append(step)
""",
        LOG=log,
    )
    assert kinds(recording) == ["training"] * 4
    assert log == [0, 1, 2]  # the fourth ends in its optimizer's step
    assert [step.number for step in recording.steps] == [0, 1, 2, 3]
    assert all(a.end == b.start for a, b in zip(recording.steps, recording.steps[1:], strict=False))


def test_accumulated_batches_are_one_step() -> None:
    recording = run("""
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for number, (x,) in enumerate(loader(100)):
    model(x.cuda()).sum().backward()
    if number % 3 == 2:
        optimizer.step()
        optimizer.zero_grad()
""")
    assert kinds(recording) == ["training"] * 4
    backward = [s for s in recording.storages if s.operator == "aten::mm" and s.phase.value == "backward"]
    assert sum(storage.step == 1 for storage in backward) == 3


def test_a_gan_steps_when_both_of_its_optimizers_have() -> None:
    recording = run("""
critic = nn.Linear(1, 1).cuda()
of_critic = torch.optim.Adam(critic.parameters())
of_model = torch.optim.Adam(model.parameters())
for step in range(100):
    of_critic.zero_grad()
    (critic(torch.ones(4, 1).cuda()) - critic(model(batch()).detach())).sum().backward()
    of_critic.step()
    of_model.zero_grad()
    critic(model(batch())).sum().backward()
    of_model.step()
""")
    assert kinds(recording) == ["training"] * 4
    moved = [s for s in recording.storages if s.category is Category.INPUTS and s.size == 4 * 8 * 4]
    assert [sum(s.step == number for s in moved) for number in (1, 2, 3)] == [2, 2, 2]


def test_two_optimizers_of_one_model_are_one_step() -> None:
    recording = run("""
optimizers = [torch.optim.SGD([p], lr=0.1) for p in model.parameters()]
for step in range(100):
    model(batch()).sum().backward()
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad()
""")
    assert kinds(recording) == ["training"] * 4


def test_a_new_optimizer_each_step_is_the_same_to_the_steps() -> None:
    recording = run("""
for step in range(100):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(batch()).sum().backward()
    optimizer.step()
""")
    assert kinds(recording) == ["training"] * 4


def test_evaluation_by_loader() -> None:
    recording = run("evaluate(100)")
    assert kinds(recording) == ["evaluation"] * 4


def test_evaluation_without_a_loader_ends_when_the_model_is_called_again() -> None:
    recording = run("""
encoder = nn.Linear(8, 8).cuda()
for step in range(100):
    model(encoder(batch()))
""")
    assert kinds(recording) == ["evaluation"] * 4


def test_a_script_that_evaluates_first_is_measured_until_it_has_trained() -> None:
    recording = run("""
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
evaluate(6)
for (x,) in loader(100):
    model(x.cuda()).sum().backward()
    optimizer.step()
""")
    assert kinds(recording) == ["evaluation"] * 6 + ["training"] * 4


def test_evaluation_between_training_steps_has_steps_of_its_own() -> None:
    recording = run("""
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for epoch in range(10):
    for (x,) in loader(2):
        model(x.cuda()).sum().backward()
        optimizer.step()
    evaluate(3)
""")
    assert kinds(recording) == ["training"] * 2 + ["evaluation"] * 3 + ["training"] * 2


def test_an_optimizer_that_torch_does_not_know() -> None:
    recording = run("""
for (x,) in loader(100):
    model(x.cuda()).sum().backward()
    with torch.no_grad():
        for p in model.parameters():
            p -= 0.1 * p.grad
            p.grad = None
""")
    assert kinds(recording) == ["training"] * 4


def test_the_end_of_the_script_ends_its_last_step() -> None:
    recording = run("for step in range(2):\n    model(batch())\n")
    assert kinds(recording) == ["evaluation"] * 2
    assert run("batch()\n").steps == []


def test_batches_that_no_model_sees_are_no_steps() -> None:
    recording = run("""
total = sum(float(x.sum()) for (x,) in loader(50))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for (x,) in loader(50):
    model(x.cuda()).sum().backward()
    optimizer.step()
""")
    assert kinds(recording) == ["training"] * 4


def test_a_module_without_parameters_takes_no_step() -> None:
    recording = run("""
class Encoder(nn.Module):
    def forward(self, text):
        return torch.tensor([float(ord(letter)) for letter in text])
encoder = Encoder()
samples = [encoder("abcdefgh") for _ in range(50)]
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for sample in samples:
    model(sample.cuda()).sum().backward()
    optimizer.step()
""")
    assert kinds(recording) == ["training"] * 4


def test_a_closure_is_no_part_of_the_optimizer() -> None:
    recording = run("""
optimizer = torch.optim.LBFGS(model.parameters(), max_iter=2)
kept = []
def closure():
    optimizer.zero_grad()
    loss = model(batch()).square().sum()
    kept.append(loss.detach())
    loss.backward()
    return loss
for step in range(100):
    optimizer.step(closure)
""")
    assert kinds(recording) == ["training"] * 4
    made = [s for s in recording.storages if s.operator == "aten::addmm"]
    assert {s.category for s in made} == {Category.ACTIVATIONS}
    assert {s.phase.value for s in made} <= {"forward", "setup"}


def test_a_text_is_one_step_however_many_tokens_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """As transformers has it: `generate` calls the model for each token."""
    library = ModuleType("transformers.generation.utils")

    class GenerationMixin:
        def generate(self, x: torch.Tensor) -> torch.Tensor:
            for _ in range(5):
                self(x)  # type: ignore[operator]
            return x

    library.GenerationMixin = GenerationMixin  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "transformers.generation.utils", library)
    recording = run(
        """
class Writer(nn.Module, MIXIN):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 1)
    def forward(self, x):
        return self.layer(x)
writer = Writer().cuda()
for step in range(100):
    writer.generate(batch())
""",
        MIXIN=GenerationMixin,
    )
    assert kinds(recording) == ["evaluation"] * 4
    made = [s for s in recording.storages if s.operator == "aten::addmm"]
    assert [sum(s.step == number for s in made) for number in range(4)] == [5] * 4
    assert "noticed" not in GenerationMixin.generate.__code__.co_name


def test_code_that_swallows_everything_cannot_go_on() -> None:
    log: list[int] = []
    recording = run(
        """
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for step in range(100):
    try:
        model(batch()).sum().backward()
        optimizer.step()
    except BaseException:
        LOG.append(step)
""",
        LOG=log,
    )
    assert kinds(recording) == ["training"] * 4
    assert log[0] == 3


def test_what_is_made_before_the_first_step_belongs_to_set_up() -> None:
    recording = run("evaluate(100)")
    parameters = [s for s in recording.storages if s.category is Category.PARAMETERS]
    assert {s.step for s in parameters} == {SETUP_STEP}
    assert {s.phase.value for s in parameters} == {"setup"}


def test_a_function_is_called_as_often_as_there_are_steps() -> None:
    calls: list[int] = []
    model = nn.Linear(8, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def function() -> None:
        calls.append(1)
        for _ in range(2):
            model(torch.zeros(4, 8)).sum().backward()
            optimizer.step()

    recording = measured_function(function, steps=5)
    assert len(calls) == 5
    assert kinds(recording) == ["call"] * 5


def test_a_function_that_trains_by_itself_is_called_once() -> None:
    calls: list[int] = []

    def function() -> None:
        calls.append(1)
        model = nn.Linear(8, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(100):
            model(torch.zeros(4, 8)).sum().backward()
            optimizer.step()

    recording = measured_function(function, steps=5)
    assert len(calls) == 1
    assert kinds(recording) == ["training"] * 5


def test_an_exception_of_the_program_comes_through() -> None:
    with pytest.raises(ZeroDivisionError):
        run("model(batch())\n1 / 0\n")


BOTH = """
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

data = TensorDataset(torch.zeros(400, 16))
model = nn.Linear(16, 64).cuda()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for epoch in range({epochs}):
    for (batch,) in DataLoader(data, batch_size=4, shuffle=True):
        optimizer.zero_grad()
        model(batch.cuda()).sum().backward()
        optimizer.step()
    if {evaluates}:
        kept = []
        for (batch,) in DataLoader(data, batch_size=4):
            kept.append(model(batch.cuda()))
"""


def both(*, with_evaluation: bool, epochs: int = 2, evaluates: bool = True) -> Recording:
    text = BOTH.format(epochs=epochs, evaluates=evaluates)
    return measured(text, Path("train.py"), with_evaluation=with_evaluation)


def test_an_evaluation_after_an_epoch_is_reached_by_an_epoch_that_ends() -> None:
    recording = both(with_evaluation=True)
    assert kinds(recording) == ["training"] * 6 + ["evaluation"] * 6
    growth = analysis.growth(recording)
    assert growth.kind == "evaluation" and growth.bytes_per_step is not None and growth.bytes_per_step >= 1024
    (line,) = growth.lines
    assert line.keeper is not None and line.keeper.name == "kept"


def test_without_it_the_report_says_what_is_not_reached() -> None:
    recording = both(with_evaluation=False)
    assert kinds(recording) == ["training"] * 6
    assert "--with-evaluation" in recording.excluded[-1]


def test_a_loader_that_is_at_its_end_when_training_is_enough_is_not_emptied() -> None:
    text = """
        import torch
        from torch.utils.data import DataLoader, TensorDataset

        loader = DataLoader(TensorDataset(torch.zeros(12, 4)), batch_size=4)
        others = DataLoader(TensorDataset(torch.zeros(12, 4)), batch_size=4)
        model = torch.nn.Linear(4, 4).cuda()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for epoch in range(4):
            losses = []
            for (batch,), (other,) in zip(loader, others):
                losses.append(model(batch.cuda()).sum() + model(other.cuda()).sum())
                losses[-1].backward()
                optimizer.step()
            torch.stack(losses)
            with torch.no_grad():
                for (batch,) in loader:
                    model(batch.cuda())
        """
    recording = measured(text, Path("train.py"), with_evaluation=True)
    counts = [(kind, len(list(steps))) for kind, steps in groupby(kinds(recording))]
    assert [count for kind, count in counts if kind == "training"] == [3, 3]
    assert sum(count for kind, count in counts if kind == "evaluation") == 6


def test_further_epochs_have_a_step_each() -> None:
    assert kinds(both(with_evaluation=True, epochs=5, evaluates=False)) == ["training"] * (6 + 4)
