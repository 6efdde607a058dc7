"""Whole runs under `fake`: what is refused, and what is said of what was assumed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from memlint.measure.devices import CARDS
from memlint.measure.job import Job, Target
from memlint.measure.launch import run
from memlint.measure.outcome import Outcome, Status
from memlint.measure.report import as_json, text
from memlint.measure.report.subject import Subject
from memlint.measure.worker import compat
from memlint.measure.worker.backend import Unsupported
from memlint.measure.worker.backends.fake import make

HEADER = """\
import torch
model = torch.nn.Linear(64, 64).{device}
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
while True:
    out = model(torch.randn(2, 64).{device})
"""


def measured(folder: Path, step: str, device: str = "cuda()", card: str | None = None) -> Outcome:
    source = HEADER.format(device=device) + "".join(f"    {line}\n" for line in step.splitlines())
    (folder / "target.py").write_text(source, "utf-8")
    job = Job(Target("script", "target.py"), "fake", str(folder), steps=3, warmup=1, device=card)
    return run(job, "stderr")


def test_assumed_values_are_listed_with_their_lines(tmp_path: Path) -> None:
    step = """\
out.sum().backward()
optimizer.step()
if out.max().item() > 5: print("large")
assert torch.cuda.get_device_capability() == (7, 5)
"""
    outcome = measured(tmp_path, step, card="t4-16gb")

    recording = outcome.recording
    assert recording is not None, outcome
    assert recording.device.total_bytes == CARDS["t4-16gb"].total_bytes
    (assumption,) = recording.assumptions
    assert assumption.what == "a number read from the device is 1.0"
    assert assumption.place is not None and assumption.place.line == 8
    assert recording.excluded


def test_the_largest_that_a_routing_can_be_is_printed_as_such(tmp_path: Path) -> None:
    """Every token goes to each of the two experts: twice the tokens, where a card would have them once."""
    step = """\
sum(model(out[(out.argmax(1) % 2 == expert).nonzero().squeeze(1)]).sum() for expert in range(2)).backward()
optimizer.step()
"""
    recording = measured(tmp_path, step).recording
    assert recording is not None
    subject = Subject("target.py", recording, tmp_path)
    assert subject.is_upper_bound and as_json.measurement(subject)["peak_is_upper_bound"] is True
    assert "at most: sizes that depend on values are taken at their largest" in text.render(subject)


def test_a_size_that_depends_on_values_is_refused(tmp_path: Path) -> None:
    outcome = measured(tmp_path, "out.repeat_interleave(out.argmax(1), 0).sum().backward()\noptimizer.step()\n")

    assert outcome.status is Status.UNSUPPORTED
    assert "repeat_interleave" in outcome.message
    assert "--backend cpu" in outcome.advice
    assert [frame.place.line for frame in outcome.frames] == [6]


def test_an_operator_without_a_function_of_shapes_is_refused(tmp_path: Path) -> None:
    step = """\
if not hasattr(torch.ops.mine, "twice"):
    torch.library.define("mine::twice", "(Tensor x) -> Tensor")
    torch.library.impl("mine::twice", "CUDA", lambda x: x * 2)
torch.ops.mine.twice(out)
"""
    outcome = measured(tmp_path, step)

    assert outcome.status is Status.UNSUPPORTED
    assert "mine.twice" in outcome.message
    assert "--backend cpu" in outcome.advice


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ("torch.embedding(model.weight, torch.ones(2).long().cuda(), -1, False, True).sum().backward()", "sparse"),
        ("torch.nested.nested_tensor([out])", "nested tensors"),
        ("import torch.nn.attention.flex_attention as f; f.flex_attention(out, out, out)", "flex_attention"),
        ("torch.nn.functional.multi_margin_loss(out, torch.zeros(2).long().cuda()).backward()", "multi_margin_loss"),
        ("torch.optim.LBFGS(model.parameters()).step(lambda: out.sum())", "L-BFGS"),
    ],
)  # fmt: skip
def test_what_a_prediction_would_get_wrong_is_refused(tmp_path: Path, step: str, message: str) -> None:
    outcome = measured(tmp_path, step)

    assert outcome.status is Status.UNSUPPORTED
    assert message in outcome.message
    assert outcome.advice


def test_a_program_that_never_says_cuda_is_refused(tmp_path: Path) -> None:
    outcome = measured(tmp_path, "out.sum().backward()\noptimizer.step()\n", device="cpu()")

    assert outcome.status is Status.UNSUPPORTED
    assert "nothing on `cuda`" in outcome.message
    assert "--backend cpu" in outcome.advice


def test_an_unknown_card_is_refused() -> None:
    with pytest.raises(Unsupported, match="no card is called abacus") as refusal:
        make(Job(Target("script", "target.py"), "fake", ".", device="abacus"))
    assert "a100-80gb" in refusal.value.advice


def test_a_self_test_that_ends_the_process_is_a_refusal() -> None:
    with pytest.raises(Unsupported, match="SIGABRT") as refusal:
        compat.self_test(os.abort)
    assert "--backend cpu" in refusal.value.advice


def test_a_self_test_that_fails_says_why() -> None:
    def check() -> None:
        raise AssertionError("a step is missing")

    with pytest.raises(Unsupported, match="a step is missing"):
        compat.self_test(check)


def test_slots_of_virtual_functions() -> None:
    header = """\
struct Hooks {
  virtual ~Hooks() = default;
  // virtual in a comment is none
  virtual bool isBuilt() const {
    return false;
  }
  bool plain() const;
  virtual const Generator& getDefaultGenerator(
      [[maybe_unused]] DeviceIndex device_index = -1) const {
  virtual DeviceIndex deviceCount() const = 0;
};
"""
    assert compat.virtual_slots(header) == {"~Hooks": 0, "isBuilt": 2, "getDefaultGenerator": 3, "deviceCount": 4}
