"""The event of a call: what it was given, and what came back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import libcst as cst

from memlint.semantics.events import Argument, Call, Handed
from memlint.semantics.reading import Reading
from memlint.semantics.values import (
    Grad,
    Value,
)

if TYPE_CHECKING:
    from memlint.semantics.flow import Flow


def call_event(flow: Flow, reading: Reading, result: Value) -> Call:
    statement = flow.statement
    is_statement = isinstance(statement, cst.Expr) and statement.value is reading.node
    return Call(
        **flow.here(reading.node),
        callee=reading.callee,
        receiver=reading.receiver,
        receiver_node=reading.receiver_node,
        method=reading.method,
        positional=tuple(reading.positional),
        keywords=reading.keywords,
        unpacks=reading.unpacks,
        result=result,
        root=reading.root,
        is_statement=is_statement,
        is_forward=reading.forward,
        backed=flow.state.backed,
        summary=reading.summary,
        handed=_handed(flow, reading) if is_statement and (flow.loop is not None or flow.has_step) else (),
    )


def _handed(flow: Flow, reading: Reading) -> tuple[Handed, ...]:
    """What a call that is a statement of its own is given to keep: functions of this file and methods may."""
    if (
        reading.method is None
        and reading.callee.quals
        and not any(q.startswith((":", "@")) for q in reading.callee.quals)
    ):
        return ()
    found = (
        Handed(argument, _carriers(flow, argument))
        for argument in reading.arguments
        if argument.value.grad is not Grad.NO or argument.value.boxes or argument.value.elements
    )
    return tuple(handed for handed in found if handed.carriers)


def _carriers(flow: Flow, argument: Argument) -> tuple[tuple[cst.BaseExpression, Value], ...]:
    """The parts of an argument that carry a graph."""
    return tuple(flow.carriers(argument.expression)) or _contents(flow, argument) or _at_times(flow, argument)


def _at_times(flow: Flow, argument: Argument) -> tuple[tuple[cst.BaseExpression, Value], ...]:
    """What carries a graph on some paths, if the call is reached on all of them: one of the items of a dictionary."""
    value = flow.on_this_path(argument.value)
    return ((argument.expression, value),) if value.carries_graph else ()


def _contents(flow: Flow, argument: Argument) -> tuple[tuple[cst.BaseExpression, Value], ...]:
    """What a container of this function holds that carries a graph: `losses` in `meter.update(losses)`."""
    boxes = [flow.analysis.boxes[index] for index in sorted(argument.value.boxes)]
    return tuple((argument.expression, value) for box in boxes if not box.escaped for value in box.carrying)
