"""What a model gets: was it made of arrays, texts or files, or may a gradient flow to it?"""

from __future__ import annotations

from memlint.semantics.events import Call
from memlint.semantics.flow import Flow
from memlint.semantics.module import Module
from memlint.semantics.naming import words_of
from memlint.semantics.scopes import path_of
from memlint.semantics.values import Grad, Kind, Value

# What is called so makes a model's input of an image, a text or a sound.
_PREPARING_WORDS = frozenset(
    """transform transforms preprocess preprocessor preprocessing processor tokenize tokenizer""".split()
)


def takes_data(module: Module, flow: Flow, call: Call) -> bool:
    """All that the model gets was made of arrays, texts or files: no gradient flows to its input."""
    given = [argument.value for argument in (*call.positional, *call.keywords.values())]
    boxes = [module.box(box) for value in given for box in value.boxes]
    if any(box.carrying or box.in_object for box in boxes):
        return False
    prepared = _prepared(module, flow) if any(value.grad is not Grad.NO for value in given) else frozenset()
    if any(value.grad is not Grad.NO and not _is_of(flow, value, prepared) for value in given):
        return False
    return any(value.kind in (Kind.TENSOR, Kind.CONTAINER, Kind.UNKNOWN) for value in given)


def _is_of(flow: Flow, value: Value, prepared: frozenset[int]) -> bool:
    roots = flow.all_roots(value)
    return bool(roots) and roots <= prepared


def _prepared(module: Module, flow: Flow) -> frozenset[int]:
    """What code out of view called `transform` or `tokenizer` made, with methods of that, and what it was given."""
    found: set[int] = set()
    for call in flow.calls:
        if call.root in module.analysis.unseen and _prepares(call):
            given = (argument.value for argument in (*call.positional, *call.keywords.values()))
            found.add(call.root)
            found.update(*(flow.all_roots(value) for value in given))
        elif call.receiver is not None and call.receiver.roots and flow.all_roots(call.receiver) <= found:
            found.add(call.root)
    return frozenset(found)


def _prepares(call: Call) -> bool:
    name = (path_of(call.call.func) or "").rpartition(".")[2]
    return not words_of(name).isdisjoint(_PREPARING_WORDS)
