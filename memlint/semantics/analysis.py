"""The analysis of one file: runs the flows of its scopes, holds what they share, yields the file's facts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import libcst as cst

from memlint.semantics.autograd_functions import input_of_function
from memlint.semantics.classes import Classes
from memlint.semantics.entry_modes import entry_mode
from memlint.semantics.flow import Flow
from memlint.semantics.questions import CallSite, FunctionFacts, ModuleFacts
from memlint.semantics.reading import Reading
from memlint.semantics.scopes import Scope, has_decorator, parameters
from memlint.semantics.summaries import (
    DIFFERENTIATING_WORDS,
    FunctionSummary,
    ParameterEffects,
    Result,
    forwards_of,
    result_of,
    store_of,
)
from memlint.semantics.values import NOTHING, NUMBER, Grad, Kind, Mode, Value

if TYPE_CHECKING:
    from memlint.semantics.project import View


# What a function this far down a chain of calls does is nothing to the first of them. (It is read by itself later.)
_DEEPEST_CALL = 100


@dataclass(frozen=True, eq=False)
class Callee:
    """What a call of a function of this file needs to know of it."""

    name: str
    result: Value
    parameters: tuple[tuple[int, Value], ...]
    """Each parameter's root and what this call gives for it."""
    done: dict[int, ParameterEffects]
    """What the function itself does with them."""
    backed: frozenset[int]
    has_forward: bool
    has_backward: bool
    has_step: bool


class Analysis(Classes):
    """Everything known of one parsed file."""

    def __init__(self, tree: cst.Module, view: View | None = None, only: str | None = None) -> None:
        """`view` is the project as the file sees it; with `only`, nothing but that function is read."""
        super().__init__(tree, view)
        self.handed_over: set[str] = set()
        self.run_in_any_mode: set[str] = set()
        """Those of the functions handed over of which nobody knows in which grad mode they run."""
        self.lambdas_run_here: set[Scope] = set()
        """Those that a function of this file gets which leaves grad mode alone."""
        self.switches_grad_off = False
        self._done: dict[Scope, dict[int, ParameterEffects]] = {}
        self._seeds: dict[Scope, dict[str, Value]] = {}
        self._sites: list[tuple[str, str, Mode]] = []
        if only is None:
            self._run_all()
        else:
            self.flow(self.root)

    # --- running ---

    def _run_all(self) -> None:
        """Callers before callees, so that a function's parameters are known by what it is given."""
        self.flow(self.root)
        # What the file's top level mentions has been read with it; that it binds a name is no mention.
        inner = [scope for scope in self.scopes if scope.parent is not None and not scope.is_class]
        mentioned = {word for scope in inner for word in scope.words}
        functions = [scope for scope in self.scopes if scope.is_function]
        for scope in functions:
            if scope.name not in mentioned:
                self.flow(scope)
        for scope in functions:
            self.flow(scope)

    def flow(self, scope: Scope) -> Flow | None:
        """The scope's flow; None while it is being read (recursion), and where it is called too deep down."""
        done = self._flows.get(scope)
        if done is not None:
            return None if scope in self._running else done
        if len(self._running) > _DEEPEST_CALL:
            return None
        if scope.parent is not None and scope.parent not in self._running and not scope.parent.is_class:
            self.flow(scope.parent)
            if scope in self._flows:
                return self.flow(scope)
        flow = Flow(self, scope, entry_mode(self, scope), self._initial_variables(scope))
        self._flows[scope] = flow
        self._running.add(scope)
        self._declare_parameters(flow)
        node = scope.node
        if isinstance(node, cst.Lambda):
            flow.run_expression(node.body)
        elif isinstance(node, cst.Module):
            flow.run(node.body)
        elif isinstance(node, (cst.FunctionDef, cst.ClassDef)):
            flow.run(node.body.body)
        self._running.discard(scope)
        if isinstance(node, (cst.FunctionDef, cst.Lambda)):
            # Later a caller may differentiate what this one returns: that is nothing that the function does.
            roots = [self.root_for(param) for param in parameters(node.params)]
            self._done[scope] = {root: self._effects(root, flow) for root in roots}
        return flow

    @property
    def flows(self) -> list[Flow]:
        return list(self._flows.values())

    def _initial_variables(self, scope: Scope) -> dict[str, Value]:
        return dict(self.top_level_names) if scope.parent is None else {}

    def _declare_parameters(self, flow: Flow) -> None:
        node = flow.scope.node
        if not isinstance(node, (cst.FunctionDef, cst.Lambda)):
            return
        seeds = self._seeds.get(flow.scope, {})
        owner = flow.scope.parent
        for index, param in enumerate(parameters(node.params)):
            name = param.name.value
            if index == 0 and owner is not None and owner.is_class and not has_decorator(node, "staticmethod"):
                flow.state.vars[name] = self._self_value(owner, has_decorator(node, "classmethod"))
                continue
            if isinstance(param.default, (cst.List, cst.Dict, cst.Set)):
                # A mutable default outlives every call.
                box = self.box_for(param.default, None)
                self.boxes[box].in_object = True
                flow.state.vars[name] = Value(Kind.CONTAINER, boxes=frozenset({box}))
                continue
            value = flow.unknown(param, NOTHING)
            pattern = seeds.get(name)
            if param.annotation is not None:
                pattern = flow.annotated(param.annotation.annotation) or pattern
            if pattern is None and _is_setting(param.default):
                pattern = NUMBER
            if pattern is None:
                pattern = input_of_function(flow.scope, name, index, self.base_names)
            if param.star in ("*", "**"):
                pattern = None
            flow.state.vars[name] = value if pattern is None else flow.with_kind(value, pattern)

    def _self_value(self, owner: Scope, is_class: bool) -> Value:
        if is_class:
            return Value(Kind.CALLABLE, quals=frozenset({owner.qualname}))
        kind = Kind.MODULE if self.is_module_class(owner.qualname) else Kind.INSTANCE
        return Value(kind, cls=owner.qualname)

    def release(self) -> None:
        """Take everything apart: scopes and flows refer to each other and to this."""
        for part in (*self._flows.values(), *self.scopes):
            part.__dict__.clear()
        self.__dict__.clear()

    # --- calls between functions of this file ---

    def callee(self, scope: Scope, reading: Reading, caller: Flow) -> Callee | None:
        """What the function does when called so; None while it is being read."""
        given = _bind_arguments(scope, reading)
        if scope not in self._flows:
            self._seeds[scope] = {name: value for name, value in given.items() if _is_object(value)}
        flow = self.flow(scope)
        if not caller.quiet:
            self._sites.append((scope.qualname, caller.scope.qualname, caller.state.mode))
        if flow is None or flow.only_raises:
            return None
        node = scope.node
        assert isinstance(node, (cst.FunctionDef, cst.Lambda))
        by_root = tuple(
            (self.root_for(param), given[param.name.value])
            for param in parameters(node.params)
            if param.name.value in given
        )
        return Callee(
            scope.qualname,
            flow.result(_parts_taken(caller.statement, reading.node))
            if not scope.has_yield
            else Value(Kind.UNKNOWN, Grad.MIXED, roots=flow.result().roots),
            by_root,
            self._done[scope],
            flow.backed_at_end or NOTHING,
            flow.has_forward,
            flow.has_backward,
            flow.has_step,
        )

    def note_run(self, function: Scope, caller: Scope, mode: Mode) -> None:
        """A function of this file runs here, by way of another one."""
        self._sites.append((function.qualname, caller.qualname, mode))
        if isinstance(function.node, cst.Lambda):
            self.lambdas_run_here.add(function)

    # --- for other files ---

    def summary(self, qualname: str, seeds: Iterable[tuple[str, Kind]]) -> FunctionSummary | None:
        """What the function does when it is called; None where it cannot be told."""
        scope = self.scope_named(qualname)
        if scope is None or not isinstance(scope.node, cst.FunctionDef):
            return None
        self._seeds[scope] = {name: Value(kind) for name, kind in seeds}
        flow = self.flow(scope)
        if flow is None:
            return None
        assert self.view is not None
        declared = {self.root_for(param): param.name.value for param in parameters(scope.node.params)}
        result = Result(Kind.UNKNOWN, Grad.MIXED)
        if not scope.has_yield and scope.node.asynchronous is None:
            result = result_of(self, flow, flow.result(), declared, self.view.file)
        return FunctionSummary(
            {name: self._effects(root, flow) for root, name in declared.items()},
            result,
            flow.has_forward,
            flow.has_backward,
            flow.has_step,
            forwards_of(self, flow),
            bool(scope.words_but_off & DIFFERENTIATING_WORDS) or scope.has_yield,
            scope.node.params.star_kwarg.name.value if scope.node.params.star_kwarg is not None else None,
        )

    def _effects(self, root: int, flow: Flow) -> ParameterEffects:
        store = store_of(self, flow, root) if root in self.shared or flow.stores else None
        return ParameterEffects(
            root in self.differentiated,
            root in self.proven,
            root in self.escaped,
            root in self.shared,
            root in (flow.backed_at_end or NOTHING),
            store is not None,
            store is not None and store.how == "accumulate",
        )

    # --- facts ---

    def facts(self) -> ModuleFacts:
        """The plain data from which open questions are answered."""
        # A lambda is made to be handed over; all those of a function have one name.
        lambdas = (scope for scope in self.scopes if isinstance(scope.node, cst.Lambda))
        given_away = self.run_in_any_mode | {scope.qualname for scope in lambdas if scope not in self.lambdas_run_here}
        functions = {
            scope.qualname: FunctionFacts(
                scope.qualname,
                entry_mode(self, scope).value,
                scope.qualname in given_away,
                _is_method(scope),
            )
            for scope in self.scopes
            if scope.is_function or scope.parent is None
        }
        return ModuleFacts(functions, (*self._certain_calls(), *self._possible_calls()), self.switches_grad_off)

    def _certain_calls(self) -> Iterator[CallSite]:
        for callee, caller, mode in self._sites:
            result = self._flows[self._by_name[callee]].return_roots & self.stored
            left = self._flows[self._by_name[caller]].return_roots
            kept = (self.differentiated, self.escaped, self.shared, left)
            clean = all(result.isdisjoint(roots) for roots in kept)
            yield CallSite(callee, caller, mode.value, True, clean)

    def _possible_calls(self) -> Iterator[CallSite]:
        """Calls `x.name(...)` of an unknown x that may be a method of this file."""
        methods = {scope.name for scope in self.scopes if _is_method(scope)}
        for flow in self._flows.values():
            for call in flow.calls:
                if call.method in methods and not call.callee.quals:
                    yield CallSite(f".{call.method}", call.scope.qualname, call.mode.value, False, False)


def _is_method(scope: Scope) -> bool:
    return scope.is_function and scope.parent is not None and scope.parent.is_class


def _is_setting(default: cst.BaseExpression | None) -> bool:
    """`momentum=0.9`, `train=True`: a number. `total=0` may well be where a sum of tensors begins."""
    if isinstance(default, (cst.Integer, cst.Float)):
        return default.evaluated_value != 0
    return isinstance(default, cst.Name) and default.value in ("True", "False")


def _is_object(value: Value) -> bool:
    return value.kind in (Kind.MODULE, Kind.OPTIMIZER, Kind.LOADER, Kind.SCALER, Kind.DATASET, Kind.INSTANCE)


def _parts_taken(statement: cst.CSTNode, call: cst.CSTNode) -> int | None:
    """3 for `out, mean, var = normalise(x)`: of what the function returns, it is a tuple of three."""
    if not isinstance(statement, cst.Assign) or statement.value is not call or len(statement.targets) != 1:
        return None
    target = statement.targets[0].target
    if not isinstance(target, (cst.Tuple, cst.List)):
        return None
    starred = any(isinstance(element, cst.StarredElement) for element in target.elements)
    return None if starred else len(target.elements)


def _bind_arguments(scope: Scope, reading: Reading) -> dict[str, Value]:
    """Parameter name -> what the call gives. Unpacked arguments give nothing that is known."""
    node = scope.node
    assert isinstance(node, (cst.FunctionDef, cst.Lambda))
    names = [param.name.value for param in (*node.params.posonly_params, *node.params.params)]
    bound = scope.parent is not None and scope.parent.is_class and not has_decorator(node, "staticmethod")
    if bound and (reading.receiver is None or reading.receiver.kind is not Kind.CALLABLE):
        names = names[1:]
    given: dict[str, Value] = {}
    if not reading.unpacks:
        given.update(zip(names, (argument.value for argument in reading.positional), strict=False))
    keyword_names = {*names, *(param.name.value for param in node.params.kwonly_params)}
    given.update({name: argument.value for name, argument in reading.keywords.items() if name in keyword_names})
    return given
