"""The hook's closure holds the tensor that holds the hook."""

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


def main():
    for images, labels in batches():
        hidden = model[0](images)
        hidden.register_hook(lambda g, h=hidden: g * (h > 0))  # leak; fixed: hidden.register_hook(lambda g: g * 1)
        loss = criterion(model[2](model[1](hidden)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


main()
