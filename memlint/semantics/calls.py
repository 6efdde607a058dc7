"""Reading calls: what a call returns, what it does to its arguments, which events it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import libcst as cst

from memlint.semantics.call_events import call_event
from memlint.semantics.differentiating_calls import backward_call, differentiates
from memlint.semantics.events import Argument
from memlint.semantics.forward_calls import forward_call, note_forward
from memlint.semantics.grad_effects import GRAD_MODE_WORDS
from memlint.semantics.held_models import shows_module
from memlint.semantics.imports import imported_call
from memlint.semantics.knowledge import frameworks, threads, training
from memlint.semantics.knowledge import torch as known
from memlint.semantics.knowledge.libraries.rows import Effect
from memlint.semantics.library_calls import library_call
from memlint.semantics.library_objects import effect_of, result_of
from memlint.semantics.method_calls import is_loss_scaler, method_call, note_step
from memlint.semantics.own_calls import applied_call, own_call
from memlint.semantics.reading import Reading
from memlint.semantics.scopes import is_property, path_of
from memlint.semantics.unknown_calls import unknown_call
from memlint.semantics.values import (
    Kind,
    Mode,
    Value,
    join,
)

if TYPE_CHECKING:
    from memlint.semantics.flow import Flow


def read_call(flow: Flow, node: cst.Call) -> Value:
    reading = _parts(flow, node)
    result = _result(flow, reading)
    if reading.forward:
        note_forward(flow, reading)
    if not flow.quiet:
        flow.calls.append(call_event(flow, reading, result))
    return result


def _parts(flow: Flow, node: cst.Call) -> Reading:
    reading = Reading(node)
    func = node.func
    if isinstance(func, cst.Attribute):
        reading.receiver_node = func.value
        reading.method = func.attr.value
        reading.receiver = flow.eval(func.value)
        reading.callee = _method_callee(flow, func, reading.receiver)
        if not reading.receiver.quals:
            flow.use(reading.receiver, "method", reading.method, node)
    else:
        reading.callee = flow.eval(func)
        if isinstance(func, cst.Subscript) and reading.callee.kind is Kind.UNKNOWN and shows_module(flow.scope, func):
            reading.callee = Value(Kind.MODULE)
    if reading.callee.kind is Kind.UNKNOWN and node.args and not reading.callee.quals:
        shown = flow.analysis.kind_from_call(flow.scope, path_of(func))
        reading.callee = shown if shown is not None else reading.callee
    for argument in node.args:
        value = flow.eval(argument.value)
        if argument.star:
            reading.unpacks = True
            if argument.star == "*":
                value = flow.element_of(value, argument)
            reading.keywords[f"*{len(reading.keywords)}"] = Argument(argument, value)
        elif argument.keyword is not None:
            reading.keywords[argument.keyword.value] = Argument(argument, value)
        else:
            reading.positional.append(Argument(argument, value))
    path = path_of(func)
    if path is not None and reading.callee.kind is Kind.MODULE and flow.analysis.is_frozen(flow.scope, path):
        reading.callee = Value(Kind.MODULE, cls=reading.callee.cls, mode=Mode.OFF)
    _use_arguments(flow, reading)
    return reading


def _use_arguments(flow: Flow, reading: Reading) -> None:
    if not reading.callee.quals or not reading.callee.quals <= frameworks.LAUNCHERS:
        in_known_mode = _runs_with_grad(reading) or _runs_in_mode_of_caller(flow, reading)
        for value in reading.values:
            flow.hand_over(value, in_known_mode=in_known_mode)
    if flow.quiet:
        return
    names = sorted(reading.callee.quals)
    detail = names[0] if len(names) == 1 else ""
    if not detail and reading.method is not None:
        detail = "." + reading.method
    for argument in reading.arguments:
        flow.use(argument.value, "argument", detail, reading.node)


def _runs_with_grad(reading: Reading) -> bool:
    """Whether a function that is given runs in a thread of its own, which starts with grad on, or is what is returned.

    (`threads.py` has the check.)
    """
    if reading.callee.quals:
        return reading.callee.quals <= threads.STARTERS.keys() | training.COMPILES
    return reading.method in threads.QUEUEING_METHODS


def _runs_in_mode_of_caller(flow: Flow, reading: Reading) -> bool:
    """`timed(lambda: net(x))`, where a function of this file that does not speak of grad mode gets the lambda."""
    scopes = [flow.analysis.scope_named(qual) for qual in reading.callee.quals]
    if not scopes or not all(scope is not None and scope.is_function for scope in scopes):
        return False
    if any(scope is not None and scope.words_within & GRAD_MODE_WORDS for scope in scopes):
        return False
    given = [flow.analysis.function_given(argument) for argument in reading.arguments]
    for function in given:
        if function is not None and not flow.quiet:
            flow.analysis.note_run(function, flow.scope, flow.state.mode)
    return True


def _method_callee(flow: Flow, func: cst.Attribute, receiver: Value) -> Value:
    name = func.attr.value
    if name == "forward" and receiver.kind is Kind.MODULE and path_of(func.value) == "self":
        return receiver  # `self.forward(x)` is `self(x)` without its hooks
    if receiver.quals:
        quals = frozenset(flow.analysis.attribute_name(qual, name) for qual in receiver.quals)
        return Value(Kind.CALLABLE, quals=quals)
    if receiver.cls is not None:
        method = flow.analysis.method(receiver.cls, name)
        if method is not None and not is_property(method):
            return Value(Kind.CALLABLE, quals=frozenset({method.qualname}))
        imported = flow.analysis.imported_method(receiver.cls, name) if method is None else None
        if imported is not None:
            return Value(Kind.CALLABLE, quals=frozenset({imported}))
        member = flow.analysis.member(receiver.cls, name)
        if member is not None and member.kind is not Kind.UNKNOWN:
            return member
    path = path_of(func)
    if path is not None:
        set_here = flow.state.vars.get(path)
        if set_here is not None and set_here.kind is not Kind.UNKNOWN:
            return set_here
        shown = flow.analysis.kind_from_use(flow.scope, path)
        if shown is not None:
            return shown
        if set_here is not None:
            return set_here
    is_part = name.rstrip("0123456789").rstrip("_") in known.PARTS_OF_MODELS  # `decoder1`, `head_2`
    if receiver.kind is Kind.MODULE and receiver.cls is None and is_part:
        return Value(Kind.MODULE, mode=receiver.mode, weak=True)
    return Value(Kind.UNKNOWN)


def _result(flow: Flow, reading: Reading) -> Value:
    if differentiates(reading):
        return backward_call(flow, reading)
    effect = effect_of(flow, reading)
    if effect is not None:
        value = note_step(flow) if effect is Effect.STEPS else result_of(flow, reading, effect)
        if value is not None:
            return value
    callee = reading.callee
    if callee.kind is Kind.MODULE:
        return forward_call(flow, reading)
    called = flow.analysis.method_of_calls(callee)
    if called is not None:
        return _named(flow, reading, called)
    if callee.quals:
        # Several names (`try: import a except: import b`): what they agree on.
        results = [_named(flow, reading, qual) for qual in sorted(callee.quals)]
        value = results[0]
        for other in results[1:]:
            value = join(value, other)
        return value
    if reading.method is not None and reading.receiver is not None:
        return method_call(flow, reading, reading.receiver, reading.method)
    if is_loss_scaler(reading):
        note_step(flow)
        return backward_call(flow, reading, reading.first())
    return unknown_call(flow, reading)


def _named(flow: Flow, reading: Reading, qual: str) -> Value:
    """The call of something whose qualified name is known."""
    if qual.startswith(":"):
        return own_call(flow, reading, qual)
    if qual.startswith("@"):
        value = imported_call(flow, reading, qual)
        return value if value is not None else unknown_call(flow, reading, qual)
    value = _mapped(flow, reading) if qual == "map" else library_call(flow, reading, qual)
    if value is not None and qual == "collections.defaultdict":
        _fill_on_demand(flow, reading, value)
    return value if value is not None else unknown_call(flow, reading, qual)


def _fill_on_demand(flow: Flow, reading: Reading, made: Value) -> None:
    """`defaultdict(AverageMeter)`, `defaultdict(lambda: 0.0)`: what the factory makes stands under each key."""
    factory = reading.positional[0] if reading.positional else None
    if factory is None:
        return
    item: Value | None = None
    if isinstance(factory.expression, cst.Lambda):
        body = factory.expression.body
        item = flow.reread(body) if isinstance(body, (cst.Call, cst.Integer, cst.Float)) else None
    elif factory.value.quals and all(map(_is_named_like_class, factory.value.quals)):
        inner = Reading(reading.node)
        inner.callee = factory.value
        item = _result(flow, inner)
    if item is not None:
        for box in made.boxes:
            flow.analysis.put(box, item)


def _is_named_like_class(qualified: str) -> bool:
    return qualified.replace(":", ".").rpartition(".")[2][:1].isupper()


def _mapped(flow: Flow, reading: Reading) -> Value | None:
    """`map(lambda x: x.detach(), outputs)` calls a function of this file with each part."""
    if len(reading.positional) != 2 or reading.unpacks:
        return None
    function, parts = reading.positional
    scope = flow.analysis.function_given(function)
    if scope is None:
        return None
    inner = Reading(reading.node)
    inner.callee = function.value
    inner.positional = [Argument(parts.node, flow.element_of(parts.value, reading.node))]
    callee = flow.analysis.callee(scope, inner, flow)
    return flow.box(reading.node, [applied_call(flow, inner, callee)]) if callee is not None else None
