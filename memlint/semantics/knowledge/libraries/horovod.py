"""Horovod, as data. Source: horovod/horovod issue and fix on metrics that sum all-reduced losses (real_bugs.jsonl)."""

from __future__ import annotations

from memlint.semantics.knowledge.libraries.rows import Effect, Library, calls

# `allreduce` is an autograd function (`HorovodAllreduce.apply`): its result carries the graph of its input.
HOROVOD = Library(packages=("horovod",), classes={}, functions=calls(Effect.PASSES, "allreduce"))
