"""Modules whose parameters are told to need no gradient, by the forms in which code says so.

A loop that passes some parameters over (`if "head" not in name`) freezes a part: the model still builds a graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache

import libcst as cst

from memlint.semantics.naming import words_of
from memlint.semantics.scopes import NODES_REMEMBERED, Scope, before_moves, parameters, path_of, target_names, walk

_SWITCHES = frozenset({"requires_grad", "requires_grad_", "detach_", "setattr"})
# They give what they are given, item by item.
_WRAPPERS = frozenset({"list", "tuple", "set", "iter", "enumerate", "reversed", "chain", "tqdm"})
_PARAMETERS = frozenset({"parameters", "named_parameters"})
_PARTS = frozenset({"modules", "named_modules", "children", "named_children"})
# Words of the name of a function that freezes a model as a whole.
_WHOLE = frozenset("freeze all model models module modules net nets network networks params parameters weights".split())
_SWITCHING = frozenset({"requires", "grad"})
# What they freeze, they freeze when they are called.
_DEFINITIONS = frozenset({cst.FunctionDef, cst.ClassDef})
_COMPREHENSIONS = (cst.ListComp, cst.SetComp, cst.GeneratorExp)
_Seek = Callable[[cst.BaseExpression, Mapping[str, cst.BaseExpression]], frozenset[str]]


def frozen_paths(scope: Scope) -> frozenset[str]:
    """Access paths of modules that the scope's own code freezes as a whole, be it under a condition.

    Also of parameters that hold such modules: `models` of `for model in models: model.requires_grad_(False)`.
    """
    return frozenset() if scope.words_within.isdisjoint(_SWITCHES) else _frozen_paths(scope)


@lru_cache(maxsize=NODES_REMEMBERED)
def _frozen_paths(scope: Scope) -> frozenset[str]:
    nodes = list(walk(scope.node, _DEFINITIONS))
    names = _lists(nodes)
    found: set[str] = set()
    for node in reversed(nodes):  # what a loop does to its items is known before the loop
        if isinstance(node, cst.For):
            found |= _by_loop(node, names, found)
        elif isinstance(node, _COMPREHENSIONS):
            if _is_freezing(node.elt, set(target_names(node.for_in.target))):
                found |= _owners(node.for_in.iter, names)
        elif isinstance(node, cst.Call):
            found |= _by_call(node, names)
    return frozenset(found)


def frozen_parameters(function: Scope) -> Iterator[tuple[int | str, str]]:
    """The parameters of a function that it freezes: where they stand (`*` for all that are given), and their names."""
    node = function.node
    frozen = frozen_paths(function)
    if not frozen or not isinstance(node, (cst.FunctionDef, cst.Lambda)):
        return
    for position, parameter in enumerate(parameters(node.params)):
        if parameter.name.value in frozen:
            yield position, parameter.name.value
    star = node.params.star_arg
    if isinstance(star, cst.Param) and star.name.value in frozen:
        yield "*", star.name.value


def frozen_by_helpers(scope: Scope, helpers: Mapping[str, Scope]) -> frozenset[str]:
    """What the scope gives to functions that freeze it: `freeze(net)`, `net.apply(freeze)`, `net.freeze()`.

    `helpers`: those of this file, by their names; of others the name has to say it.
    """
    named = {word for word in scope.words if word not in helpers and _says_so(word)}
    if not named and scope.words.isdisjoint(helpers):
        return frozenset()
    found: set[str] = set()
    switched_on: set[str] = set()
    for node in walk(scope.node, _DEFINITIONS):
        if not isinstance(node, cst.Call):
            continue
        owner = node.func.value if isinstance(node.func, cst.Attribute) else None
        called = (path_of(node.func) or "").rpartition(".")[2]
        if called in helpers:
            found |= _given_to(helpers[called], node)
        elif called in named and _tells_on(node):
            switched_on |= _all_given(node)
        elif called in named:
            found |= _all_given(node) if node.args or owner is None else paths_in(owner)
        elif called == "apply" and owner is not None and not helpers.keys().isdisjoint(_all_given(node)):
            found |= paths_in(owner)
    return frozenset(found - switched_on)


def _says_so(name: str) -> bool:
    """Whether a function is called like one that freezes all that it is given: `freeze_bn` is not."""
    words = words_of(name)
    return ("freeze" in words and words <= _WHOLE) or words == _SWITCHING or words == _SWITCHING | {"set"}


def _tells_on(call: cst.Call) -> bool:
    """`requires_grad(net, True)`, `requires_grad(net, flag)`"""
    is_switch = "requires" in words_of((path_of(call.func) or "").rpartition(".")[2])
    return is_switch and not any(_is_false(argument.value) for argument in call.args)


def _all_given(call: cst.Call) -> frozenset[str]:
    return frozenset().union(*(paths_in(argument.value) for argument in call.args))


def _given_to(helper: Scope, call: cst.Call) -> frozenset[str]:
    bound = isinstance(call.func, cst.Attribute) and helper.parent is not None and helper.parent.is_class
    found: frozenset[str] = frozenset()
    for place, name in frozen_parameters(helper):
        for position, argument in enumerate(call.args, start=bound):
            keyword = argument.keyword.value if argument.keyword is not None else None
            if keyword == name or (keyword is None and place in ("*", position)):
                found |= paths_in(argument.value)
    return found


def paths_in(node: cst.BaseExpression) -> frozenset[str]:
    """The paths that an expression is, or lists."""
    elements = node.elements if isinstance(node, (cst.List, cst.Tuple, cst.Set)) else None
    inner = [node] if elements is None else [element.value for element in elements]
    return frozenset(path for item in inner if (path := path_of(before_moves(item))) is not None)


def _lists(nodes: list[cst.CSTNode]) -> Mapping[str, cst.BaseExpression]:
    """What names are set to, of those that are set once."""
    found: dict[str, list[cst.BaseExpression]] = {}
    for node in nodes:
        if isinstance(node, cst.Assign) and len(node.targets) == 1 and isinstance(node.targets[0].target, cst.Name):
            found.setdefault(node.targets[0].target.value, []).append(node.value)
    return {name: values[0] for name, values in found.items() if len(values) == 1}


def _by_loop(loop: cst.For, names: Mapping[str, cst.BaseExpression], found: set[str]) -> frozenset[str]:
    items = set(target_names(loop.target))
    if any(_is_freezing(statement, items) for statement in _unconditional(loop.body, items)):
        found = found | items
    if items.isdisjoint(found):
        return frozenset()
    return _owners(loop.iter, names) or _held(loop.iter, names)


def _by_call(call: cst.Call, names: Mapping[str, cst.BaseExpression]) -> frozenset[str]:
    """`net.eval().requires_grad_(False)`, `map(lambda p: p.requires_grad_(False), net.parameters())`"""
    if isinstance(call.func, cst.Attribute) and call.func.attr.value == "requires_grad_" and _is_told_off(call):
        path = path_of(before_moves(call.func.value))
        return frozenset({path} if path is not None else ())
    if path_of(call.func) != "map" or len(call.args) != 2 or not isinstance(call.args[0].value, cst.Lambda):
        return frozenset()
    given = call.args[0].value
    items = {parameter.name.value for parameter in parameters(given.params)}
    return _owners(call.args[1].value, names) if _is_freezing(given.body, items) else frozenset()


def _unconditional(body: cst.BaseSuite, items: set[str]) -> Iterator[cst.CSTNode]:
    """The statements of a loop's body that no condition on its items passes over."""
    for line in body.body:
        if isinstance(line, cst.SimpleStatementLine):
            yield from line.body
        elif isinstance(line, (cst.With, cst.Try)) or (isinstance(line, cst.If) and not _asks_for(line.test, items)):
            yield from _unconditional(line.body, items)
        elif not isinstance(line, cst.BaseCompoundStatement):
            yield line


def _asks_for(test: cst.BaseExpression, items: set[str]) -> bool:
    return any(isinstance(node, cst.Name) and node.value in items for node in walk(test))


def _is_freezing(node: cst.CSTNode, items: set[str]) -> bool:
    """`p.requires_grad = False`, `p.requires_grad_(False)`, `setattr(p, "requires_grad", False)` or `p.detach_()`.

    The last does the same to a parameter.
    """
    if isinstance(node, cst.Assign):
        target = node.targets[0].target
        if not isinstance(target, cst.Attribute) or target.attr.value != "requires_grad":
            return False
        return path_of(target.value) in items and _is_false(node.value)
    call = node.value if isinstance(node, cst.Expr) else node
    if not isinstance(call, cst.Call):
        return False
    if isinstance(call.func, cst.Attribute) and path_of(call.func.value) in items:
        method = call.func.attr.value
        return method == "detach_" or (method == "requires_grad_" and _is_told_off(call))
    given = [argument.value for argument in call.args]
    is_set = path_of(call.func) == "setattr" and len(given) == 3 and path_of(given[0]) in items
    return (
        is_set
        and isinstance(given[1], cst.SimpleString)
        and given[1].evaluated_value == "requires_grad"
        and _is_false(given[2])
    )


def _is_told_off(call: cst.Call) -> bool:
    return len(call.args) == 1 and _is_false(call.args[0].value)


def _is_false(node: cst.BaseExpression) -> bool:
    return path_of(node) == "False" or (isinstance(node, cst.Integer) and node.value == "0")


def _owners(iterable: cst.BaseExpression, names: Mapping[str, cst.BaseExpression]) -> frozenset[str]:
    """The modules whose parameters an expression goes through."""
    iterable = names.get(iterable.value, iterable) if isinstance(iterable, cst.Name) else iterable
    if not isinstance(iterable, cst.Call):
        return frozenset()
    if isinstance(iterable.func, cst.Attribute) and iterable.func.attr.value in _PARAMETERS:
        path = path_of(before_moves(iterable.func.value))
        return frozenset({path} if path is not None else ())
    return _of_wrapped(iterable, names, _owners)


def _held(iterable: cst.BaseExpression, names: Mapping[str, cst.BaseExpression]) -> frozenset[str]:
    """The modules that an expression goes through, or those whose parts it goes through."""
    if isinstance(iterable, cst.Name):
        return _held(names[iterable.value], {}) if iterable.value in names else frozenset({iterable.value})
    if not isinstance(iterable, cst.Call):
        return paths_in(iterable)
    if isinstance(iterable.func, cst.Attribute) and iterable.func.attr.value in _PARTS:
        return paths_in(iterable.func.value)
    return _of_wrapped(iterable, names, _held)


def _of_wrapped(call: cst.Call, names: Mapping[str, cst.BaseExpression], seek: _Seek) -> frozenset[str]:
    if (path_of(call.func) or "").rpartition(".")[2] not in _WRAPPERS:
        return frozenset()
    return frozenset().union(*(seek(argument.value, names) for argument in call.args if not argument.star))
