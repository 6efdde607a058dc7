"""MEM109 and the rest of the project: a slot that nobody reads, one that another file reads."""

from __future__ import annotations

from pathlib import Path

from memlint.linting.finding import Confidence
from memlint.linting.lint import lint
from memlint.linting.policy import Policy

MODEL = b"""\
from torch import nn


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.query = nn.Linear(64, 64)

    def forward(self, x):
        scores = self.query(x).softmax(-1)
        self.scores = scores
        return scores @ x
"""


TRAIN = """\
from model import Attention


def train(loader):
    attention = Attention()
    for x in loader:
        attention(x).sum().backward()


train([])
"""


def codes(folder: Path, other: str, confidence: Confidence = Confidence.MEDIUM) -> list[str]:
    (folder / "model.py").write_bytes(MODEL)
    (folder / "other.py").write_text(other)
    policy = Policy(frozenset({"MEM109"}), confidence, project=str(folder), file=folder / "model.py")
    return [finding.code for finding in lint(str(folder / "model.py"), MODEL, policy).findings]


def test_a_slot_that_nobody_reads_is_found(tmp_path: Path) -> None:
    assert codes(tmp_path, TRAIN) == ["MEM109"]


def test_a_slot_of_a_module_that_nobody_runs_has_low_confidence(tmp_path: Path) -> None:
    library = "from model import Attention\n\n\ndef build():\n    return Attention()\n"
    for name, other in (("alone", "import model\n"), ("library", library)):
        folder = tmp_path / name
        folder.mkdir()
        assert codes(folder, other) == []
        assert codes(folder, other, Confidence.LOW) == ["MEM109"]


def test_a_module_that_is_handed_over_may_be_run(tmp_path: Path) -> None:
    assert codes(tmp_path, 'from model import Attention\n\nMODELS = {"attention": Attention}\n') == ["MEM109"]


def test_a_slot_that_another_file_reads_is_not(tmp_path: Path) -> None:
    for name, read in (("plain", "model.attention.scores"), ("dynamic", "getattr(model, 'scores')")):
        folder = tmp_path / name
        folder.mkdir()
        assert codes(folder, f"def penalty(model):\n    return {read}.mean()\n") == []


def test_without_a_project_nobody_knows(tmp_path: Path) -> None:
    assert lint("model.py", MODEL, Policy(codes=frozenset({"MEM109"}))).findings == ()
