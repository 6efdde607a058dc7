"""Who gets the output of a forward pass: what measures, shows or saves it, what keeps it."""

from __future__ import annotations

from memlint.semantics.events import Call, Loop
from memlint.semantics.flow import Flow
from memlint.semantics.loaders import is_named_loader
from memlint.semantics.module import Module
from memlint.semantics.naming import words_of
from memlint.semantics.scopes import path_of

# A function so named evaluates; one called `predict` may also run in training.
TEST_WORDS = frozenset("val valid validate validation eval evaluate evaluation test testing".split())
# What is named so looks at an output: metrics, plots, files.
_WATCHING_WORDS = frozenset(
    """metric metrics meter meters measure measurer evaluator evaluate eval accuracy acc score scores psnr ssim lpips
    iou miou dice auc auroc f1 precision recall mae mse rmse error errors confusion perplexity bleu wer cer visualize
    visualizer visualise vis plot draw show imshow display save write writer log logger summary image images imwrite
    print check stats statistics topk rank ranking nms suppression postprocess postprocessing""".split()
)
# `memory.log_probs.append(...)`: what `memory` is nobody knows.
_PUTTING_METHODS = frozenset({"append", "extend", "insert", "appendleft"})


def goes_to_watchers(module: Module, flow: Flow, loop: Loop | None, call: Call) -> bool:
    """Whether all that the output is handed to, in code out of view, measures, shows or saves it, by its name.

    In a loop over the batches of a loader, in a function called `test`, whatever it is called.
    """
    analysis = module.analysis
    if call.root in analysis.shared or flow.scope.has_yield:
        return False
    if loop is not None and words_of(flow.scope.name) & TEST_WORDS and _goes_over_batches(module, loop):
        return True
    if call.root in flow.return_roots:
        return False
    takers = [
        other
        for other in flow.calls
        if other is not call
        and other.root in analysis.unseen
        and other.root not in analysis.losses
        and any(call.root in flow.all_roots(item.value) for item in (*other.positional, *other.keywords.values()))
    ]
    return bool(takers) and all(watches(other) for other in takers)


def _goes_over_batches(module: Module, loop: Loop) -> bool:
    is_named = loop.iterable is not None and is_named_loader(module, loop.iterable, loop.iterates)
    return loop.draws_from_loader or is_named


def watches(call: Call) -> bool:
    """`metric.update(out, y)`, `utils.accuracy(out, y)`, `save_image(out)`."""
    path = path_of(call.call.func)
    return path is not None and any(not words_of(name).isdisjoint(_WATCHING_WORDS) for name in path.split(".")[-2:])


def is_put_away(module: Module, flow: Flow, call: Call) -> bool:
    """Whether the output is put, with its graph, into a container that outlives the function, or may."""
    stored = any(
        store.in_object or any(module.box(box).in_object or module.box(box).escaped for box in store.boxes)
        for store in flow.stores
        if store.value.carries_graph and call.root in store.value.roots
    )
    return stored or any(
        call.root in argument.value.roots
        for other in flow.calls
        if other.method in _PUTTING_METHODS and other.receiver is not None and not other.receiver.boxes
        for argument in other.positional
    )


def graph_leaves(module: Module, flow: Flow, call: Call) -> bool:
    """Whether the output, or anything computed from it, leaves with its graph."""
    analysis = module.analysis
    root = call.root
    return root in analysis.escaped or root in analysis.shared or root in flow.return_roots
