"""Forward passes, in a training step, of models that nobody trains and nobody froze (catalogue, section 7c, item 5)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import libcst as cst

from memlint.semantics.detached_outputs import is_frozen_elsewhere, may_be_frozen
from memlint.semantics.events import Call
from memlint.semantics.knowledge import torch as torch_known
from memlint.semantics.knowledge import training as known
from memlint.semantics.module import Module
from memlint.semantics.naming import words_of
from memlint.semantics.ownership import Home, Standing, home_of, optimizers, standing
from memlint.semantics.questions import GradOnEntry
from memlint.semantics.scopes import path_of, walk
from memlint.semantics.values import Mode


@dataclass(frozen=True, eq=False)
class UntrainedForward:
    """A model that no optimizer owns runs with grad on, and the loss is differentiated through it."""

    call: Call
    path: str
    standing: Standing
    has_role: bool
    """Its name says that it is not trained: teacher, target, reference."""
    passes_gradient: bool
    """Its input carries a graph: the gradient has to pass through the model, so grad cannot be switched off."""
    is_reference: bool
    """It is given beside the policy that is trained, for the same inputs, and nothing in view freezes it."""


def untrained_forwards(module: Module) -> Iterator[UntrainedForward]:
    """The first such forward pass of each model."""
    if module.words.isdisjoint(torch_known.BACKWARD_METHODS | known.DIFFERENTIATED_RESULTS.keys()):
        return
    is_trained_here = bool(optimizers(module)) or not module.words.isdisjoint(known.DIFFERENTIATED_RESULTS)
    seen: set[Home] = set()
    for call in module.calls:
        if not _may_run_a_model(module, call) or not _is_differentiated(module, call):
            continue
        path, home = _model_of(call)
        if not (is_trained_here or _is_reference_name(path)):
            continue
        if home is None or home in seen or not _is_complete(module, home) or _is_anybodys(module, home):
            continue
        found = standing(module, home)
        is_reference = _is_reference(module, call, path, found)
        if not found.is_open and (is_trained_here or is_reference):
            seen.add(home)
            yield UntrainedForward(
                call, path, found, _has_role(path), not is_reference and _passes_gradient(call), is_reference
            )


@dataclass(frozen=True, eq=False)
class AveragedCopy:
    """`self.ema_model = copy.deepcopy(model)`: weights that are averages, of which nobody says that they are."""

    built: Call
    path: str
    forward: Call
    """Where it runs with grad on, for whoever calls that."""


def averaged_copies(module: Module) -> Iterator[AveragedCopy]:
    """Copies that a class keeps up to date by hand, runs for its callers, and never freezes."""
    if "deepcopy" not in module.words or may_be_frozen(module.words) or optimizers(module):
        return
    for call in module.calls_of(_DEEP_COPIES):
        home, path = _kept_copy(call)
        if home is None or words_of(home.name).isdisjoint(known.AVERAGED_WORDS) or not _is_updated(module, home):
            continue
        forward = next((item for item in module.calls if _hands_out(module, item, home, path)), None)
        if forward is not None and not is_frozen_elsewhere(module, call):
            yield AveragedCopy(call, path, forward)


_DEEP_COPIES = frozenset({"copy.deepcopy"})


def _kept_copy(call: Call) -> tuple[Home | None, str]:
    statement = call.statement
    if not isinstance(statement, cst.Assign) or len(statement.targets) != 1 or statement.value is not call.node:
        return None, ""
    path = path_of(statement.targets[0].target) or ""
    home = home_of(call.scope, path) if path.startswith("self.") else None
    return home, path


def _is_updated(module: Module, home: Home) -> bool:
    """Its class goes through its parameters, or gives it to a method that does."""
    attribute = f"self.{home.name}"
    scopes = [home.scope, *home.scope.descendants()]
    if any(not _ALL_OF.isdisjoint(scope.methods_called.get(attribute, ())) for scope in scopes):
        return True
    return any(
        any(path_of(argument.expression) == attribute for argument in call.positional)
        and call.callee.quals
        and all(qual.startswith(":") for qual in call.callee.quals)
        for scope in scopes
        for call in module.calls_in(scope)
    )


_ALL_OF = frozenset({"parameters", "named_parameters", "state_dict"})


def _hands_out(module: Module, call: Call, home: Home, path: str) -> bool:
    """`return self.ema_model(x)` in `forward` or `__call__`, in the grad mode of the caller."""
    if path_of(call.call.func) != path or call.scope.name not in ("forward", "__call__"):
        return False
    if call.mode not in (Mode.ON, Mode.ENTRY) or call.scope.parent is not home.scope:
        return False
    return call.mode is Mode.ON or module.answer(GradOnEntry(call.scope.qualname))


def _may_run_a_model(module: Module, call: Call) -> bool:
    """The call of a model, or of something out of view that may be one, or of a method that may run it.

    That the result is differentiated shows that grad mode is on, at least for some caller.
    """
    if call.mode not in (Mode.ON, Mode.ENTRY) or call.callee.mode is not None or call.handler:
        return False
    path = path_of(call.call.func)
    if path is None or not (call.is_forward or call.root in module.analysis.unseen):
        return False
    names = path.split(".")
    if not module.once(_names_in_optimizers).isdisjoint(names):
        return False
    return (
        call.is_forward
        or any(_has_role(name) for name in names[-2:])
        or not module.once(_names_of_models).isdisjoint(names)
    )


def _names_in_optimizers(module: Module) -> frozenset[str]:
    """`net` of `Adam(self.net.parameters())`: the last names before `parameters`."""
    names = set()
    for optimizer in optimizers(module):
        for node in walk(optimizer.parameters) if optimizer.parameters is not None else ():
            path = path_of(node) if isinstance(node, cst.Attribute) else None
            if path is not None and path.endswith((".parameters", ".named_parameters")):
                names.add(path.split(".")[-2])
    return frozenset(names - {"self"})


def _names_of_models(module: Module) -> frozenset[str]:
    """The last names of paths on which a method is called that tells a model: worth asking what becomes of them."""
    return frozenset(
        path.rpartition(".")[2]
        for scope in module.scopes
        for path, methods in scope.methods_called.items()
        if not methods.isdisjoint({"eval", "load_state_dict"})
    )


def _model_of(call: Call) -> tuple[str, Home | None]:
    """`teacher(x)`, `teacher.forward(x)`, `teacher.module(x)`, `teacher.encode(x)`."""
    path = path_of(call.call.func) or ""
    owner = path.rpartition(".")[0].removesuffix(".module")
    home = home_of(call.scope, path.removesuffix(".module")) if path and not call.callee.quals else None
    if home is None and owner and (call.receiver is None or not call.receiver.quals):
        return owner, home_of(call.scope, owner)
    return path.removesuffix(".module"), home


def _is_differentiated(module: Module, call: Call) -> bool:
    """Whether a backward pass reaches the output's graph, here or in the framework that the result is returned to."""
    if call.root in module.analysis.differentiated:
        return True
    frameworks = known.DIFFERENTIATED_RESULTS.get(call.scope.name)
    flow, owner = module.flow_of(call.scope), call.scope.parent
    if frameworks is None or flow is None or owner is None or not owner.is_class:
        return False
    return call.root in flow.return_roots and bool(module.analysis.base_names(owner.qualname) & frameworks)


def _is_complete(module: Module, home: Home) -> bool:
    """Whether all that could own its parameters is in view.

    A part of a module is trained by whoever trains the whole: only its own class can say who that is.
    """
    if not home.is_attribute or not module.analysis.is_module_class(home.scope.qualname):
        return True
    inside = [item for item in optimizers(module) if item.call.scope.enclosing_class() is home.scope]
    whole = {"parameters", "named_parameters"}
    own = any(not whole.isdisjoint(inner.methods_called.get("self", ())) for inner in home.scope.descendants())
    return bool(inside) and not own


def _is_anybodys(module: Module, home: Home) -> bool:
    """A parameter that no call in view gives, and no name tells."""
    if not home.is_parameter or _has_role(home.name):
        return False
    scope = home.scope
    owner = scope.parent.qualname if scope.name == "__init__" and scope.parent is not None else scope.qualname
    return not module.calls_of(frozenset({owner}))


def _is_reference_name(path: str) -> bool:
    """`reference_model`, `ref_policy`: what a preference loss compares the policy with. No `reference_encoder`."""
    words = words_of(path.rpartition(".")[2])
    return not words.isdisjoint(known.REFERENCE_WORDS) and words <= known.REFERENCE_WORDS | known.POLICY_WORDS


def _is_reference(module: Module, call: Call, path: str, found: Standing) -> bool:
    """Whether nobody trains it, though the optimizer is out of view: only the policy is put into training mode."""
    if not _is_reference_name(path) or not found.unseen or found.trains or may_be_frozen(module.words):
        return False
    stepped = {name for scope in module.scopes for name, methods in scope.methods_called.items() if "step" in methods}
    if len(stepped) > 1 or _gets_outputs(module, call) or not _runs_beside_the_policy(module, call):
        return False
    view, mentioned = module.analysis.view, {unseen.parameter for unseen in found.unseen}
    for unseen in found.unseen:
        name = unseen.function.rpartition(":")[2].removesuffix(".__init__")
        mentioned.add(name.rpartition(".")[2])
    return view is None or all(view.some_file_has(known.FREEZING_TEXTS, name) is False for name in mentioned)


def _gets_outputs(module: Module, call: Call) -> bool:
    """Whether its inputs come out of a model in view."""
    arguments = (*call.positional, *call.keywords.values())
    return any(module.analysis.roots[root].is_forward for argument in arguments for root in argument.value.roots)


def _runs_beside_the_policy(module: Module, call: Call) -> bool:
    """Whether a model that is put into training mode gets the same inputs, and the backward pass goes through it."""
    flow = module.flow_of(call.scope)
    inputs = [module.text(argument) for argument in call.call.args]
    for other in flow.calls if flow is not None else ():
        if other.is_forward and [module.text(argument) for argument in other.call.args] == inputs:
            path, home = _model_of(other)
            trains = home is not None and not _has_role(path) and standing(module, home).trains
            if trains and _is_differentiated(module, other):
                return True
    return False


def _has_role(path: str) -> bool:
    return not words_of(path.rpartition(".")[2]).isdisjoint(known.FROZEN_ROLES)


def _passes_gradient(call: Call) -> bool:
    return any(argument.value.carries_graph for argument in (*call.positional, *call.keywords.values()))
