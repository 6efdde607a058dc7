"""Which modules run at a call: itself, in functions of this file, in functions of other files."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

from memlint.semantics.events import Call
from memlint.semantics.module import Module
from memlint.semantics.paths import parameter_names, renamed
from memlint.semantics.scopes import Scope, path_of
from memlint.semantics.summaries import DIFFERENTIATING_WORDS, builds_a_graph, carrying
from memlint.semantics.values import Mode

__all__ = ["MOST_HELPERS", "Run", "builds_a_graph", "carrying", "differentiates_itself", "runs_at", "runs_through"]

MOST_HELPERS = 3


@dataclass(frozen=True, eq=False)
class Run:
    """A forward pass that builds a graph."""

    model: str | None
    """The model, as the code at the call names it."""
    call: Call | None
    """The call of the model; None where it stands in another file."""


def runs_at(call: Call) -> list[Run]:
    return [Run(path_of(call.call.func), call)] if builds_a_graph(call) else []


def runs_through(module: Module, call: Call, but: Set[Scope] = frozenset(), helpers: int = MOST_HELPERS) -> list[Run]:
    """The forward passes that a function makes when it is called here, building graphs; not those of `but`.

    `helpers`: through so many functions at most, the called one among them.
    """
    if call.is_forward or call.handler or call.mode in (Mode.OFF, Mode.UNKNOWN) or len(call.callee.quals) != 1:
        return []
    name = next(iter(call.callee.quals))
    if name.startswith("@"):
        return _runs_in_project(module, call, name)
    scope = module.analysis.scope_named(name)
    flow = module.flow_of(scope) if scope is not None and scope not in but else None
    if flow is None or not flow.has_forward or flow.has_backward or flow.has_step:
        return []
    if flow.scope.words_but_off & DIFFERENTIATING_WORDS or flow.scope.has_yield:
        return []
    runs = [run for inner in flow.calls for run in runs_at(inner) if inner.mode in (Mode.ENTRY, Mode.ON)]
    if not runs and helpers > 1:
        runs = [run for inner in flow.calls for run in runs_through(module, inner, but, helpers - 1)]
    names = parameter_names(flow.scope)
    bound = flow.scope.parent is not None and flow.scope.parent.is_class
    local = flow.scope.bound
    return [Run(renamed(run.model, call, names, bound=bound, local=local), run.call) for run in runs]


def differentiates_itself(module: Module, run: Run) -> bool:
    """Whether the forward of the model, in view, takes gradients: forces, penalties."""
    cls = run.call.callee.cls if run.call is not None else None
    if cls is None:
        return False
    method, view = module.analysis.method(cls, "forward"), module.analysis.view
    if method is not None:
        flow = module.flow_of(method)
        return flow is not None and flow.has_backward
    return view is not None and cls.startswith("@") and view.takes_gradients(cls)


def _runs_in_project(module: Module, call: Call, symbol: str) -> list[Run]:
    summary, view = call.summary, module.analysis.view
    if call.loop is None:
        return []  # the other file shows whether the function evaluates
    if summary is None or view is None or summary.has_backward or summary.has_step or summary.may_differentiate:
        return []
    owner = symbol.partition(":")[2].rpartition(".")[0]
    names = view.parameters(symbol)
    if owner:
        names = ("self", *names)
    return [Run(renamed(path, call, names, bound=bool(owner), local=frozenset()), None) for path in summary.forwards]
