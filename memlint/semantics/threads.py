"""Functions that run in another thread than the one in which grad mode was switched off.

Grad mode belongs to the thread: a new one, and each one of a pool, starts with grad on, whatever the others have set
(checked on torch 2.13).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import libcst as cst

from memlint.semantics.events import Argument, Call
from memlint.semantics.knowledge import threads as known
from memlint.semantics.knowledge import torch
from memlint.semantics.module import Module
from memlint.semantics.naming import words_of
from memlint.semantics.scopes import Scope, parameters, path_of
from memlint.semantics.values import Grad, Kind, Mode, Value

_WORDS = frozenset(
    """Thread Timer to_thread run_in_threadpool run_sync submit map run_in_executor Flask Blueprint FastAPI APIRouter
    Interface ChatInterface""".split()
)
_NO_FORWARD = (
    torch.MODULE_METHODS
    | torch.MODULE_SELF_METHODS
    | frozenset({"generate", "state_dict", "register_buffer", "add_module", "share_memory", "compile", "get_submodule"})
)
_SWITCHING_WORDS = frozenset({"set_grad_enabled", "no_grad", "inference_mode"})


@dataclass(frozen=True, eq=False)
class ThreadStart:
    """A place that makes a function run in another thread."""

    function: Scope
    node: cst.CSTNode
    how: str
    call: Call | None
    modules: dict[str, Value]
    """The parameters that are given modules, and these."""
    certain: bool


@dataclass(frozen=True, eq=False)
class UnswitchedForward:
    """A forward pass in a thread that has grad mode on, although it was switched off in another one."""

    start: ThreadStart
    forward: Call
    switch: cst.CSTNode
    """Where grad mode is switched off; the start, where it is off by then."""
    decoratable: cst.FunctionDef | None
    """The function that the thread runs, where a decorator acts on all of it."""
    certain: bool

    @property
    def starts_off(self) -> bool:
        return self.switch is self.start.node


def unswitched_forwards(module: Module) -> Iterator[UnswitchedForward]:
    if module.words.isdisjoint(_WORDS) or module.words.isdisjoint(_SWITCHING_WORDS):
        return
    switches = _switches(module)
    seen: set[int] = set()
    for start in _starts(module):
        reached = _reached(module, start)
        if any(scope.words_within & known.EXEMPTING_WORDS for scope in reached):
            continue
        switch = _switch_for(start, switches, reached)
        if switch is None:
            continue
        forward = _forward(start, module, reached)
        if forward is not None and id(forward.node) not in seen:
            seen.add(id(forward.node))
            yield UnswitchedForward(
                start,
                forward,
                switch,
                _decoratable(start.function),
                start.certain and forward.is_forward and not forward.callee.weak,
            )


def _decoratable(function: Scope) -> cst.FunctionDef | None:
    node = function.node
    if not isinstance(node, cst.FunctionDef) or node.asynchronous is not None or function.has_yield:
        return None
    return node


# --- where grad mode is switched off ---


def _switches(module: Module) -> list[Call]:
    """The bare `torch.set_grad_enabled(False)`, and contexts that are entered by hand and never left."""
    found = []
    for call in module.calls:
        if call.is_statement and call.names(torch.SET_GRAD_ENABLED):
            given = [argument.value for argument in (*call.positional, *call.keywords.values())]
            if len(given) == 1 and given[0].literal is False:
                found.append(call)
        elif call.method == "__enter__" and "__exit__" not in module.words and _is_grad_off(call.receiver):
            found.append(call)
    return found


def _is_grad_off(value: Value | None) -> bool:
    return value is not None and value.kind is Kind.CONTEXT and value.mode is Mode.OFF


def _switch_for(start: ThreadStart, switches: list[Call], reached: list[Scope]) -> cst.CSTNode | None:
    if start.call is not None and start.call.mode is Mode.OFF:
        return start.call.node
    return next((switch.node for switch in switches if switch.scope not in reached), None)


# --- who runs in another thread ---


def _starts(module: Module) -> Iterator[ThreadStart]:
    for call in module.calls:
        found = _started_by(module, call)
        if found is not None:
            yield found
    for scope in module.scopes:
        owner = scope.parent
        if scope.name == "run" and owner is not None and owner.is_class:
            bases = module.analysis.base_names(owner.qualname) & known.THREAD_CLASSES
            if bases:
                yield ThreadStart(scope, scope.node, f"`{owner.name}` is a thread", None, {}, True)
        if isinstance(scope.node, cst.FunctionDef) and scope.node.decorators and scope.node.asynchronous is None:
            yield from _handled(module, scope, scope.node)


def _started_by(module: Module, call: Call) -> ThreadStart | None:
    row = next((known.STARTERS[qual] for qual in call.callee.quals if qual in known.STARTERS), None)
    if row is None and call.method in known.STARTING_METHODS and not call.callee.quals:
        if module.words.isdisjoint(known.EXECUTOR_WORDS) or not module.words.isdisjoint(known.OTHER_POOL_WORDS):
            return None
        row = known.STARTING_METHODS[call.method]
    certain = True
    if row is None and call.names(known.CALLBACK_CLASSES):
        row, certain = (0, "fn", -1), False
    if row is None:
        return None
    position, keyword, rest = row
    argument = call.keywords.get(keyword)
    if argument is None and len(call.positional) > position:
        argument = call.positional[position]
    scope = _function(module, argument)
    if scope is None:
        return None
    modules = _given_modules(module, scope, call, rest)
    return ThreadStart(scope, call.node, f"`{module.text(call.call.func)}` runs it", call, modules, certain)


def _function(module: Module, argument: Argument | None) -> Scope | None:
    """The function of this file that is handed over, by itself or in a `functools.partial`."""
    if argument is None:
        return None
    value: Value = argument.value
    made = module.call_at(argument.expression)
    if made is not None and made.names({"functools.partial"}) and made.positional:
        value = made.positional[0].value
    return module.analysis.scope_named(next(iter(value.quals))) if len(value.quals) == 1 else None


def _given_modules(module: Module, scope: Scope, call: Call, rest: int) -> dict[str, Value]:
    if not isinstance(scope.node, cst.FunctionDef):
        return {}
    names = [param.name.value for param in parameters(scope.node.params)]
    if scope.parent is not None and scope.parent.is_class:
        names = names[1:]
    given: list[Value] = [argument.value for argument in call.positional[rest:]] if rest >= 0 else []
    arguments = call.keywords.get("args")
    if rest < 0 and arguments is not None:
        given = list(arguments.value.elements or ())
    return {name: value for name, value in zip(names, given, strict=False) if value.kind is Kind.MODULE}


def _handled(module: Module, scope: Scope, node: cst.FunctionDef) -> Iterator[ThreadStart]:
    """`@app.get("/predict")` above a plain `def`."""
    for decorator in node.decorators:
        call = decorator.decorator
        if not isinstance(call, cst.Call) or not isinstance(call.func, cst.Attribute):
            continue
        if call.func.attr.value not in known.ROUTE_DECORATORS or not isinstance(call.func.value, cst.Name):
            continue
        made_by = _made_by(module, scope, call.func.value.value)
        if made_by & (known.POOLED_APPS | known.THREADED_APPS):
            how = f"`@{module.text(call)}` lets the server run it"
            yield ThreadStart(scope, decorator, how, None, {}, bool(made_by & known.POOLED_APPS))


def _made_by(module: Module, scope: Scope, name: str) -> frozenset[str]:
    """The class whose call made what the name holds in the scopes around a function."""
    outer = scope.parent
    while outer is not None:
        flow = module.flow_of(outer)
        value = flow.final.get(name) if flow is not None else None
        if value is not None:
            calls = [module.call_at(node) for node in module.definitions(value)]
            return frozenset(qual for call in calls if call is not None for qual in call.callee.quals)
        outer = outer.parent
    return frozenset()


# --- what they run ---


def _reached(module: Module, start: ThreadStart) -> list[Scope]:
    """The function, and those of this file that it calls in its own grad mode."""
    reached, pending = [start.function], [start.function]
    while pending:
        scope = pending.pop()
        for call in module.calls_in(scope):
            if not _in_entry_mode(module, start, call):
                continue
            for qual in call.callee.quals:
                callee = module.analysis.scope_named(qual)
                if callee is not None and callee not in reached:
                    reached.append(callee)
                    pending.append(callee)
    return reached


def _in_entry_mode(module: Module, start: ThreadStart, call: Call) -> bool:
    """Whether the call runs in the grad mode in which its function was entered."""
    mode = module.grad_mode(call)
    if mode is Mode.ENTRY:
        return True
    if mode is not Mode.UNKNOWN or call.scope is not start.function or not isinstance(start.node, cst.Decorator):
        return False
    # A server's route decorator, of which the rest of the analysis knows nothing, leaves grad mode alone.
    node, flow = call.scope.node, module.flow_of(call.scope)
    alone = isinstance(node, cst.FunctionDef) and len(node.decorators) == 1
    return alone and flow is not None and all(value.kind is Kind.CONTEXT for _, _, value in flow.withs)


def _forward(start: ThreadStart, module: Module, reached: list[Scope]) -> Call | None:
    for scope in reached:
        for call in module.calls_in(scope):
            if not _in_entry_mode(module, start, call) or _is_frozen(module, start, call):
                continue
            if call.is_forward and call.result.grad is not Grad.NO and not _is_part_of_module(module, scope):
                return call
            func = call.call.func
            if scope is start.function and isinstance(func, cst.Name) and func.value in start.modules:
                return call
            if _is_submodule_call(module, call) or _is_named_as_model(call):
                return call
    return None


def _is_frozen(module: Module, start: ThreadStart, call: Call) -> bool:
    """No parameter of the model needs a gradient: its outputs have no graph in any grad mode."""
    if call.callee.mode is Mode.OFF or (call.receiver is not None and call.receiver.mode is Mode.OFF):
        return True
    parts = (path_of(call.call.func) or "").split(".")
    given = start.modules.get(parts[0]) if call.scope is start.function else None
    return (given is not None and given.mode is Mode.OFF) or any(
        module.analysis.is_frozen(call.scope, ".".join(parts[:end])) for end in range(1, len(parts) + 1)
    )


def _is_named_as_model(call: Call) -> bool:
    """`model(batch)` of which nothing else is known, where the other thread had switched grad mode off for it."""
    if call.callee.quals or call.callee.kind is not Kind.UNKNOWN or not (call.positional or call.keywords):
        return False
    name = path_of(call.call.func) or ""
    words = words_of(name.rpartition(".")[2])
    return bool(words) and words <= known.MODEL_WORDS  # none of `load_model(path)`


def _is_submodule_call(module: Module, call: Call) -> bool:
    """`self.decoder(x)` in a module of this file whose only base is torch's, `model.head(x)`, `model.decode(x)`.

    What a module is asked to do with a tensor, its layers do.
    """
    owner = call.scope.enclosing_class()
    path = path_of(call.call.func) or ""
    if call.callee.quals or call.callee.kind is not Kind.UNKNOWN or not call.positional:
        return False
    if call.receiver is not None and call.receiver.kind is Kind.MODULE and path != f"self.{call.method}":
        given = call.positional[0].value.kind
        return call.method not in _NO_FORWARD and given in (Kind.UNKNOWN, Kind.TENSOR)
    is_attribute = path.startswith("self.") and path.count(".") == 1
    return owner is not None and is_attribute and module.analysis.base_names(owner.qualname) == {"torch.nn.Module"}


def _is_part_of_module(module: Module, scope: Scope) -> bool:
    """The layers of a model's own forward: what counts is the call of the model."""
    owner = scope.enclosing_class()
    return owner is not None and scope.name == "forward" and module.analysis.is_module_class(owner.qualname)
