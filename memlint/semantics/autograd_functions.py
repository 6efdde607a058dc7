"""Which inputs of a `torch.autograd.Function` are tensors: those for which its backward returns a gradient.

torch raises where a gradient other than None is returned for anything else, so this is a proof, not a guess.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import libcst as cst

from memlint.semantics.blocks import mentions
from memlint.semantics.knowledge import torch as known
from memlint.semantics.scopes import Scope, parameters, parts_of, path_of, target_names, walk
from memlint.semantics.values import NO_GRAD_TENSOR, Kind, Value

_NESTED = (cst.FunctionDef, cst.Lambda, cst.ClassDef)


def input_of_function(scope: Scope, name: str, index: int, base_names: Callable[[str], frozenset[str]]) -> Value | None:
    """What the parameter of an autograd Function's `forward` or `setup_context` is, where that is known."""
    function = scope.parent
    if function is None or scope.name not in ("forward", "setup_context"):
        return None
    if not function.is_class or base_names(function.qualname).isdisjoint(known.AUTOGRAD_FUNCTIONS):
        return None
    if scope.name == "forward":
        return NO_GRAD_TENSOR if name in tensor_inputs(function) else None
    if index != 1:
        return None
    # `setup_context(ctx, inputs, output)`: the inputs are a tuple.
    forward = _method(function, "forward")
    names = [param.name.value for param in _inputs(forward)] if forward is not None else []
    proven = tensor_inputs(function)
    return Value(Kind.CONTAINER, elements=tuple(NO_GRAD_TENSOR if item in proven else Value() for item in names))


def tensor_inputs(function: Scope) -> frozenset[str]:
    """The parameters of the `forward` of this class that are proven tensors."""
    forward = _method(function, "forward")
    if forward is None:
        return frozenset()
    names = [param.name.value for param in _inputs(forward)]
    positions = _differentiated(function, len(names))
    proven = {name for index, name in enumerate(names) if index in positions}
    return frozenset((proven | tensor_names(forward)).intersection(names) - _unpacked(forward))


def tensor_names(scope: Scope) -> frozenset[str]:
    """The names and paths on which the function calls what only tensors have."""
    called = {path for path, methods in scope.methods_called.items() if methods & known.TENSOR_INPUT_METHODS}
    sized = {path for path, methods in scope.methods_called.items() if "size" in methods} - called
    return frozenset(called | (_sized(scope) & sized if sized else set()))


def _sized(scope: Scope) -> set[str]:
    """`b, n = x.size()`, `x.size(0)`, `x.size()[-1]`: a process group has a size that is one number."""
    found: set[str] = set()
    for node in walk(scope.node):
        call: cst.CSTNode | None = None
        unpacks = isinstance(node, cst.Assign) and isinstance(node.targets[0].target, (cst.Tuple, cst.List))
        if isinstance(node, (cst.Assign, cst.Subscript)) and (unpacks or isinstance(node, cst.Subscript)):
            call = node.value
        elif isinstance(node, cst.Call) and node.args:
            call = node
        if isinstance(call, cst.Call) and isinstance(call.func, cst.Attribute) and call.func.attr.value == "size":
            found.add(path_of(call.func.value) or "")
    return found


def _unpacked(scope: Scope) -> set[str]:
    """`x, scale = pair`: a tuple, more likely than a tensor."""
    return {
        path_of(node.value) or ""
        for node in walk(scope.node)
        if isinstance(node, cst.Assign) and isinstance(node.targets[0].target, (cst.Tuple, cst.List))
    }


def _method(function: Scope, name: str) -> Scope | None:
    return next((child for child in function.children if child.name == name and child.is_function), None)


def _inputs(forward: Scope) -> list[cst.Param]:
    """The parameters without the context, which `forward` does not get where `setup_context` gets it."""
    assert isinstance(forward.node, (cst.FunctionDef, cst.Lambda))
    has_context = forward.parent is None or _method(forward.parent, "setup_context") is None
    return [param for param in parameters(forward.node.params)[int(has_context) :] if param.star not in ("*", "**")]


def _differentiated(function: Scope, count: int) -> set[int]:
    """The positions for which some `return` of backward gives something other than None."""
    backward = _method(function, "backward")
    if backward is None or not isinstance(backward.node, cst.FunctionDef):
        return set()
    found: set[int] = set()
    for returned in _returned(backward.node):
        value = _once_set_to(returned, backward.node) or returned
        gradients = _gradients(value, count)
        found |= {index for index, item in enumerate(gradients) if _may_be_something(item, backward)}
    return found


def _returned(function: cst.FunctionDef) -> Iterator[cst.BaseExpression]:
    stack: list[cst.CSTNode] = [function.body]
    while stack:
        node = stack.pop()
        if isinstance(node, cst.Return) and node.value is not None:
            yield node.value
        elif not isinstance(node, _NESTED):
            stack.extend(parts_of(node))


def _once_set_to(name: cst.BaseExpression, function: cst.FunctionDef) -> cst.BaseExpression | None:
    """What a variable is set to, where one assignment is all that mentions it beside the `return`."""
    if not isinstance(name, cst.Name) or mentions(function, name.value) != 2:
        return None
    for node in walk(function):
        if isinstance(node, cst.Assign) and len(node.targets) == 1 and path_of(node.targets[0].target) == name.value:
            return node.value
    return None


def _gradients(value: cst.BaseExpression, count: int) -> Sequence[cst.BaseExpression]:
    """The gradients up to the first `*`; one expression alone may be a tuple of them."""
    if not isinstance(value, cst.Tuple):
        return [value] if count == 1 else []
    gradients = []
    for element in value.elements:
        if isinstance(element, cst.StarredElement):
            break
        gradients.append(element.value)
    return gradients


def _may_be_something(value: cst.BaseExpression, scope: Scope) -> bool:
    if isinstance(value, cst.IfExp):
        return _may_be_something(value.body, scope) or _may_be_something(value.orelse, scope)
    if not isinstance(value, cst.Name):
        return True
    return value.value != "None" and not _is_ever_none_only(scope, value.value)


def _is_ever_none_only(scope: Scope, name: str) -> bool:
    """Whether every assignment to the name in the function gives it None."""
    given = [
        _is_none(item, name, node.value)
        for node in walk(scope.node)
        if isinstance(node, cst.Assign)
        for item in (target.target for target in node.targets)
        if name in target_names(item)
    ]
    return bool(given) and all(given)


def _is_none(target: cst.BaseExpression, name: str, value: cst.BaseExpression) -> bool:
    if isinstance(target, (cst.Tuple, cst.List)) and isinstance(value, (cst.Tuple, cst.List)):
        pairs = zip(target.elements, value.elements, strict=False)
        return any(_is_none(left.value, name, right.value) for left, right in pairs if name in target_names(left.value))
    return path_of(value) == "None"
