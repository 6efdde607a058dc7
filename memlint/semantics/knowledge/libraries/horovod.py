"""Horovod, as data. Source: horovod 0.28.1."""

from __future__ import annotations

from memlint.semantics.knowledge.libraries.rows import Effect, Library, calls

# horovod/torch/mpi_ops.py: allreduce, allgather, broadcast and alltoall are `torch.autograd.Function`s
# (`HorovodAllreduce.apply`); those that end in `_` write into what they are given, outside autograd.
HOROVOD = Library(
    packages=("horovod",),
    classes={},
    functions=calls(Effect.PASSES, "allreduce allgather broadcast alltoall reducescatter"),
)
