"""Six habits with and without their fix, on a small GPT and a small ResNet: peaks under `fake` and `cpu`.

`python benchmarks/measure_patterns.py` writes the table `measure_patterns.md`;
`python benchmarks/measure_patterns.py BACKEND [GPT|RESNET]` prints one backend's peaks as JSON.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - its usual name

STEPS = 6


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2, self.heads = nn.LayerNorm(width), nn.LayerNorm(width), heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-1, -2)) * (width // self.heads) ** -0.5
        weights = weights.softmax(-1)
        y = (weights @ v).transpose(1, 2).reshape(batch, length, width)
        x = x + self.out(y)
        u = F.gelu(self.up(self.norm2(x)))
        return x + self.down(u)


class Gpt(nn.Module):
    def __init__(self, vocabulary: int = 4000, width: int = 256, layers: int = 4, length: int = 128) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        self.blocks = nn.ModuleList(Block(width, 4) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.tokens(ids) + self.positions(torch.arange(ids.shape[1], device=ids.device))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


class Residual(nn.Module):
    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(inner, outer, 3, stride, 1, bias=False), nn.BatchNorm2d(outer)
        self.conv2, self.norm2 = nn.Conv2d(outer, outer, 3, 1, 1, bias=False), nn.BatchNorm2d(outer)
        self.short: nn.Module = nn.Identity()
        if stride != 1 or inner != outer:
            self.short = nn.Sequential(nn.Conv2d(inner, outer, 1, stride, bias=False), nn.BatchNorm2d(outer))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.norm1(self.conv1(x)), inplace=True)
        return F.relu(self.norm2(self.conv2(y)) + self.short(x), inplace=True)


class ResNet(nn.Module):
    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        )
        layers, inner = [], width
        for outer, stride in (
            (width, 1),
            (width, 1),
            (2 * width, 2),
            (2 * width, 1),
            (4 * width, 2),
            (4 * width, 1),
        ):
            layers.append(Residual(inner, outer, stride))
            inner = outer
        self.body, self.head = nn.Sequential(*layers), nn.Linear(inner, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(self.stem(x)).mean((2, 3)))


Batch = Callable[[], tuple[torch.Tensor, torch.Tensor]]


def setting(kind: str) -> tuple[nn.Module, Batch, Callable[..., torch.Tensor]]:
    torch.manual_seed(0)
    if kind == "gpt":

        def tokens() -> tuple[torch.Tensor, torch.Tensor]:
            ids = torch.randint(0, 4000, (8, 129))
            return ids[:, :-1].to("cuda"), ids[:, 1:].to("cuda")

        def loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            return F.cross_entropy(logits.view(-1, logits.shape[-1]), targets.reshape(-1))

        return Gpt().to("cuda"), tokens, loss

    def images() -> tuple[torch.Tensor, torch.Tensor]:
        return torch.randn(16, 3, 32, 32).to("cuda"), torch.randint(0, 10, (16,)).to("cuda")

    return ResNet().to("cuda"), images, F.cross_entropy


# ---- the habits, each with its fix


def loss_summed_after_backward(kind: str, fixed: bool) -> None:
    model, batch, loss_of = setting(kind)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    total: Any = 0
    for _ in range(STEPS):
        x, y = batch()
        loss = loss_of(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item() if fixed else loss
        loss.item()


def loss_summed_in_evaluation(kind: str, fixed: bool) -> None:
    model, batch, loss_of = setting(kind)
    model.eval()
    total: Any = 0
    for _ in range(STEPS):
        x, y = batch()
        loss = loss_of(model(x), y)
        total += loss.item() if fixed else loss
        loss.item()


def evaluation_with_grad(kind: str, fixed: bool) -> None:
    model, batch, loss_of = setting(kind)
    model.eval()
    with torch.set_grad_enabled(not fixed):
        for _ in range(STEPS):
            x, y = batch()
            out = model(x)
            loss_of(out, y).item()


def clone_of_the_output(kind: str, fixed: bool) -> None:
    model, batch, loss_of = setting(kind)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(STEPS):
        x, y = batch()
        out = model(x)
        if not fixed:
            out = out.clone()
        loss = loss_of(out, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()


def gradients_set_to_zero(kind: str, fixed: bool) -> None:
    model, batch, loss_of = setting(kind)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(STEPS):
        x, y = batch()
        optimizer.zero_grad(set_to_none=fixed)
        loss = loss_of(model(x), y)
        loss.backward()
        optimizer.step()
        loss.item()


def outputs_kept(kind: str, fixed: bool) -> None:
    model, batch, loss_of = setting(kind)
    model.eval()
    kept = []
    with torch.no_grad() if fixed else nullcontext():
        for _ in range(STEPS):
            x, y = batch()
            out = model(x)
            kept.append(out.argmax(-1).cpu() if fixed else out)
            loss_of(out, y).item()


HABITS = (
    loss_summed_after_backward,
    loss_summed_in_evaluation,
    evaluation_with_grad,
    clone_of_the_output,
    gradients_set_to_zero,
    outputs_kept,
)


STUDY = {
    # bad on cpu, bad on fake, fixed on cpu, fixed on fake
    "loss_summed_after_backward/gpt": (144186880, 144186368, 144186368, 144185856),
    "loss_summed_after_backward/resnet": (41475072, 41475072, 41474560, 41474560),
    "loss_summed_in_evaluation/gpt": (597675520, 597672448, 221391872, 221390848),
    "loss_summed_in_evaluation/resnet": (215336960, 215429120, 73999872, 74030592),
    "evaluation_with_grad/gpt": (204989440, 204996608, 51739136, 51746816),
    "evaluation_with_grad/resnet": (73998336, 74029056, 13500416, 13501440),
    "clone_of_the_output/gpt": (160080384, 160088064, 160080384, 160088064),
    "clone_of_the_output/resnet": (41475584, 41475584, 41475584, 41475584),
    "gradients_set_to_zero/gpt": (194318848, 194299904, 177453568, 177434624),
    "gradients_set_to_zero/resnet": (47674880, 47650816, 44888064, 44864000),
    "outputs_kept/gpt": (597630976, 597627904, 51780096, 51746816),
    "outputs_kept/resnet": (215330816, 215422976, 13502976, 13501440),
}
"""The same programs, in bytes, in the study that came before the dynamic mode."""

STUDY_TEXT = """
The study that came before the dynamic mode measured the same programs with its prototypes. What is different now:

| habit | model | form | cpu | fake |
| --- | --- | --- | --- | --- |
{rows}

`fake`: only the ResNet's evaluations. The prototype took PyTorch's own batch norm, whose shape function keeps mean and
variance in evaluation; a card takes cuDNN's, which does not. 15 layers x 2 x 512 bytes are 15,360 bytes for each graph
that is alive: 30,720 of two, 92,160 of six, and 1,024 for the one layer that runs where no graph is.

`cpu`: the prototype counted what is on the host as well, and batches there in place of their copies.

* The GPT's batch is one block of tokens on the host (8,704 bytes), of which a copy of the labels is made for the loss
  (8,192), and two copies on a card (16,384): now 512 less for each batch whose loss is alive, 7,680 more without one.
  So -3,072 of six, -1,024 of two, and 7,168 of one with and one without.
* Adam's step counters are on the host, 512 bytes a parameter: 24,064 of the ResNet's 47, and 26,624 of the GPT's 52,
  which with 7,680 for the batch makes -18,944.
* Results that `.cpu()` has brought are on the host: five of 512 bytes are the ResNet's -2,560, and five of 8,192 with
  7,680 for the batch the GPT's -33,280.
"""


def differences(found: dict[str, dict[str, int]]) -> list[str]:
    """Rows: what each backend gives now, less what the study gave."""
    rows = []
    for name, (bad_cpu, bad_fake, fixed_cpu, fixed_fake) in STUDY.items():
        for form, cpu, fake in (("bad", bad_cpu, bad_fake), ("fixed", fixed_cpu, fixed_fake)):
            key = f"{name}/{form}"
            habit, kind = name.split("/")
            less = (found["cpu"][key] - cpu, found["fake"][key] - fake)
            if any(less):
                rows.append(f"| {habit.replace('_', ' ')} | {kind} | {form} | {less[0]:+} | {less[1]:+} |")
    return rows


def peaks(backend: str, kinds: list[str]) -> dict[str, int]:
    """The peak of each run, by `habit/model/bad` and `habit/model/fixed`."""
    from memlint.measure.analysis import peak
    from memlint.measure.job import Job, Target
    from memlint.measure.worker.session import Session

    make = importlib.import_module(f"memlint.measure.worker.backends.{backend}").make
    found = {}
    for habit in HABITS:
        for kind in kinds:
            for fixed in (False, True):
                # Steps are of no interest here: the run is to end by itself.
                job = Job(Target("script", habit.__name__), backend, ".", steps=STEPS + 1, layers=frozenset())  # type: ignore[arg-type]
                session = Session(job, make(job))
                with session:
                    habit(kind, fixed)
                name = f"{habit.__name__}/{kind}/{'fixed' if fixed else 'bad'}"
                found[name] = peak(session.recording()).bytes
    return found


def main() -> None:
    if sys.argv[1:]:
        sys.stdout.write(json.dumps(peaks(sys.argv[1], sys.argv[2:] or ["gpt", "resnet"])))
        return
    found = {}
    for backend in ("cpu", "fake"):
        run = subprocess.run([sys.executable, __file__, backend], stdout=subprocess.PIPE, check=True)
        found[backend] = json.loads(run.stdout)
    lines = [
        f"Peaks in bytes of {STEPS} steps, torch {torch.__version__}. Written by `measure_patterns.py`; `fake` is",
        "predicted, `cpu` measured on the CPU. That the two agree says nothing of a GPU.",
        "",
        "| habit | model | bad, cpu | bad, fake | fixed, cpu | fixed, fake |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for habit in HABITS:
        for kind in ("gpt", "resnet"):
            numbers = [
                str(found[backend][f"{habit.__name__}/{kind}/{form}"])
                for form in ("bad", "fixed")
                for backend in ("cpu", "fake")
            ]
            lines.append(f"| {habit.__name__.replace('_', ' ')} | {kind} | {' | '.join(numbers)} |")
    text = "\n".join(lines) + "\n" + STUDY_TEXT.format(rows="\n".join(differences(found)))
    Path(__file__).with_suffix(".md").write_text(text, "utf-8")


if __name__ == "__main__":
    main()
