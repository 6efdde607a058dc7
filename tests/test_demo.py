"""The bundled training project: what is found is what its `# error:` marks say, and `fix` repairs what it can."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import mdtest
from memlint.linting.lint import fix, lint

DEMO = mdtest.FIXTURES / "demo"
FILES = sorted(DEMO.glob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_marks_say_what_is_found(path: Path) -> None:
    raw = path.read_bytes()
    _, marks = mdtest.take_marks(raw.decode(), path.name)
    findings = lint(path.name, raw, mdtest.policy({})).findings
    assert mdtest.wrong_findings(marks, findings) == []


def test_each_kind_of_rule_is_in_the_demo() -> None:
    codes = {mark.code for path in FILES for mark in mdtest.take_marks(path.read_text(encoding="utf-8"), path.name)[1]}
    assert len(codes) >= 11


def test_some_findings_have_safe_fixes() -> None:
    fixed = [fix(path.name, path.read_bytes(), mdtest.policy({}), unsafe=False) for path in FILES]
    assert sum(sum(result.applied.values()) for result in fixed) >= 4


def test_safe_fixes_leave_every_weight_of_a_run_as_it_was(tmp_path: Path) -> None:
    """One epoch on random patches: original and fixed code write the same numbers, to the bit."""
    original, fixed = tmp_path / "original", tmp_path / "fixed"
    for folder in (original, fixed):
        folder.mkdir()
    for path in FILES:
        raw = path.read_bytes()
        (original / path.name).write_bytes(raw)
        (fixed / path.name).write_bytes(fix(path.name, raw, mdtest.policy({}), unsafe=False).after)
    assert train(original) == train(fixed)


def train(folder: Path) -> tuple[str, str]:
    """The history and a digest of the weights of a small run of the project in `folder`."""
    subprocess.run([sys.executable, "-c", RUN], cwd=folder, check=True)
    output = folder / "runs" / "latest"
    return (output / "history.json").read_text(encoding="utf-8"), (output / "weights").read_text(encoding="utf-8")


RUN = """
import hashlib
import torch
torch.set_num_threads(1)
from train import Config, main
config = Config(epochs=1, width=4, batch_size=64, workers=0, device="cpu")
main(config)
state = torch.load(config.output / "epoch_000.pt", map_location="cpu")["model"]
numbers = repr([value.flatten().tolist() for value in state.values()])
(config.output / "weights").write_text(hashlib.sha256(numbers.encode()).hexdigest())
"""
