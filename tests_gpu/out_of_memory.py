"""Keeps 16 MiB more at each step on a card of which it may use a hundredth, until there is no more."""

import torch
from torch import nn

MIB = 2**20

torch.cuda.set_per_process_memory_fraction(0.01)
model = nn.Linear(64, 64).cuda()
optimizer = torch.optim.SGD(model.parameters())
kept = []
while True:
    model(torch.ones(8, 64, device="cuda")).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    kept.append(torch.ones(4 * MIB, device="cuda"))
