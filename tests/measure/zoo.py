"""Small training and evaluation programs of every kind, written as users write them: `PROGRAMS`, without arguments.

Each loads its batches from the host, runs a few steps on `cuda` and reads its loss.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F  # noqa: N812 - its usual name
from torch.nn.utils import rnn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, TensorDataset

STEPS = 3
PROGRAMS: dict[str, Callable[[], None]] = {}


def program(function: Callable[[], None]) -> Callable[[], None]:
    PROGRAMS[function.__name__] = function
    return function


def batches(*columns: torch.Tensor, size: int) -> Iterator[list[torch.Tensor]]:
    for batch in DataLoader(TensorDataset(*columns), batch_size=size, shuffle=True):
        yield [column.to("cuda", non_blocking=True) for column in batch]


def images(size: int, side: int = 32) -> Iterator[list[torch.Tensor]]:
    many = size * STEPS
    return batches(torch.randn(many, 3, side, side), torch.randint(0, 10, (many,)), size=size)


def tokens(size: int, length: int, vocabulary: int = 1000) -> Iterator[list[torch.Tensor]]:
    many = torch.randint(0, vocabulary, (size * STEPS, length + 1))
    return batches(many[:, :-1], many[:, 1:], size=size)


class Block(nn.Module):
    """A transformer block; attention written out, or fused."""

    def __init__(self, width: int, heads: int, fused: bool, causal: bool = True) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.heads, self.fused, self.causal = heads, fused, causal

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        if self.fused:
            y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        else:
            weights = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
            mask = torch.ones(length, length, dtype=torch.bool, device=x.device).tril()
            y = weights.masked_fill(~mask, float("-inf")).softmax(-1) @ v
        x = x + self.out(y.transpose(1, 2).reshape(batch, length, width))
        return x + self.mlp(self.norm2(x))


class Gpt(nn.Module):
    def __init__(self, fused: bool, width: int = 128, layers: int = 2, checkpointing: bool | None = None) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(1000, width), nn.Embedding(128, width)
        self.blocks = nn.ModuleList(Block(width, 4, fused) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 1000, bias=False)
        self.head.weight = self.tokens.weight
        self.reentrant = checkpointing

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.tokens(ids) + self.positions(torch.arange(ids.shape[1], device=ids.device))
        for block in self.blocks:
            x = block(x) if self.reentrant is None else checkpoint(block, x, use_reentrant=self.reentrant)
        return self.head(self.norm(x))


class Residual(nn.Module):
    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(inner, outer, 3, stride, 1, bias=False), nn.BatchNorm2d(outer)
        self.conv2, self.norm2 = nn.Conv2d(outer, outer, 3, 1, 1, bias=False), nn.BatchNorm2d(outer)
        self.short = nn.Sequential(nn.Conv2d(inner, outer, 1, stride, bias=False), nn.BatchNorm2d(outer))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.norm1(self.conv1(x)), inplace=True)
        return F.relu(self.norm2(self.conv2(y)) + self.short(x), inplace=True)


def resnet_model() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, 1, 1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(inplace=True),
        Residual(32, 32, 1),
        Residual(32, 64, 2),
        Residual(64, 128, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(128, 10),
    )


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2 = self.convolutions(3, 16), self.convolutions(16, 32)
        self.middle = self.convolutions(32, 64)
        self.up2, self.up1 = nn.ConvTranspose2d(64, 32, 2, 2), nn.ConvTranspose2d(32, 16, 2, 2)
        self.back2, self.back1 = self.convolutions(64, 32), self.convolutions(32, 16)
        self.out = nn.Conv2d(16, 3, 1)

    @staticmethod
    def convolutions(inner: int, outer: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(inner, outer, 3, padding=1), nn.GroupNorm(4, outer), nn.SiLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        one = self.down1(x)
        two = self.down2(F.max_pool2d(one, 2))
        three = self.middle(F.max_pool2d(two, 2))
        two = self.back2(torch.cat([self.up2(three), two], 1))
        return self.out(self.back1(torch.cat([self.up1(two), one], 1)))


class Vit(nn.Module):
    def __init__(self, width: int = 128) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.positions = nn.Parameter(torch.zeros(1, 64, width))
        self.blocks = nn.Sequential(*(Block(width, 4, fused=True, causal=False) for _ in range(3)))
        self.head = nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2) + self.positions
        return self.head(self.blocks(F.dropout(x, 0.1, self.training)).mean(1))


class Recurrent(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.embedding, self.layer, self.head = nn.Embedding(1000, 64), layer, nn.Linear(128, 1000)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.layer(self.embedding(ids))[0])


def language_loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    data: Iterator[list[torch.Tensor]],
    loss_of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
) -> None:
    total = 0.0
    for inputs, targets in data:
        optimizer.zero_grad()
        loss = loss_of(model(inputs), targets)
        loss.backward()
        optimizer.step()
        total += loss.item()


# ---- the programs


@program
def mlp_sgd() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3072, 256), nn.ReLU(), nn.Dropout(0.1), nn.Linear(256, 10)).cuda()
    train(model, torch.optim.SGD(model.parameters(), lr=0.1), images(256), F.cross_entropy)


@program
def resnet_momentum() -> None:
    model = resnet_model().to("cuda")
    train(model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), images(16), F.cross_entropy)


@program
def convolutions_channels_last() -> None:
    """The last layers ask for copies: what comes of a convolution is not contiguous."""
    model = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1),
        nn.GELU(),
        nn.Conv2d(32, 32, 3, padding=1, groups=32),
        nn.Conv2d(32, 8, 1),
        nn.Flatten(),
        nn.Linear(8 * 32 * 32, 10),
    ).to("cuda", memory_format=torch.channels_last)
    train(model, torch.optim.SGD(model.parameters(), lr=0.1), images(32), F.cross_entropy)


@program
def unet_adam() -> None:
    model = UNet().to("cuda")
    data = ([inputs, inputs.clone()] for inputs, _ in images(8, side=64))
    train(model, torch.optim.Adam(model.parameters()), data, F.mse_loss)


@program
def lstm_adam() -> None:
    model = Recurrent(nn.LSTM(64, 128, batch_first=True)).cuda()
    train(model, torch.optim.Adam(model.parameters()), tokens(16, 32), language_loss)


@program
def gru_adam() -> None:
    model = Recurrent(nn.GRU(64, 128, batch_first=True)).cuda()
    train(model, torch.optim.Adam(model.parameters()), tokens(16, 32), language_loss)


@program
def packed_sequences() -> None:
    embedding, layer = nn.Embedding(1000, 32).cuda(), nn.LSTM(32, 64, 2, dropout=0.1, bidirectional=True).cuda()
    head = nn.Linear(128, 1000).cuda()
    optimizer = torch.optim.Adam([*embedding.parameters(), *layer.parameters(), *head.parameters()])
    lengths = torch.randint(5, 21, (STEPS, 8))
    for step, (ids, targets) in enumerate(tokens(8, 20)):
        optimizer.zero_grad()
        packed = rnn.pack_padded_sequence(embedding(ids), lengths[step], batch_first=True, enforce_sorted=False)
        outputs, _ = rnn.pad_packed_sequence(layer(packed)[0], batch_first=True, total_length=20)
        language_loss(head(outputs), targets).backward()
        optimizer.step()


@program
def lstm_with_projections() -> None:
    model = Recurrent(nn.LSTM(64, 256, 2, bias=False, proj_size=128, batch_first=True)).cuda()
    train(model, torch.optim.Adam(model.parameters()), tokens(8, 20), language_loss)


class Cells(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(1000, 32), nn.Linear(64, 1000)
        self.first, self.second = nn.LSTMCell(32, 64), nn.GRUCell(64, 64, bias=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        state, second, outputs = None, None, []
        for x in self.embedding(ids).unbind(1):
            state = self.first(x, state)
            second = self.second(state[0], second)
            outputs.append(second)
        return self.head(torch.stack(outputs, 1))


@program
def recurrent_cells() -> None:
    model = Cells().cuda()
    train(model, torch.optim.RMSprop(model.parameters()), tokens(8, 20), language_loss)


class Patches(nn.Module):
    """`F.fold` keeps a block as large as the patches that it sums up."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3072, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        patches = F.unfold(x, 3, padding=1)
        summed = F.fold(patches * patches.softmax(1), x.shape[-2:], 3, padding=1)
        return self.head(summed.square().flatten(1))


@program
def patches_folded() -> None:
    model = Patches().cuda()
    train(model, torch.optim.SGD(model.parameters(), lr=0.1, fused=True), images(8), F.cross_entropy)


@program
def bfloat16_norms() -> None:
    model = nn.Sequential(nn.Embedding(1000, 64), nn.LayerNorm(64), nn.Linear(64, 1000)).to("cuda", torch.bfloat16)
    optimizer = torch.optim.AdamW(model.parameters())
    train(model, optimizer, tokens(8, 64), lambda logits, targets: language_loss(logits.float(), targets))


@program
def gradients_of_each_sample() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(128, 10))
    weights = {name: weight.detach() for name, weight in model.cuda().named_parameters()}

    def loss(weights: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(functional_call(model, weights, (x[None],)), y[None])

    for inputs, targets in images(16):
        model(inputs[:1])
        gradients = vmap(grad(loss), in_dims=(None, 0, 0))(weights, inputs, targets)
        weights = {name: weight - 0.1 * gradients[name].mean(0) for name, weight in weights.items()}


@program
def steps_within_a_step() -> None:
    """The loss after three steps of descent is differentiated through them: `create_graph=True`."""
    model = nn.Sequential(nn.Linear(32, 64), nn.Tanh(), nn.Linear(64, 1)).cuda()
    optimizer = torch.optim.Adam(model.parameters())
    for inputs, targets in batches(torch.randn(16 * STEPS, 32), torch.randn(16 * STEPS, 1), size=16):
        optimizer.zero_grad()
        weights = dict(model.named_parameters())
        for _ in range(3):
            loss = F.mse_loss(functional_call(model, weights, (inputs,)), targets)
            gradients = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
            pairs = list(zip(weights.items(), gradients, strict=True))
            weights = {name: weight - 0.1 * gradient for (name, weight), gradient in pairs}
        F.mse_loss(functional_call(model, weights, (inputs,)), targets).backward()
        optimizer.step()


@program
def gpt_plain_attention() -> None:
    model = Gpt(fused=False).cuda()
    train(model, torch.optim.AdamW(model.parameters()), tokens(8, 128), language_loss)


@program
def gpt_fused_attention() -> None:
    model = Gpt(fused=True).cuda()
    train(model, torch.optim.AdamW(model.parameters(), fused=True), tokens(8, 128), language_loss)


@program
def vit_adamw() -> None:
    model = Vit().cuda()
    train(model, torch.optim.AdamW(model.parameters()), images(32), F.cross_entropy)


@program
def embeddings() -> None:
    model = nn.Sequential(nn.EmbeddingBag(20000, 64), nn.Linear(64, 10)).cuda()
    many = torch.randint(0, 20000, (64 * STEPS, 20))
    data = batches(many, torch.randint(0, 10, (64 * STEPS,)), size=64)
    train(model, torch.optim.Adagrad(model.parameters()), data, F.cross_entropy)


@program
def gpt_bfloat16() -> None:
    model = Gpt(fused=True).cuda()
    optimizer = torch.optim.AdamW(model.parameters())
    for inputs, targets in tokens(8, 128):
        optimizer.zero_grad()
        with torch.autocast("cuda", dtype=torch.bfloat16):
            loss = language_loss(model(inputs), targets)
        loss.backward()
        optimizer.step()


@program
def resnet_float16_scaled() -> None:
    model = resnet_model().to("cuda")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scaler = torch.amp.GradScaler("cuda")
    for inputs, targets in images(16):
        optimizer.zero_grad()
        with torch.autocast("cuda", dtype=torch.float16):
            loss = F.cross_entropy(model(inputs), targets)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()


@program
def gpt_checkpoint() -> None:
    model = Gpt(fused=False, checkpointing=False).cuda()
    train(model, torch.optim.AdamW(model.parameters()), tokens(8, 128), language_loss)


@program
def gpt_checkpoint_reentrant() -> None:
    model = Gpt(fused=False, checkpointing=True).cuda()
    train(model, torch.optim.AdamW(model.parameters()), tokens(8, 128), language_loss)


@program
def gradient_accumulation() -> None:
    model = Gpt(fused=True).cuda()
    optimizer = torch.optim.AdamW(model.parameters())
    for number, (inputs, targets) in enumerate(tokens(4, 128)):
        (language_loss(model(inputs), targets) / 2).backward()
        if number % 2:
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()


@program
def evaluation() -> None:
    model = resnet_model().cuda().eval()
    right = 0
    with torch.no_grad():
        for inputs, targets in images(16):
            right += int((model(inputs).argmax(1) == targets).sum())


@program
def evaluation_with_grad() -> None:
    model = resnet_model().cuda().eval()
    losses = []
    for inputs, targets in images(16):
        losses.append(F.cross_entropy(model(inputs), targets))


@program
def evaluation_in_inference_mode() -> None:
    model = Gpt(fused=True).cuda().eval()
    kept = []
    with torch.inference_mode():
        for inputs, _ in tokens(8, 128):
            kept.append(model(inputs).argmax(-1).cpu())
