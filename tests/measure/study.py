"""The programs of the study before the dynamic mode, each with a waste and without: `study.py BACKEND` prints the peak
after two steps and the growth, in bytes, as JSON."""

from __future__ import annotations

import importlib
import json
import sys
import warnings
from collections.abc import Callable
from itertools import product

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


def main() -> None:
    backend = sys.argv[1]
    make = importlib.import_module(f"memlint.measure.worker.backends.{backend}").make
    warnings.simplefilter("ignore")
    results = {}
    for (name, program), kind, fixed in product(PROGRAMS.items(), MODELS, (False, True)):
        target = Target("script", name)
        job = Job(target, backend, ".", steps=STEPS, warmup=WARMUP, layers=frozenset())  # type: ignore[arg-type]
        session = Session(job, make(job))
        torch.manual_seed(0)
        with session:
            program(*MODELS[kind](), fixed)
        recording = session.recording()
        words = f"{name} {kind} {'fixed' if fixed else 'bad'}"
        results[words] = (peak_after_warmup(recording), growth(recording).bytes_per_step)
    sys.stdout.write(json.dumps(results))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
