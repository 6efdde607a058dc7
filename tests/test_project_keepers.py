"""What a meter of another file of the project does with what it is given."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_project_facts import codes, project

TRAIN = """
    import torch
    from utils import AverageMeter

    def train(model, loader, criterion, optimizer):
        losses = AverageMeter()
        for x, y in loader:
            loss = criterion(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.update(loss, x.size(0))
"""
METER = """
    import torch

    class AverageMeter:
        def __init__(self):
            self.val, self.sum, self.count = 0, 0, 0
            self.all = {{"loss": 0}}

        def update(self, val, n=1):
            {body}
"""


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("self.sum += val * n", ["MEM103"]),
        ("self.all['loss'] += val", ["MEM103"]),
        ("self.sum += val.item() * n", []),
        ("self.val = val", []),
        ("self.sum += float(val) * n", []),
        ("self.sum += (val.item() if isinstance(val, torch.Tensor) else val) * n", []),
    ],
)
def test_a_meter_of_another_file_is_read(tmp_path: Path, body: str, found: list[str]) -> None:
    root = project(tmp_path, {"utils.py": METER.format(body=body), "train.py": TRAIN})
    assert codes(root, "train.py") == found


def test_a_dictionary_for_a_tracker_of_another_file(tmp_path: Path) -> None:
    meter = METER.format(body="for key in val:\n                self.all[key] += val[key]")
    given = TRAIN.replace(
        "losses.update(loss, x.size(0))", 'values = {"loss": loss}\n            losses.update(values)'
    )
    root = project(tmp_path, {"utils.py": meter, "train.py": given})
    assert codes(root, "train.py") == ["MEM103"]
    numbers = given.replace('"loss": loss}', '"loss": loss.item()}')
    root = project(tmp_path / "numbers", {"utils.py": meter, "train.py": numbers})
    assert codes(root, "train.py") == []
