"""Where the graph of an output ends in a function: in numbers, in decisions, in a detached copy."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import libcst as cst

from memlint.semantics.events import Call
from memlint.semantics.flow import Flow
from memlint.semantics.knowledge import torch as known
from memlint.semantics.module import Module
from memlint.semantics.naming import words_of
from memlint.semantics.scopes import NODES_REMEMBERED, path_of
from memlint.semantics.values import Value

# What tells nothing of the values: shapes, addresses, new tensors.
_LOOKS = frozenset(
    """size stride dim ndimension numel nelement element_size data_ptr get_device storage untyped_storage storage_offset
    is_contiguous is_floating_point requires_grad_enabled new_zeros new_ones new_empty new_full new_tensor""".split()
)
_NUMBERS = (known.NEVER_GRAD_METHODS | known.HOST_VALUE_METHODS) - _LOOKS - {"numpy"}
# `values, indices = out.max(1)`: of two results one is a decision.
_RANKING = frozenset({"max", "min", "topk", "sort", "kthvalue", "median", "mode"})
_RANKING_FUNCTIONS = frozenset(f"torch.{name}" for name in _RANKING)
_DECIDING_FUNCTIONS = frozenset(f"torch.{name}" for name in known.NEVER_GRAD_FUNCTIONS - {"numel", "is_tensor"})
# `save_image(fake.detach(), path)`, `writer.add_image(name, grid)`.
_SAVING_WORDS = frozenset({"save", "image", "images", "imshow", "imwrite", "show", "grid", "plot"})
_TO_HOST = frozenset({"cpu", "numpy", "tolist", "item"})
_NUMBER_FUNCTIONS = frozenset({"float", "int", "bool"})
_ARRAY_FUNCTIONS = frozenset({"numpy.array", "numpy.asarray"})

NUMBER_WORDS = _NUMBERS | _RANKING | _NUMBER_FUNCTIONS
"""Where code takes numbers from an output, one of these words stands, or a comparison."""


@dataclass(frozen=True)
class Ends:
    """What takes something without its graph from an output."""

    is_detached: bool
    """`.detach()`, `.data`: whoever writes that takes the output to carry a graph."""
    is_on_host: bool
    """What is detached goes to the host: `.detach().cpu()`, `.data.numpy()`."""
    is_counted: bool
    """A number, a comparison, an index."""
    is_ranked: bool
    """`out.max(1)`, `torch.topk(out, 5)`: of the two results one is a decision, and maybe only that is used."""
    raises: bool
    """`.numpy()` of what carries the graph: it raises, so that grad is off here, or nothing needs a gradient."""

    @property
    def takes_something(self) -> bool:
        return self.is_detached or self.is_counted or self.is_ranked


def ends_of(module: Module, flow: Flow, root: int) -> Ends:
    """Of everything that the function computes from the definition."""
    cut = {node for node, roots in flow.read_as_data.items() if root in roots}
    is_detached = bool(cut)
    is_counted = root in flow.compared
    is_ranked = raises = False
    detached: set[int] = set()
    for call, taken in _takers(flow).get(root, ()):
        if _detaches(call):
            is_detached = True
            detached.add(call.root)
            cut.add(id(call.node))
        is_counted |= _counts(call)
        is_ranked |= _ranks(call)
        raises |= _makes_array(call) and _surely_carries(module, call, taken)
    is_on_host = is_detached and any(_takes_away(call, detached, cut) for call in _taking_away(flow))
    return Ends(is_detached, is_on_host, is_counted, is_ranked, raises)


@lru_cache(maxsize=NODES_REMEMBERED)
def _takers(flow: Flow) -> dict[int, list[tuple[Call, Value]]]:
    """The calls at which a graph may end, by the definitions that they take something from, each with that value."""
    takers: dict[int, list[tuple[Call, Value]]] = {}
    for call in flow.calls:
        taken = _taken_from(call) if _detaches(call) or _counts(call) or _ranks(call) or _makes_array(call) else None
        if taken is not None:
            for root in flow.all_roots(taken):
                takers.setdefault(root, []).append((call, taken))
    return takers


@lru_cache(maxsize=NODES_REMEMBERED)
def _taking_away(flow: Flow) -> list[Call]:
    """The calls that move something to the host, or save it."""
    return [call for call in flow.calls if _goes_to_host(call) or _saves(call)]


def _goes_to_host(call: Call) -> bool:
    return call.method in _TO_HOST and not call.callee.quals


def _saves(call: Call) -> bool:
    name = (path_of(call.call.func) or "").rpartition(".")[2]
    return not words_of(name).isdisjoint(_SAVING_WORDS)


def _takes_away(call: Call, detached: set[int], cut: set[int]) -> bool:
    """Whether what is moved or saved was detached: those definitions, or the result of those nodes."""
    if _goes_to_host(call):
        return _is_detached(call.receiver, call.receiver_node, detached, cut)
    return any(_is_detached(argument.value, argument.expression, detached, cut) for argument in call.positional)


def _is_detached(value: Value | None, node: cst.BaseExpression | None, detached: set[int], cut: set[int]) -> bool:
    if value is not None and not value.idents.isdisjoint(detached):
        return True
    while isinstance(node, (cst.Attribute, cst.Call, cst.Subscript)):
        if id(node) in cut:
            return True
        node = node.func if isinstance(node, cst.Call) else node.value
    return False


def _taken_from(call: Call) -> Value | None:
    if not call.callee.quals and call.receiver is not None:
        return call.receiver
    return call.positional[0].value if call.positional else None


def _surely_carries(module: Module, call: Call, value: Value) -> bool:
    """Not so for one of several outputs, which the model may have made without a graph (boxes, indices)."""
    return value.carries_graph and not call.in_try and module.questions(value.conditions) is not None


def _detaches(call: Call) -> bool:
    return call.method in known.DETACHING_METHODS and not call.callee.quals


def _makes_array(call: Call) -> bool:
    return (call.method == "numpy" and not call.callee.quals) or call.names(_ARRAY_FUNCTIONS)


def _counts(call: Call) -> bool:
    if call.callee.quals:
        return call.names(_DECIDING_FUNCTIONS | _NUMBER_FUNCTIONS)
    return call.method in _NUMBERS


def _ranks(call: Call) -> bool:
    is_ranking = call.names(_RANKING_FUNCTIONS) if call.callee.quals else call.method in _RANKING
    return is_ranking and call.result.elements is not None
