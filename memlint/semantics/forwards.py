"""Which modules run at a call: itself, in functions of this file, in functions of other files."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from enum import Enum

from memlint.semantics.callers import GRADIENT_WORDS
from memlint.semantics.events import Call
from memlint.semantics.held_models import item_path
from memlint.semantics.knowledge import models as known
from memlint.semantics.knowledge import torch as torch_known
from memlint.semantics.module import Module
from memlint.semantics.naming import is_model_name, words_of
from memlint.semantics.paths import parameter_names, renamed
from memlint.semantics.scopes import Scope, path_of
from memlint.semantics.summaries import DIFFERENTIATING_WORDS, builds_a_graph, carrying
from memlint.semantics.values import Kind, Mode, Value

__all__ = [
    "MOST_HELPERS",
    "Builds",
    "Run",
    "builds",
    "builds_a_graph",
    "carrying",
    "differentiates_itself",
    "may_build",
    "method_runs_at",
    "runs_at",
    "runs_through",
]

MOST_HELPERS = 3


@dataclass(frozen=True, eq=False)
class Run:
    """A forward pass that builds a graph."""

    model: str | None
    """The model, as the code at the call names it."""
    call: Call | None
    """The call of the model; None where it stands in another file."""
    is_method: bool = False
    """A method of the model, out of view, is called: that it builds a graph is no more than likely."""


def runs_at(call: Call) -> list[Run]:
    return [Run(item_path(call.call.func), call)] if builds_a_graph(call) else []


def method_runs_at(module: Module, call: Call) -> list[Run]:
    """`model.render(rays)`, `net.encode(x)`: a method out of view, of a model, that switches grad off nowhere.

    Or the call of something of unknown kind, by whose name it is a model: `auto.decoder(z)`.
    """
    if call.handler or call.mode in (Mode.OFF, Mode.UNKNOWN) or call.callee.quals or call.callee.mode is Mode.OFF:
        return []
    if call.root not in module.analysis.unseen or not (call.positional or call.keywords):
        return []
    path = path_of(call.call.func)
    if path is None or not module.words.isdisjoint(known.CLASSES_WITHOUT_GRAD):
        return []
    owner, _, name = path.rpartition(".")
    is_part = name.rstrip("0123456789_") in torch_known.PARTS_OF_MODELS | torch_known.MODEL_NAMES
    if is_part or _is_loaded_model(call, call.callee, path):
        return [Run(path, call, is_method=True)]
    is_model = owner not in ("", "self") and _is_model(call, owner)
    return [Run(owner, call, is_method=True)] if is_model and may_build(name) else []


def _is_model(call: Call, path: str) -> bool:
    receiver = call.receiver
    if receiver is None or receiver.mode is Mode.OFF or receiver.quals:
        return False
    if receiver.kind is Kind.MODULE:
        return receiver.cls is None or receiver.cls.startswith((":", "@"))
    name = path.rpartition(".")[2]
    # An `encoder` of text or labels has methods too; it is a network where it is called.
    is_named = receiver.kind is Kind.UNKNOWN and is_model_name(name) and "encoder" not in words_of(name)
    return is_named or _is_loaded_model(call, receiver, path)


def _is_loaded_model(call: Call, value: Value, path: str) -> bool:
    """`net = torch.load(path)["model"]`, `net.eval()`."""
    return value.kind is Kind.STATE and "eval" in call.scope.methods_called.get(path, ())


def may_build(method: str) -> bool:
    """Whether a model's method of this name may run its layers, and not only look at it, move, load or change it."""
    words = words_of(method)
    runs = not words.isdisjoint(known.METHODS_THAT_RUN)
    return not (words & known.METHODS_THAT_LOOK or (words & known.METHODS_THAT_MAY_LOOK and not runs))


class Builds(Enum):
    """What is known of a method of a model: does it run layers in its caller's grad mode?"""

    NO = "no"
    """It switches grad off, or differentiates itself."""
    OPEN = "open"
    LIKELY = "likely"
    """Methods so named do (`encode`; not `generate`, `predict`), or none of the project's speaks of gradients."""
    YES = "yes"
    """This file has such a method, which does not speak of gradients, or a library that everybody uses."""


def builds(module: Module, method: str) -> Builds:
    here = [scope for scope in module.scopes if scope.name == method]
    if any(scope.words_within & GRADIENT_WORDS for scope in here):
        return Builds.NO
    view = module.analysis.view
    speaks = view.mentions_gradients(method) if view is not None else None
    if speaks:
        return Builds.NO
    if method in known.METHODS_KNOWN_TO_RUN or any(_is_method(scope) for scope in here):
        return Builds.YES
    is_likely = speaks is False or not words_of(method).isdisjoint(known.METHODS_THAT_RUN)
    return Builds.LIKELY if is_likely else Builds.OPEN


def _is_method(scope: Scope) -> bool:
    return scope.parent is not None and scope.parent.is_class


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
    models = [renamed(run.model, call, names, bound=bound, local=local) for run in runs]
    named = [Run(model, run.call) for model, run in zip(models, runs, strict=True)]
    return [run for run in named if run.model is None or not module.analysis.is_frozen(call.scope, run.model)]


def differentiates_itself(module: Module, run: Run) -> bool:
    """Whether the forward of the model, in view, takes gradients: forces, penalties."""
    cls = run.call.callee.cls if run.call is not None else None
    if cls is None:
        is_attribute = run.model is not None and run.model.startswith("self.")
        return is_attribute and module.once(_some_forward_differentiates)
    method, view = module.analysis.method(cls, "forward"), module.analysis.view
    if method is not None:
        flow = module.flow_of(method)
        return flow is not None and flow.has_backward
    return view is not None and cls.startswith("@") and view.takes_gradients(cls)


def _some_forward_differentiates(module: Module) -> bool:
    """Whether the forward of a module class of the file takes gradients: an attribute of unknown class may be one."""
    return any(
        scope.name == "forward" and (flow := module.flow_of(scope)) is not None and flow.has_backward
        for scope in module.scopes
        if scope.parent is not None and scope.parent.is_class and module.analysis.is_module_class(scope.parent.qualname)
    )


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
