"""What CUDA takes before and beside the program, in bytes: prints JSON. NVML is asked where it is installed."""

from __future__ import annotations

import json
import sys
from typing import Any

import torch

from memlint.measure.worker.nvml import Card, ProcessWatch


def main() -> None:
    watch = _watch()
    torch.cuda.synchronize()
    if watch is not None:
        watch.context_created()
    free, total = torch.cuda.mem_get_info()
    found: dict[str, Any] = {"card_used_after_context": total - free}
    a = torch.ones(512, 512, device="cuda")
    found["allocated_by_one_tensor"] = torch.cuda.memory_allocated()
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        before = torch.cuda.memory_allocated()
        b = a.to(dtype)
        product = b @ b
        torch.cuda.synchronize()
        tensors = sum(tensor.untyped_storage().nbytes() for tensor in {b, product} - {a})
        found[f"cublas_workspace_{str(dtype).removeprefix('torch.')}"] = (
            torch.cuda.memory_allocated() - before - tensors
        )
        del b, product
    free, total = torch.cuda.mem_get_info()
    found["card_used_at_end"] = total - free
    found["reserved_at_end"] = torch.cuda.memory_reserved()
    if watch is not None:
        watch.look()
        memory = watch.memory()
        found["nvml_process"] = memory.process_bytes
        found["nvml_context"] = memory.context_bytes
        found["nvml_by_difference"] = memory.by_difference
        found["nvml_other_processes"] = len(memory.other_processes)
    sys.stdout.write(json.dumps(found) + "\n")


def _watch() -> ProcessWatch | None:
    try:
        import pynvml
    except ImportError:
        return None
    card = Card.open(str(torch.cuda.get_device_properties(0).uuid), pynvml)
    return None if card is None else ProcessWatch(card)


if __name__ == "__main__":
    main()
