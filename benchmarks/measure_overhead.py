"""What the instrument costs: steps with and without it, interleaved, on the CPU.

    python benchmarks/measure_overhead.py

Prints for each program the median of a plain step, that of a measured one, and the ratio of the two, in processor time
of one thread. Runs of both kinds alternate, so that both meet the same moods of the machine.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from memlint.measure.job import Job, Layer, Target
from memlint.measure.worker.backends.cpu import make
from memlint.measure.worker.session import Session

REPETITIONS = 5
WARMUP = 2
TIMED = 3
LIMIT = 1.2
"""Of the ratio, for steps over 100 ms."""

Step = Callable[[], object]


class Block(nn.Module):  # type: ignore[misc]
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        q, k, v = self.qkv(self.before(x)).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        weights = ((q @ k.transpose(-1, -2)) * (width // self.heads) ** -0.5).softmax(-1)
        x = x + self.out((weights @ v).transpose(1, 2).reshape(batch, length, width))
        return x + self.down(F.gelu(self.up(self.between(x))))


def gpt(width: int, layers: int, batch: int, length: int, device: str) -> Step:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Embedding(1000, width), *(Block(width, 4) for _ in range(layers)), nn.Linear(width, 1000)
    ).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, foreach=True)  # as a card has it, in both runs
    tokens = torch.randint(0, 1000, (batch, length)).to(device)

    def step() -> None:
        loss = F.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def convolutions(width: int, layers: int, batch: int, device: str) -> Step:
    torch.manual_seed(0)
    body: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1)]
    for _ in range(layers):
        body += [nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
    model = nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10)).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, foreach=True)
    images, labels = torch.randn(batch, 3, 32, 32).to(device), torch.randint(0, 10, (batch,)).to(device)

    def step() -> None:
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


PROGRAMS: dict[str, Callable[[str], Step]] = {
    "GPT, tiny": lambda device: gpt(64, 4, 2, 32, device),
    "GPT, few tokens": lambda device: gpt(256, 4, 3, 96, device),
    "GPT": lambda device: gpt(256, 4, 8, 128, device),
    "convolutions, tiny": lambda device: convolutions(8, 8, 4, device),
    "convolutions, small": lambda device: convolutions(32, 12, 12, device),
    "convolutions": lambda device: convolutions(48, 12, 16, device),
}


def seconds(step: Step) -> list[float]:
    """Of a few steps, in processor time: the machine may be busy with other things."""
    for _ in range(WARMUP):
        step()
    times = []
    for _ in range(TIMED):
        start = time.process_time()
        step()
        times.append(time.process_time() - start)
    return times


def measured_seconds(build: Callable[[str], Step]) -> list[float]:
    layers = frozenset({Layer.LINES, Layer.GROWTH})
    job = Job(Target("function", "step"), "cpu", str(Path.cwd()), steps=sys.maxsize, layers=layers)
    times: list[float] = []
    with Session(job, make(job)):
        times += seconds(build("cuda"))
    return times


def medians(build: Callable[[str], Step]) -> tuple[float, float]:
    """Seconds of a plain step and of a measured one."""
    plain: list[float] = []
    measured: list[float] = []
    for _ in range(REPETITIONS):
        plain += seconds(build("cpu"))
        measured += measured_seconds(build)
    return statistics.median(plain), statistics.median(measured)


def main() -> int:
    torch.set_num_threads(1)
    failed = False
    print("| program | plain step | measured step | ratio |")
    print("| --- | --- | --- | --- |")
    for name, build in PROGRAMS.items():
        plain, measured = medians(build)
        ratio = measured / plain
        failed |= plain > 0.1 and ratio > LIMIT
        print(f"| {name} | {plain * 1e3:.1f} ms | {measured * 1e3:.1f} ms | {ratio:.2f} |")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
