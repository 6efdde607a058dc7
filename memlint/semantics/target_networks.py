"""Networks whose weights are taken over from another one from time to time, and that run as if they were trained."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import libcst as cst

from memlint.semantics.events import Call
from memlint.semantics.flow import Flow
from memlint.semantics.knowledge import torch as known
from memlint.semantics.knowledge import training
from memlint.semantics.module import Module
from memlint.semantics.naming import words_of
from memlint.semantics.ownership import Home, home_of, optimizers
from memlint.semantics.paths import parameter_names, renamed
from memlint.semantics.questions import GradOnEntry
from memlint.semantics.scopes import Scope, path_of, walk
from memlint.semantics.values import Grad, Mode, Value

_WRITES = frozenset({"copy_", "lerp_", "mul_", "add_", "data"})
_NETWORK_WORDS = frozenset({"net", "network", "model"})
_SYNCING_WORDS = frozenset({"soft", "hard", "sync", "synchronize", "polyak", "copy", "ema"})


@dataclass(frozen=True, eq=False)
class Sync:
    """`self.target.load_state_dict(self.net.state_dict())`"""

    target: str
    source: str
    scope: Scope
    node: cst.CSTNode
    is_copy: bool = False
    """`self.target = copy.deepcopy(self.net)`"""


@dataclass(frozen=True, eq=False)
class TargetForward:
    """A network that another one's weights are copied into runs with grad on in the other one's training step."""

    call: Call
    path: str
    sync: Sync


def target_forwards(module: Module) -> Iterator[TargetForward]:
    """The first such forward pass of each network in each function."""
    if module.words.isdisjoint(known.BACKWARD_METHODS) or module.mentions(training.FREEZING_TEXTS):
        return
    trained = _trained_names(module)
    syncs: dict[Home, Sync] = {}
    for sync in _syncs(module):
        home = home_of(sync.scope, sync.target)
        # Weights that are taken over once may be where training starts.
        is_again = sync.scope.name != "__init__" and not sync.is_copy
        is_target = _is_target_name(sync.target) and sync.source.rpartition(".")[2] in trained
        if home is not None and not home.is_parameter and (is_again or is_target):
            syncs.setdefault(home, sync)
    if not syncs:
        return
    stepped = _words_of_stepped_optimizers(module)
    seen: set[tuple[Home, Scope]] = set()
    for call in module.calls:
        path = _network_of(call)
        home = _home_given(module, call.scope, path) if path is not None else None
        if path is None or home is None or home not in syncs or (home, call.scope) in seen or home.name in trained:
            continue
        if _has_an_optimizer(home.name, stepped):
            continue
        if _keeps_a_graph(module, call, syncs) and not _is_frozen_elsewhere(module, home):
            seen.add((home, call.scope))
            yield TargetForward(call, path, syncs[home])


def _home_given(module: Module, scope: Scope, path: str) -> Home | None:
    """Where the network lives; of a parameter, where all that call the function in this file have what they give."""
    home = home_of(scope, path)
    function = home.scope if home is not None and home.is_parameter else None
    if home is None or function is None or function.qualname in module.analysis.handed_over:
        return home
    names = parameter_names(function)
    bound = function.parent is not None and function.parent.is_class
    given = {
        (call.scope, renamed(path, call, names, bound=bound, local=frozenset()))
        for call in module.calls_of(frozenset({function.qualname}))
    }
    homes = {home_of(caller, name) for caller, name in given if name is not None}
    return next(iter(homes)) if len(homes) == 1 and all(name is not None for _, name in given) else home


def _is_frozen_elsewhere(module: Module, home: Home) -> bool:
    """Whether a file of the project that mentions the class, or the function, may freeze models."""
    view = module.analysis.view
    return view is not None and view.some_file_has(training.FREEZING_TEXTS, home.scope.name) is not False


# --- who is kept in step with whom ---


def _syncs(module: Module) -> Iterator[Sync]:
    inner = [*_copied_states(module), *_copied_parameters(module)]
    yield from inner
    yield from _copies(module)
    for sync in inner:
        yield from _in_callers(module, sync)
    yield from _by_helpers(module)


def _copied_states(module: Module) -> Iterator[Sync]:
    """`target.load_state_dict(net.state_dict())`"""
    for call in module.calls:
        if call.method != "load_state_dict" or not call.positional:
            continue
        given = call.positional[0].expression
        source = _owner(given, "state_dict")
        target = _path(call.receiver_node)
        if source is not None and target is not None and source != target:
            yield Sync(target, source, call.scope, call.node)


def _copies(module: Module) -> Iterator[Sync]:
    for call in module.calls_of(frozenset({"copy.deepcopy"})):
        statement = call.statement
        source = _path(call.positional[0].expression) if call.positional else None
        if isinstance(statement, cst.Assign) and len(statement.targets) == 1 and source is not None:
            target = path_of(statement.targets[0].target)
            if target is not None and target != source:
                yield Sync(target, source, call.scope, call.node, is_copy=True)


def _copied_parameters(module: Module) -> Iterator[Sync]:
    """`for t, p in zip(target.parameters(), net.parameters()): t.data.copy_(...)`"""
    for loop in module.loops:
        node, call = loop.node, loop.source
        if not isinstance(node, cst.For) or not isinstance(loop.item, (cst.Tuple, cst.List)):
            continue
        if not isinstance(call, cst.Call) or path_of(call.func) != "zip":
            continue
        zipped = [argument.value for argument in call.args if argument.keyword is None]  # not `strict=False`
        owners = [_owner(item, "parameters", "named_parameters") for item in zipped]
        names = [path_of(element.value) for element in loop.item.elements]
        written = _written_to(node.body)
        if len(names) != 2 or len(owners) != 2 or None in owners or names[0] == names[1] or owners[0] == owners[1]:
            continue
        for index in (0, 1):
            if names[index] in written and names[1 - index] not in written:
                yield Sync(str(owners[index]), str(owners[1 - index]), loop.scope, node)


def _written_to(body: cst.BaseSuite) -> set[str]:
    """The names whose tensors are written: `t.data.copy_(...)`, `t.data = ...`."""
    written: set[str] = set()
    for node in walk(body):
        target: cst.BaseExpression | None = None
        if isinstance(node, cst.Call) and isinstance(node.func, cst.Attribute) and node.func.attr.value in _WRITES:
            target = node.func.value
        elif isinstance(node, cst.AssignTarget) and isinstance(node.target, cst.Attribute):
            target = node.target
        path = path_of(target) if target is not None else None
        if path is not None:
            written.add(path.partition(".")[0])
    return written


def _in_callers(module: Module, sync: Sync) -> Iterator[Sync]:
    """What a function of this file does to its parameters, as its callers name them."""
    names = parameter_names(sync.scope)
    heads = {path.partition(".")[0] for path in (sync.target, sync.source)}
    bound = sync.scope.parent is not None and sync.scope.parent.is_class
    if not heads <= set(names[bound:]):
        return
    for call in module.calls_of(frozenset({sync.scope.qualname})):
        target = renamed(sync.target, call, names, bound=bound, local=frozenset())
        source = renamed(sync.source, call, names, bound=bound, local=frozenset())
        if target is not None and source is not None and target != source:
            yield Sync(target, source, call.scope, call.node)


def _by_helpers(module: Module) -> Iterator[Sync]:
    """`soft_update(target, net, tau)` out of view: a network with the role of a target, and another one."""
    for call in module.calls:
        name = (path_of(call.call.func) or "").rpartition(".")[2]
        words = words_of(name)
        is_in_view = any(qual.startswith(":") for qual in call.callee.quals)
        if is_in_view or (words.isdisjoint(_SYNCING_WORDS) and not {"update", "target"} <= words):
            continue
        given = (*call.positional, *call.keywords.values())
        paths = [path for argument in given if (path := path_of(argument.expression)) is not None]
        targets = [path for path in paths if _is_target_name(path)]
        sources = [path for path in paths if path not in targets]
        if len(targets) == 1 and sources:
            yield Sync(targets[0], sources[0], call.scope, call.node)


def _is_target_name(path: str) -> bool:
    return not words_of(path.rpartition(".")[2]).isdisjoint({"target", "targ", "tgt"} | training.AVERAGED_WORDS)


def _owner(node: cst.BaseExpression, *methods: str) -> str | None:
    """`net` of `net.state_dict()`, `copy.deepcopy(net.state_dict())`."""
    if isinstance(node, cst.Call) and path_of(node.func) in ("copy.deepcopy", "deepcopy") and node.args:
        node = node.args[0].value
    if (
        not isinstance(node, cst.Call)
        or not isinstance(node.func, cst.Attribute)
        or node.func.attr.value not in methods
    ):
        return None
    return _path(node.func.value)


def _path(node: cst.BaseExpression | None) -> str | None:
    path = path_of(node) if node is not None else None
    return path.removesuffix(".module") if path is not None else None


# --- whether it is trained itself ---


def _trained_names(module: Module) -> frozenset[str]:
    """The last names of what may be given to an optimizer, or steps one of its own."""
    names: set[str] = set()
    owned = [optimizer.parameters for optimizer in optimizers(module) if optimizer.parameters is not None]
    for node in (part for owned_here in (*owned, *_given_with_optimizers(module)) for part in walk(owned_here)):
        if isinstance(node, cst.Attribute):
            names.add(node.attr.value)
        elif isinstance(node, cst.Name):
            names.add(node.value)
    for scope in module.scopes:
        for called, methods in scope.methods_called.items():
            parts = called.split(".")
            if "step" in methods and len(parts) > 1 and parts[-1] in training.OPTIMIZER_WORDS:
                names.add(parts[-2])
    for call in module.calls:
        # `params = list(net.parameters())`: no loop over them, and no look.
        if call.method in ("parameters", "named_parameters") and isinstance(call.statement, cst.Assign):
            path = _path(call.receiver_node)
            if path is not None:
                names.add(path.rpartition(".")[2])
    names.update(_stepped_by_hand(module))
    return frozenset(names - {"self"})


def _given_with_optimizers(module: Module) -> Iterator[cst.BaseExpression]:
    """`net` of `Wrapper(torch.optim.Adam, net)`: who is given the class of an optimizer makes one of the rest."""
    for call in module.calls:
        given = (*call.positional, *call.keywords.values())
        classes = [argument for argument in given if _is_optimizer_class(argument.value)]
        if classes:
            yield from (argument.expression for argument in given if argument not in classes)


def _is_optimizer_class(value: Value) -> bool:
    names = [name.removeprefix("torch.optim.") for name in value.quals if name.startswith("torch.optim.")]
    return bool(names) and all(name.isidentifier() and name[0].isupper() for name in names)


def _words_of_stepped_optimizers(module: Module) -> list[frozenset[str]]:
    """{proxy} of `self.proxy_optim.step()`, wherever the optimizer was made."""
    called = (path for scope in module.scopes for path, names in scope.methods_called.items() if "step" in names)
    words = (words_of(path.rpartition(".")[2]) for path in called)
    return [found - training.OPTIMIZER_WORDS for found in words if found & training.OPTIMIZER_WORDS]


def _has_an_optimizer(network: str, stepped: list[frozenset[str]]) -> bool:
    """Whether the name of an optimizer that steps says that it trains the network."""
    own = words_of(network) - _NETWORK_WORDS
    return bool(own) and any(own <= words for words in stepped)


def _stepped_by_hand(module: Module) -> Iterator[str]:
    """`for p in net.parameters(): p.data -= rate * p.grad`"""
    for loop in module.loops:
        if not isinstance(loop.node, cst.For):
            continue
        inside = (node for node in walk(loop.node.iter) if isinstance(node, cst.Call))
        owners = (_owner(node, "parameters", "named_parameters") for node in inside)
        paths = [path for path in owners if path is not None]
        if paths and "grad" in _attributes_in(loop.node.body):
            yield from (path.rpartition(".")[2] for path in paths)


# --- where it runs ---


def _network_of(call: Call) -> str | None:
    """The path of the network that is called, or one of whose methods is."""
    path = path_of(call.call.func)
    if path is None or call.handler or call.mode not in (Mode.ON, Mode.ENTRY) or call.callee.mode is not None:
        return None
    owner, _, method = path.rpartition(".")
    if not owner or owner == "self" or method in ("module", "target"):
        return path
    looks = method in known.MODULE_METHODS | known.MODULE_SELF_METHODS | training.NEUTRAL_MODULE_METHODS - {
        "forward",
        "__call__",
    }
    if looks or not words_of(method).isdisjoint(training.LOOKING_WORDS | {"reset"}):
        return path
    return owner


def _keeps_a_graph(module: Module, call: Call, syncs: dict[Home, Sync]) -> bool:
    """Its graph is there until the step's backward pass, which goes through it for nobody or never reaches it."""
    flow = module.flow_of(call.scope)
    if flow is None or not call.scope.is_function or not call.positional:
        return False
    if call.is_forward and call.result.grad is Grad.NO and call.result.elements is None:
        return False
    function = call.scope.qualname
    if call.mode is Mode.ENTRY and function not in module.analysis.grad_on and not module.answer(GradOnEntry(function)):
        return False
    if not {"detach", "data"}.isdisjoint(_attributes_in(call.statement)):
        return False  # detached at once
    if call.root in module.analysis.differentiated:
        return not _passes_training_on(module, call, syncs)
    trains = flow.has_backward or not flow.return_roots.isdisjoint(module.analysis.differentiated)
    return trains and _is_detached_later(flow, call)


def _attributes_in(statement: cst.CSTNode) -> set[str]:
    return {node.attr.value for node in walk(statement) if isinstance(node, cst.Attribute)}


def _is_detached_later(flow: Flow, call: Call) -> bool:
    return any(
        other.method in known.DETACHING_METHODS
        and other.receiver is not None
        and call.root in flow.all_roots(other.receiver)
        for other in flow.calls
    )


def _passes_training_on(module: Module, call: Call, syncs: dict[Home, Sync]) -> bool:
    """Its input comes out of a network that is trained: the gradient may have to pass through."""
    roots = frozenset().union(*(argument.value.roots for argument in call.positional))
    for root in roots - {call.root}:
        made = module.analysis.roots[root]
        inner = module.call_at(made.node) if made.is_forward or made.of_module else None
        path = _network_of(inner) if inner is not None else None
        home = home_of(call.scope, path) if path is not None else None
        if inner is not None and (home is None or home not in syncs):
            return True
    return False
