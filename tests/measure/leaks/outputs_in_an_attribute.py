"""A trainer's list is never emptied."""

import torch
from torch import nn

device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10)).to(device)
criterion = nn.CrossEntropyLoss()
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)


def batches():
    for _ in range(20):
        yield torch.randn(16, 64).to(device), torch.randint(0, 10, (16,)).to(device)


class Trainer:
    def __init__(self):
        self.outputs = []

    def step(self, images, labels):
        output = model(images)
        loss = criterion(output, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        self.outputs.append(output)  # leak; fixed: self.outputs.append(output.detach().cpu())


trainer = Trainer()
for images, labels in batches():
    trainer.step(images, labels)
