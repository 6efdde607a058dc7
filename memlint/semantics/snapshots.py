"""Copies of the best weights so far, kept on the device of the model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

import libcst as cst

from memlint.semantics.blocks import path_to
from memlint.semantics.devices import Place, moved_to, uses_a_device
from memlint.semantics.events import Argument, Call, Loop
from memlint.semantics.knowledge import snapshots as known
from memlint.semantics.knowledge.frameworks import is_torch_code
from memlint.semantics.knowledge.training import OPTIMIZER_WORDS
from memlint.semantics.module import Module
from memlint.semantics.naming import words_of
from memlint.semantics.scopes import Scope, chain_of, parameters, path_of, walk
from memlint.semantics.values import Kind, Value

# A function called so runs the model that it is given.
_RUNNING_WORDS = frozenset("predict evaluate eval validate test infer generate sample forward".split())


class Copied(Enum):
    """What is copied."""

    WEIGHTS = "weights"
    OPTIMIZER = "optimizer"
    MODEL = "model"


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A copy of a model's state, made whenever it is the best so far."""

    node: cst.BaseExpression
    what: Copied
    source: cst.BaseExpression
    """The expression that gives what is copied: `model.state_dict()`."""
    cloned: cst.BaseExpression | None
    """The expression that copies one tensor, in a comprehension over the state."""
    on_device: bool
    """The file moves something to a device; otherwise the model comes from out of view."""


def snapshots(module: Module) -> Iterator[Snapshot]:
    if not is_torch_code(module.words) or known.TRIGGERS.isdisjoint(module.words):
        return
    if not known.SMALL_MODELS.isdisjoint(module.words):
        return
    on_device: bool | None = None
    best: set[_Place] = set()
    others: list[tuple[_Place, Snapshot]] = []
    for call in module.calls:
        found = _copied(module, call)
        if found is None:
            continue
        node, what, source, cloned = found
        if on_device is None:
            on_device = module.once(uses_a_device)
        given = what is not Copied.MODEL or _is_given(call)
        if not on_device and (not given or _trains(module)):
            continue  # whoever trains without naming a device trains on the host
        target = _target(call, node, what)
        if target is None or _is_on_host(module, call, source):
            continue
        snapshot, place = Snapshot(node, what, source, cloned, on_device), _place(call, target, what)
        if _is_kept(module, call, target, what):
            best.add(place)
            yield snapshot
        else:
            others.append((place, snapshot))
    # `best = copy.deepcopy(model.state_dict())` before the loop that makes it anew whenever it is better.
    yield from (snapshot for place, snapshot in others if place[1] and place in best)


# --- what is copied ---

_PARAMETERS = ("parameters", "named_parameters")
_ORDERING = (cst.LessThan, cst.LessThanEqual, cst.GreaterThan, cst.GreaterThanEqual)
_Found = tuple[cst.BaseExpression, Copied, cst.BaseExpression, "cst.BaseExpression | None"]
_Place = tuple[Scope, "str | None", Copied]


def _copied(module: Module, call: Call) -> _Found | None:
    if call.names(known.DEEP_COPIES) and call.positional and not call.unpacks:
        argument = call.positional[0]
        state = _call_behind(module, argument)
        if state is not None and state.method == "state_dict":
            return call.call, _owner(state), argument.expression, None
        path = path_of(argument.expression)
        if path is not None and (
            argument.value.kind is Kind.MODULE or _is_named_best_model(call, path, argument.value)
        ):
            return _state_taken_of(module, call) or call.call, Copied.MODEL, argument.expression, None
        return None
    if call.method not in ("items", *_PARAMETERS):
        return None
    return _copied_one_by_one(module, call)


def _call_behind(module: Module, argument: Argument) -> Call | None:
    """The call that an argument is, or that has made the variable that it is."""
    if not isinstance(argument.expression, cst.Name):
        return module.call_at(argument.expression)
    roots, made = argument.value.roots, module.analysis.roots
    last = next((root for root in roots if roots - {root} <= made[root].ancestors), None)
    return module.call_at(made[last].node) if last is not None else None


def _state_taken_of(module: Module, copy: Call) -> cst.Call | None:
    """`copy.deepcopy(model).state_dict()`."""
    calls = module.calls_in(copy.scope)
    return next((call.call for call in calls if call.receiver_node is copy.node and call.method == "state_dict"), None)


def _is_named_best_model(call: Call, path: str, value: Value) -> bool:
    """`self.best_model = copy.deepcopy(self.model)`, of which nothing else says that it is a module."""
    statement = call.statement
    if value.kind is not Kind.UNKNOWN or not isinstance(statement, cst.Assign):
        return False
    named = words_of(path.rpartition(".")[2]) & known.MODEL_WORDS
    return bool(named) and bool(_words(statement.targets[0].target) & known.BEST_WORDS)


def _owner(state: Call) -> Copied:
    receiver = state.receiver
    if receiver is not None and receiver.kind is Kind.OPTIMIZER:
        return Copied.OPTIMIZER
    path = path_of(state.receiver_node) if state.receiver_node is not None else None
    named = path is not None and not words_of(path.rpartition(".")[2]).isdisjoint(OPTIMIZER_WORDS)
    return Copied.OPTIMIZER if named else Copied.WEIGHTS


def _copied_one_by_one(module: Module, items: Call) -> _Found | None:
    """`{k: v.clone() for k, v in model.state_dict().items()}`, `[p.clone() for p in model.parameters()]`."""
    source = items.receiver_node if items.method == "items" else items.call
    state = module.call_at(source) if source is not None else None
    if source is None or state is None or state.method not in ("state_dict", *_PARAMETERS):
        return None
    node = next((loop.node for loop in module.loops if loop.iterable is items.node), None)
    found = _element(node) if isinstance(node, cst.BaseExpression) else None
    if found is None or not isinstance(node, cst.BaseExpression):
        return None
    target, copied = found
    tensor, chain = path_of(target), list(chain_of(copied))
    methods = {item.func.attr.value for item in chain if isinstance(item.func, cst.Attribute)}
    if "clone" in methods and methods <= known.COPY_CHAIN and tensor is not None:
        innermost = chain[-1].func
        if isinstance(innermost, cst.Attribute) and path_of(innermost.value) in (tensor, f"{tensor}.data"):
            return node, _owner(state), source, copied
    return None


def _element(node: cst.BaseExpression) -> tuple[cst.BaseExpression, cst.BaseExpression] | None:
    """The tensor that a comprehension over a state, or over parameters, takes, and what it makes of it."""
    if not isinstance(node, (cst.DictComp, cst.GeneratorExp, cst.ListComp)) or node.for_in.inner_for_in is not None:
        return None
    target = node.for_in.target
    is_pair = isinstance(target, cst.Tuple) and len(target.elements) == 2
    taken = target.elements[1].value if isinstance(target, cst.Tuple) and is_pair else target
    if isinstance(node, cst.DictComp):
        return (taken, node.value) if is_pair else None
    made = node.elt
    if isinstance(made, cst.Tuple):  # `OrderedDict((k, v.clone()) for k, v in ...)`
        return (taken, made.elements[1].value) if is_pair and len(made.elements) == 2 else None
    return taken, made


# --- where is the model? ---


def _is_given(call: Call) -> bool:
    """`copy.deepcopy(model)` of a parameter."""
    node, path = call.scope.node, path_of(call.positional[0].expression)
    return isinstance(node, cst.FunctionDef) and path in {param.name.value for param in parameters(node.params)}


def _trains(module: Module) -> bool:
    return any(flow.has_backward for flow in module.flows)


def _is_on_host(module: Module, call: Call, source: cst.BaseExpression) -> bool:
    """`deepcopy(model.cpu().state_dict())`, `deepcopy(model).to("cpu")`, `model.cpu()` before."""
    if isinstance(source, cst.Name) and call.positional:
        behind = _call_behind(module, call.positional[0])
        source = behind.call if behind is not None else source
    inner = {id(node) for node in walk(source)}
    path = path_of(source) or next((path_of(item) for item in _owners(source)), None)
    for other in module.calls_in(call.scope):
        if other.method not in ("cpu", "to"):
            continue
        is_of_it = id(other.node) in inner or other.receiver_node is call.node
        if not is_of_it and path is not None and other.receiver_node is not None and other.order < call.order:
            is_of_it = path_of(other.receiver_node) == path
        if is_of_it and moved_to(module, other) is Place.HOST:
            return True
    return False


def _owners(node: cst.BaseExpression) -> Iterator[cst.BaseExpression]:
    """`model` of `model.state_dict()`."""
    for call in list(chain_of(node))[-1:]:
        if isinstance(call.func, cst.Attribute):
            yield call.func.value


# --- is it kept, as the best so far? ---


def _target(call: Call, node: cst.BaseExpression, what: Copied) -> cst.BaseExpression | None:
    """What the copy, or a display that holds it, is assigned to."""
    statement = call.statement
    if isinstance(statement, cst.Expr):
        return None if what is Copied.MODEL else _updated(statement.value, node)
    if not isinstance(statement, (cst.Assign, cst.AnnAssign)) or statement.value is None:
        return None
    if not (statement.value is node or (what is not Copied.MODEL and _is_part(statement.value, node))):
        return None
    targets = [item.target for item in statement.targets] if isinstance(statement, cst.Assign) else [statement.target]
    target: cst.BaseExpression = targets[0]
    if isinstance(target, cst.Tuple) and isinstance(statement.value, cst.Tuple):
        pairs = zip(target.elements, statement.value.elements, strict=False)
        target = next((left.value for left, right in pairs if right.value is node), target)
    return target


def _updated(statement: cst.BaseExpression, node: cst.BaseExpression) -> cst.BaseExpression | None:
    """`best` of `best.update(score=score, state=copy.deepcopy(model.state_dict()))`."""
    func = statement.func if isinstance(statement, cst.Call) else None
    if not isinstance(statement, cst.Call) or not isinstance(func, cst.Attribute) or func.attr.value != "update":
        return None
    return func.value if any(_is_part(argument.value, node) for argument in statement.args) else None


def _is_one_of_several(call: Call) -> bool:
    """`best = {"score": score, "state": copy.deepcopy(...)}`: what is read of `best` may be the score."""
    statement = call.statement
    value = statement.value if isinstance(statement, (cst.Assign, cst.AnnAssign)) else None
    return isinstance(statement, cst.Expr) or isinstance(value, cst.Dict)


def _place(call: Call, target: cst.BaseExpression, what: Copied) -> _Place:
    path = path_of(target)
    return _owner_of(call, path or ""), path, what


def _owner_of(call: Call, path: str) -> Scope:
    """The class whose objects have the attribute, or the function whose variable it is."""
    owner = call.scope.enclosing_class() if path.startswith("self.") else None
    return owner if owner is not None else call.scope


def _is_kept(module: Module, call: Call, target: cst.BaseExpression, what: Copied) -> bool:
    if not _if_better(module, call, target):
        return False
    path = path_of(target)
    return path is None or _is_one_of_several(call) or not _is_computed_with(module, call, path, what)


def _is_part(whole: cst.BaseExpression, node: cst.BaseExpression) -> bool:
    """The statement's value, or something that a dictionary, list or tuple there holds."""
    if whole is node:
        return True
    if isinstance(whole, (cst.Dict, cst.List, cst.Tuple)):
        return any(_is_part(element.value, node) for element in whole.elements)
    if isinstance(whole, cst.IfExp):
        return _is_part(whole.body, node) or _is_part(whole.orelse, node)
    call = whole if isinstance(whole, cst.Call) else None
    return call is not None and isinstance(call.func, cst.Name) and any(_is_part(arg.value, node) for arg in call.args)


def _if_better(module: Module, call: Call, target: cst.BaseExpression) -> bool:
    """Inside an `if` that compares scores, within the innermost loop or the function."""
    kept = _words(target) & known.KEPT_WORDS
    path = path_to(call.scope.node, call.node)
    if call.loop is not None and call.loop.node in path:
        path = path[path.index(call.loop.node) :]
    name = call.scope.name
    if kept & known.BEST_WORDS and not words_of(name).isdisjoint(known.KEEPING_WORDS):
        return True  # `def save_checkpoint(self, model): self.best_state = ...`
    for item in path:
        if not isinstance(item, (cst.If, cst.IfExp)):
            continue
        if isinstance(item, cst.If) and _records_the_better(item):
            return True
        words = _words(item.test)
        if words & known.BEST_WORDS or (kept and any(isinstance(node, cst.Comparison) for node in walk(item.test))):
            return True
    return False


def _records_the_better(node: cst.If) -> bool:
    """`if score > top: top = score`."""
    sides = {
        frozenset((path_of(test.left) or "", path_of(test.comparisons[0].comparator) or ""))
        for test in walk(node.test)
        if isinstance(test, cst.Comparison) and isinstance(test.comparisons[0].operator, _ORDERING)
    }
    assigned = {
        frozenset((path_of(item.targets[0].target) or "", path_of(item.value) or ""))
        for item in walk(node.body)
        if isinstance(item, cst.Assign)
    }
    return any("" not in pair and len(pair) == 2 for pair in sides & assigned)


def _words(node: cst.CSTNode) -> frozenset[str]:
    names = (item.value for item in walk(node) if isinstance(item, cst.Name))
    keys = (item.raw_value for item in walk(node) if isinstance(item, cst.SimpleString))
    return frozenset(word for name in (*names, *keys) for word in words_of(name))


def _is_computed_with(module: Module, call: Call, path: str, what: Copied) -> bool:
    """The copy is averaged, taken apart or run while training goes on: it has to be where the model is."""
    where = _owner_of(call, path)
    scopes = [where, *where.descendants()]
    methods = {name for scope in scopes for name in scope.methods_called.get(path, ())}
    if what is not Copied.MODEL:
        if methods & known.TAKING_APART:
            return True
        return any(isinstance(node, cst.Subscript) and path_of(node.value) == path for node in walk(where.node))
    if methods & known.HOST_METHODS:
        return True
    return any(
        (_is_use_of(other, path) or _runs_it(other, path))
        and (call.loop is None or _within(other, call.loop.outer()[-1]))
        for scope in scopes
        for other in module.calls_in(scope)
    )


def _runs_it(call: Call, path: str) -> bool:
    """`self.predict(best_model)`, not `save_model(best_model)`."""
    name = (path_of(call.call.func) or "").rpartition(".")[2]
    if words_of(name).isdisjoint(_RUNNING_WORDS):
        return False
    return any(path_of(argument.expression) == path for argument in call.positional)


def _is_use_of(call: Call, path: str) -> bool:
    called = path_of(call.call.func)
    if called is None or called == f"{path}.state_dict":  # to be saved
        return False
    return called == path or called.startswith(path + ".")


def _within(call: Call, loop: Loop) -> bool:
    return call.loop is not None and loop in call.loop.outer()
