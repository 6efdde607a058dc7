"""Which models are in eval mode when they run: by the function itself, by their object, by its callers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import libcst as cst

from memlint.semantics.events import Call, Loop
from memlint.semantics.forwards import Run
from memlint.semantics.module import Module
from memlint.semantics.naming import words_of
from memlint.semantics.paths import parameter_names, renamed
from memlint.semantics.questions import Question, ResultNotDifferentiated
from memlint.semantics.scopes import Scope

_BUILDING_WORDS = frozenset(
    """init load restore build create make setup set prepare initialize initialise define model models network
    networks""".split()
)
_MAX_CALLERS = 20


@dataclass(frozen=True)
class Evidence:
    """What says that a model is in eval mode when it runs."""

    text: str
    strong: bool
    """It is said where the model runs."""
    asks: frozenset[Question] = frozenset()
    """What else must hold where the output leaves the function."""
    by_object: bool = False
    """The class of the object says it, which differentiates nothing: what it keeps in its attributes it only reads."""

    @property
    def said_of_object(self) -> bool:
        """By the function, or by the class: not by callers, who may have another model in mind."""
        return self.strong or self.by_object


def eval_evidence(module: Module, scope: Scope, loop: Loop | None, call: Call, runs: Sequence[Run]) -> Evidence | None:
    models = [run.model for run in runs if run.model is not None]
    flow = module.flow_of(scope)
    trains = flow is not None and (flow.has_backward or flow.has_step)
    for model in models:
        found = module.put_into_eval(scope, loop, model, before=call)
        # An epoch that trains and then evaluates ends in eval mode, too: both must hold, where it runs and at the end.
        if found is not None and (loop is None or module.put_into_eval(scope, loop, model) is not None):
            return Evidence(f"`{found}.eval()` was called", strong=True)
    if trains or not scope.is_function:
        return None
    for model in models:
        evidence = _by_object(module, scope, model) or _by_callers(module, scope, loop, model)
        if evidence is not None:
            return evidence
    return None


def _by_object(module: Module, scope: Scope, model: str) -> Evidence | None:
    """`self.net.eval()` in the constructor of a class that trains nowhere."""
    owner = scope.enclosing_class()
    if owner is None or not model.startswith("self.") or module.analysis.is_module_class(owner.qualname):
        return None
    flows = [module.flow_of(inner) for inner in owner.children if inner.is_function]
    if any(flow is None or flow.has_backward or flow.has_step for flow in flows):
        return None
    if any("train" in inner.methods_called.get(model, ()) for inner in owner.children):
        return None
    for inner in owner.children:
        if inner.is_function and not words_of(inner.name).isdisjoint(_BUILDING_WORDS):
            found = module.put_into_eval(inner, None, model)
            if found is not None:
                asks = frozenset({ResultNotDifferentiated(scope.qualname)})
                said = f"`{found}.eval()` was called in `{inner.name}`"
                return Evidence(said, strong=False, asks=asks, by_object=True)
    return None


def _by_callers(module: Module, scope: Scope, loop: Loop | None, model: str) -> Evidence | None:
    """Whoever calls the function has put the model into eval mode."""
    node, name = scope.node, scope.qualname
    if not isinstance(node, cst.FunctionDef) or name in module.analysis.handed_over:
        return None
    names = parameter_names(scope)
    bound = scope.parent is not None and scope.parent.is_class
    if loop is None or model.partition(".")[0] not in names:
        return None  # without a loop of its own, the caller's code is where it is evaluated
    evidence: list[str] = []
    for call in module.calls_of(frozenset({name})):
        path = renamed(model, call, names, bound=bound, local=frozenset())
        found = module.put_into_eval(call.scope, None, path, before=call) if path is not None else None
        if found is None:
            return None
        evidence.append(found)
    view = module.analysis.view
    if view is not None and (evidence or (loop.is_batch_loop and not loop.runs_layers)):
        for index, site in enumerate(view.sites(name) or ()):
            found = view.puts_into_eval(site, model, names, bound)
            if found is None or index > _MAX_CALLERS:
                return None
            evidence.append(found)
    if not evidence:
        return None
    asks = frozenset({ResultNotDifferentiated(name)})
    return Evidence(f"`{evidence[0]}.eval()` was called before `{scope.name}`", strong=False, asks=asks)
