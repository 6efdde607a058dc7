"""Copies on the host: their graphs keep the device's memory."""

import torch
from torch import nn

device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10)).to(device)
criterion = nn.CrossEntropyLoss()


def batches():
    for _ in range(20):
        yield torch.randn(16, 64).to(device), torch.randint(0, 10, (16,)).to(device)


def evaluate():
    outputs = []
    for images, _labels in batches():
        outputs.append(model(images).cpu())  # leak; fixed: outputs.append(model(images).detach().cpu())
    return torch.cat(outputs)


evaluate()
