"""Several things a step, in a tuple."""

import torch
from torch import nn

device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10)).to(device)
criterion = nn.CrossEntropyLoss()


def batches():
    for _ in range(20):
        yield torch.randn(16, 64).to(device), torch.randint(0, 10, (16,)).to(device)


class Evaluation:
    def __init__(self):
        self.results = []

    def run(self):
        for number, (images, labels) in enumerate(batches()):
            logits = model(images)
            self.results.append((number, logits, labels))  # leak; fixed: self.results.append((number, len(labels)))


Evaluation().run()
