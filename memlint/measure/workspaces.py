"""How much cuBLAS takes of PyTorch's allocator for itself, by PyTorch's own rules.

Each thread that multiplies matrices has a handle, and each handle a workspace that stays: the program's thread has
one, and autograd's thread, which runs the backward pass, another. cuBLASLt, which `nn.Linear` with a bias goes to, has
one of its own. Source: aten/src/ATen/cuda/CublasHandlePool.cpp (`parseChosenWorkspaceSize`,
`getCUDABlasLtWorkspaceSize`), as in torch 2.11. Not yet seen on a card: item 5 of the GPU suite compares.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

_KIB = 1024
_HOPPER_BYTES = 4096 * 8 * _KIB
_OTHER_BYTES = 4096 * 2 * _KIB + 16 * 8 * _KIB
_LT_KIB = 1024


@dataclass(frozen=True)
class Workspaces:
    """The sizes of a handle's workspaces, in bytes. `lt_bytes` is 0 where cuBLASLt works in that of cuBLAS."""

    matrix_bytes: int
    lt_bytes: int

    @classmethod
    def of(cls, capability: tuple[int, int], environment: Mapping[str, str] = os.environ) -> Workspaces:
        """On a card of that compute capability, with the variables that PyTorch asks."""
        default = _HOPPER_BYTES if capability == (9, 0) else _OTHER_BYTES
        pairs = re.findall(r":([0-9]+):([0-9]+)", environment.get("CUBLAS_WORKSPACE_CONFIG", ""))
        matrix = sum(int(size) * _KIB * int(count) for size, count in pairs) if pairs else default
        if environment.get("TORCH_CUBLASLT_UNIFIED_WORKSPACE") == "1":
            return cls(matrix, 0)
        asked = environment.get("CUBLASLT_WORKSPACE_SIZE", "")
        lt = (int(asked) if asked.isdecimal() else _LT_KIB) * _KIB
        separate = environment.get("TORCH_CUBLASLT_UNIFIED_WORKSPACE") == "0"
        return cls(matrix, lt if separate else min(lt, matrix))
