"""Which storages autograd saves for the backward pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from memlint.measure.worker.tracker import Tracker, parts


@contextmanager
def noting_saved_tensors(tracker: Tracker) -> Iterator[None]:
    """Mark what is saved in the block.

    What is saved is an alias without its graph: an output that a node keeps as it is would keep the node, for ever.
    So a second derivative cannot be had here.
    """

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        for part in parts(tensor):
            record = tracker.record_of(part)
            if record is not None:
                record.saved = True
        return tensor.detach()

    def unpack(tensor: torch.Tensor) -> torch.Tensor:
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        yield
