"""Assignments that add to what they assign to: `total = total + loss`, `mean = 0.9 * mean + 0.1 * loss`."""

from __future__ import annotations

from collections.abc import Iterator

import libcst as cst

from memlint.semantics.scopes import path_of

_JOINS = frozenset({"torch.cat", "torch.concat", "torch.concatenate", "torch.vstack", "torch.hstack"})
_SUMS = frozenset({"torch.add"})


def added_to(target: cst.BaseExpression, source: cst.BaseExpression) -> list[cst.BaseExpression]:
    """What is added to the target, by what it is given; empty where it is set anew.

    Of `total = total + a + b` both, of `all = torch.cat((all, e))`, `all = torch.cat((all[1:], e))` and
    `mean = (mean * n + e) / (n + 1)` `e`.
    """
    if isinstance(source, cst.IfExp):  # `loss if mean is None else 0.9 * mean + 0.1 * loss`
        source = source.orelse if isinstance(source.orelse, (cst.BinaryOperation, cst.Call)) else source.body
    if not isinstance(target, (cst.Name, cst.Attribute, cst.Subscript)):
        return []
    joined_here = [part for part in joined(source) or () if not _is_same(_whole(part), target)]
    if len(joined_here) == 1:
        return joined_here
    if isinstance(source, cst.DictComp):
        return _added_to_items(target, source)
    terms = list(_terms(_but_for_scale(source, target)))
    own = [index for index, (term, negative) in enumerate(terms) if not negative and _is_scaled(term, target)]
    if len(terms) < 2 or len(own) != 1:
        return []
    return [term for index, (term, _) in enumerate(terms) if index != own[0]]


def _added_to_items(target: cst.BaseExpression, source: cst.DictComp) -> list[cst.BaseExpression]:
    """`loss` of `totals = {name: totals[name] + loss for name, loss in losses.items()}`."""
    terms = [term for term, _ in _terms(source.value)]
    own = [term for term in terms if _is_at(term, target, source.key)]
    return [term for term in terms if term is not own[0]] if len(own) == 1 else []


def _but_for_scale(source: cst.BaseExpression, target: cst.BaseExpression) -> cst.BaseExpression:
    """`mean * n + e` of `(mean * n + e) / (n + 1)`."""
    if isinstance(source, cst.BinaryOperation) and isinstance(source.operator, cst.Divide):
        return source.left if not _is_same(source.left, target) else source
    return source


def _terms(node: cst.BaseExpression, *, negative: bool = False) -> Iterator[tuple[cst.BaseExpression, bool]]:
    """The terms of a sum or difference, and whether each is subtracted."""
    while isinstance(node, cst.BinaryOperation) and isinstance(node.operator, (cst.Add, cst.Subtract)):
        yield from _terms(node.right, negative=negative ^ isinstance(node.operator, cst.Subtract))
        node = node.left
    both = node.args if isinstance(node, cst.Call) and path_of(node.func) in _SUMS else ()
    if len(both) == 2 and both[1].keyword is None:
        yield from ((argument.value, negative) for argument in both)
    else:
        yield node, negative


def joined(node: cst.BaseExpression) -> tuple[cst.BaseExpression, cst.BaseExpression] | None:
    """The two tensors of `torch.cat((a, b), dim=0)`, also in a slice of it or behind `a if first else ...`."""
    if isinstance(node, cst.IfExp):
        return joined(node.orelse) or joined(node.body)
    node = _whole(node)
    if not isinstance(node, cst.Call) or path_of(node.func) not in _JOINS or not node.args:
        return None
    both = node.args[0].value
    if not isinstance(both, (cst.Tuple, cst.List)) or len(both.elements) != 2:
        return None
    return both.elements[0].value, both.elements[1].value


def _whole(node: cst.BaseExpression) -> cst.BaseExpression:
    """`queue` of `queue[n:]`: a part holds on to the graph of all."""
    while isinstance(node, cst.Subscript):
        node = node.value
    return node


def _is_scaled(node: cst.BaseExpression, target: cst.BaseExpression) -> bool:
    """`total`, or `0.9 * total`."""
    if _is_same(node, target):
        return True
    if not isinstance(node, cst.BinaryOperation) or not isinstance(node.operator, (cst.Multiply, cst.Divide)):
        return False
    return _is_same(node.left, target) or _is_same(node.right, target)


def _is_same(node: cst.BaseExpression, target: cst.BaseExpression) -> bool:
    """The target itself; of an item also `totals.get(key, 0)`."""
    path = path_of(target)
    if path is not None:
        return path_of(node) == path
    place = _place(target)
    return place is not None and _is_at(node, *place)


def _is_at(node: cst.BaseExpression, base: cst.BaseExpression, key: cst.BaseExpression) -> bool:
    place = _place(node)
    return place is not None and place[0].deep_equals(base) and place[1].deep_equals(key)


def _place(node: cst.BaseExpression) -> tuple[cst.BaseExpression, cst.BaseExpression] | None:
    """The container and the key of `totals[key]` and of `totals.get(key, 0)`."""
    if isinstance(node, cst.Subscript) and len(node.slice) == 1 and isinstance(node.slice[0].slice, cst.Index):
        return node.value, node.slice[0].slice.value
    if isinstance(node, cst.Call) and isinstance(node.func, cst.Attribute) and node.func.attr.value == "get":
        return (node.func.value, node.args[0].value) if len(node.args) == 2 else None
    return None
