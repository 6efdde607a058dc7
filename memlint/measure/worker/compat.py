"""All that memlint uses of PyTorch's private parts. Each has a check in the self-tests of the backends."""

from __future__ import annotations

from typing import Any

RUN_BACKWARD = "_engine_run_backward"
"""The function of `torch.autograd` through which `backward` and `grad` go: (roots, gradients, retain_graph,
create_graph, ...)."""


def creates_graph(arguments: tuple[Any, ...]) -> bool:
    """Of the arguments of a backward pass, less its roots."""
    return len(arguments) > 2 and bool(arguments[2])
