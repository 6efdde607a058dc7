"""What memlint knows of exceptions and of how code tells that memory ran out."""

from __future__ import annotations

# torch.OutOfMemoryError, torch.cuda.OutOfMemoryError, and what projects derive from them: the name says it.
OUT_OF_MEMORY_CLASSES = frozenset({"OutOfMemoryError", "OutOfMemoryException", "CUDAOutOfMemoryError", "OOMError"})
# Classes that a failed allocation is caught as, too: before torch 1.13 it was a plain RuntimeError.
GENERAL_CLASSES = frozenset({"RuntimeError", "Exception", "BaseException"})
# In the message of a failed allocation (c10/cuda/CUDACachingAllocator.cpp, at::cuda::blas, cuDNN).
OUT_OF_MEMORY_TEXTS = (
    "out of memory",
    "outofmemory",
    "alloc_failed",
    "cudnn_status_not_supported",
    "failed to allocate",
)
# Functions that tell whether an exception is a failed allocation, by name (accelerate.should_reduce_batch_size,
# lightning.pytorch.utilities.memory.is_oom_error).
OUT_OF_MEMORY_TESTS = frozenset(
    """is_oom_error is_out_of_cpu_memory is_cuda_out_of_memory is_out_of_memory is_oom is_cuda_oom is_oom_exception
    should_reduce_batch_size is_cudnn_snafu is_out_of_memory_error is_oom_runtime_error""".split()
)
# What takes the frames, or the traceback, away from an exception.
RELEASING_WORDS = frozenset({"clear_frames", "__traceback__", "with_traceback"})
# Methods that put an exception away where it outlives the handler (concurrent.futures, asyncio).
KEEPING_METHODS = frozenset({"append", "appendleft", "add", "insert", "set_exception", "extend"})
