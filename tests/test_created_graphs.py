"""MEM107 and the callers of a helper in other files."""

from __future__ import annotations

from pathlib import Path

from memlint.linting.finding import Confidence
from memlint.linting.lint import lint
from memlint.linting.policy import Policy

HELPER = b"""\
import torch


def gradients(loss, params):
    loss.backward(create_graph=True)
    return [p.grad for p in params]
"""
CALLER = """\
from helper import gradients


def train(model, loader, criterion, optimizer):
    for x, y in loader:
        gradients(criterion(model(x), y), list(model.parameters()))
        {then}
"""


def codes(folder: Path, other: str, confidence: Confidence = Confidence.MEDIUM) -> list[str]:
    (folder / "helper.py").write_bytes(HELPER)
    (folder / "other.py").write_text(other)
    policy = Policy(frozenset({"MEM107"}), confidence, project=str(folder), file=folder / "helper.py")
    return [finding.code for finding in lint(str(folder / "helper.py"), HELPER, policy).findings]


def test_a_caller_that_resets_nothing(tmp_path: Path) -> None:
    assert codes(tmp_path, CALLER.format(then="optimizer.step()")) == ["MEM107"]


def test_a_caller_that_resets(tmp_path: Path) -> None:
    assert codes(tmp_path, CALLER.format(then="optimizer.zero_grad()"), Confidence.LOW) == []


def test_no_caller_in_view_has_low_confidence(tmp_path: Path) -> None:
    assert codes(tmp_path, "import helper\n") == []
    assert codes(tmp_path, "import helper\n", Confidence.LOW) == ["MEM107"]
