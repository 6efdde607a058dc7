"""What the rules on retained graphs share: the story, the cost and the fix of a retention."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memlint.linting.edits import InsertAfter
from memlint.linting.finding import Confidence, Cost, CostClass
from memlint.linting.rule import FixDraft, safe_fix, unsafe_fix
from memlint.semantics.module import Module
from memlint.semantics.retention import Kept, Retention

if TYPE_CHECKING:
    import libcst as cst

_STORIES = {
    Kept.NODES: "backward has freed its activations, its graph nodes pile up in host memory",
    Kept.NO_BACKWARD: "no backward pass frees it, so all its activations stay on the device",
    Kept.OTHER_BRANCH: "no backward pass goes through it, so its activations stay on the device",
    Kept.RETAINED: "the backward pass retains the graph, so all its activations stay on the device",
    Kept.SKIPPED: "an iteration that skips backward leaves all its activations on the device",
}


def retained_names(module: Module, retention: Retention) -> str:
    """The expressions whose graph is kept, quoted."""
    nodes = [node for node, _ in retention.store.carriers] or [retention.store.value_node]
    return ", ".join(dict.fromkeys(f"`{module.text(node)}`" for node in nodes))


def retained_story(module: Module, retention: Retention) -> tuple[str, list[tuple[cst.CSTNode, str]]]:
    """What stays alive, and the places that show why."""
    value = retention.store.value
    forwards = module.graph_sources(value)
    makers = [node for node in module.definitions(value) if node is not retention.store.value_node]
    shown = [*makers[:2], *(node for node in forwards[-1:] if node not in makers)]
    related = [(node, f"the graph comes from `{module.text(node, 40)}`") for node in shown]
    backward = module.first_backward_over(value.roots)
    if backward is not None and retention.kept is not Kept.OTHER_BRANCH:
        related.append((backward.node, "backward runs here"))
    return _STORIES[retention.kept], related


def retained_cost(retention: Retention) -> Cost:
    if retention.kept is Kept.NODES:
        return Cost(CostClass.GROWS_ON_HOST, "N x graph nodes x about 0.7 kB")
    return Cost(CostClass.GROWS_ON_DEVICE, "N x A")


def retained_confidence(retention: Retention) -> Confidence:
    return Confidence.MEDIUM if retention.weak else Confidence.HIGH


def retained_fix(retention: Retention) -> FixDraft | None:
    if not retention.store.carriers or not (retention.proven_tensor and not retention.escapes):
        return unsafe_retained_fix(retention)
    edits = [InsertAfter(node, ".detach()") for node, _ in retention.store.carriers]
    return safe_fix("detach it from its graph", *edits)


def unsafe_retained_fix(retention: Retention) -> FixDraft | None:
    if not retention.store.carriers:
        return None
    edits = [InsertAfter(node, ".detach()") for node, _ in retention.store.carriers]
    return unsafe_fix("detach it from its graph", *edits)
