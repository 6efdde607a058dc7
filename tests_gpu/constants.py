"""What CUDA takes before and beside the program, in bytes: prints JSON. NVML is asked where it is installed."""

from __future__ import annotations

import json
import sys
from typing import Any

import torch

from memlint.measure.worker.nvml import Card, ProcessWatch
from memlint.measure.workspaces import Workspaces

GIB = 2**30


def main() -> None:
    watch = _watch()
    torch.cuda.synchronize()
    if watch is not None:
        watch.context_created()
    free, total = torch.cuda.mem_get_info()
    found: dict[str, Any] = {"card_used_after_context": total - free}
    a = torch.ones(512, 512, device="cuda")
    found["allocated_by_one_tensor"] = torch.cuda.memory_allocated()
    found["cublas_workspace_predicted"] = Workspaces.of(torch.cuda.get_device_capability(0)).matrix_bytes
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        before = torch.cuda.memory_allocated()
        b = a.to(dtype)
        product = b @ b
        torch.cuda.synchronize()
        tensors = sum(tensor.untyped_storage().nbytes() for tensor in {b, product} - {a})
        found[f"cublas_workspace_{_name(dtype)}"] = torch.cuda.memory_allocated() - before - tensors
        del b, product
    before = torch.cuda.memory_allocated()
    product = torch.nn.functional.linear(a, a, a[0])
    torch.cuda.synchronize()
    found["cublas_workspace_linear"] = torch.cuda.memory_allocated() - before - product.untyped_storage().nbytes()
    _, found["cudnn_convolution_kept"] = _convolved()
    free, total = torch.cuda.mem_get_info()
    found["card_used_at_end"] = total - free
    found["reserved_at_end"] = torch.cuda.memory_reserved()
    if watch is not None:
        watch.look()
        before_rise = watch.memory()
        found["nvml_process"] = before_rise.process_bytes
        found["nvml_context"] = before_rise.context_bytes
        # A context grows with the kernels that are loaded, one by one: what is in it beside the allocator's memory.
        found["nvml_context_and_kernels"] = _less(before_rise.process_bytes, found["reserved_at_end"])
        large = torch.empty(GIB, dtype=torch.uint8, device="cuda")
        watch.look()
        memory = watch.memory()
        found["reserved_rise"] = torch.cuda.memory_reserved() - found["reserved_at_end"]
        found["nvml_rise"] = _less(memory.process_bytes, before_rise.process_bytes)
        found["nvml_by_difference"] = memory.by_difference
        found["nvml_other_processes"] = len(memory.other_processes)
        del large
    sys.stdout.write(json.dumps(found) + "\n")


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _less(size: int | None, part: int | None) -> int | None:
    return None if size is None or part is None else size - part


def _convolved() -> tuple[torch.Tensor, int]:
    """A convolution's result, and what is left allocated beyond it."""
    image = torch.ones(8, 64, 32, 32, device="cuda")
    weight = torch.ones(64, 64, 3, 3, device="cuda")
    before = torch.cuda.memory_allocated()
    result = torch.nn.functional.conv2d(image, weight)
    torch.cuda.synchronize()
    return result, torch.cuda.memory_allocated() - before - result.untyped_storage().nbytes()


def _watch() -> ProcessWatch | None:
    try:
        import pynvml
    except ImportError:
        return None
    card = Card.open(str(torch.cuda.get_device_properties(0).uuid), pynvml)
    return None if card is None else ProcessWatch(card)


if __name__ == "__main__":
    main()
