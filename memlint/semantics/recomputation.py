"""Activation checkpointing: activations that are computed again in the backward pass instead of kept."""

from __future__ import annotations

from collections.abc import Iterator

from memlint.semantics.blocks import conditions_around
from memlint.semantics.events import Call
from memlint.semantics.knowledge import training as known
from memlint.semantics.module import Module
from memlint.semantics.values import Mode


def reentrant_by_default(module: Module) -> Iterator[Call]:
    """The calls of `checkpoint` and `checkpoint_sequential` that do not say which variant is meant."""
    if "checkpoint" not in module.words and "checkpoint_sequential" not in module.words:
        return
    if module.target_torch is not None and module.target_torch < known.NOT_REENTRANT_SINCE:
        return
    for call in module.calls_of(known.CHECKPOINTS):
        if call.mode is Mode.OFF or call.handler or "use_reentrant" in call.keywords or not call.positional:
            continue
        if any(argument.star == "**" for argument in call.call.args):
            continue  # the option may be among them
        if not _is_fallback(module, call) and not _is_unsupported(module, call):
            yield call


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
