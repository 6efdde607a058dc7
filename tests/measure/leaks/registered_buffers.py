"""A buffer more at every step."""

import torch
from torch import nn

device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10)).to(device)


def batches():
    for _ in range(20):
        yield torch.randn(16, 64).to(device)


for number, images in enumerate(batches()):
    logits = model(images).detach()
    model.register_buffer(f"logits{number}", logits)  # leak; fixed: model.register_buffer("logits", logits)
