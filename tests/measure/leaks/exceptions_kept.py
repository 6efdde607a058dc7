"""A kept exception keeps its traceback, whose frames keep their tensors."""

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


def check(images):
    doubled = images * 2
    if doubled.sum() != 0:
        raise ValueError("not zero")


errors = []
for images, labels in batches():
    try:
        check(images)
    except ValueError as error:
        errors.append(error)  # leak; fixed: errors.append(str(error))
    loss = criterion(model(images), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
