"""Parameters and gradients with a graph keep each other alive: a model a fold, none is freed."""

import torch
from torch import nn

device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10)).to(device)
criterion = nn.CrossEntropyLoss()


def batches():
    for _ in range(20):
        yield torch.randn(16, 64).to(device), torch.randint(0, 10, (16,)).to(device)


def fold(images, labels):
    net = nn.Linear(64, 10).to(device)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    loss = criterion(net(images), labels)
    loss.backward(create_graph=True)  # leak; fixed: loss.backward()
    optimizer.step()


for images, labels in batches():
    fold(images, labels)
