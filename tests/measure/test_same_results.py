"""A program computes the same with and without the instrument, bit for bit, on each backend: what there is of values.

On `fake` that is everything on the host: data, random numbers, weights that are read, metrics. On `cuda` the GPU suite
asks the same (item 10).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from memlint.measure.job import BackendName, Job, Layer, Target
from memlint.measure.launch import run
from memlint.measure.outcome import Status

PROGRAM = """
import hashlib, json, random, sys
import numpy, torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

device, output = sys.argv[1:]
random.seed(3)
numpy.random.seed(3)
torch.manual_seed(3)

def digest(*values):
    found = hashlib.sha256()
    for value in values:
        is_tensor = isinstance(value, torch.Tensor)
        found.update(value.detach().cpu().numpy().tobytes() if is_tensor else repr(value).encode())
    return found.hexdigest()

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(256, 1024), nn.LayerNorm(1024), nn.GELU(), nn.Linear(1024, 4))
        nn.init.trunc_normal_(self.layers[0].weight, std=0.1)

    def forward(self, x):
        return self.layers(x)

model = Model()
host = [digest(*model.parameters())]
model.to(device)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, foreach=True)
data = TensorDataset(torch.randn(40, 256), torch.randint(0, 4, (40,)))
noise = nn.Dropout(0.2)
losses = []
for inputs, labels in DataLoader(data, batch_size=8, shuffle=True, num_workers=2):
    inputs = noise(inputs) * float(numpy.random.rand()) + random.random()
    host.append(digest(inputs, labels, torch.get_rng_state(), random.getstate()))
    loss = nn.functional.cross_entropy(model(inputs.to(device)), labels.to(device))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.detach())
host.append(digest(torch.get_rng_state(), random.getstate(), numpy.random.get_state()[1].tolist()))
with open(output, "w") as stream:
    json.dump({"host": host, "device": digest(*losses, *model.parameters())}, stream)
"""
ALL = frozenset({Layer.LINES, Layer.GROWTH, Layer.FINGERPRINTS})


@cache
def without_the_instrument() -> dict[str, object]:
    with TemporaryDirectory() as folder:
        path, output = Path(folder, "program.py"), Path(folder, "out.json")
        # Worker processes draw numbers of their own; the instrument does without them.
        path.write_text(PROGRAM.replace("num_workers=2", "num_workers=0"))
        environment = {**os.environ, "PYTHONHASHSEED": "0"}
        subprocess.run([sys.executable, str(path), "cpu", str(output)], check=True, env=environment)
        results: dict[str, object] = json.loads(output.read_text())
        return results


def with_the_instrument(folder: Path, backend: BackendName, layers: frozenset[Layer]) -> dict[str, object]:
    path, output = folder / "program.py", folder / "out.json"
    path.write_text(PROGRAM)
    target = Target("script", str(path), ("cuda", str(output)))
    outcome = run(Job(target, backend, str(folder), steps=9, layers=layers, allow_write=True), "stderr")
    assert outcome.status is Status.OK, outcome.message
    assert outcome.recording is not None and len(outcome.recording.steps) == 5
    results: dict[str, object] = json.loads(output.read_text())
    return results


def test_on_cpu_everything_is_the_same(tmp_path: Path) -> None:
    assert with_the_instrument(tmp_path, "cpu", ALL) == without_the_instrument()


def test_on_fake_all_that_is_on_the_host_is_the_same(tmp_path: Path) -> None:
    found = with_the_instrument(tmp_path, "fake", ALL - {Layer.FINGERPRINTS})
    assert found["host"] == without_the_instrument()["host"]
