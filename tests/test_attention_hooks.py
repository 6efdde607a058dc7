"""MEM801 asks the project for hooks that read what an attention layer returns."""

from __future__ import annotations

from pathlib import Path

import pytest

from memlint.linting.finding import Confidence
from memlint.linting.lint import lint
from memlint.linting.policy import Policy

MODEL = """
from torch import nn


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.attn = nn.MultiheadAttention(width, 4)

    def forward(self, x):
        return x + self.attn(x, x, x)[0]
"""
PLOT = """
def maps(block, x):
    out = []
    handle = block.{name}.register_forward_hook(lambda module, args, result: out.append(result[1]))
    block(x)
    handle.remove()
    return out
"""


@pytest.mark.parametrize(("name", "count"), [("attn", 0), ("norm", 1)])
def test_hooks_of_other_files_may_read_the_weights(tmp_path: Path, name: str, count: int) -> None:
    (tmp_path / "pyproject.toml").write_text("")
    (tmp_path / "plot.py").write_text(PLOT.format(name=name))
    path = tmp_path / "model.py"
    path.write_text(MODEL)
    policy = Policy(frozenset({"MEM801"}), Confidence.LOW, None, str(tmp_path), path)
    assert len(lint(str(path), path.read_bytes(), policy).findings) == count
