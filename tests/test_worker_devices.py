"""MEM604 asks the project's loaders where the file of a data set has none."""

from __future__ import annotations

from pathlib import Path

import pytest

from memlint.linting.finding import Confidence
from memlint.linting.lint import lint
from memlint.linting.policy import Policy

DATA = """
import torch
from torch.utils.data import Dataset


class Frames(Dataset):
    def __init__(self, data, device):
        self.data = data
        self.device = device

    def __getitem__(self, i):
        return torch.tensor(self.data[i]).to(self.device)
"""
TRAIN = """
from torch.utils.data import DataLoader

from data import Frames


def main(data, args):
    return DataLoader(Frames(data, "cuda"), batch_size=32{workers})
"""


def found(folder: Path, data: str, **files: str) -> list[str]:
    folder.mkdir(exist_ok=True)
    (folder / "pyproject.toml").write_text("")
    (folder / "data.py").write_text(data)
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    path = folder / "data.py"
    policy = Policy(frozenset({"MEM604"}), Confidence.LOW, None, str(folder), path)
    return [finding.confidence.name.lower() for finding in lint(str(path), path.read_bytes(), policy).findings]


@pytest.mark.parametrize(
    ("workers", "expected"),
    [
        (", num_workers=4", ["medium"]),
        (", num_workers=args.workers", ["medium"]),
        (", **args.loading", ["medium"]),
        (", num_workers=0", []),
        ("", []),
    ],
)
def test_the_loaders_of_other_files_decide(tmp_path: Path, workers: str, expected: list[str]) -> None:
    assert found(tmp_path, DATA, train=TRAIN.format(workers=workers)) == expected


def test_without_a_loader_a_variable_says_little(tmp_path: Path) -> None:
    assert found(tmp_path, DATA) == ["low"]


def test_a_device_that_is_named_needs_a_loader_with_workers_where_there_is_one(tmp_path: Path) -> None:
    data = DATA.replace(".to(self.device)", ".cuda()")
    assert found(tmp_path / "alone", data) == ["medium"]
    assert found(tmp_path / "loaded", data, train=TRAIN.format(workers="")) == []


def test_a_file_that_cannot_be_read_may_have_workers(tmp_path: Path) -> None:
    assert found(tmp_path, DATA, train="from data import Frames\nDataLoader(Frames(\n") == ["medium"]
