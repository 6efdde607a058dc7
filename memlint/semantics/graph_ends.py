"""Where the graph of an output ends in a function: in numbers, in decisions, in a detached copy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import libcst as cst

from memlint.semantics.events import Argument, Call
from memlint.semantics.flow import Flow
from memlint.semantics.knowledge import torch as known
from memlint.semantics.module import Module
from memlint.semantics.naming import words_of
from memlint.semantics.scopes import NODES_REMEMBERED, Scope, has_decorator, parameters, path_of
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
_MAPPING = frozenset({"map"})
_MOST_HELPERS = 2
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


def ends_of(module: Module, flow: Flow, root: int, helpers: int = _MOST_HELPERS) -> Ends:
    """Of everything that the function, and those of this file that it hands the value to, compute from it."""
    ends = _own_ends(module, flow, root)
    if not helpers:
        return ends
    for call, inner, parameter in _handed_on(module, flow, root):
        found = ends_of(module, inner, parameter, helpers - 1)
        ends = Ends(
            ends.is_detached or found.is_detached,
            # What a helper that returns nothing detaches it looks at, or saves.
            ends.is_on_host or found.is_on_host or (found.is_detached and call.is_statement),
            ends.is_counted or found.is_counted,
            ends.is_ranked or found.is_ranked,
            ends.raises,
        )
    return ends


def _handed_on(module: Module, flow: Flow, root: int) -> Iterator[tuple[Call, Flow, int]]:
    """The calls that give the value, or a part of it, to a function of this file that trains nothing: its parameter."""
    yield from module.once(_handovers).get((flow.scope, root), ())


def _handovers(module: Module) -> dict[tuple[Scope, int], list[tuple[Call, Flow, int]]]:
    """By the function in which a call stands, and what is given: which other one of this file gets it, as what."""
    found: dict[tuple[Scope, int], list[tuple[Call, Flow, int]]] = {}
    for flow in module.flows:
        for call in flow.calls:
            scope, given = _function_called(module, call)
            inner = module.flow_of(scope) if scope is not None else None
            if scope is None or inner is None or inner is flow or inner.has_backward or inner.has_step:
                continue
            params = {param.name.value: module.analysis.root_for(param) for param in _parameters(scope)}
            for name, item in _bound_arguments(scope, given, call):
                for root in flow.all_roots(item.value):
                    found.setdefault((flow.scope, root), []).append((call, inner, params[name]))
    return found


def _function_called(module: Module, call: Call) -> tuple[Scope | None, tuple[Argument, ...]]:
    """The function, and what it is given by position: of `map(f, outputs)` `f`, with each output."""
    if call.names(_MAPPING) and len(call.positional) == 2:
        return module.analysis.function_given(call.positional[0]), call.positional[1:]
    quals = call.callee.quals
    return module.analysis.scope_named(next(iter(quals))) if len(quals) == 1 else None, call.positional


def _parameters(scope: Scope) -> list[cst.Param]:
    assert isinstance(scope.node, (cst.FunctionDef, cst.Lambda))
    return parameters(scope.node.params)


def _bound_arguments(scope: Scope, positional: tuple[Argument, ...], call: Call) -> Iterator[tuple[str, Argument]]:
    """Which argument each parameter is given."""
    names = [param.name.value for param in _parameters(scope)]
    node = scope.node
    is_static = isinstance(node, cst.FunctionDef) and has_decorator(node, "staticmethod")
    is_method = scope.parent is not None and scope.parent.is_class and not is_static
    by_position = zip(names[1:] if is_method else names, positional, strict=False)
    yield from () if call.unpacks else by_position
    yield from ((name, argument) for name, argument in call.keywords.items() if name in names)


def _own_ends(module: Module, flow: Flow, root: int) -> Ends:
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
