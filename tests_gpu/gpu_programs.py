"""Programs to measure: each builds what it needs, and gives a function that does one step.

As a target of memlint: `gpu_programs:step`, with `MEMLINT_PROGRAM` naming the program and `MEMLINT_SIZE` its size. All
sizes are such that a CPU runs them, too: `small` in well under a second a step, `full` in some seconds.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F  # noqa: N812 - its name everywhere
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

Size = Literal["small", "full"]
Step = Callable[[], None]
Loss = Callable[[], Tensor]

DEVICE = "cuda"


@dataclass(frozen=True)
class Scale:
    """`width` of layers, `batch`, `length` of sequences, `depth` in blocks, `side` of images, size of `vocabulary`."""

    width: int
    batch: int
    length: int
    depth: int
    side: int
    vocabulary: int


SCALES: dict[Size, Scale] = {
    "small": Scale(width=64, batch=4, length=32, depth=2, side=32, vocabulary=500),
    "full": Scale(width=512, batch=8, length=512, depth=4, side=128, vocabulary=16_000),
}


class Mlp(nn.Module):
    def __init__(self, width: int, depth: int, classes: int = 100) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)) for _ in range(depth)
        )
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = x + block(x)
        return self.head(x)


class ResidualBlock(nn.Module):
    """The bottleneck of a ResNet-50."""

    def __init__(self, channels: int, inner: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, inner, 1, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU(inplace=True),
            nn.Conv2d(inner, inner, 3, stride, 1, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU(inplace=True),
            nn.Conv2d(inner, 4 * inner, 1, bias=False),
            nn.BatchNorm2d(4 * inner),
        )
        self.shortcut = nn.Sequential(nn.Conv2d(channels, 4 * inner, 1, stride, bias=False), nn.BatchNorm2d(4 * inner))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.shortcut(x), inplace=True)


class ResNet(nn.Module):
    def __init__(self, width: int, depth: int, classes: int = 100) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 7, 2, 3, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, 1),
        )
        channels, blocks = width, []
        for stage in range(depth):
            for stride in (1 if stage == 0 else 2, 1):
                blocks.append(ResidualBlock(channels, width << stage, stride))
                channels = 4 * (width << stage)
        self.body = nn.Sequential(*blocks)
        self.head = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self.stem(x)).mean((2, 3)))


class UNet(nn.Module):
    def __init__(self, width: int, depth: int) -> None:
        super().__init__()

        def pair(channels: int, out: int) -> nn.Module:
            return nn.Sequential(
                nn.Conv2d(channels, out, 3, padding=1), nn.ReLU(), nn.Conv2d(out, out, 3, padding=1), nn.ReLU()
            )

        sizes = [width << level for level in range(depth + 1)]
        self.down = nn.ModuleList(pair(3 if level == 0 else sizes[level - 1], sizes[level]) for level in range(depth))
        self.middle = pair(sizes[depth - 1], sizes[depth])
        self.raise_ = nn.ModuleList(nn.ConvTranspose2d(2 * size, size, 2, 2) for size in reversed(sizes[:-1]))
        self.up = nn.ModuleList(pair(2 * size, size) for size in reversed(sizes[:-1]))
        self.head = nn.Conv2d(width, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        kept = []
        for block in self.down:
            x = block(x)
            kept.append(x)
            x = F.max_pool2d(x, 2)
        x = self.middle(x)
        for raise_, block in zip(self.raise_, self.up, strict=True):
            x = block(torch.cat([kept.pop(), raise_(x)], 1))
        return self.head(x)


class Waves(nn.Module):
    """One-dimensional convolutions, as for audio."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        sizes = [1, *(width for _ in range(2 * depth))]
        self.body = nn.Sequential(
            *(
                nn.Sequential(nn.Conv1d(sizes[level], width, 9, 2, 4), nn.BatchNorm1d(width), nn.LeakyReLU(0.1))
                for level in range(2 * depth)
            )
        )
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).mean(2))


def softmax_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Written out, causal."""
    scores = (q @ k.transpose(-1, -2)) * q.shape[-1] ** -0.5
    future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
    return scores.masked_fill(future, float("-inf")).softmax(-1) @ v


def fused_attention(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool = True) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=is_causal)


class TransformerBlock(nn.Module):
    def __init__(self, width: int, attention: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.attention = attention

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        heads = max(width // 64, 2)
        q, k, v = self.qkv(self.first(x)).view(batch, length, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
        mixed = self.attention(q, k, v).transpose(1, 2).reshape(batch, length, width)
        x = x + self.out(mixed)
        return x + self.mlp(self.second(x))


class Gpt(nn.Module):
    """Tied embeddings. `checkpointing`: None, or what goes to `use_reentrant`."""

    def __init__(
        self,
        scale: Scale,
        attention: Callable[[Tensor, Tensor, Tensor], Tensor] = softmax_attention,
        checkpointing: bool | None = None,
    ) -> None:
        super().__init__()
        self.tokens = nn.Embedding(scale.vocabulary, scale.width)
        self.positions = nn.Embedding(scale.length, scale.width)
        self.blocks = nn.ModuleList(TransformerBlock(scale.width, attention) for _ in range(scale.depth))
        self.norm = nn.LayerNorm(scale.width)
        self.head = nn.Linear(scale.width, scale.vocabulary, bias=False)
        self.head.weight = self.tokens.weight
        self.checkpointing = checkpointing

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens) + self.positions(torch.arange(tokens.shape[1], device=tokens.device))
        for block in self.blocks:
            x = block(x) if self.checkpointing is None else checkpoint(block, x, use_reentrant=self.checkpointing)
        return self.head(self.norm(x))


class Vit(nn.Module):
    def __init__(self, scale: Scale, classes: int = 100) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, scale.width, 8, 8)
        self.positions = nn.Parameter(torch.zeros(1, (scale.side // 8) ** 2, scale.width))
        attention = partial(fused_attention, is_causal=False)
        self.blocks = nn.Sequential(*(TransformerBlock(scale.width, attention) for _ in range(scale.depth)))
        self.head = nn.Linear(scale.width, classes)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.patches(x).flatten(2).transpose(1, 2)
        return self.head(self.blocks(patches + self.positions).mean(1))


class Recurrent(nn.Module):
    def __init__(self, scale: Scale) -> None:
        super().__init__()
        self.tokens = nn.Embedding(scale.vocabulary, scale.width)
        self.lstm = nn.LSTM(scale.width, scale.width, num_layers=2, batch_first=True)
        self.head = nn.Linear(scale.width, scale.vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.lstm(self.tokens(tokens))[0])


class Recommender(nn.Module):
    """Nearly all of it is embeddings."""

    def __init__(self, scale: Scale) -> None:
        super().__init__()
        self.bags = nn.ModuleList(nn.EmbeddingBag(4 * scale.vocabulary, scale.width, mode="sum") for _ in range(4))
        self.head = Mlp(4 * scale.width, 1, 2)

    def forward(self, items: Tensor) -> Tensor:
        return self.head(torch.cat([bag(items[:, number]) for number, bag in enumerate(self.bags)], 1))


def images(scale: Scale, labels: tuple[int, ...] = ()) -> tuple[Tensor, Tensor]:
    x = torch.randn(scale.batch, 3, scale.side, scale.side)
    return x.to(DEVICE), torch.randint(0, 2, (scale.batch, *labels)).to(DEVICE)


def texts(scale: Scale) -> tuple[Tensor, Tensor]:
    tokens = torch.randint(0, scale.vocabulary, (scale.batch, scale.length + 1))
    return tokens[:, :-1].to(DEVICE), tokens[:, 1:].to(DEVICE)


def next_token_loss(model: nn.Module, scale: Scale) -> Loss:
    def loss() -> Tensor:
        tokens, following = texts(scale)
        return F.cross_entropy(model(tokens).flatten(0, 1), following.flatten())

    return loss


def classifier_loss(model: nn.Module, batch: Callable[[], tuple[Tensor, Tensor]]) -> Loss:
    def loss() -> Tensor:
        x, labels = batch()
        return F.cross_entropy(model(x), labels)

    return loss


def training(
    model: nn.Module,
    loss: Loss,
    optimizer: torch.optim.Optimizer | None = None,
    *,
    autocast: torch.dtype | None = None,
    accumulate: int = 1,
) -> Step:
    """Forward, backward, step. Under float16 with a scaler."""
    _models.append(model)
    optimizer = optimizer or torch.optim.AdamW(model.parameters(), lr=1e-4)
    scaler = torch.amp.GradScaler(DEVICE, enabled=autocast is torch.float16)

    def step() -> None:
        optimizer.zero_grad()
        for _ in range(accumulate):
            with nullcontext() if autocast is None else torch.autocast(DEVICE, autocast):
                result = loss() / accumulate
            scaler.scale(result).backward()
        scaler.step(optimizer)
        scaler.update()

    return step


def evaluation(model: nn.Module, loss: Loss, *, grad: bool) -> Step:
    """The mean loss so far; with `grad`, as who forgot to turn it off."""
    model.eval()
    total = 0.0

    def step() -> None:
        nonlocal total
        with torch.set_grad_enabled(grad):
            total += loss().item()

    return step


def _mlp(scale: Scale, optimizer: Callable[..., torch.optim.Optimizer], accumulate: int = 1) -> Step:
    model = Mlp(scale.width, scale.depth).to(DEVICE)

    def batch() -> tuple[Tensor, Tensor]:
        x = torch.randn(scale.batch * scale.length, scale.width)
        return x.to(DEVICE), torch.randint(0, 100, (len(x),)).to(DEVICE)

    return training(model, classifier_loss(model, batch), optimizer(model.parameters(), lr=1e-3), accumulate=accumulate)


def _gpt(
    scale: Scale, *, autocast: torch.dtype | None = None, dtype: torch.dtype | None = None, **options: Any
) -> Step:
    model = Gpt(scale, **options).to(DEVICE, dtype)
    return training(model, next_token_loss(model, scale), autocast=autocast)


def _gpt_evaluation(scale: Scale, *, grad: bool) -> Step:
    model = Gpt(scale).to(DEVICE)
    return evaluation(model, next_token_loss(model, scale), grad=grad)


def _gpt_total(scale: Scale, *, keeps_graph: bool, trains: bool) -> Step:
    """`total += loss`, or `total += loss.item()`."""
    model = Gpt(scale).to(DEVICE)
    loss = next_token_loss(model, scale)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    total: Any = 0.0

    def step() -> None:
        nonlocal total
        result = loss()
        if trains:
            optimizer.zero_grad()
            result.backward()
            optimizer.step()
        total += result if keeps_graph else result.item()

    return step


def _gpt_outputs(scale: Scale, *, keeps_graph: bool) -> Step:
    """An evaluation that collects what the model gives, with its graph or as class numbers."""
    model = Gpt(scale).to(DEVICE)
    kept: list[Tensor] = []

    def step() -> None:
        with torch.set_grad_enabled(keeps_graph):
            logits = model(texts(scale)[0])
        kept.append(logits if keeps_graph else logits.argmax(-1).cpu())

    return step


def _gpt_clone(scale: Scale, *, clones: bool) -> Step:
    """A loss of the logits, or of a copy of them."""
    model = Gpt(scale).to(DEVICE)

    def loss() -> Tensor:
        tokens, following = texts(scale)
        logits = model(tokens).flatten(0, 1)
        return F.cross_entropy(logits.clone() if clones else logits, following.flatten())

    return training(model, loss)


def _gpt_gradients(scale: Scale, *, set_to_none: bool) -> Step:
    """Gradients that are filled with zeros stay allocated through the next forward pass."""
    model = Gpt(scale).to(DEVICE)
    loss = next_token_loss(model, scale)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def step() -> None:
        optimizer.zero_grad(set_to_none=set_to_none)
        loss().backward()
        optimizer.step()

    return step


def _resnet(scale: Scale) -> Step:
    model = ResNet(scale.width // 8, 4 if scale.side > 32 else 2).to(DEVICE)
    return training(
        model, classifier_loss(model, lambda: images(scale)), torch.optim.SGD(model.parameters(), momentum=0.9)
    )


def _resnet_evaluation(scale: Scale) -> Step:
    model = ResNet(scale.width // 8, 4 if scale.side > 32 else 2).to(DEVICE)
    return evaluation(model, classifier_loss(model, lambda: images(scale)), grad=False)


def _unet(scale: Scale) -> Step:
    model = UNet(scale.width // 16, 3).to(DEVICE)
    return training(model, classifier_loss(model, lambda: images(scale, (scale.side, scale.side))))


def _conv1d(scale: Scale) -> Step:
    model = Waves(scale.width // 4, scale.depth).to(DEVICE)

    def batch() -> tuple[Tensor, Tensor]:
        x = torch.randn(scale.batch, 1, 64 * scale.length)
        return x.to(DEVICE), torch.randint(0, 10, (scale.batch,)).to(DEVICE)

    return training(model, classifier_loss(model, batch))


def _vit(scale: Scale) -> Step:
    model = Vit(scale).to(DEVICE)
    return training(model, classifier_loss(model, lambda: images(scale)))


def _lstm(scale: Scale) -> Step:
    model = Recurrent(scale).to(DEVICE)
    return training(model, next_token_loss(model, scale))


def _embeddings(scale: Scale) -> Step:
    model = Recommender(scale).to(DEVICE)

    def batch() -> tuple[Tensor, Tensor]:
        items = torch.randint(0, 4 * scale.vocabulary, (scale.batch * scale.length, 4, 8))
        return items.to(DEVICE), torch.randint(0, 2, (len(items),)).to(DEVICE)

    return training(model, classifier_loss(model, batch), torch.optim.Adam(model.parameters()))


ZOO: dict[str, Callable[[Scale], Step]] = {
    "mlp-sgd": partial(_mlp, optimizer=torch.optim.SGD),
    "mlp-adam-foreach": partial(_mlp, optimizer=torch.optim.Adam),
    "mlp-adam-loop": partial(_mlp, optimizer=partial(torch.optim.Adam, foreach=False)),
    "mlp-adam-fused": partial(_mlp, optimizer=partial(torch.optim.Adam, fused=True)),
    "mlp-accumulation": partial(_mlp, optimizer=torch.optim.AdamW, accumulate=4),
    "resnet": _resnet,
    "resnet-eval": _resnet_evaluation,
    "unet": _unet,
    "conv1d": _conv1d,
    "vit": _vit,
    "lstm": _lstm,
    "embeddings": _embeddings,
    "gpt-math": _gpt,
    "gpt-fused-float32": partial(_gpt, attention=fused_attention),
    "gpt-fused-bfloat16": partial(_gpt, attention=fused_attention, dtype=torch.bfloat16),
    "gpt-autocast-bfloat16": partial(_gpt, autocast=torch.bfloat16),
    "gpt-autocast-float16": partial(_gpt, autocast=torch.float16),
    "gpt-checkpoint": partial(_gpt, checkpointing=False),
    "gpt-checkpoint-reentrant": partial(_gpt, checkpointing=True),
    "gpt-eval-no-grad": partial(_gpt_evaluation, grad=False),
    "gpt-eval-grad": partial(_gpt_evaluation, grad=True),
}

PAIRS: dict[str, tuple[Callable[[Scale], Step], Callable[[Scale], Step]]] = {
    "training-loss-kept": (
        partial(_gpt_total, keeps_graph=True, trains=True),
        partial(_gpt_total, keeps_graph=False, trains=True),
    ),
    "evaluation-loss-kept": (
        partial(_gpt_total, keeps_graph=True, trains=False),
        partial(_gpt_evaluation, grad=False),
    ),
    "evaluation-with-grad": (partial(_gpt_evaluation, grad=True), partial(_gpt_evaluation, grad=False)),
    "outputs-kept": (partial(_gpt_outputs, keeps_graph=True), partial(_gpt_outputs, keeps_graph=False)),
    "logits-cloned": (partial(_gpt_clone, clones=True), partial(_gpt_clone, clones=False)),
    "gradients-zeroed": (partial(_gpt_gradients, set_to_none=False), partial(_gpt_gradients, set_to_none=True)),
}
"""A program that wastes memory, and its repaired twin. As programs: `NAME:bad` and `NAME:fixed`."""

PROGRAMS = dict(ZOO)
PROGRAMS |= {f"{name}:bad": bad for name, (bad, _) in PAIRS.items()}
PROGRAMS |= {f"{name}:fixed": fixed for name, (_, fixed) in PAIRS.items()}

CONVOLUTIONS = frozenset({"resnet", "resnet-eval", "unet", "conv1d", "vit"})
"""cuDNN chooses their kernels, and with them their workspaces, when it runs."""
RECURRENT = frozenset({"lstm"})
"""cuDNN does not say how much they keep for the backward pass: `fake` says so, and takes PyTorch's own cells."""


def build(name: str, size: Size) -> Step:
    """The program of that name, and its function that does one step. Raises KeyError."""
    torch.manual_seed(0)
    return PROGRAMS[name](SCALES[size])


_built: Step | None = None
_models: list[nn.Module] = []
"""Those that are trained."""


def step() -> None:
    """One step of the program that the environment names."""
    global _built  # noqa: PLW0603 - a target's state is its module's
    results = os.environ.get("MEMLINT_RESULTS")
    if _built is None:
        # The same bits each time: CUBLAS_WORKSPACE_CONFIG comes with the environment.
        torch.use_deterministic_algorithms(results is not None, warn_only=True)
        _built = build(os.environ["MEMLINT_PROGRAM"], os.environ["MEMLINT_SIZE"])  # type: ignore[arg-type]
    _built()
    torch.cuda.synchronize()  # who takes the time means the card's, too
    if results is not None:
        Path(results).write_text(digest(), encoding="ascii")


def digest() -> str:
    """A hash of the weights that were trained and of the card's random state."""
    found = hashlib.sha256()
    for tensor in (torch.cuda.get_rng_state(), *(weight for model in _models for weight in model.parameters())):
        # Without numpy, which torch does not need.
        on_host = tensor.detach().cpu().contiguous()
        found.update(ctypes.string_at(on_host.data_ptr(), on_host.nbytes))
    return found.hexdigest()
