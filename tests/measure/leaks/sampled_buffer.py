"""A replay buffer, of which every step draws a sample that reaches as many steps."""

import random
from collections import deque

import torch
from torch import nn

device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10)).to(device)


def batches():
    for _ in range(20):
        yield torch.randn(16, 64).to(device)


class Buffer:
    def __init__(self):
        self.items = deque()

    def push(self, *item):
        self.items.append(item)  # leak; fixed: self.items.append(tuple(len(part) for part in item))


buffer = Buffer()
for images in batches():
    scores = model(images).detach()
    buffer.push(images, scores)
    drawn = tuple(random.choices(buffer.items, k=32))
