"""Gradients that stay allocated between two backward passes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import libcst as cst

from memlint.semantics.events import Argument, Call
from memlint.semantics.knowledge import training as known
from memlint.semantics.module import Module
from memlint.semantics.ownership import made_as
from memlint.semantics.scopes import path_of
from memlint.semantics.values import Kind


@dataclass(frozen=True, eq=False)
class KeptGradients:
    """`zero_grad(set_to_none=False)`: every gradient is filled with zeros and stays allocated."""

    call: Call
    argument: cst.Arg
    surely_torch: bool
    """Called on a module or an optimizer that is known."""


def kept_gradients(module: Module) -> Iterator[KeptGradients]:
    if "zero_grad" not in module.words or _needs_them_in_place(module):
        return
    for call in module.calls:
        if call.method != "zero_grad" or _is_super(call):
            continue
        asked = _set_to_none(call)
        if asked is not None and asked.value.literal is False and not _optimizes_few_tensors(module, call):
            is_known = call.receiver is not None and call.receiver.kind in (Kind.MODULE, Kind.OPTIMIZER)
            yield KeptGradients(call, asked.node, is_known)


def _set_to_none(call: Call) -> Argument | None:
    keyword = call.keywords.get("set_to_none")
    if keyword is not None or len(call.positional) != 1 or call.keywords or call.receiver is None:
        return keyword
    # By position of torch's own method only: another class may mean something else.
    return call.positional[0] if call.receiver.kind in (Kind.MODULE, Kind.OPTIMIZER) else None


def _optimizes_few_tensors(module: Module, call: Call) -> bool:
    """`Adam([image])`: the gradients of tensors that are listed one by one are small beside a model's."""
    path = path_of(call.receiver_node) if call.receiver_node is not None else None
    if path is None:
        return False
    return any(
        isinstance(given, (cst.List, cst.Tuple)) and all(path_of(element.value) for element in given.elements)
        for given in (optimizer.parameters for optimizer in made_as(module, call.scope, path))
    )


def _is_super(call: Call) -> bool:
    """A class that passes on, in a method of its own, what its author decided."""
    node = call.receiver_node
    return isinstance(node, cst.Call) and isinstance(node.func, cst.Name) and node.func.value == "super"


def _needs_them_in_place(module: Module) -> bool:
    """Whether the file counts on gradients that stay where they are, or that are never None."""
    if any(word.lower().replace("_", "").find("cudagraph") >= 0 for word in module.words):
        return True
    if not module.words.isdisjoint(known.KEEPS_GRADIENTS) or any(module.calls_of(known.CAPTURES)):
        return True
    if any(_compiles_with_graphs(call) for call in module.calls_of(known.COMPILES)):
        return True
    return any(_writes_gradient(scope.methods_called) for scope in module.scopes)


def _compiles_with_graphs(call: Call) -> bool:
    mode = call.keywords.get("mode")
    return mode is not None and mode.value.literal in known.MODES_WITH_CUDA_GRAPHS


def _writes_gradient(methods_called: dict[str, set[str]]) -> bool:
    """`p.grad.copy_(g)`, `p.grad.data.add_(g)`: a gradient that is None has no such method."""
    return any(
        path.endswith((".grad", ".grad.data"))
        and any(name.endswith("_") and name not in ("zero_", "detach_", "requires_grad_") for name in methods)
        for path, methods in methods_called.items()
    )
