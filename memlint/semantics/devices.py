"""Where code puts a tensor or a module: on the host, on a device, or on one that a variable holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import Enum

import libcst as cst

from memlint.semantics.events import Call
from memlint.semantics.knowledge import devices as known
from memlint.semantics.module import Module
from memlint.semantics.naming import words_of
from memlint.semantics.scopes import Scope, assignments_in, parameters, path_of


class Place(Enum):
    HOST = "host"
    DEVICE = "device"
    """Surely one with memory of its own, where there is one: `"cuda" if torch.cuda.is_available() else "cpu"`."""
    VARIABLE = "variable"
    """A device that comes from out of view."""


def moved_to(module: Module, call: Call) -> Place | None:
    """Where `.to(device)`, `.cuda()` or a factory with `device=` puts its result; None: the call moves nothing."""
    given = call.keywords.get("device")
    if given is not None:
        return place_of(module, call.scope, given.expression)
    if call.receiver is None or call.callee.quals:
        return None
    if call.method == "cuda":
        return Place.DEVICE
    if call.method == "cpu":
        return Place.HOST
    if call.method == "to" and call.positional:
        return place_of(module, call.scope, call.positional[0].expression)
    return None


def uses_a_device(module: Module) -> bool:
    """Whether the file moves something to a device, or leaves that to a framework."""
    if not known.PLACING_WORDS.isdisjoint(module.words):
        return True
    return any(moved_to(module, call) in (Place.DEVICE, Place.VARIABLE) for call in module.calls)


def place_of(module: Module, scope: Scope, node: cst.BaseExpression, depth: int = 8) -> Place | None:
    """The place that an expression names; None: it names no device."""
    if depth == 0:
        return Place.VARIABLE
    if isinstance(node, (cst.SimpleString, cst.ConcatenatedString)):
        return _of_text(node.evaluated_value)
    if isinstance(node, cst.FormattedString):
        parts = (part.value for part in node.parts if isinstance(part, cst.FormattedStringText))
        return _of_text("".join(parts)) or Place.VARIABLE
    if isinstance(node, cst.Integer):
        return Place.DEVICE
    if isinstance(node, cst.IfExp):
        return _of_any(place_of(module, scope, part, depth - 1) for part in (node.body, node.orelse))
    if isinstance(node, cst.BooleanOperation):
        return _of_any(place_of(module, scope, part, depth - 1) for part in (node.left, node.right))
    if isinstance(node, cst.Call):
        is_device = module.analysis.qualify(node.func) in known.DEVICE_OBJECTS and node.args
        return (place_of(module, scope, node.args[0].value, depth - 1) or Place.VARIABLE) if is_device else None
    path = path_of(node)
    return _of_path(module, scope, path, depth) if path is not None else None


def _of_text(text: str | bytes | None) -> Place | None:
    if not isinstance(text, str):
        return None
    if text.startswith(known.HOST_TYPES):
        return Place.HOST
    return Place.DEVICE if text.startswith(known.DEVICE_TYPES) else None


def _of_any(places: Iterable[Place | None]) -> Place | None:
    """One of these, whichever the machine has."""
    found = [place for place in places if place is not None]
    if Place.DEVICE in found:
        return Place.DEVICE
    if not found:
        return None
    return Place.HOST if all(place is Place.HOST for place in found) else Place.VARIABLE


def _of_path(module: Module, scope: Scope, path: str, depth: int) -> Place | None:
    assigned = list(_assigned(scope, path))
    found = _of_any(place_of(module, where, expression, depth - 1) for where, expression in assigned)
    if found is not None:
        return found
    owner, _, name = path.rpartition(".")
    if words_of(name).isdisjoint(known.DEVICE_WORDS):
        return None
    # `x.to(y.device)` moves x to where y is: nothing is known of that.
    return Place.VARIABLE if not owner or not words_of(owner.rpartition(".")[2]).isdisjoint(known.OWNER_WORDS) else None


def _assigned(scope: Scope, path: str) -> Iterator[tuple[Scope, cst.BaseExpression]]:
    """What a name (or an attribute of `self`) is assigned where it is bound."""
    owner = scope.enclosing_class() if path.startswith("self.") else None
    if owner is not None:
        for method in owner.children:
            if path.partition(".")[2] in method.attributes_stored:
                yield from _assigned_in(method, path)
        return
    current: Scope | None = scope
    while current is not None:
        if path in current.bound and not current.is_class:
            yield from _assigned_in(current, path)
            return
        current = current.parent


def _assigned_in(scope: Scope, path: str) -> Iterator[tuple[Scope, cst.BaseExpression]]:
    if isinstance(scope.node, cst.FunctionDef):
        for param in parameters(scope.node.params):
            if param.name.value == path and param.default is not None:
                yield scope, param.default
    yield from ((scope, node.value) for node in assignments_in(scope.node).get(path, ()))
