"""What becomes of an output in a function says that nobody differentiates it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import libcst as cst

from memlint.semantics.events import Call, Loop
from memlint.semantics.flow import Flow
from memlint.semantics.forwards import Run
from memlint.semantics.graph_ends import Ends
from memlint.semantics.kept_outputs import is_kept_as_data
from memlint.semantics.knowledge import torch as known
from memlint.semantics.module import Module
from memlint.semantics.naming import EVALUATION_WORDS, words_of
from memlint.semantics.output_takers import TEST_WORDS, goes_to_watchers, graph_leaves, is_put_away
from memlint.semantics.scopes import Scope, chain_of, path_of
from memlint.semantics.summaries import DIFFERENTIATING_WORDS
from memlint.semantics.values import Grad

# What hooks look at in a backward pass that starts elsewhere.
_HOOKS = frozenset({"register_backward_hook", "register_full_backward_hook", "retain_grad"})
# Somebody's trainer calls these, with grad off as a rule.
_STEPS_OF_TRAINERS = frozenset(
    {f"{phase}_step" for phase in ("val", "valid", "validation", "validate", "test", "eval", "predict", "inference")}
)
_LOSS_WORDS = frozenset({"loss", "losses", "criterion", "crit", "metric", "metrics"})
# A file with one of these trains, or differentiates.
_TRAINING_WORDS = known.BACKWARD_METHODS | DIFFERENTIATING_WORDS | {"grad", "optim", "optimizer", "zero_grad"}
_ACTING_WORDS = frozenset({"act", "action", "predict", "prediction", "predictions", "infer", "inference"})
# `infer_output_dim(layer, size)`: a look at the shape of one output, when a model is built.
_SHAPE_WORDS = frozenset({"dim", "dims", "dimension", "dimensions", "shape", "shapes", "size", "sizes"})
_DEVICE_WORDS = frozenset({"cuda", "cpu", "device", "devices", "device_map", "xpu", "mps", "accelerator"})
_DEVICE_NAMES = ('"cuda', "'cuda", '"mps', "'mps", '"xpu', "'xpu")
SHOWING_WORDS = frozenset(
    """main demo show visualize visualise visualization plot render draw display sample generate generation translate
    transcribe infer inference predict extract embed run process synthesize""".split()
)


def acts(flow: Flow) -> bool:
    """A function that acts or predicts, by its name, and trains nothing."""
    words = words_of(flow.scope.name)
    return not (flow.has_backward or flow.has_step or words.isdisjoint(_ACTING_WORDS) or words & _SHAPE_WORDS)


def by_acting(module: Module, flow: Flow, call: Call) -> str | None:
    """A function that acts or predicts takes numbers from the output: no graph leaves it."""
    if not call.is_forward or graph_leaves(module, flow, call) or is_put_away(module, flow, call):
        return None
    if _is_own_business(module, call):
        return None
    return f"`{flow.scope.name}` takes only numbers from its output"


def by_output(module: Module, flow: Flow, loop: Loop | None, call: Call, runs: Sequence[Run], ends: Ends) -> str | None:
    """What becomes of the output says that nobody differentiates it."""
    if module.words.isdisjoint(_DEVICE_WORDS) and not module.mentions(_DEVICE_NAMES):
        return None  # as far as this file tells, the model never leaves the host
    evidence = _by_ends(module, flow, loop, call, ends)
    return evidence or _by_weights(module, flow, loop, call, runs) or _by_data(module, flow, call)


def _by_weights(module: Module, flow: Flow, loop: Loop | None, call: Call, runs: Sequence[Run]) -> str | None:
    """A model with its weights is loaded, in a file that trains nothing, and what it gives is only saved or shown."""
    if module.is_test_file or not module.words.isdisjoint(_TRAINING_WORDS) or _is_own_business(module, call):
        return None
    if not goes_to_watchers(module, flow, loop, call):
        return None
    for run in runs:
        if run.model is not None and _takes_weights(call.scope, run.model):
            return f"weights are loaded into `{run.model}`"
        if run.call is not None and _is_loaded_whole(module, run.call):
            return f"`{_model_path(run.call)}` is loaded with its weights"
    return None


def _by_data(module: Module, flow: Flow, call: Call) -> str | None:
    """`self.fake = self.net(x)` in the `test` of a class whose file trains nothing: only `self.fake.data` is read."""
    if module.is_test_file or words_of(flow.scope.name).isdisjoint(TEST_WORDS | _ACTING_WORDS):
        return None
    if not module.words.isdisjoint(_TRAINING_WORDS) or _is_own_business(module, call):
        return None
    return f"only the data of what `{flow.scope.name}` keeps is read" if is_kept_as_data(module, call) else None


def _takes_weights(scope: Scope, model: str) -> bool:
    return "load_state_dict" in scope.methods_called.get(model, ())


def _is_loaded_whole(module: Module, forward: Call) -> bool:
    """`model = torch.jit.load(path)`, `self.model = AutoModel.from_pretrained(name).to(device)`."""
    return any(call.names(known.LOADS_MODEL) or call.method == "from_pretrained" for call in makers_of(module, forward))


def makers_of(module: Module, forward: Call) -> Iterator[Call]:
    """The calls whose results the function, or the methods of its class, call the model that runs here."""
    path = _model_path(forward)
    owner = forward.scope.enclosing_class() if path.startswith("self.") else None
    for scope in owner.children if owner is not None else (forward.scope,):
        for call in module.calls_in(scope):
            statement = call.statement
            if not isinstance(statement, cst.Assign) or path not in {
                path_of(item.target) for item in statement.targets
            }:
                continue
            if any(item is call.node for item in (statement.value, *chain_of(statement.value))):
                yield call


def _model_path(forward: Call) -> str:
    return (path_of(forward.call.func) or "").removesuffix(".forward")


def _by_ends(module: Module, flow: Flow, loop: Loop | None, call: Call, ends: Ends) -> str | None:
    """Numbers or arrays are taken from the output, and no graph of it goes anywhere."""
    if module.is_test_file or call.scope.is_class or not _HOOKS.isdisjoint(module.words):
        return None
    if call.scope.name.startswith("on_") or call.scope.name in _STEPS_OF_TRAINERS or _is_own_business(module, call):
        return None
    if _is_a_layer(module, flow):
        return None
    if is_put_away(module, flow, call) or "volatile" in call.scope.words:
        return None
    trains = flow.has_backward or flow.has_step
    if graph_leaves(module, flow, call) and (trains or not goes_to_watchers(module, flow, loop, call)):
        return None
    if not (ends.is_counted or ends.is_on_host) and (trains or not (ends.is_ranked or _all_detached(flow, ends))):
        return None  # `fake = G(z)`, of which the discriminator's step gets a detached copy
    path = path_of(call.call.func) or ""
    if not words_of(path.rpartition(".")[2]).isdisjoint(_LOSS_WORDS):
        return None
    if _is_put_into_training(call.scope, path) and not (trains and call.guarded and ends.is_on_host):
        return None  # what a training loop shows now and then comes from a model in training mode, too
    what = "arrays" if ends.is_on_host else "numbers" if ends.is_counted or ends.is_ranked else "detached copies"
    return f"`{flow.scope.name}` takes nothing but {what} from it"


def _all_detached(flow: Flow, ends: Ends) -> bool:
    """`sample()` returns detached copies, and nothing that carries a graph: no caller can differentiate it."""
    if words_of(flow.scope.name).isdisjoint(SHOWING_WORDS | _ACTING_WORDS | EVALUATION_WORDS):
        return False  # `target()`: part of a training step
    roots = flow.return_roots.union(*(flow.all_roots(value) for value in flow.returned))
    if not flow.returned or flow.attribute_stores or not roots.isdisjoint(flow.analysis.differentiated):
        return False
    return ends.is_detached and not any(flow.analysis.roots[root].is_forward for root in roots)


def _is_a_layer(module: Module, flow: Flow) -> bool:
    """A method of a model that returns what may be differentiated, though not this output: the top k of proposals."""
    owner = flow.scope.enclosing_class()
    if owner is None or not module.analysis.is_module_class(owner.qualname):
        return False
    parts = [part for value in flow.returned for part in value.elements or (value,)]
    held = (module.box(box) for part in parts for box in part.boxes)
    return any(part.carries_graph or part.grad is Grad.MIXED for part in parts) or any(box.carrying for box in held)


def _is_own_business(module: Module, call: Call) -> bool:
    """A method of a model itself, which nobody in view calls: it may stand below a `no_grad` as well."""
    owner = call.scope.enclosing_class()
    if owner is None or not module.analysis.is_module_class(owner.qualname):
        return False
    name, view = call.scope.qualname, module.analysis.view
    if any(True for _ in module.calls_of(frozenset({name}))):
        return False
    sites = view.sites(name) if view is not None else None
    return sites is None or not any(site.certain for site in sites)


def _is_put_into_training(scope: Scope, model: str) -> bool:
    """Where the model is used, or around it, somebody calls its `train()`."""
    current: Scope | None = scope
    while current is not None and not current.is_class:
        if "train" in current.methods_called.get(model, ()):
            return True
        current = current.parent
    return False
