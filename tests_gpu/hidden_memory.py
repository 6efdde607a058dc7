"""What kernels allocate for themselves while they run: prints JSON, a row an operation.

`hidden_bytes` is the peak during the operation less what was there before and what it gave; `kept_bytes` what is still
there afterwards beyond what it gave, as a workspace is that the library keeps.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its name everywhere
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from memlint.measure.allocator import block_bytes

Operation = Callable[[], Any]


@dataclass(frozen=True)
class Backward:
    """The backward pass of an operation alone: what it gives are the gradients of `owner`."""

    forward: Callable[[], Tensor]
    owner: nn.Module | Tensor

    def prepared(self) -> Operation:
        parameters = list(self.owner.parameters()) if isinstance(self.owner, nn.Module) else [self.owner]
        with torch.enable_grad():
            output = self.forward()
        return partial(torch.autograd.grad, output, parameters, torch.ones_like(output), retain_graph=True)


def operations() -> Iterator[tuple[str, Operation | Backward]]:
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        for name, operation in _matrices(dtype):
            yield f"{name} {str(dtype).removeprefix('torch.')}", operation
    yield from _searches()
    yield from _layers()


def _matrices(dtype: torch.dtype) -> Iterator[tuple[str, Operation | Backward]]:
    a = torch.randn(2048, 2048, device="cuda", dtype=dtype)
    yield "mm 2048", partial(torch.mm, a, a)
    yield "softmax 2048", partial(torch.softmax, a, -1)
    batch = torch.randn(32, 512, 512, device="cuda", dtype=dtype)
    yield "bmm 32x512", partial(torch.bmm, batch, batch)
    image = torch.randn(16, 64, 56, 56, device="cuda", dtype=dtype)
    convolution = nn.Conv2d(64, 64, 3, padding=1).to("cuda", dtype)
    yield "conv2d 3x3 forward", partial(convolution, image)
    yield "conv2d 3x3 backward", Backward(partial(convolution, image), convolution)
    q = torch.randn(8, 16, 1024, 64, device="cuda", dtype=dtype, requires_grad=True)
    yield "attention forward", partial(F.scaled_dot_product_attention, q, q, q)
    yield "attention backward", Backward(partial(F.scaled_dot_product_attention, q, q, q), q)


def _searches() -> Iterator[tuple[str, Operation]]:
    values = torch.randn(1 << 22, device="cuda")
    yield "sort 4M", partial(torch.sort, values)
    yield "topk 100 of 4M", partial(torch.topk, values, 100)
    yield "unique 4M", partial(torch.unique, (values * 1000).int())
    yield "cumsum 4M", partial(torch.cumsum, values, 0)
    yield "nonzero 4M", partial(torch.nonzero, values > 0)


def _layers() -> Iterator[tuple[str, Operation | Backward]]:
    embedding = nn.Embedding(50_000, 512, device="cuda")
    tokens = torch.randint(0, 50_000, (16, 1024), device="cuda")
    yield "embedding backward", Backward(partial(embedding, tokens), embedding)
    norm = nn.LayerNorm(1024, device="cuda")
    hidden = torch.randn(16, 1024, 1024, device="cuda", requires_grad=True)
    yield "layer_norm backward", Backward(partial(norm, hidden), norm)
    logits = torch.randn(4096, 32_000, device="cuda", requires_grad=True)
    labels = torch.randint(0, 32_000, (4096,), device="cuda")
    yield "cross_entropy forward", partial(F.cross_entropy, logits, labels)
    yield "cross_entropy backward", Backward(partial(F.cross_entropy, logits, labels), logits)
    lstm = nn.LSTM(512, 512, num_layers=2, batch_first=True, device="cuda")
    sequence = torch.randn(16, 256, 512, device="cuda")
    yield "lstm forward", partial(lstm, sequence)
    yield "lstm backward", Backward(lambda: lstm(sequence)[0], lstm)


def measured(operation: Operation | Backward) -> dict[str, int]:
    """The second of two runs: the first may load kernels, and takes what libraries keep."""
    run = operation.prepared() if isinstance(operation, Backward) else operation
    start = torch.cuda.memory_allocated()
    first = run()
    torch.cuda.synchronize()
    kept = torch.cuda.memory_allocated() - start - _given(first)
    del first
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    second = run()
    torch.cuda.synchronize()
    return {
        "given_bytes": _given(second),
        "hidden_bytes": torch.cuda.max_memory_allocated() - before - _given(second),
        "kept_bytes": kept,
    }


def _given(result: Any) -> int:
    """The blocks of all tensors in it, however nested."""
    storages = {
        tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
        for tensor in tree_leaves(result)
        if isinstance(tensor, Tensor)
    }
    return sum(map(block_bytes, storages.values()))


def main() -> None:
    rows = []
    for name, operation in operations():
        try:
            with torch.no_grad():
                rows.append({"operation": name, **measured(operation)})
        except RuntimeError as error:
            rows.append({"operation": name, "error": str(error).splitlines()[0]})
        torch.cuda.empty_cache()
    sys.stdout.write(json.dumps(rows) + "\n")


if __name__ == "__main__":
    main()
