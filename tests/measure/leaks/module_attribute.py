"""A module collects its activations."""

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


class Probe(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = []
        self.inner = model

    def forward(self, images):
        feature = self.inner[0](images)
        self.features.append(feature)  # leak; fixed: self.features = [feature]
        return self.inner[2](self.inner[1](feature))


probe = Probe()
for images, labels in batches():
    loss = criterion(probe(images), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
