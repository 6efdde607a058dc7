"""`except` clauses around model code: what they run, and what they do with the exception.

While an `except` clause runs, and as long as anything holds the exception, its traceback keeps every frame of the
failed call with all of its locals (checked on Python 3.11: `del e` does not help, `e.__traceback__ = None` does).
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from functools import cached_property

import libcst as cst

from memlint.semantics.events import Call
from memlint.semantics.flow import Flow
from memlint.semantics.knowledge import device, torch
from memlint.semantics.knowledge import exceptions as known
from memlint.semantics.module import Module
from memlint.semantics.naming import words_of
from memlint.semantics.scopes import Scope, path_of, target_names, walk
from memlint.semantics.values import Kind, Mode

_LIGHT_METHODS = (
    torch.DIFFERENTIABLE_METHODS
    | torch.DETACHING_METHODS
    | torch.NEVER_GRAD_METHODS
    | torch.NUMBER_METHODS
    | torch.MODULE_SELF_METHODS
    | torch.BACKWARD_METHODS
    | frozenset(
        """append extend insert add update get pop keys values items format join split strip startswith endswith lower
        upper replace info debug warning warn error exception critical log write print close flush step zero_grad
        empty_cache collect synchronize state_dict load_state_dict parameters manual_seed sleep put submit
        result""".split()
    )
)


_HOLDING_STATEMENTS = frozenset(
    {cst.IndentedBlock, cst.If, cst.Else, cst.For, cst.While, cst.With, cst.Try, cst.ExceptHandler, cst.Finally}
    | {cst.Match, cst.MatchCase}
)
_PARTS = ("finalbody", "orelse", "cases", "handlers", "body")
_NO_MODELS = (Kind.TENSOR, Kind.CONTAINER, Kind.PLAIN, Kind.NUMBER, Kind.OPTIMIZER, Kind.LOADER, Kind.DATASET)
_LIBRARIES = sys.stdlib_module_names | {"torch", "numpy", "tqdm", "psutil", "wandb", "pandas", "PIL", "cv2"}


class Handler:
    """One `except` clause, with what runs in the `try` and in the clause, worked out when it is asked for."""

    def __init__(self, module: Module, flow: Flow, statement: cst.Try, clause: cst.ExceptHandler) -> None:
        self.module = module
        self.flow = flow
        self.statement = statement
        self.clause = clause

    @property
    def name(self) -> str | None:
        """The variable of `except ... as e`."""
        asname = self.clause.name
        return asname.name.value if asname is not None and isinstance(asname.name, cst.Name) else None

    @cached_property
    def nodes(self) -> list[cst.CSTNode]:
        return list(walk(self.clause.body))

    @cached_property
    def words(self) -> frozenset[str]:
        return frozenset(node.value for node in self.nodes if isinstance(node, cst.Name))

    @cached_property
    def tried(self) -> tuple[Call, ...]:
        """The calls of the `try`."""
        return tuple(_calls_among(self.module, walk(self.statement.body)))

    @cached_property
    def calls(self) -> tuple[Call, ...]:
        """The calls of the clause."""
        return tuple(_calls_among(self.module, self.nodes))

    @cached_property
    def catches_out_of_memory(self) -> bool:
        """By its class, or because it looks for the words in the message."""
        if not _caught(self.module, self.clause.type).isdisjoint(known.OUT_OF_MEMORY_CLASSES):
            return True
        if not self.words.isdisjoint(known.OUT_OF_MEMORY_TESTS | known.OUT_OF_MEMORY_CLASSES):
            return True  # `isinstance(e, torch.OutOfMemoryError)`
        return any(map(_says_out_of_memory, self.nodes))

    @property
    def releases(self) -> bool:
        """The traceback, or its frames, are taken away."""
        return not self.words.isdisjoint(known.RELEASING_WORDS)


def handlers(module: Module) -> list[Handler]:
    """The clauses that may catch a failed allocation: of its class, or of a general one."""
    return [
        Handler(module, flow, statement, clause)
        for flow in module.flows
        if any(call.in_try for call in flow.calls)
        for statement in _tries(flow.scope.node)
        for clause in statement.handlers
        if clause.type is None or _caught(module, clause.type) & (known.OUT_OF_MEMORY_CLASSES | known.GENERAL_CLASSES)
    ]


def _tries(scope: cst.CSTNode) -> Iterator[cst.Try]:
    """The `try` statements of a scope, without those of functions and classes in it."""
    pending: list[object] = [getattr(scope, "body", None)]
    while pending:
        node = pending.pop()
        if isinstance(node, (list, tuple)):
            pending.extend(reversed(node))
        elif type(node) in _HOLDING_STATEMENTS:
            if isinstance(node, cst.Try):
                yield node
            pending.extend(getattr(node, name, None) for name in _PARTS)


def _calls_among(module: Module, nodes: Iterable[cst.CSTNode]) -> Iterator[Call]:
    for node in nodes:
        call = module.call_at(node) if isinstance(node, cst.Call) else None
        if call is not None:
            yield call


def _caught(module: Module, type_: cst.BaseExpression | None) -> frozenset[str]:
    """The last parts of the names of the classes that are caught."""
    if type_ is None:
        return frozenset()
    items = [element.value for element in type_.elements] if isinstance(type_, cst.Tuple) else [type_]
    return frozenset((module.analysis.qualify(item) or "?").rpartition(".")[2].lstrip(":") for item in items)


def _says_out_of_memory(node: cst.CSTNode) -> bool:
    if not isinstance(node, cst.SimpleString):
        return False
    text = node.value.lower()
    return any(words in text for words in known.OUT_OF_MEMORY_TEXTS)


# --- who runs a model ---


def runs_model(module: Module, call: Call) -> bool:
    """A module is called, or a function of this file that calls one, or trains."""
    if call.is_forward:
        return not (call.callee.cls or "").startswith("torch.nn.functional")
    flow = _own_flow(module, call)
    return flow is not None and (flow.has_forward or flow.has_backward or flow.has_step)


def _own_flow(module: Module, call: Call) -> Flow | None:
    if len(call.callee.quals) != 1:
        return None
    scope = module.analysis.scope_named(next(iter(call.callee.quals)))
    return module.flow_of(scope) if scope is not None else None


# --- retries ---


@dataclass(frozen=True, eq=False)
class Retry:
    """A call in an `except` clause that does again what has failed."""

    handler: Handler
    call: Call
    certain: bool


def retries(module: Module) -> Iterator[Retry]:
    if module.words.isdisjoint({"empty_cache", *known.OUT_OF_MEMORY_CLASSES, *known.GENERAL_CLASSES}):
        return
    for handler in module.once(handlers):
        found = _retry(module, handler)
        if found is not None:
            yield found


def _retry(module: Module, handler: Handler) -> Retry | None:
    if "empty_cache" not in handler.words and not handler.catches_out_of_memory:
        return None
    flushes = [call.order for call in handler.calls if _flushes(call)]
    if not handler.catches_out_of_memory and not flushes:
        return None
    if handler.releases:
        return None
    on_host = _falls_back_to_host(handler)
    perhaps: Call | None = None
    for call in handler.calls:
        if not handler.catches_out_of_memory and call.order < flushes[0]:
            continue
        if on_host and not _comes_back(handler, call):
            continue
        again = _does_again(module, handler, call)
        if again:
            return Retry(handler, call, handler.catches_out_of_memory and not on_host)
        if again is False and perhaps is None:
            perhaps = call
    return Retry(handler, perhaps, False) if perhaps is not None else None


def _flushes(call: Call) -> bool:
    return call.names(device.EMPTY_CACHE) or call.method == "empty_cache"


def _falls_back_to_host(handler: Handler) -> bool:
    """The retry runs where the memory of the device does not matter."""
    if any("cpu" in words_of(word) for word in handler.words if "cpu" in word.lower()):
        return True
    return any(isinstance(node, cst.SimpleString) and "cpu" in node.value.lower() for node in handler.nodes)


def _comes_back(handler: Handler, call: Call) -> bool:
    """What was computed on the host then goes to the device again, where the failed call has left no room."""
    return any(
        other.order > call.order and other.receiver is not None and _goes_to_device(other) for other in handler.calls
    )


def _goes_to_device(call: Call) -> bool:
    """`x.cuda()`, `x.to(device)`; not `x.to("cpu")`, `x.to(torch.float32)`."""
    if call.method == "cuda":
        return True
    if call.method != "to":
        return False
    given = [*call.positional, *call.keywords.values()]
    return any(
        argument.value.kind is not Kind.CALLABLE
        and not any(qual.startswith("torch.") for qual in argument.value.quals)
        and not any("cpu" in word for word in _texts(argument.expression))
        for argument in given[:1]
    )


def _texts(expression: cst.BaseExpression) -> list[str]:
    return [node.value.lower() for node in walk(expression) if isinstance(node, (cst.Name, cst.SimpleString))]


def _does_again(module: Module, handler: Handler, call: Call) -> bool | None:
    """Whether the call surely runs a model again; None where it may not be a retry at all."""
    scope = handler.flow.scope
    name = path_of(call.call.func)
    if runs_model(module, call):
        if any(runs_model(module, tried) for tried in handler.tried):
            return True
        if any(_may_run_model(module, tried) for tried in handler.tried):
            return _maybe(handler)
    recursive = call.callee.quals == {scope.qualname} or (
        scope.parent is not None and scope.parent.is_class and name in (f"self.{scope.name}", f"cls.{scope.name}")
    )
    if recursive:
        return True if any(runs_model(module, tried) for tried in handler.tried) else _maybe(handler)
    if name is None:
        return None
    own = _own_flow(module, call)
    if own is not None:
        return _maybe(handler) if _function_does_again(module, handler, call, own.scope) else None
    if not _may_run_model(module, call):
        return None
    if any(path_of(tried.call.func) == name for tried in handler.tried):
        return _maybe(handler)
    return _maybe(handler) if _is_variant(module, handler, call) else None


def _is_variant(module: Module, handler: Handler, call: Call) -> bool:
    """`decode_tiled(latents)` in the place of `decode(latents)`: named after it, given the same, gives the same."""
    words = words_of(_last_name(call))
    return any(
        words & words_of(_last_name(tried)) and _may_run_model(module, tried) for tried in handler.tried
    ) and _gives_the_same(handler, call)


def _last_name(call: Call) -> str:
    return (path_of(call.call.func) or "").rpartition(".")[2]


def _function_does_again(module: Module, handler: Handler, call: Call, function: Scope) -> bool:
    """A function of this file that allocates: the one that failed, or one that stands in for what failed.

    It stands in where it calls what the `try` calls (`self.model.decode`), or is given the same and gives the same:
    both results are returned, or get the same name.
    """
    if not (call.positional or call.keywords):
        return False
    if any(tried.callee.quals == call.callee.quals for tried in handler.tried):
        return _allocates(module, function)
    tried = {path_of(item.call.func) for item in handler.tried if _may_run_model(module, item)} - {None}
    if not tried:
        return False  # operations of torch fail without a frame that could hold anything
    inside = [item for scope in _with_inner(function) for item in module.calls_in(scope)]
    if any(path_of(item.call.func) in tried for item in inside):
        return True
    return _gives_the_same(handler, call) and any(_may_run_model(module, item) for item in inside)


def _gives_the_same(handler: Handler, call: Call) -> bool:
    given = _names_given(call)
    return any(
        not given.isdisjoint(_names_given(tried)) and _result_goes_to(call) & _result_goes_to(tried)
        for tried in handler.tried
    )


def _names_given(call: Call) -> set[str]:
    arguments = (*call.positional, *call.keywords.values())
    return {path for path in (path_of(argument.expression) for argument in arguments) if path is not None}


def _result_goes_to(call: Call) -> set[str]:
    statement = call.statement
    if isinstance(statement, cst.Return):
        return {"return"}
    if isinstance(statement, cst.Assign):
        return {name for target in statement.targets for name in target_names(target.target)}
    return set()


def _with_inner(function: Scope) -> Iterator[Scope]:
    yield function
    for child in function.children:
        yield from _with_inner(child)


def _allocates(module: Module, function: Scope) -> bool:
    """It makes tensors: itself, or through functions of this file."""
    pending, seen = [function], {function}
    while pending:
        for scope in _with_inner(pending.pop()):
            for call in module.calls_in(scope):
                if call.result.is_tensor or call.is_forward:
                    return True
                own = _own_flow(module, call)
                if own is not None and own.scope not in seen:
                    seen.add(own.scope)
                    pending.append(own.scope)
    return False


def _may_run_model(module: Module, call: Call) -> bool:
    """Whether a function out of view may run a model: no method of tensors or loggers, no library's, no clean-up."""
    name = call.method or path_of(call.call.func)
    if name is None or name in _LIGHT_METHODS or name.endswith("_"):
        return False
    if not (call.positional or call.keywords or call.unpacks):
        return False  # `buffer.resize_(n)` is a tensor's
    if call.receiver is not None and call.receiver.kind in _NO_MODELS:
        return False
    return not any(
        qual.startswith(":") or qual.partition(".")[0] in _LIBRARIES or "." not in qual for qual in call.callee.quals
    )


def _maybe(handler: Handler) -> bool | None:
    """A function out of view: a model it is only where the clause says that memory ran out."""
    return False if handler.catches_out_of_memory or "empty_cache" in handler.words else None


def movable_body(retry: Retry) -> cst.IndentedBlock | None:
    """The clause's body, where it could as well stand behind the `try` statement."""
    handler = retry.handler
    statement, body = handler.statement, handler.clause.body
    alone = len(statement.handlers) == 1 and statement.orelse is None and statement.finalbody is None
    if not alone or not isinstance(body, cst.IndentedBlock) or not body.body:
        return None
    uses_exception = handler.name is not None and handler.name in handler.words
    reraises = any(isinstance(node, cst.Raise) and node.exc is None for node in handler.nodes)
    return None if uses_exception or reraises else body


# --- exceptions that outlive their clause ---


class Kept(Enum):
    CONTAINER = "container"
    ATTRIBUTE = "attribute"
    FUTURE = "future"
    NAME = "name"
    """A variable, while the model runs again."""


_KEEPING_TARGETS = {cst.Attribute: Kept.ATTRIBUTE, cst.Subscript: Kept.CONTAINER, cst.Name: Kept.NAME}


@dataclass(frozen=True, eq=False)
class KeptException:
    """An exception that is put where it outlives its `except` clause."""

    handler: Handler
    node: cst.BaseExpression
    """The exception, where it is put away."""
    target: cst.BaseExpression
    kept: Kept
    certain: bool
    is_exception: bool
    """`e` itself; otherwise `sys.exc_info()`."""


def kept_exceptions(module: Module) -> Iterator[KeptException]:
    if module.words.isdisjoint({"exc_info", *known.OUT_OF_MEMORY_CLASSES, *known.GENERAL_CLASSES}):
        return
    raised: frozenset[str] | None = None
    for handler in module.once(handlers):
        if handler.words.isdisjoint({handler.name, "exc_info"}) or handler.releases:
            continue
        for found in _kept(module, handler):
            if raised is None:
                raised = _raised(module)
            if not _is_raised_again(found, raised):
                yield found


def _kept(module: Module, handler: Handler) -> Iterator[KeptException]:
    puts = list(_puts_away(module, handler))
    certain = bool(puts) and any(runs_model(module, call) or _infers(module, call) for call in handler.tried)
    if certain or (puts and handler.catches_out_of_memory):
        for held, target, how in puts:
            if how is not Kept.NAME or _runs_again(module, handler):
                yield KeptException(handler, held, target, how, certain, isinstance(held, cst.Name))


def _infers(module: Module, call: Call) -> bool:
    """Something out of view is given a tensor where grad mode is off: `self.encoder(audio)` under inference mode."""
    if call.mode is not Mode.OFF or not _may_run_model(module, call):
        return False
    return any(argument.value.is_tensor for argument in (*call.positional, *call.keywords.values()))


def _puts_away(module: Module, handler: Handler) -> Iterator[tuple[cst.BaseExpression, cst.BaseExpression, Kept]]:
    """The exception, where it goes, and how."""
    for call in handler.calls:
        if call.method in known.KEEPING_METHODS and call.receiver_node is not None and not call.callee.quals:
            for argument in call.positional:
                held = _exception_in(module, handler, argument.expression)
                if held is not None:
                    yield held, call.receiver_node, Kept.FUTURE if call.method == "set_exception" else Kept.CONTAINER
    for statement in handler.nodes:
        if not isinstance(statement, cst.Assign):
            continue
        held = _exception_in(module, handler, statement.value)
        target = statement.targets[0].target
        how = _KEEPING_TARGETS.get(type(target))
        if held is not None and how is not None and (how is not Kept.NAME or held is statement.value):
            yield held, target, how


def _exception_in(module: Module, handler: Handler, value: cst.CSTNode) -> cst.BaseExpression | None:
    """The exception itself, alone or in a tuple, list or dictionary: no text made of it."""
    if isinstance(value, (cst.Tuple, cst.List, cst.Dict)):
        inner = (_exception_in(module, handler, element.value) for element in value.elements)
        return next((found for found in inner if found is not None), None)
    if isinstance(value, cst.Name):
        return value if value.value == handler.name else None
    call = module.call_at(value)
    return value if isinstance(value, cst.Call) and call is not None and call.names({"sys.exc_info"}) else None


def _runs_again(module: Module, handler: Handler) -> bool:
    """The clause is for memory that ran out, and the model runs again in the same function while the name lives."""
    if not handler.catches_out_of_memory:
        return False
    after = max((call.order for call in (*handler.tried, *handler.calls)), default=0)
    if _leaves(handler.clause.body):
        return False
    if any(call.loop is not None for call in handler.tried if call.loop in _loops_around(module, handler)):
        return True
    return any(call.order > after and runs_model(module, call) for call in handler.flow.calls)


def _loops_around(module: Module, handler: Handler) -> list[object]:
    """The loops of the function in which the whole `try` statement stands."""
    return [
        loop
        for loop in handler.flow.loops
        if isinstance(loop.node, (cst.For, cst.While))
        and any(node is handler.statement for node in walk(loop.node.body))
    ]


def _leaves(body: cst.BaseSuite) -> bool:
    """Its last statement leaves the function or the loop."""
    last = body.body[-1] if body.body else None
    small = last.body[-1] if isinstance(last, cst.SimpleStatementLine) else last
    return isinstance(small, (cst.Return, cst.Raise, cst.Break))


def _raised(module: Module) -> frozenset[str]:
    """The paths that the file raises: `raise self.error`, `raise errors[0]`, `raise group("...", errors)`."""
    paths: set[str] = set()
    for node in walk(module.tree):
        if isinstance(node, cst.Raise) and node.exc is not None:
            paths |= {path_of(inner) or "" for inner in walk(node.exc)}
    return frozenset(paths)


def _is_raised_again(found: KeptException, raised: frozenset[str]) -> bool:
    """Somebody wants it with its traceback."""
    if found.kept is Kept.NAME:
        return False
    target = found.target.value if isinstance(found.target, cst.Subscript) else found.target
    path = path_of(target)
    return path is not None and (
        path in raised or path.rpartition(".")[2] in {item.rpartition(".")[2] for item in raised}
    )
