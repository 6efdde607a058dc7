"""Functions that train or evaluate as a flag says: with `train=False`, `phase == "val"`, `optimizer=None`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

import libcst as cst

from memlint.semantics.callers import Literals, Site
from memlint.semantics.events import Call, Event
from memlint.semantics.flow import Flow
from memlint.semantics.keepers import bound_parameter
from memlint.semantics.module import Module
from memlint.semantics.naming import EVALUATION_WORDS, words_of
from memlint.semantics.paths import parameter_names, renamed
from memlint.semantics.scopes import NODES_REMEMBERED, assignments_in, parameters, path_of, walk
from memlint.semantics.values import Kind, Mode

_UNKNOWN = object()
_Settings = Mapping[str, object]
"""Access path -> its literal value."""
_Branches = tuple[tuple[int, int], ...]


@dataclass(frozen=True, eq=False)
class EvaluatingRun:
    """One way in which a function that trains is run without training: nothing in it is differentiated then."""

    flow: Flow
    evidence: str
    settings: _Settings
    caller: str | None = None
    """The function that calls it so; None where a loop of the function itself does."""
    mode: Mode = Mode.ENTRY
    """Grad mode at that call."""
    call: Call | None = None
    site: Site | None = None
    """The call, in this file or another."""

    def reaches(self, event: Event) -> bool:
        """Whether the event may happen in this run."""
        branches = _branches_of(self.flow, event)
        return all(_taken(self.flow, statement, branch, self.settings) for statement, branch in branches)


def evaluating_runs(module: Module, flow: Flow) -> Iterator[EvaluatingRun]:
    if not flow.has_backward or not isinstance(flow.scope.node, (cst.FunctionDef, cst.Module)):
        return
    trains = list(_training_events(module, flow))
    if not trains or not all(_branches_of(flow, event) for event in trains):
        return
    as_called = _as_called(module, flow) if flow.scope.is_function else ()
    for run in (*as_called, *_as_looped(flow)):
        if not any(run.reaches(event) for event in trains):
            yield run


def _training_events(module: Module, flow: Flow) -> Iterator[Event]:
    """The backward passes and optimizer steps of a function, and its calls of functions that make them."""
    yield from flow.backwards
    for call in flow.calls:
        if call.method == "step" and call.receiver is not None and call.receiver.kind is Kind.OPTIMIZER:
            yield call
        for name in call.callee.quals:
            scope = module.analysis.scope_named(name) if name.startswith(":") else None
            inner = module.flow_of(scope) if scope is not None else None
            if inner is not None and (inner.has_backward or inner.has_step):
                yield call


def _as_called(module: Module, flow: Flow) -> Iterator[EvaluatingRun]:
    """As the calls in this file, and in others, run it."""
    name, view = flow.scope.qualname, module.analysis.view
    for call in module.calls_of(frozenset({name})):
        if call.unpacks or call.scope is flow.scope:
            continue
        found = _called_with(flow, _given(flow, call)) or _called_in_eval(module, flow, call)
        if found is not None:
            evidence, settings = found
            yield EvaluatingRun(flow, evidence, settings, call.scope.qualname, call.mode, call=call)
    if view is None or "<" in name:
        return
    for site in view.sites(name) or ():
        literals = view.literals_at(site)
        found = None if literals is None else _called_with(flow, _given_there(flow, literals))
        if found is not None:
            evidence, settings = found
            yield EvaluatingRun(flow, evidence, settings, view.local(site.caller), site.mode, site=site)


def _called_with(flow: Flow, given: Mapping[str, object]) -> tuple[str, _Settings] | None:
    """What a call that gives these arguments says of training, in words and as settings; None: nothing."""
    settings = {key: value for key, value in {**_defaults(flow), **given}.items() if value is not _UNKNOWN}
    asked = [key for key in _asked(flow) if key in settings]
    if not asked:
        return None
    key = next((item for item in asked if item in given), asked[0])
    how = f"with `{key}={settings[key]!r}`" if key in given else f"without `{key}`"
    return f"`{flow.scope.name}` is called {how}", settings


def _called_in_eval(module: Module, flow: Flow, call: Call) -> tuple[str, _Settings] | None:
    """`model.eval()` before a function that asks `if model.training:`."""
    names = parameter_names(flow.scope)
    bound = flow.scope.parent is not None and flow.scope.parent.is_class
    for asked in _asked(flow):
        model, _, attribute = asked.rpartition(".")
        if attribute != "training":
            continue
        for path in (renamed(model, call, names, bound=bound, local=frozenset()), model):
            found = module.put_into_eval(call.scope, None, path, before=call) if path is not None else None
            if found is not None:
                return f"`{found}.eval()` was called before `{flow.scope.name}`", {asked: False}
    return None


def _as_looped(flow: Flow) -> Iterator[EvaluatingRun]:
    """As its own loops run their bodies: `for phase in ("train", "val")`."""
    for loop in flow.loops:
        if not isinstance(loop.node, cst.For) or not isinstance(loop.item, cst.Name):
            continue
        if not isinstance(loop.source, (cst.List, cst.Tuple)):
            continue
        for element in loop.source.elements:
            value = _value(element.value, {})
            if value is False or (isinstance(value, str) and not words_of(value).isdisjoint(EVALUATION_WORDS)):
                yield EvaluatingRun(flow, f"`{loop.item.value}` is also {value!r}", {loop.item.value: value})


def _given(flow: Flow, call: Call) -> dict[str, object]:
    given: dict[str, object] = {}
    for argument in (*call.positional, *call.keywords.values()):
        name = bound_parameter(flow.scope, call, argument)
        if name is not None:
            given[name] = _value(argument.expression, {})
    return given


def _given_there(flow: Flow, literals: Literals) -> dict[str, object]:
    """Of a call in another file."""
    assert isinstance(flow.scope.node, cst.FunctionDef)
    names = [param.name.value for param in flow.scope.node.params.params]
    if flow.scope.parent is not None and flow.scope.parent.is_class:
        names = names[1:]
    given = [*zip(names, literals.positional, strict=False), *literals.keywords]
    return {name: value[0] if value else _UNKNOWN for name, value in given}


def _defaults(flow: Flow) -> dict[str, object]:
    assert isinstance(flow.scope.node, cst.FunctionDef)
    declared = parameters(flow.scope.node.params)
    return {param.name.value: _value(param.default, {}) for param in declared if param.default is not None}


def _asked(flow: Flow) -> list[str]:
    """The names in the conditions of the function that decide on training, in order."""
    names: dict[str, None] = {}
    for statement in {statement for backward in flow.backwards for statement, _ in _branches_of(flow, backward)}:
        chain: cst.If | cst.Else | None = flow.ifs[statement]
        while isinstance(chain, cst.If):
            for node in walk(chain.test):
                path = path_of(node) if isinstance(node, cst.Attribute) else None
                if path is not None and path.endswith(".training"):
                    names[path] = None
                if isinstance(node, cst.Name):
                    names[node.value] = None
                    alias = _assigned_once(flow, node.value)
                    names.update((item.value, None) for item in walk(alias or node) if isinstance(item, cst.Name))
            chain = chain.orelse
    return list(names)


# --- what a condition says ---


def _branches_of(flow: Flow, event: Event) -> _Branches:
    """The branches around an event, and those in which it is not because the function, or the iteration, has ended."""
    node = flow.scope.node
    if not isinstance(node, cst.FunctionDef):
        return event.branches
    return (*event.branches, *_exits_in(node).get(id(event.statement), ()))


_EXITS = (cst.Return, cst.Continue, cst.Raise)


@lru_cache(maxsize=NODES_REMEMBERED)
def _exits_in(function: cst.FunctionDef) -> dict[int, _Branches]:
    """`if train: ... else: return loss`, `if evaluating: continue`: each `if` passed, and the branch that goes on.

    By the identity of each statement of the function.
    """
    found: dict[int, _Branches] = {}
    pending: list[tuple[cst.BaseSuite, _Branches]] = [(function.body, ())]
    while pending:
        block, passed = pending.pop()
        for item in block.body:
            found[id(item)] = passed
            if isinstance(item, cst.SimpleStatementLine):
                found.update((id(statement), passed) for statement in item.body)
                continue
            pending += ((inner, passed) for inner in _blocks_of(item))
            if isinstance(item, cst.If) and item.orelse is None and _ends(item.body):
                passed = (*passed, (id(item), 1))
    return found


def _blocks_of(node: cst.CSTNode) -> Iterator[cst.BaseSuite]:
    if isinstance(node, (cst.FunctionDef, cst.ClassDef)):
        return
    body = getattr(node, "body", None)
    if isinstance(body, cst.BaseSuite):
        yield body
    while isinstance(node, cst.If) and isinstance(node.orelse, cst.If):
        node = node.orelse
        yield node.body
    for name in ("orelse", "finalbody"):
        following = getattr(node, name, None)
        if following is not None:
            yield following.body
    for handler in getattr(node, "handlers", ()):
        yield handler.body


def _ends(block: cst.BaseSuite) -> bool:
    last = block.body[-1] if block.body else None
    if isinstance(last, cst.SimpleStatementLine) and last.body:
        last = last.body[-1]
    return isinstance(last, _EXITS)


def _taken(flow: Flow, statement: int, branch: int, settings: _Settings) -> bool:
    """Whether a branch of an `if` may be taken."""
    chain: cst.If | cst.Else | None = flow.ifs[statement]
    for _ in range(branch):
        if not isinstance(chain, cst.If) or _truth(flow, chain.test, settings) is True:
            return False
        chain = chain.orelse
    return not isinstance(chain, cst.If) or _truth(flow, chain.test, settings) is not False


def _truth(flow: Flow, node: cst.BaseExpression, settings: _Settings, depth: int = 3) -> bool | None:
    if isinstance(node, cst.UnaryOperation) and isinstance(node.operator, cst.Not):
        inner = _truth(flow, node.expression, settings, depth)
        return None if inner is None else not inner
    if isinstance(node, cst.BooleanOperation):
        sides = [_truth(flow, side, settings, depth) for side in (node.left, node.right)]
        decides = isinstance(node.operator, cst.Or)
        if decides in sides:
            return decides
        return None if None in sides else not decides
    if isinstance(node, cst.Comparison) and len(node.comparisons) == 1:
        return _compared(node, settings)
    if isinstance(node, cst.Call) and path_of(node.func) == "bool" and len(node.args) == 1:
        return _truth(flow, node.args[0].value, settings, depth)
    value = _value(node, settings)
    if value is not _UNKNOWN:
        return bool(value)
    alias = _assigned_once(flow, node.value) if isinstance(node, cst.Name) and depth else None
    return None if alias is None else _truth(flow, alias, settings, depth - 1)


def _compared(node: cst.Comparison, settings: _Settings) -> bool | None:
    target = node.comparisons[0]
    left, right = _value(node.left, settings), _value(target.comparator, settings)
    if left is _UNKNOWN or right is _UNKNOWN:
        return None
    if isinstance(target.operator, (cst.Equal, cst.Is)):
        return left == right
    if isinstance(target.operator, (cst.NotEqual, cst.IsNot)):
        return left != right
    return None


_CONSTANTS = {"True": True, "False": False, "None": None}


def _value(node: cst.BaseExpression, settings: _Settings) -> object:
    if isinstance(node, cst.SimpleString):
        return node.evaluated_value
    if isinstance(node, cst.Integer):
        return node.evaluated_value
    path = path_of(node)
    if path is None:
        return _UNKNOWN
    return _CONSTANTS[path] if path in _CONSTANTS else settings.get(path, _UNKNOWN)


def _assigned_once(flow: Flow, name: str) -> cst.BaseExpression | None:
    """What the function assigns to a name, where it does so once."""
    if name not in flow.scope.bound:
        return None
    found = assignments_in(flow.scope.node).get(name, ())
    return found[0].value if len(found) == 1 else None
