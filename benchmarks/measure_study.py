"""The programs of the study that came before the dynamic mode, each with a waste and without, on `cpu` and on `fake`.

    python benchmarks/measure_study.py    # writes benchmarks/measure_study.md

The peak after two steps, and the growth, beside the numbers of the study (dynamic-mode.md, 3.6), byte for byte. Given
the name of a backend it prints that one's numbers as JSON: a process for each, since they pretend different machines.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import warnings
from collections.abc import Callable
from itertools import product
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from memlint.measure.analysis import growth, live_bytes
from memlint.measure.job import Job, Target
from memlint.measure.recording import Recording
from memlint.measure.worker.session import Session

STEPS, WARMUP = 6, 2
Batch = Callable[[], tuple[torch.Tensor, torch.Tensor]]
Criterion = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class Block(nn.Module):  # type: ignore[misc]
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down, self.heads = nn.Linear(width, 4 * width), nn.Linear(4 * width, width), heads

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        size = width // self.heads
        q, k, v = self.qkv(self.norm1(x)).view(batch, length, 3, self.heads, size).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-1, -2)) * size**-0.5
        weights = weights.softmax(-1)
        out = (weights @ v).transpose(1, 2).reshape(batch, length, width)
        x = x + self.proj(out)
        hidden = F.gelu(self.up(self.norm2(x)))
        return x + self.down(hidden)


class GPT(nn.Module):  # type: ignore[misc]
    def __init__(self, vocabulary: int = 4000, width: int = 256, layers: int = 4, heads: int = 4) -> None:
        super().__init__()
        self.tok, self.pos = nn.Embedding(vocabulary, width), nn.Embedding(128, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.tok.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.tok(tokens) + self.pos(torch.arange(tokens.shape[1], device=tokens.device))
        for block in self.blocks:
            x = block(x)
        logits: torch.Tensor = self.head(self.norm(x))
        return logits


class Residual(nn.Module):  # type: ignore[misc]
    def __init__(self, inside: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(inside, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out)
        self.conv2, self.norm2 = nn.Conv2d(out, out, 3, 1, 1, bias=False), nn.BatchNorm2d(out)
        self.short: nn.Module = nn.Identity()
        if stride != 1 or inside != out:
            self.short = nn.Sequential(nn.Conv2d(inside, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.norm1(self.conv1(x)), inplace=True)
        return F.relu(self.norm2(self.conv2(y)) + self.short(x), inplace=True)


class ResNet(nn.Module):  # type: ignore[misc]
    def __init__(self, width: int = 32, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        )
        stages = ((width, 1), (width, 1), (2 * width, 2), (2 * width, 1), (4 * width, 2), (4 * width, 1))
        layers, inside = [], width
        for out, stride in stages:
            layers.append(Residual(inside, out, stride))
            inside = out
        self.body, self.fc = nn.Sequential(*layers), nn.Linear(inside, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.fc(self.body(self.stem(x)).mean((2, 3)))
        return scores


def gpt() -> tuple[nn.Module, Batch, Criterion]:
    def batch() -> tuple[torch.Tensor, torch.Tensor]:
        tokens = torch.randint(0, 4000, (8, 129))
        return tokens[:, :-1].to("cuda"), tokens[:, 1:].to("cuda")

    def criterion(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(logits.view(-1, logits.shape[-1]), labels.reshape(-1))

    return GPT().to("cuda"), batch, criterion


def resnet() -> tuple[nn.Module, Batch, Criterion]:
    def batch() -> tuple[torch.Tensor, torch.Tensor]:
        return torch.randn(16, 3, 32, 32).to("cuda"), torch.randint(0, 10, (16,)).to("cuda")

    return ResNet().to("cuda"), batch, F.cross_entropy


MODELS = {"gpt": gpt, "resnet": resnet}


def train_total(model: nn.Module, batch: Batch, criterion: Criterion, fixed: bool) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    total: torch.Tensor | float = 0.0
    for _ in range(STEPS):
        x, y = batch()
        loss = criterion(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if fixed:
            total += loss.item()
        else:
            total += loss


def evaluate_total(model: nn.Module, batch: Batch, criterion: Criterion, fixed: bool) -> None:
    model.eval()
    total: torch.Tensor | float = 0.0
    for _ in range(STEPS):
        x, y = batch()
        loss = criterion(model(x), y)
        if fixed:
            total += loss.item()
        else:
            total += loss


def evaluate_with_grad(model: nn.Module, batch: Batch, criterion: Criterion, fixed: bool) -> None:
    model.eval()
    with torch.set_grad_enabled(not fixed):
        for _ in range(STEPS):
            x, y = batch()
            outputs = model(x)
            criterion(outputs, y).item()


def clone_of_logits(model: nn.Module, batch: Batch, criterion: Criterion, fixed: bool) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(STEPS):
        x, y = batch()
        outputs = model(x)
        if not fixed:
            outputs = outputs.clone()
        loss = criterion(outputs, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def gradients_zeroed(model: nn.Module, batch: Batch, criterion: Criterion, fixed: bool) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(STEPS):
        x, y = batch()
        optimizer.zero_grad(set_to_none=fixed)
        loss = criterion(model(x), y)
        loss.backward()
        optimizer.step()


def outputs_kept(model: nn.Module, batch: Batch, criterion: Criterion, fixed: bool) -> None:
    model.eval()
    kept = []
    with torch.set_grad_enabled(not fixed):
        for _ in range(STEPS):
            x, y = batch()
            outputs = model(x)
            kept.append(outputs.argmax(-1).cpu() if fixed else outputs)
            criterion(outputs, y).item()


PROGRAMS = {
    function.__name__: function
    for function in (
        train_total,
        evaluate_total,
        evaluate_with_grad,
        clone_of_logits,
        gradients_zeroed,
        outputs_kept,
    )
}


def peak_after_warmup(recording: Recording) -> int:
    return max(live_bytes(recording)[recording.steps[WARMUP - 1].end :])


def results(backend: str) -> dict[str, tuple[int, int | None]]:
    """Of each program, model and form: the peak after the warm-up, and the growth a step."""
    make = importlib.import_module(f"memlint.measure.worker.backends.{backend}").make
    warnings.simplefilter("ignore")
    found = {}
    for (name, program), kind, fixed in product(PROGRAMS.items(), MODELS, (False, True)):
        target = Target("script", name)
        job = Job(target, backend, ".", steps=STEPS, warmup=WARMUP, layers=frozenset())  # type: ignore[arg-type]
        session = Session(job, make(job))
        torch.manual_seed(0)
        with session:
            program(*MODELS[kind](), fixed)
        recording = session.recording()
        found[words(name, kind, fixed)] = (peak_after_warmup(recording), growth(recording).bytes_per_step)
    return found


def words(name: str, kind: str, fixed: bool) -> str:
    return f"{name} {kind} {'fixed' if fixed else 'bad'}"


STUDY = {
    # program: bad on cpu, bad on fake, fixed on cpu, fixed on fake
    "train_total gpt": (144186880, 144186368, 144186368, 144185856),
    "train_total resnet": (41475072, 41475072, 41474560, 41474560),
    "evaluate_total gpt": (597675520, 597672448, 221391872, 221390848),
    "evaluate_total resnet": (215336960, 215429120, 73999872, 74030592),
    "evaluate_with_grad gpt": (204989440, 204996608, 51739136, 51746816),
    "evaluate_with_grad resnet": (73998336, 74029056, 13500416, 13501440),
    "clone_of_logits gpt": (160080384, 160088064, 160080384, 160088064),
    "clone_of_logits resnet": (41475584, 41475584, 41475584, 41475584),
    "gradients_zeroed gpt": (194318848, 194299904, 177453568, 177434624),
    "gradients_zeroed resnet": (47674880, 47650816, 44888064, 44864000),
    "outputs_kept gpt": (597630976, 597627904, 51780096, 51746816),
    "outputs_kept resnet": (215330816, 215422976, 13502976, 13501440),
}
"""What the study measured, in bytes."""

HEAD = """# The study's programs, measured again

Written by `benchmarks/measure_study.py`. Peaks in bytes after two steps, of six; growth in bytes a step. *measured on
cpu* and *predicted* (`fake`); beside them the difference to what the study's prototypes gave. Nothing here was checked
against a GPU: that both agree is self-consistency.

| program | model | form | measured on cpu | predicted | study's cpu | study's fake | growth |
| --- | --- | --- | --- | --- | --- | --- | --- |
"""

FOOT = """
Where the study's `fake` differs: the ResNet's evaluations. The prototype took PyTorch's own batch norm, whose shape
function keeps mean and variance in evaluation; a card takes cuDNN's, which does not. 15 layers x 2 x 512 bytes = 15,360
bytes for each graph that is alive: 30,720 of two, 92,160 of six, and 1,024 of the layer that runs where there is none.

Where the study's `cpu` differs: it counted what is on the host, too. Adam's step counters, 512 bytes a parameter (37 of
the GPT: 18,944; 47 of the ResNet: 24,064), copies that `.cpu()` makes, and batches before they are moved, which on a
card are a copy of their own.
"""


def main() -> int:
    if len(sys.argv) > 1:
        sys.stdout.write(json.dumps(results(sys.argv[1])))
        sys.stdout.flush()
        return 0
    measured, predicted = (
        json.loads(subprocess.run([sys.executable, __file__, name], capture_output=True, text=True, check=True).stdout)
        for name in ("cpu", "fake")
    )
    rows = []
    for (name, kind), (form, place) in product(product(PROGRAMS, MODELS), (("bad", 0), ("fixed", 2))):
        key = words(name, kind, form == "fixed")
        (peak, grown), (foreseen, _) = measured[key], predicted[key]
        cpu, fake = STUDY[f"{name} {kind}"][place : place + 2]
        numbers = f"{peak:,} | {foreseen:,} | {peak - cpu:+,} | {foreseen - fake:+,} | {grown:,}"
        rows.append(f"| {name} | {kind} | {form} | {numbers} |")
    Path(__file__).with_suffix(".md").write_text(HEAD + "\n".join(rows) + "\n" + FOOT)
    return int(any(measured[key] != predicted[key] for key in measured))


if __name__ == "__main__":
    sys.exit(main())
