"""What a prediction says of host memory before it takes it."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
import torch

from memlint.measure.job import Job, Target
from memlint.measure.launch import run
from memlint.measure.outcome import Status
from memlint.measure.recording import Place
from memlint.measure.worker.backends.fake.host_memory import HostMemory, TooLittleHostMemory, available_bytes

GIB = 2**30


class Host:
    """A machine of which so much is available."""

    def __init__(self, available: int) -> None:
        self.said: list[str] = []
        place = Place("/project/train.py", 12)
        self.memory = HostMemory(lambda: place, available=lambda: available, say=self.said.append)


def test_the_first_weight_that_is_read_tells_what_all_will_take() -> None:
    host = Host(8 * GIB)
    host.memory.take_read(GIB // 4, unread=3 * GIB)
    (note,) = host.said
    assert note.startswith("train.py:12 reads weights in host memory, which takes 256.0 MiB, 3.2 GiB once all are read")
    assert "8.0 GiB are available" in note and 'torch.device("cuda")' in note
    host.memory.take_read(GIB // 4, unread=2 * GIB)
    assert host.said == [note]


def test_little_is_not_spoken_of() -> None:
    host = Host(8 * GIB)
    host.memory.take_read(GIB // 4, unread=GIB // 4)
    host.memory.take(GIB // 4)
    assert host.said == []


def test_tensors_that_are_gone_do_not_count() -> None:
    host = Host(8 * GIB)
    for _ in range(100):
        batch = torch.empty(GIB // 8, dtype=torch.uint8)
        host.memory.take(batch.nbytes)
        host.memory.holds(batch.untyped_storage())
        del batch
    assert host.said == []
    kept = [torch.empty(GIB // 8, dtype=torch.uint8) for _ in range(8)]
    for tensor in kept:
        host.memory.take(tensor.nbytes)
        host.memory.holds(tensor.untyped_storage())
    assert len(host.said) == 1


def test_what_does_not_fit_is_refused_before_it_is_made() -> None:
    host = Host(2 * GIB)
    with pytest.raises(TooLittleHostMemory, match=r"train.py:12 reads weights .* takes 3.0 GiB, and 2.0 GiB are avail"):
        host.memory.take_read(3 * GIB, unread=0)
    with pytest.raises(TooLittleHostMemory, match="makes a tensor"):
        host.memory.take(3 * GIB)


def test_a_file_that_is_loaded_counts_before_it_is_read(tmp_path: Path) -> None:
    file = tmp_path / "weights.pt"
    with file.open("wb") as stream:
        stream.truncate(3 * GIB)
    loaded: list[str] = []
    with pytest.raises(TooLittleHostMemory, match=r"loads a file into host memory, which takes 3.0 GiB"):
        Host(2 * GIB).memory.loading(loaded.append)(str(file))
    assert not loaded
    host = Host(8 * GIB)
    host.memory.loading(loaded.append)(str(file))
    assert loaded == [str(file)] and len(host.said) == 1


def test_the_machine_says_how_much_is_available() -> None:
    available = available_bytes()
    assert available is None or 0 < available < 2**50


PROGRAM = """
import torch
from torch import nn

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4096, 4096, bias=False) for _ in range(10))

model = Model()
{between}
model = model.to("cuda")
for step in range(3):
    x = torch.ones(2, 4096, device="cuda", dtype=model.layers[0].weight.dtype)
    for layer in model.layers:
        x = layer(x)
    x.sum().backward()
    model.zero_grad()
"""
LIMIT = 300 * 2**20
"""Less than the weights take, 640 MiB."""


def ended(tmp_path: Path, between: str) -> tuple[Status, str]:
    path = tmp_path / "train.py"
    path.write_text(textwrap.dedent(PROGRAM.format(between=between)))
    job = Job(Target("script", str(path)), "fake", str(tmp_path), steps=2, host_memory_limit_bytes=LIMIT)
    outcome = run(job, "discard")
    return outcome.status, f"{outcome.message}; {outcome.advice}"


def test_weights_that_nobody_reads_pass_a_limit_that_they_would_not_fit_in(tmp_path: Path) -> None:
    assert ended(tmp_path, "model.half()") == (Status.OK, "; ")


def test_weights_that_are_read_are_refused_with_what_they_would_take(tmp_path: Path) -> None:
    status, words = ended(tmp_path, "total = sum(float(weight.sum()) for weight in model.parameters())")
    assert status is Status.OUT_OF_MEMORY
    assert "train.py:11 reads weights in host memory, which takes 64.0 MiB, and" in words
    assert 'torch.device("cuda")' in words
