"""Activation checkpointing: activations that are computed again in the backward pass instead of kept."""

from __future__ import annotations

from collections.abc import Iterator

from memlint.semantics.blocks import conditions_around
from memlint.semantics.events import Call
from memlint.semantics.knowledge import training as known
from memlint.semantics.module import Module
from memlint.semantics.scopes import path_of
from memlint.semantics.values import Mode


def reentrant_by_default(module: Module) -> Iterator[Call]:
    """The calls of `checkpoint` and `checkpoint_sequential` that do not say which variant is meant.

    Another library's function may be called instead, where a condition chose it.
    """
    if "checkpoint" not in module.words and "checkpoint_sequential" not in module.words:
        return
    if module.target_torch is not None and module.target_torch < known.NOT_REENTRANT_SINCE:
        return
    for call in module.calls:
        if call.callee.quals.isdisjoint(known.CHECKPOINTS) or not call.positional:
            continue
        if call.mode is Mode.OFF or call.handler or "use_reentrant" in call.keywords:
            continue
        if _may_unpack_the_option(module, call) or _is_chosen_by_import(module, call):
            continue
        if not _is_fallback(module, call) and not _is_unsupported(module, call):
            yield call


def _is_chosen_by_import(module: Module, call: Call) -> bool:
    """`try: from deepspeed.checkpointing import checkpoint`: where that is installed, it is what runs."""
    name = path_of(call.call.func)
    return not call.names(known.CHECKPOINTS) and name in module.analysis.top_level_names


def _may_unpack_the_option(module: Module, call: Call) -> bool:
    """`checkpoint(f, x, **kwargs)`, unless `f(x, **kwargs)` stands beside it: then they are arguments of `f`."""
    unpacked = _unpacked(call)
    if not unpacked:
        return False
    function = path_of(call.positional[0].expression)
    return function is None or not any(
        path_of(other.call.func) == function and unpacked <= _unpacked(other) for other in module.calls_in(call.scope)
    )


def _unpacked(call: Call) -> set[str | None]:
    return {path_of(argument.value) for argument in call.call.args if argument.star == "**"}


def _is_fallback(module: Module, call: Call) -> bool:
    """One of two branches, of which the other says it: a torch is in use that does not know the option."""
    if not call.guarded:
        return False
    if any("version" in name.lower() for name in conditions_around(call.scope.node, call.node)):
        return True
    return any(
        "use_reentrant" in other.keywords for other in module.calls_in(call.scope) if other.names(call.callee.quals)
    )


def _is_unsupported(module: Module, call: Call) -> bool:
    """A model of transformers that does not say it supports checkpointing: switching it on raises."""
    owner = call.scope.enclosing_class()
    if owner is None or not _asks_for(known.CHECKPOINTING_SWITCH, call):
        return False
    bases = module.analysis.base_names(owner.qualname)
    models = {base for base in bases if base.replace(":", ".").rpartition(".")[2] == known.TRANSFORMERS_MODEL}
    if not models or "?" in bases:
        return False
    classes = {owner.qualname, *bases} - models
    return all(known.SUPPORTS_CHECKPOINTING not in module.analysis.class_words(name) for name in classes)


def _asks_for(switch: str, call: Call) -> bool:
    return any(name.rpartition(".")[2] == switch for name in conditions_around(call.scope.node, call.node))
