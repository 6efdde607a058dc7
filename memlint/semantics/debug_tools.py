"""Tools for finding errors that were left on: anomaly detection, profilers, memory history, blocking launches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise

import libcst as cst

from memlint.semantics.blocks import path_to
from memlint.semantics.events import Argument, Call, Loop
from memlint.semantics.flow import Flow
from memlint.semantics.knowledge import debugging as known
from memlint.semantics.knowledge import device
from memlint.semantics.module import Module
from memlint.semantics.naming import words_of
from memlint.semantics.scopes import Scope, walk

_FUNCTIONS = (cst.FunctionDef, cst.Lambda)
_WORDS = frozenset({"set_detect_anomaly", "detect_anomaly", "set_anomaly_enabled", "profile", "_record_memory_history"})
_ENVIRONMENT_WORDS = frozenset({"environ", "putenv"})
# A loop over so few steps is an experiment.
_FEW = 100
_DEPTH = 3
# So many statements has a function that switches the tool on, and returns something.
_ONLY_SWITCHING = 2


class Tool(Enum):
    ANOMALY = "anomaly detection"
    PROFILER = "profiler"
    MEMORY_HISTORY = "memory history"
    BLOCKING_LAUNCHES = "blocking launches"


@dataclass(frozen=True, eq=False)
class DebugTool:
    """A tool that is on whenever the code runs: no condition decides."""

    tool: Tool
    node: cst.BaseExpression
    call: Call | None
    argument: Argument | None = None
    """The keyword that switches it on, of a call that does something else too."""
    statement: cst.CSTNode | None = None
    """The statement that does nothing but switch it on."""
    loop: Loop | None = None
    """What is recorded."""


def debug_tools(module: Module) -> Iterator[DebugTool]:
    if _is_on_purpose(module.path.replace("\\", "/").rpartition("/")[2]):
        return
    if not module.words.isdisjoint(_WORDS):
        yield from _anomaly(module)
        yield from _profilers(module)
        yield from _memory_history(module)
    if not module.words.isdisjoint(_ENVIRONMENT_WORDS) and module.mentions((known.LAUNCH_BLOCKING,)):
        yield from _blocking_launches(module)


def _is_on_purpose(name: str) -> bool:
    return not words_of(name).isdisjoint(known.PURPOSES)


# --- anomaly detection ---


def _anomaly(module: Module) -> Iterator[DebugTool]:
    switches = list(module.calls_of(known.SET_DETECT_ANOMALY))
    if not any(_literal(call) is False for call in switches):  # else it is on for a while only
        for call in switches:
            if _literal(call) is True and call.is_statement and _is_always_on(module, call.node):
                yield DebugTool(Tool.ANOMALY, call.call, call, statement=call.statement)
    for with_, item, _ in module.withs:
        entered = module.call_at(item.item)
        if entered is None or not (
            entered.names(known.DETECT_ANOMALY)
            or (entered.names(known.SET_DETECT_ANOMALY) and _literal(entered) is True)
        ):
            continue
        if _trains(module, entered, with_) and _is_always_on(module, entered.node):
            yield DebugTool(Tool.ANOMALY, entered.call, entered)
    for call in module.calls_of(known.LIGHTNING_TRAINERS):
        argument = call.keywords.get("detect_anomaly")
        if argument is not None and argument.value.literal is True and _is_always_on(module, call.node):
            yield DebugTool(Tool.ANOMALY, argument.expression, call, argument)


def _literal(call: Call) -> object:
    """The mode that `set_detect_anomaly(True)` and `set_detect_anomaly(mode=True)` set."""
    keyword = call.keywords.get("mode")
    argument = call.positional[0] if call.positional else keyword
    return None if argument is None else argument.value.literal


def _trains(module: Module, call: Call, with_: cst.With) -> bool:
    """Whether steps of a training run in the context: it stands in its loop, or the loop in it."""
    if call.loop is not None and call.loop.is_training_loop:
        return True
    if call.scope.name in ("training_step", "train_step", "forward"):
        return True
    return any(loop.is_training_loop for loop in _loops_inside(module, call, with_))


def _loops_inside(module: Module, call: Call, with_: cst.With) -> Iterator[Loop]:
    """The loops in the body of a `with`, and those in functions of this file that the body calls."""
    inside = {id(node) for node in walk(with_.body)}
    flow = module.flow_of(call.scope)
    if flow is not None:
        yield from (loop for loop in flow.loops if id(loop.node) in inside)
        yield from _loops_called(module, [item for item in flow.calls if id(item.node) in inside], _DEPTH)


def _loops_called(module: Module, calls: list[Call], depth: int) -> Iterator[Loop]:
    for call in calls:
        for name in call.callee.quals:
            scope = module.analysis.scope_named(name)
            flow = module.flow_of(scope) if scope is not None else None
            if flow is not None:
                yield from flow.loops
                if depth > 1:
                    yield from _loops_called(module, flow.calls, depth - 1)


# --- profilers ---


def _profilers(module: Module) -> Iterator[DebugTool]:
    for with_, item, _ in module.withs:
        call = module.call_at(item.item)
        if call is None or not call.names(known.PROFILERS) or call.unpacks or "schedule" in call.keywords:
            continue
        if not _is_enabled(call):
            continue
        loop = next((loop for loop in _loops_inside(module, call, with_) if _is_long(loop)), None)
        if loop is not None and _is_always_on(module, call.node):
            yield DebugTool(Tool.PROFILER, call.call, call, loop=loop)


def _is_enabled(call: Call) -> bool:
    """Of `torch.autograd.profiler.profile(enabled)` a variable may decide."""
    if not call.names({"torch.autograd.profiler.profile"}):
        return True
    enabled = call.positional[0] if call.positional else call.keywords.get("enabled")
    return enabled is None or enabled.value.literal is True


def _is_long(loop: Loop) -> bool:
    """A loop over the batches of a loader, or over training steps, that nothing ends early."""
    if loop.is_comprehension or not isinstance(loop.node, (cst.For, cst.While)):
        return False
    if not loop.is_training_loop and not loop.draws_from_loader:
        return False
    if any(isinstance(node, cst.Break) for node in walk(loop.node.body)):
        return False
    return not _is_few(loop.source)


def _is_few(iterable: cst.BaseExpression | None) -> bool:
    """`range(10)`, `islice(loader, 10)`"""
    if not isinstance(iterable, cst.Call):
        return False
    name = iterable.func.attr.value if isinstance(iterable.func, cst.Attribute) else getattr(iterable.func, "value", "")
    numbers = [int(item.value.value) for item in iterable.args if isinstance(item.value, cst.Integer)]
    return name == "islice" or (name in ("range", "trange") and bool(numbers) and max(numbers) <= _FEW)


# --- the allocator's history ---


def _memory_history(module: Module) -> Iterator[DebugTool]:
    calls = list(module.calls_of(known.RECORD_MEMORY_HISTORY))
    if not module.words.isdisjoint(known.SNAPSHOT_WORDS) or any(_stops_recording(call) for call in calls):
        return  # somebody looks at what was recorded
    for call in calls:
        if call.unpacks or not known.BOUNDING_KEYWORDS.isdisjoint(call.keywords) or len(call.positional) > 1:
            continue
        if call.is_statement and _is_always_on(module, call.node):
            yield DebugTool(Tool.MEMORY_HISTORY, call.call, call)


def _stops_recording(call: Call) -> bool:
    argument = call.positional[0] if call.positional else call.keywords.get("enabled")
    if argument is None:
        return False
    expression = argument.expression
    return argument.value.literal is False or (isinstance(expression, cst.Name) and expression.value == "None")


# --- blocking launches ---


def _blocking_launches(module: Module) -> Iterator[DebugTool]:
    found = [*_environment_writes(module)]
    if any(value != "1" for _, _, value in found):
        return  # switched off again
    for node, statement, _ in found:
        if _is_always_on(module, node) and not _makes_one_step(module, node):
            yield DebugTool(Tool.BLOCKING_LAUNCHES, node, None, statement=statement)


def _makes_one_step(module: Module, node: cst.CSTNode) -> bool:
    """The function around trains, and in no loop: a demonstration."""
    functions = [item for item in path_to(module.tree, node) if isinstance(item, _FUNCTIONS)]
    flow = module.flow_of(module.analysis.scope_of(functions[-1])) if functions else None
    return flow is not None and bool(flow.backwards) and all(backward.loop is None for backward in flow.backwards)


def _environment_writes(module: Module) -> Iterator[tuple[cst.BaseExpression, cst.CSTNode | None, str | None]]:
    for node in walk(module.tree):
        if isinstance(node, cst.Assign) and len(node.targets) == 1:
            target = node.targets[0].target
            if isinstance(target, cst.Subscript) and _is_variable(module, target):
                yield target, node, _text(node.value)
        elif isinstance(node, cst.Call):
            call = module.call_at(node)
            if call is None or not call.names(known.SETTING_DEFAULTS) or len(call.positional) != 2:
                continue
            if call.positional[0].value.literal == known.LAUNCH_BLOCKING:
                yield node, call.statement if call.is_statement else None, _text(call.positional[1].expression)


def _is_variable(module: Module, target: cst.Subscript) -> bool:
    if module.analysis.qualify(target.value) != known.ENVIRONMENT or len(target.slice) != 1:
        return False
    index = target.slice[0].slice
    return isinstance(index, cst.Index) and _text(index.value) == known.LAUNCH_BLOCKING


def _text(node: cst.BaseExpression) -> str | None:
    """The text of a literal; of `str(1)` that of the number."""
    if isinstance(node, cst.Call) and isinstance(node.func, cst.Name) and node.func.value == "str" and node.args:
        argument = node.args[0].value
        return argument.value if isinstance(argument, cst.Integer) else None
    value = node.evaluated_value if isinstance(node, cst.SimpleString) else None
    return value if isinstance(value, str) else None


# --- is it always on? ---


def _is_always_on(module: Module, node: cst.CSTNode, asked: frozenset[Scope] = frozenset()) -> bool:
    """Whether no condition decides, and the code is known to run when somebody trains.

    `asked` are the functions that call it in turn, as far as they have been asked.
    """
    path = path_to(module.tree, node)
    for parent, child in pairwise(path):
        if isinstance(parent, cst.If) and child is not parent.test and not _is_always_true(module, parent.test):
            return False
        if isinstance(parent, (cst.IfExp, cst.BooleanOperation)):
            return False
        if isinstance(child, (cst.ExceptHandler, cst.ExceptStarHandler, cst.MatchCase)):
            return False
        if isinstance(child, cst.Else) and isinstance(parent, (cst.If, cst.Try)):
            return False
    functions = [item for item in path if isinstance(item, _FUNCTIONS)]
    return all(_runs_in_training(module, module.analysis.scope_of(item), asked) for item in functions[-1:])


def _is_always_true(module: Module, test: cst.BaseExpression) -> bool:
    """`__name__ == "__main__"`, or a question whose answer is the same for all who have a GPU."""
    if isinstance(test, cst.Comparison):
        return isinstance(test.left, cst.Name) and test.left.value == "__name__"
    if isinstance(test, cst.Name) and test.value == "True":
        return True
    call = module.call_at(test)
    return call is not None and call.names(device.DEVICE_CHECKS)


def _runs_in_training(module: Module, scope: Scope, asked: frozenset[Scope]) -> bool:
    if scope in asked or _is_on_purpose(scope.name):
        return False
    owner = scope.enclosing_class()
    if owner is not None and _is_on_purpose(owner.name):
        return False
    flow = module.flow_of(scope)
    if flow is not None and (flow.has_backward or flow.has_step or _has_batch_loop(flow)):
        return True
    if not words_of(scope.name).isdisjoint(known.RUNNERS) or scope.name in known.RUNNERS:
        return True
    if scope.name == "forward" and owner is not None and module.analysis.is_module_class(owner.qualname):
        return True
    calls = [call for call in module.calls if scope.qualname in call.callee.quals]
    asked |= {scope}
    if any(_is_always_on(module, call.node, asked) for call in calls):
        return True
    return _does_more(scope) and any(_is_no_debugging(module, call, asked) for call in calls)


def _does_more(scope: Scope) -> bool:
    """It is there for something else than to switch the tool on: whoever calls it wants that, and gets the tool too."""
    body = scope.node.body.body if isinstance(scope.node, cst.FunctionDef) else ()
    lines = [line for line in body if not isinstance(line, cst.SimpleStatementLine) or not _is_text(line)]
    return len(lines) > _ONLY_SWITCHING


def _is_text(line: cst.SimpleStatementLine) -> bool:
    small = line.body[0]
    return isinstance(small, cst.Expr) and isinstance(small.value, (cst.SimpleString, cst.ConcatenatedString))


def _is_no_debugging(module: Module, call: Call, asked: frozenset[Scope]) -> bool:
    """A condition may decide, but none that speaks of debugging."""
    path = path_to(module.tree, call.node)
    tests = (item.test for item in path if isinstance(item, (cst.If, cst.IfExp)))
    names = (node.value for test in tests for node in walk(test) if isinstance(node, cst.Name))
    if any(_is_on_purpose(name) for name in names) or not call.scope.is_function:
        return False
    return _runs_in_training(module, call.scope, asked)


def _has_batch_loop(flow: Flow) -> bool:
    return any(loop.is_batch_loop for loop in flow.loops)
