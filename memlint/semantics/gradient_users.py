"""Who may differentiate what a model gives: the function, the model itself, code out of view."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from memlint.semantics.events import Call, Loop
from memlint.semantics.flow import Flow
from memlint.semantics.forwards import Run, differentiates_itself
from memlint.semantics.freezing import frozen_paths
from memlint.semantics.knowledge import torch as known
from memlint.semantics.module import Module
from memlint.semantics.naming import words_of
from memlint.semantics.output_takers import TEST_WORDS, watches
from memlint.semantics.paths import head_of
from memlint.semantics.scopes import NODES_REMEMBERED, Scope, path_of
from memlint.semantics.summaries import DIFFERENTIATING_WORDS
from memlint.semantics.values import Kind, Value

# What takes gradients with respect to the input says so.
_ATTACK_WORDS = frozenset(
    """attack attacks attacker adversarial adv perturb perturbation perturbed pgd fgsm saliency gradcam cam explain
    explainer explanation attribution attributions grad gradient gradients adapt tent""".split()
)
_LEARNING_WORDS = frozenset({"adapt", "learn", "finetune", "optimize", "optimise", "backprop"})


def differentiates(module: Module, flow: Flow, call: Call, runs: Sequence[Run]) -> bool:
    """Whether something here differentiates, or may: the function, the model's forward, what learns from outputs.

    Or the model may have no graph: what the function freezes by a global name may be the model that it is given.
    """
    scope = flow.scope
    if scope.words_but_off & DIFFERENTIATING_WORDS or call.root in module.analysis.differentiated:
        return True
    if any(head_of(path) not in scope.bound | {"self"} for path in frozen_paths(scope)):
        return True
    return scope in module.once(_adapting) or any(differentiates_itself(module, run) for run in runs)


def somebody_may_differentiate(flow: Flow, loop: Loop | None, forward: Call) -> bool:
    """Whether code out of view gets the model, or the output together with the input: what an attack needs.

    Or whoever calls the function gets what a policy gradient needs.
    """
    if _returns_densities_of_samples(flow, forward):
        return True
    given = _given_out_of_view(flow)
    if loop in given.models:
        return True
    inputs = frozenset().union(*(argument.value.idents for argument in forward.positional))
    for call in given.by_root.get(forward.root, ()):
        if loop is not None and loop not in loops_around(call):
            continue
        values = _given(call)
        gets_output = any(forward.root in value.roots and not value.idents & inputs for value in values)
        if gets_output and any(value.idents & inputs for value in values) and not _evaluates(flow, loop, call):
            return True
    return False


class _GivenOutOfView(NamedTuple):
    """What a function gives to code out of view, which may differentiate it."""

    models: frozenset[Loop | None]
    """The loops in which that code is given a module; None: anywhere in the function."""
    by_root: dict[int, list[Call]]
    """Definition -> the calls that are given it, but for those that only watch."""


@lru_cache(maxsize=NODES_REMEMBERED)
def _given_out_of_view(flow: Flow) -> _GivenOutOfView:
    models: set[Loop | None] = set()
    by_root: dict[int, list[Call]] = {}
    for call in flow.calls:
        if not _is_out_of_view(flow, call):
            continue
        values = _given(call)
        if any(value.kind is Kind.MODULE for value in values):
            models.update((None, *loops_around(call)))
        elif not watches(call):
            for root in frozenset().union(*(value.roots for value in values)):
                by_root.setdefault(root, []).append(call)
    return _GivenOutOfView(frozenset(models), by_root)


def _is_out_of_view(flow: Flow, call: Call) -> bool:
    if call.is_forward or call.callee.kind is Kind.MODULE or call.names(known.EXPORTING_FUNCTIONS):
        return False
    return call.root in flow.analysis.unseen and call.root not in flow.analysis.losses


def _given(call: Call) -> list[Value]:
    return [argument.value for argument in (*call.positional, *call.keywords.values())]


def _evaluates(flow: Flow, loop: Loop | None, call: Call) -> bool:
    """`vae_loss(reconstructed, x)` for each batch of a loader, in a function called `test`: no attack, by the names."""
    path = path_of(call.call.func) or ""
    words = words_of(flow.scope.name) | words_of(path.rpartition(".")[2])
    is_evaluation = not words_of(flow.scope.name).isdisjoint(TEST_WORDS) and words.isdisjoint(_ATTACK_WORDS)
    return is_evaluation and loop is not None and loop.is_batch_loop


def _returns_densities_of_samples(flow: Flow, forward: Call) -> bool:
    """It samples from the output, and returns the log-probabilities with their graph."""
    samples = not known.SAMPLING_METHODS.isdisjoint(flow.scope.words)
    return samples and any(
        call.method == "log_prob" and call.root in flow.return_roots and forward.root in flow.all_roots(call.result)
        for call in flow.calls
    )


def _adapting(module: Module) -> frozenset[Scope]:
    """The functions in which something learns from what a model gives, be they tests: `learner.adapt(loss)`."""
    return frozenset(flow.scope for flow in module.flows if any(_learns_from_output(flow, call) for call in flow.calls))


def _learns_from_output(flow: Flow, call: Call) -> bool:
    if words_of(call.method or "").isdisjoint(_LEARNING_WORDS):
        return False
    return any(flow.analysis.roots[root].is_forward for value in _given(call) for root in flow.all_roots(value))


def holder_gets(flow: Flow, forward: Call, runs: Sequence[Run]) -> bool:
    """Whether the object that holds the model is called with its output: `explainer(label, explainer.model(x))`."""
    holders = {run.model.rpartition(".")[0] for run in runs if run.model is not None} - {"", "self"}
    return bool(holders) and any(
        path_of(call.call.func) in holders and any(forward.root in value.roots for value in _given(call))
        for call in flow.calls
    )


def loops_around(call: Call) -> Sequence[Loop]:
    return call.loop.outer() if call.loop is not None else ()
