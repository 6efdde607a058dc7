"""What is done to a total between the loop that sums it and the backward pass: is it still a weighted sum?

The gradients of the terms add up to that of the total only where its weights are known while the loop runs. A divisor
that grows in the loop (the number of tokens) or that the total itself gives, a power of it, or a decision on its value
are known when the loop has ended, and the terms cannot be differentiated one by one.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from functools import lru_cache

import libcst as cst

from memlint.semantics.events import Backward, Call, Loop, Store
from memlint.semantics.knowledge import training as known
from memlint.semantics.scopes import NODES_REMEMBERED, nodes_within, parts_of, path_of, walk

_PRODUCTS = (cst.Multiply, cst.MatrixMultiply, cst.MultiplyAssign, cst.MatrixMultiplyAssign)
_QUOTIENTS = (cst.Divide, cst.DivideAssign)
_POWERS = (cst.Power, cst.FloorDivide, cst.Modulo, cst.PowerAssign, cst.FloorDivideAssign, cst.ModuloAssign)
# What is read of a tensor or a list without its value.
_PLAIN = frozenset({"shape", "dtype", "device", "ndim", "requires_grad", "grad_fn", "size", "numel", "dim"})
_PLAIN_FUNCTIONS = frozenset({"len", "isinstance", "type", "hasattr", "callable", "id", "torch.is_tensor"})
_GROWING_METHODS = frozenset({"append", "extend", "add_"})
_ABORTS = frozenset({"exit", "sys.exit", "quit", "os._exit"})

# A path, what it is bound to, the operator of `a += b`, and the position in the source.
_Binding = tuple[str, cst.BaseExpression, cst.BaseAugOp | None, int]


def is_weighted_sum(store: Store, loop: Loop, backward: Backward) -> bool:
    """Whether the total that is differentiated is a sum of the terms with weights known in each iteration."""
    total = path_of(_base(store.target))
    if total is None:
        return True
    nodes, place, every_binding = _laid_out(store.scope.node)
    first, last = place.get(id(loop.node), 0), place.get(id(backward.call.node), len(nodes))
    stored = place.get(id(store.statement), first)
    bindings = [item for item in every_binding if item[3] >= first]
    inside = {place[node] for node in nodes_within(loop.node) if node in place}
    grown = _grown([item for item in bindings if item[3] in inside and item[3] <= max(stored, last)])
    of_total = _computed_from({total}, bindings, stored)
    late = _computed_from({total, *grown}, bindings, stored)
    if _decides(nodes, first, last, stored, inside, of_total):
        return False
    if _weighs_itself(store, total):
        return False
    between = [item for item in bindings if stored < item[3] < last and item[1] is not store.value_node]
    return not _has_late_weight(backward.call, between, late)


@lru_cache(maxsize=NODES_REMEMBERED)
def _laid_out(function: cst.CSTNode) -> tuple[list[cst.CSTNode], dict[int, int], list[_Binding]]:
    """The nodes of a function in the order of the source, the place of each by its identity, and what is bound."""
    nodes = list(walk(function))
    place = {id(node): index for index, node in enumerate(nodes)}
    return nodes, place, [item for index, node in enumerate(nodes) for item in _bindings(node, index)]


def _base(node: cst.BaseExpression) -> cst.BaseExpression:
    """`total` of `total["a"]`."""
    while isinstance(node, cst.Subscript):
        node = node.value
    return node


def _bindings(node: cst.CSTNode, index: int) -> Iterator[_Binding]:
    if isinstance(node, cst.Assign):
        for target in node.targets:
            for part in _unpacked(target.target):
                yield part, node.value, None, index
    elif isinstance(node, cst.AugAssign):
        for part in _unpacked(node.target):
            yield part, node.value, node.operator, index
    elif isinstance(node, (cst.AnnAssign, cst.NamedExpr)) and node.value is not None:
        for part in _unpacked(node.target):
            yield part, node.value, None, index
    elif isinstance(node, cst.Call) and isinstance(node.func, cst.Attribute) and node.args:
        path = path_of(node.func.value)
        if path is not None and node.func.attr.value in _GROWING_METHODS:
            yield path, node.args[0].value, cst.AddAssign(), index


def _unpacked(target: cst.BaseExpression) -> Iterator[str]:
    if isinstance(target, (cst.Tuple, cst.List)):
        for element in target.elements:
            yield from _unpacked(element.value)
        return
    path = path_of(_base(target))
    if path is not None:
        yield path


def _grown(bindings: list[_Binding]) -> frozenset[str]:
    """What an iteration adds to what the one before it left: its first binding in the body reads itself."""
    first: dict[str, bool] = {}
    for path, value, operator, _ in bindings:
        first.setdefault(path, operator is not None or _mentions(value, {path}))
    return frozenset(path for path, grows in first.items() if grows)


def _computed_from(paths: Set[str], bindings: list[_Binding], after: int) -> frozenset[str]:
    found = set(paths)
    for path, value, _, index in bindings:
        if index > after and path not in found and _mentions(value, found):
            found.add(path)
    return frozenset(found)


def _mentions(node: cst.CSTNode, paths: Set[str]) -> bool:
    """Whether the value of one of the paths is read, not only its size or its type."""
    stack = [node]
    while stack:
        current = stack.pop()
        if isinstance(current, (cst.Name, cst.Attribute)):
            path = path_of(current)
            if path is not None:
                if path in paths:
                    return True
                owner, _, name = path.rpartition(".")
                while owner and name not in _PLAIN:
                    if owner in paths:
                        return True
                    owner, _, name = owner.rpartition(".")
                continue
            if isinstance(current, cst.Attribute):
                if current.attr.value not in _PLAIN:
                    stack.append(current.value)
                continue
        if isinstance(current, cst.Call) and path_of(current.func) in _PLAIN_FUNCTIONS:
            continue
        if isinstance(current, cst.Arg):
            stack.append(current.value)
            continue
        stack += parts_of(current)
    return False


# --- conditions ---


def _decides(
    nodes: list[cst.CSTNode], first: int, last: int, stored: int, inside: Set[int], of_total: frozenset[str]
) -> bool:
    """A condition on the total's value, in the loop or on the way to the backward pass, that does not abort."""
    for index in range(first, min(last, len(nodes))):
        node = nodes[index]
        if index < stored and index not in inside:
            continue
        if not isinstance(node, (cst.If, cst.While)) or (isinstance(node, cst.If) and _aborts(node)):
            continue
        if _tests_value(node.test, of_total):
            return True
    return False


def _tests_value(test: cst.BaseExpression, paths: frozenset[str]) -> bool:
    if isinstance(test, cst.BooleanOperation):
        return _tests_value(test.left, paths) or _tests_value(test.right, paths)
    if isinstance(test, cst.UnaryOperation) and isinstance(test.operator, cst.Not):
        return _tests_value(test.expression, paths)
    if path_of(test) in paths:
        return False  # `if total:`: is there anything?
    if isinstance(test, cst.Comparison) and len(test.comparisons) == 1:
        other = test.comparisons[0].comparator
        is_nothing = isinstance(other, (cst.Integer, cst.Float)) and float(other.evaluated_value) == 0
        if path_of(test.left) in paths and (is_nothing or path_of(other) == "None"):
            return False
    return _mentions(test, paths)


def _aborts(node: cst.If) -> bool:
    if node.orelse is not None:
        return False
    end = node.body.body[-1] if node.body.body else None
    if isinstance(end, cst.SimpleStatementLine):
        end = end.body[-1]
    if isinstance(end, cst.Raise):
        return True
    return isinstance(end, cst.Expr) and isinstance(end.value, cst.Call) and path_of(end.value.func) in _ABORTS


# --- operators ---


def _weighs_itself(store: Store, total: str) -> bool:
    """`total = total * gamma + loss`: what an iteration counts is known when the later ones have run."""
    if not isinstance(store.statement, cst.Assign):
        return False
    for node in walk(store.statement.value):
        if not isinstance(node, cst.BinaryOperation) or isinstance(node.operator, (cst.Add, cst.Subtract)):
            continue
        if any(_reads_graph_of(side, total) for side in (node.left, node.right)):
            return True
    return False


def _reads_graph_of(node: cst.BaseExpression, total: str) -> bool:
    named = path_of(node)
    if named is not None:
        return named == total
    if isinstance(node, cst.BinaryOperation):
        return _reads_graph_of(node.left, total) or _reads_graph_of(node.right, total)
    return False


def _has_late_weight(call: Call, between: list[_Binding], late: frozenset[str]) -> bool:
    """Whether what is differentiated is computed, when the terms are summed, by more than a weighted sum."""
    used: set[str] = set()
    pending: list[cst.CSTNode] = [call.call]
    while pending:
        for node in walk(pending.pop()):
            if _is_late(node, late):
                return True
            path = path_of(node)
            if path is None or path in used:
                continue
            used.add(path)
            for bound, value, operator, _ in between:
                if bound == path:
                    if isinstance(operator, _POWERS):
                        return True
                    if isinstance(operator, (*_PRODUCTS, *_QUOTIENTS)) and _mentions(value, late):
                        return True
                    pending.append(value)
    return False


def _is_late(node: cst.CSTNode, late: frozenset[str]) -> bool:
    """A product with, or a quotient by, what is known when the loop has ended; a choice by it."""
    if isinstance(node, cst.BinaryOperation):
        if isinstance(node.operator, _PRODUCTS):
            return _mentions(node.left, late) and _mentions(node.right, late)
        if isinstance(node.operator, _QUOTIENTS):
            return _mentions(node.right, late)
        return isinstance(node.operator, _POWERS) and _mentions(node, late)
    if isinstance(node, cst.IfExp):
        return _tests_value(node.test, late)
    if isinstance(node, cst.Call) and isinstance(node.func, cst.Attribute) and node.args:
        name, owner = node.func.attr.value, node.func.value
        if name not in known.SCALING_METHODS:
            return False
        is_function = path_of(owner) == "torch" and len(node.args) > 1
        scaled, scale = (node.args[0].value, node.args[1].value) if is_function else (owner, node.args[0].value)
        return _mentions(scale, late) and ("div" in name or _mentions(scaled, late))
    return False
