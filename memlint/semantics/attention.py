"""Attention weights that are computed, returned and dropped."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import libcst as cst

from memlint.semantics.events import Argument, Call
from memlint.semantics.knowledge import attention as known
from memlint.semantics.module import Module
from memlint.semantics.reading import literal_index
from memlint.semantics.reads import is_read, is_unpacked
from memlint.semantics.scopes import assignments_in, path_of, walk
from memlint.semantics.type_tests import is_for

_ONLY_FIRST = frozenset({"subscript", "delete"})


@dataclass(frozen=True, eq=False)
class DiscardedWeights:
    """A call of torch's multi-head attention that returns weights to nobody."""

    call: Call
    asked: Argument | None
    """The `need_weights=True` that asks for them, where it is written out."""
    replaceable: bool
    """Nothing else in the call depends on the weights being computed."""
    few_queries: bool
    """A learned query, repeated for each item of the batch, pools the sequence: the weights are small."""


def discarded_weights(module: Module) -> Iterator[DiscardedWeights]:
    if module.words.isdisjoint(known.TRIGGERS) or not module.words.isdisjoint(known.HOOKING_WORDS):
        return
    calls = [(call, position) for call in module.calls if (position := _flag_position(module, call)) is not None]
    if not calls:
        return
    subscripts = {id(node.value): node for node in walk(module.tree) if isinstance(node, cst.Subscript)}
    for call, position in calls:
        asked = call.keywords.get(known.NEED_WEIGHTS)
        if asked is None and len(call.positional) > position:
            asked = call.positional[position]
        if call.unpacks or (asked is not None and asked.value.literal is not True):
            continue
        if _is_discarded(module, call, subscripts.get(id(call.node))) and not _is_hooked_elsewhere(module, call):
            replaceable = known.BOUND_TO_WEIGHTS.isdisjoint(call.keywords)
            yield DiscardedWeights(call, asked, replaceable, _has_learned_query(call))


def _has_learned_query(call: Call) -> bool:
    """`probe = self.probe.repeat(batch, 1, 1)`, `self.query.expand(batch, -1, -1)`"""
    query = call.positional[0].expression if call.positional else None
    if query is None and "query" in call.keywords:
        query = call.keywords["query"].expression
    if isinstance(query, cst.Name):
        assigned = assignments_in(call.scope.node).get(query.value, ())
        query = next((node.value for node in assigned if path_of(node.targets[0].target) == query.value), None)
    if not isinstance(query, cst.Call) or not isinstance(query.func, cst.Attribute):
        return False
    owner = path_of(query.func.value) or ""
    return query.func.attr.value in ("repeat", "expand") and owner.startswith("self.")


def _is_hooked_elsewhere(module: Module, call: Call) -> bool:
    """Whether a file of the project registers forward hooks and speaks of the attribute: `block.attn`."""
    view = module.analysis.view
    name = (path_of(call.call.func) or "").rpartition(".")[2]
    if view is None or "." not in (path_of(call.call.func) or ""):
        return False
    pieces = (f".{name}.", f".{name},", f".{name})", f'"{name}"', f"'{name}'")
    return any(view.some_file_has(pieces, word) for word in known.HOOKING_WORDS)


def _flag_position(module: Module, call: Call) -> int | None:
    """Where `need_weights` stands among the positional arguments; None: the call is no attention of torch."""
    if call.names(known.FUNCTIONAL_ATTENTION):
        return known.FUNCTIONAL_NEED_WEIGHTS_POSITION
    return known.NEED_WEIGHTS_POSITION if _is_attention(module, call) or _is_asked_for(module, call) else None


def _is_asked_for(module: Module, call: Call) -> bool:
    """`isinstance(self.attn, nn.MultiheadAttention)` stands above `self.attn(query, key, value)`."""
    return len(call.call.args) >= known.INPUTS and is_for(module, call, call.call.func, known.ATTENTION_NAMES)


def _is_attention(module: Module, call: Call) -> bool:
    analysis = module.analysis
    cls = call.callee.cls
    if call.is_forward and cls is not None:
        if cls in known.ATTENTION_NAMES:
            return True
        # A subclass of this file that leaves `forward` as it is.
        return analysis.base_names(cls) <= known.ATTENTION_NAMES != frozenset() and _inherits(module, cls, "forward")
    owner = call.receiver.cls if call.receiver is not None else None
    if owner is None or call.method is None or not owner.startswith(":"):
        return False
    return _inherits(module, owner, call.method) and any(
        call.method in known.ATTENTION_OF_LAYERS.get(base, ()) for base in analysis.base_names(owner)
    )


def _inherits(module: Module, cls: str, name: str) -> bool:
    """Nothing in the class (or its bases in view) says what the attribute is."""
    analysis = module.analysis
    return cls.startswith(":") and analysis.method(cls, name) is None and analysis.member(cls, name) is None


def _is_discarded(module: Module, call: Call, subscript: cst.Subscript | None) -> bool:
    if subscript is not None:
        return literal_index(subscript) == 0
    statement = call.statement
    if not isinstance(statement, cst.Assign) or statement.value is not call.node or len(statement.targets) != 1:
        return False
    target = statement.targets[0].target
    if isinstance(target, cst.Name):
        return _only_first_is_read(module, call, target.value)
    if not isinstance(target, (cst.Tuple, cst.List)) or len(target.elements) != 2:
        return False
    weights = target.elements[1].value
    return isinstance(weights, cst.Name) and _is_dropped(module, call, weights)


def _is_dropped(module: Module, call: Call, weights: cst.Name) -> bool:
    name, scope = weights.value, call.scope
    if not scope.is_function and not name.startswith("_"):
        return False  # other files may import it
    if name in scope.nonlocal_names or "locals" in scope.words:
        return False
    if not is_read(scope.node, name):
        return True
    if not call.result.carries_graph or is_unpacked(scope.node, name):
        return False
    uses = module.uses_of(module.analysis.root_for(weights))
    return all(use.how == "delete" for use in uses)  # read elsewhere, where it is something else


def _only_first_is_read(module: Module, call: Call, name: str) -> bool:
    """`out = attn(x, x, x)`, and then `out[0]` alone."""
    if not call.scope.is_function or name in call.scope.nonlocal_names or is_unpacked(call.scope.node, name):
        return False
    root = call.root
    if call.result.idents != frozenset({root}):
        return False
    uses = module.uses_of(root)
    return any(use.how == "subscript" for use in uses) and all(
        use.how in _ONLY_FIRST and (not isinstance(use.node, cst.Subscript) or literal_index(use.node) == 0)
        for use in uses
    )
