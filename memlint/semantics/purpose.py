"""Functions that run a model for what it gives, as their name says, and their callers or the functions beside them."""

from __future__ import annotations

from collections.abc import Iterator, Set

from memlint.semantics.events import Call
from memlint.semantics.flow import Flow
from memlint.semantics.knowledge import torch as known
from memlint.semantics.module import Module
from memlint.semantics.naming import EVALUATION_WORDS, words_of
from memlint.semantics.questions import ResultNotDifferentiated
from memlint.semantics.scopes import Scope
from memlint.semantics.summaries import DIFFERENTIATING_WORDS
from memlint.semantics.values import Mode

# What is named so is called for what it gives: texts, images, sounds, scores, vectors.
_INFERRING_WORDS = EVALUATION_WORDS | frozenset(
    """sample sampling generate generation transcribe transcription translate translation synthesize synthesise
    synthesis embed embedding embeddings encode decode extract features score scores rank reconstruct interpolate
    denoise caption""".split()
)
# `sample_and_log_prob`, `train_by_sampling`: what they give is learned from.
_LEARNING_WORDS = frozenset(
    """train training loss losses step log logp prob probs probability likelihood gradient gradients grad negative
    negatives noise rsample adversarial attack dim shape size""".split()
)
# Functions that a trainer calls with grad on, whatever they are named like.
CALLED_IN_TRAINING = frozenset({"forward", "__call__", "training_step", "loss", "compute_loss", "__init__"})
_WORDS_OF_TRAINING = (
    known.BACKWARD_METHODS | DIFFERENTIATING_WORDS | {"loss", "losses", "optimizer", "optim", "criterion", "zero_grad"}
)
_MOST_CALLERS = 20


def is_inference(flow: Flow) -> bool:
    """A function that trains nothing, named for what it gives."""
    words = words_of(flow.scope.name)
    trains = flow.has_backward or flow.has_step or flow.scope.words & _WORDS_OF_TRAINING
    return not (words.isdisjoint(_INFERRING_WORDS) or words & _LEARNING_WORDS or trains)


def by_purpose(module: Module, flow: Flow, call: Call) -> str | None:
    """A function named for what it gives, with which nobody in view trains.

    One beside it runs its models with grad off: whoever wrote that did not leave it to the callers. Or it returns the
    output, is no method of a model, and each caller takes what it needs from that and hands nothing on.
    """
    scope = flow.scope
    if not is_inference(flow) or module.is_test_file or scope.parent is None:
        return None
    beside = (inner for inner in scope.parent.children if inner is not scope and inner.is_function)
    sibling = next((inner for inner in beside if _switches_off(module, inner)), None)
    is_returned = call.root in flow.return_roots and not _is_method_of_model(module, scope)
    if not (sibling or is_returned) or _may_be_trained_with(module, scope):
        return None
    if sibling is not None:
        return f"`{sibling.name}` beside it runs with grad off"
    is_unused = module.answer(ResultNotDifferentiated(scope.qualname))
    return f"nobody differentiates what `{scope.name}` gives" if is_unused else None


def _is_method_of_model(module: Module, scope: Scope) -> bool:
    """A layer of its own forward, maybe, or called below somebody's `no_grad`."""
    owner = scope.enclosing_class()
    return owner is not None and module.analysis.is_module_class(owner.qualname)


def _may_be_trained_with(module: Module, scope: Scope) -> bool:
    """Whether a caller trains; or somebody out of view calls it, where it has a private name and none in view does."""
    called = False
    for callers, (name, around) in enumerate(_callers(module, scope)):
        called = True
        is_training = name in CALLED_IN_TRAINING or not words_of(name).isdisjoint(_LEARNING_WORDS)
        if is_training or around & _WORDS_OF_TRAINING or callers > _MOST_CALLERS:
            return True
    return not called and scope.name.startswith("_")


def _switches_off(module: Module, scope: Scope) -> bool:
    flow = module.flow_of(scope)
    if flow is None or not is_inference(flow):
        return False
    modes = {call.mode for call in flow.calls if call.is_forward}
    return modes == {Mode.OFF}


def _callers(module: Module, scope: Scope) -> Iterator[tuple[str, Set[str]]]:
    """The functions that call it, or a method of its name: their names, and the words in them."""
    qualname, view = scope.qualname, module.analysis.view
    for call in module.calls:
        is_alike = call.method == scope.name and not call.callee.quals
        if call.scope is not scope and (qualname in call.callee.quals or is_alike):
            yield call.scope.name, call.scope.words
    if view is not None:
        for site in view.sites(qualname) or ():
            yield site.caller.rpartition(":")[2].rpartition(".")[2], view.words_around(site)
