"""A recurrent state is handed from batch to batch without detach."""

import torch
from torch import nn

device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10)).to(device)
criterion = nn.CrossEntropyLoss()


def batches():
    for _ in range(20):
        yield torch.randn(16, 64).to(device), torch.randint(0, 10, (16,)).to(device)


cell = nn.GRUCell(64, 64).to(device)
head = nn.Linear(64, 10).to(device)


def main():
    state = torch.zeros(16, 64, device=device)
    for images, labels in batches():
        state = cell(images, state)  # leak; fixed: state = cell(images, state.detach())
        loss = criterion(head(state), labels)
        loss.backward(retain_graph=True)


main()
