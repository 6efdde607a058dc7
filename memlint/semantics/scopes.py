"""One iterative walk over a LibCST tree: the scopes of a file and which words stand in each.

LibCST's own visitors and metadata cost several times the parse (benchmarks/speed.md); this walk skips whitespace and
punctuation and costs about a tenth of it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence, Set
from functools import cached_property, lru_cache
from typing import Any, TypeVar

import libcst as cst

from memlint.semantics.naming import is_model_name
from memlint.semantics.typed_assignments import TypedAssign

_Node = TypeVar("_Node", bound=cst.CSTNode)

_NO_MEANING = frozenset(
    {
        "lpar", "rpar", "comma", "semicolon", "leading_lines", "lines_after_decorators", "header", "footer", "indent",
        "equal", "dot", "colon", "lbracket", "rbracket", "lbrace", "rbrace", "newline", "comment", "star", "encoding",
        "default_indent", "default_newline", "has_trailing_newline", "trailing_whitespace", "relative", "separator",
        "posonly_ind", "first_colon", "second_colon", "conversion", "start", "end", "trailing_comma", "asynchronous",
        "operator", "type_parameters",
    }
)  # fmt: skip
_LEAVES = (
    cst.Name, cst.Integer, cst.Float, cst.Imaginary, cst.SimpleString, cst.FormattedStringText, cst.Ellipsis, cst.Pass,
    cst.Break, cst.Continue,
)  # fmt: skip

_SCOPES = frozenset({cst.FunctionDef, cst.ClassDef, cst.Lambda})
_NO_NODES = frozenset({str, bool, int, cst.MaybeSentinel})
_SEQUENCES = frozenset({tuple, list})

_fields: dict[type, tuple[str, ...]] = dict.fromkeys(_LEAVES, ())


def meaningful_fields(kind: type[cst.CSTNode]) -> tuple[str, ...]:
    """The fields of a node class that hold code, as opposed to whitespace, punctuation and operators."""
    fields = _fields.get(kind)
    if fields is None:
        names = (field.name for field in dataclasses.fields(kind))
        fields = tuple(name for name in names if not name.startswith("whitespace") and name not in _NO_MEANING)
        _fields[kind] = fields
    return fields


def walk(node: cst.CSTNode, apart: Set[type] = frozenset()) -> Iterator[cst.CSTNode]:
    """The node and everything below it that holds code, in source order, without recursion.

    What is of the classes `apart` below it is left out, with all that is in it.
    """
    stack = [node]
    fields = _fields
    while stack:
        current = stack.pop()
        kind = type(current)
        if kind in apart and current is not node:
            continue
        yield current
        names = fields.get(kind)
        if names is None:
            names = meaningful_fields(kind)
        for name in reversed(names):
            child = getattr(current, name)
            if child is None:
                continue
            of = type(child)
            if of is tuple or of is list:
                stack.extend(reversed(child))
            elif of not in _NO_NODES:
                stack.append(child)


def parts_of(node: cst.CSTNode) -> Iterator[cst.CSTNode]:
    """The nodes right below one that hold code (`CSTNode.children` copies the node)."""
    for name in meaningful_fields(type(node)):
        part = getattr(node, name)
        if type(part) in _SEQUENCES:
            yield from part
        elif part is not None and type(part) not in _NO_NODES:
            yield part


# Questions about one node come together: the last answers are kept, and with each the node.
NODES_REMEMBERED = 8


@lru_cache(maxsize=NODES_REMEMBERED)
def nodes_within(node: cst.CSTNode) -> frozenset[int]:
    """The identities of the node and of all below it that hold code."""
    return frozenset(map(id, walk(node)))


@lru_cache(maxsize=NODES_REMEMBERED)
def _by_kind(node: cst.CSTNode) -> dict[type[cst.CSTNode], list[Any]]:
    found: dict[type[cst.CSTNode], list[Any]] = {}
    for part in walk(node):
        kind = type(part)
        found.setdefault(cst.Assign if kind is TypedAssign else kind, []).append(part)
    return found


def nodes_of(inside: cst.CSTNode, kind: type[_Node]) -> Sequence[_Node]:
    """The node and those below it that are of this very class, in source order."""
    return _by_kind(inside).get(kind, ())


@lru_cache(maxsize=NODES_REMEMBERED)
def assignments_in(inside: cst.CSTNode) -> dict[str | None, list[cst.Assign]]:
    """The assignments in a node, in source order, by the paths that they assign to; None: what is no path."""
    found: dict[str | None, list[cst.Assign]] = {}
    for node in nodes_of(inside, cst.Assign):
        for path in {path_of(target.target): None for target in node.targets}:
            found.setdefault(path, []).append(node)
    return found


@lru_cache(maxsize=NODES_REMEMBERED)
def parents_within(node: cst.CSTNode) -> dict[int, cst.CSTNode]:
    """Of each node below this one, by its identity: the one right above it."""
    return {id(part): parent for parent in walk(node) for part in parts_of(parent)}


def path_of(node: cst.CSTNode) -> str | None:
    """`a.b.c` for a chain of names, None for anything else."""
    # By type, not isinstance: LibCST's nodes are abstract base classes, and this is asked of every expression.
    kind = type(node)
    if kind is cst.Name:
        return node.value  # type: ignore[attr-defined, no-any-return]
    if kind is not cst.Attribute:
        return None
    path: str = node.attr.value  # type: ignore[attr-defined]
    node = node.value  # type: ignore[attr-defined]
    while type(node) is cst.Attribute:
        path = f"{node.attr.value}.{path}"
        node = node.value
    return f"{node.value}.{path}" if type(node) is cst.Name else None


GRADIENT_SWITCHES = frozenset({"requires_grad", "requires_grad_", "autograd"})
# What `autograd` is mentioned for when nothing is differentiated by hand.
_HARMLESS_AUTOGRAD = frozenset(
    {"Variable", "no_grad", "inference_mode", "profiler", "set_detect_anomaly", "detect_anomaly"}
)


def _switched_off(node: cst.CSTNode) -> Iterator[cst.Name]:
    """The name in `f(requires_grad=False)`, `p.requires_grad_(False)` and `autograd.Variable`; `p.requires_grad`."""
    if isinstance(node, cst.Arg):
        if node.keyword is not None and path_of(node.value) == "False":
            yield node.keyword
    elif isinstance(node, cst.Call):
        if isinstance(node.func, cst.Attribute) and node.args and path_of(node.args[0].value) == "False":
            yield node.func.attr
    elif isinstance(node, cst.Attribute):
        if node.attr.value == "requires_grad":
            yield node.attr
        elif node.attr.value in _HARMLESS_AUTOGRAD:
            yield from _last_name(node.value)
    elif isinstance(node, cst.ImportFrom):
        names = () if node.module is None or isinstance(node.names, cst.ImportStar) else node.names
        if names and all(path_of(alias.name) in _HARMLESS_AUTOGRAD for alias in names):
            yield from _last_name(node.module)


def _last_name(node: cst.CSTNode | None) -> Iterator[cst.Name]:
    """`autograd` of `torch.autograd`."""
    yield from (name for name in (node, getattr(node, "attr", None)) if isinstance(name, cst.Name))


def _switched_on(node: cst.CSTNode) -> Iterator[cst.Name]:
    """The name in `x.requires_grad = True`, or what may be true."""
    if isinstance(node, cst.Assign) and path_of(node.value) != "False":
        yield from (target.target.attr for target in node.targets if isinstance(target.target, cst.Attribute))


# `model.encoder(x)`
PARTS_THAT_SHOW_MODELS = frozenset({"encoder", "decoder", "generator", "backbone", "classifier", "head"})
# Stands among the methods called on a path: it is called itself, with arguments, and its name is a model's.
CALLED_AS_MODEL = "(model)"


class Scope:
    """The module, a class body, a function or a lambda, without what is nested in it."""

    def __init__(self, node: cst.CSTNode, name: str, parent: Scope | None) -> None:
        self.node = node
        self.is_class = type(node) is cst.ClassDef
        self.is_function = type(node) is cst.FunctionDef or type(node) is cst.Lambda
        self.name = name
        self.parent = parent
        self.words: set[str] = set()
        """Every identifier and attribute name that stands in the scope itself."""
        self.bound: set[str] = set()
        self.nonlocal_names: set[str] = set()
        self.methods_called: dict[str, set[str]] = {}
        """Access path (`self.model`) -> the methods called on it."""
        self.loop_names: set[str] = set()
        """The names that the scope's `for` loops bind."""
        self.attributes_stored: set[str] = set()
        """Attributes `x` of `self.x = ...` in this scope."""
        self.children: list[Scope] = []
        self.has_yield = False

    @cached_property
    def qualname(self) -> str:
        """`:Class.method`; the colon says "of this file"."""
        if self.parent is None:
            return ":"
        return self.parent.qualname + ("" if self.parent.parent is None else ".") + self.name

    def enclosing_class(self) -> Scope | None:
        """The class whose method this scope is, also for a function nested in a method."""
        scope: Scope | None = self
        while scope is not None and not scope.is_class:
            scope = scope.parent
        return scope

    def descendants(self) -> Iterator[Scope]:
        pending = list(reversed(self.children))
        while pending:
            scope = pending.pop()
            yield scope
            pending.extend(reversed(scope.children))

    @cached_property
    def called_within(self) -> dict[str, set[str]]:
        """`methods_called` of all scopes nested in this one."""
        called: dict[str, set[str]] = {}
        for inner in self.descendants():
            for path, methods in inner.methods_called.items():
                called.setdefault(path, set()).update(methods)
        return called

    @cached_property
    def children_storing(self) -> dict[str, list[Scope]]:
        """Of a class: by attribute, the methods that assign it, the constructor first."""
        storing: dict[str, list[Scope]] = {}
        for child in sorted(self.children, key=lambda child: child.name != "__init__"):
            for name in child.attributes_stored:
                storing.setdefault(name, []).append(child)
        return storing

    @cached_property
    def words_within(self) -> frozenset[str]:
        """The words of the scope and of all scopes nested in it."""
        return frozenset(self.words).union(*(child.words_within for child in self.children))

    @cached_property
    def words_from_outside(self) -> frozenset[str]:
        """The words of the scope and of those nested in it that may name what is bound outside of it."""
        words = frozenset(self.words).union(*(child.words_from_outside for child in self.children))
        return words - (self.bound - self.nonlocal_names) if self.is_function else words

    @cached_property
    def words_but_off(self) -> frozenset[str]:
        """The words, without what only ever switches gradients off here: `requires_grad=False`, `autograd.Variable`."""
        found = self.words & GRADIENT_SWITCHES
        if not found:
            return frozenset(self.words)
        off = {id(name) for node in walk(self.node) for name in _switched_off(node)}
        off -= {id(name) for node in walk(self.node) for name in _switched_on(node)}
        names = (node for node in walk(self.node) if type(node) is cst.Name and node.value in found)
        return frozenset(self.words - found) | {name.value for name in names if id(name) not in off}

    def captured(self) -> set[str]:
        """Names bound here that a nested function, class or lambda mentions: they may be read at any time."""
        return {name for child in self.children for name in child.words_from_outside & self.bound}


def scan(module: cst.Module) -> Scope:
    """The module's scope with all nested ones."""
    root = Scope(module, "<module>", None)
    pending: list[tuple[Scope, list[cst.CSTNode]]] = [(root, list(reversed(module.body)))]
    while pending:
        scope, stack = pending.pop()
        _scan_scope(scope, stack, pending)
    return root


def _scan_scope(scope: Scope, stack: list[Any], pending: list[tuple[Scope, list[cst.CSTNode]]]) -> None:
    words, bound = scope.words, scope.bound
    fields = _fields
    while stack:
        node = stack.pop()
        kind: type[cst.CSTNode] = type(node)
        # Not isinstance: LibCST's nodes are abstract base classes, for which it costs ten times as much.
        if kind is cst.Name:
            words.add(node.value)
            continue
        if kind in _SCOPES:
            pending.append(_open_scope(scope, node, stack))
            continue
        special = _SPECIAL.get(kind)
        if special is not None:
            special(scope, node)
        names = fields.get(kind)
        if names is None:
            names = meaningful_fields(kind)
        for name in names:
            child = getattr(node, name)
            if child is None:
                continue
            of = type(child)
            if of is tuple or of is list:
                stack.extend(child)
            elif of not in _NO_NODES:
                stack.append(child)
    words |= bound


def _open_scope(
    scope: Scope, node: cst.FunctionDef | cst.ClassDef | cst.Lambda, stack: list[cst.CSTNode]
) -> tuple[Scope, list[cst.CSTNode]]:
    if isinstance(node, cst.Lambda):
        child = Scope(node, "<lambda>", scope)
        body: list[cst.CSTNode] = [node.body]
        _bind_parameters(child, node.params, stack)
    else:
        child = Scope(node, node.name.value, scope)
        scope.bound.add(node.name.value)
        stack.extend(node.decorators)
        body = [node.body]
        if isinstance(node, cst.FunctionDef):
            _bind_parameters(child, node.params, stack)
        else:
            stack.extend(node.bases)
            stack.extend(node.keywords)
    scope.children.append(child)
    return child, body


def _bind_parameters(child: Scope, params: cst.Parameters, outer: list[cst.CSTNode]) -> None:
    for param in parameters(params):
        child.bound.add(param.name.value)
        if param.default is not None:
            outer.append(param.default)
        if param.annotation is not None:
            outer.append(param.annotation)


def parameters(params: cst.Parameters) -> list[cst.Param]:
    """All parameters in order, `*args` and `**kwargs` among them."""
    every = [*params.posonly_params, *params.params]
    if isinstance(params.star_arg, cst.Param):
        every.append(params.star_arg)
    every.extend(params.kwonly_params)
    if params.star_kwarg is not None:
        every.append(params.star_kwarg)
    return every


def has_decorator(node: cst.FunctionDef | cst.Lambda, name: str) -> bool:
    if isinstance(node, cst.Lambda):
        return False
    return any(path_of(decorator.decorator) == name for decorator in node.decorators)


_PROPERTIES = frozenset({"property", "cached_property", "functools.cached_property"})


def is_property(function: Scope) -> bool:
    """`self.model(x)` does not call it, but what it returns."""
    decorators = function.node.decorators if isinstance(function.node, cst.FunctionDef) else ()
    return any(path_of(decorator.decorator) in _PROPERTIES for decorator in decorators)


def target_names(target: cst.CSTNode) -> Iterator[str]:
    """The plain names that an assignment target binds."""
    if isinstance(target, cst.Name):
        yield target.value
    elif isinstance(target, (cst.Tuple, cst.List)):
        for element in target.elements:
            yield from target_names(element.value)


def imported_names(node: cst.Import | cst.ImportFrom) -> Iterator[tuple[str, str]]:
    """(bound name, qualified name) of each name that an import binds; relative ones keep their dots."""
    if isinstance(node, cst.Import):
        for alias in node.names:
            full = path_of(alias.name) or ""
            if alias.asname is None:
                yield full.split(".")[0], full.split(".")[0]
            elif isinstance(alias.asname.name, cst.Name):
                yield alias.asname.name.value, full
        return
    if isinstance(node.names, cst.ImportStar):
        return
    base = "." * len(node.relative) + ((path_of(node.module) or "") if node.module is not None else "")
    separator = "" if base.endswith(".") or not base else "."
    for alias in node.names:
        bound = alias.asname.name if alias.asname is not None else alias.name
        if isinstance(bound, cst.Name):
            yield bound.value, f"{base}{separator}{path_of(alias.name) or ''}"


def _target(scope: Scope, target: cst.CSTNode) -> None:
    scope.bound.update(target_names(target))
    targets = [element.value for element in target.elements] if isinstance(target, (cst.Tuple, cst.List)) else [target]
    for item in targets:
        if isinstance(item, cst.Attribute) and isinstance(item.value, cst.Name) and item.value.value == "self":
            scope.attributes_stored.add(item.attr.value)


def _on_assign(scope: Scope, node: cst.CSTNode) -> None:
    assert isinstance(node, cst.Assign)
    for target in node.targets:
        _target(scope, target.target)
    if len(node.targets) != 1:
        return
    path = path_of(node.targets[0].target)
    for call in chain_of(node.value):
        # `net = build().cuda().eval()`: pandas' `eval` takes an argument.
        if path is not None and call.func.attr.value in ("eval", "train") and not call.args:  # type: ignore[attr-defined]
            scope.methods_called.setdefault(path, set()).add(call.func.attr.value)  # type: ignore[attr-defined]


def _on_single_target(scope: Scope, node: cst.CSTNode) -> None:
    assert isinstance(node, (cst.AnnAssign, cst.AugAssign, cst.NamedExpr))
    _target(scope, node.target)


def _on_for(scope: Scope, node: cst.CSTNode) -> None:
    assert isinstance(node, cst.For)
    _target(scope, node.target)
    scope.loop_names.update(target_names(node.target))


def _on_as_name(scope: Scope, node: cst.CSTNode) -> None:
    assert isinstance(node, cst.AsName)
    scope.bound.update(target_names(node.name))


def _on_import_alias(scope: Scope, node: cst.CSTNode) -> None:
    assert isinstance(node, cst.ImportAlias)
    if node.asname is None:
        path = path_of(node.name)
        scope.bound.add((path or "").split(".")[0])


def _on_nonlocal(scope: Scope, node: cst.CSTNode) -> None:
    assert isinstance(node, (cst.Global, cst.Nonlocal))
    scope.nonlocal_names.update(item.name.value for item in node.names)


def _on_yield(scope: Scope, node: cst.CSTNode) -> None:
    scope.has_yield = True


def chain_of(node: cst.BaseExpression) -> Iterator[cst.Call]:
    """The method calls of `x.a().b()`, outermost first."""
    while isinstance(node, cst.Call) and isinstance(node.func, cst.Attribute):
        yield node
        node = node.func.value


# Methods that return the object itself, moved or cast.
_MOVES = frozenset({"to", "cuda", "cpu", "half", "float", "double", "bfloat16", "eval", "train", "requires_grad_"})


def before_moves(node: cst.BaseExpression) -> cst.BaseExpression:
    """`net` of `net.cuda().eval()`."""
    while isinstance(node, cst.Call) and isinstance(node.func, cst.Attribute) and node.func.attr.value in _MOVES:
        node = node.func.value
    return node


def _on_call(scope: Scope, node: cst.CSTNode) -> None:
    assert isinstance(node, cst.Call)
    if not isinstance(node.func, cst.Attribute):
        if node.args and isinstance(node.func, cst.Name) and is_model_name(node.func.value):
            scope.methods_called.setdefault(node.func.value, set()).add(CALLED_AS_MODEL)
        return
    if node.args and is_model_name(node.func.attr.value):
        called = path_of(node.func)
        if called is not None:
            scope.methods_called.setdefault(called, set()).add(CALLED_AS_MODEL)
    path = path_of(before_moves(node.func.value))
    if path is None:
        return
    called_on = scope.methods_called.setdefault(path, set())
    called_on.add(node.func.attr.value)
    is_of_model = node.func.attr.value in PARTS_THAT_SHOW_MODELS and bool(node.args)
    if (node.func.attr.value == "forward" or is_of_model) and is_model_name(path.rpartition(".")[2]):
        called_on.add(CALLED_AS_MODEL)
    if path == "self" and node.func.attr.value == "register_buffer" and node.args:
        name = node.args[0].value
        if isinstance(name, cst.SimpleString):
            scope.attributes_stored.add(str(name.evaluated_value))


_SPECIAL = {
    cst.Assign: _on_assign,
    TypedAssign: _on_assign,
    cst.AnnAssign: _on_single_target,
    cst.AugAssign: _on_single_target,
    cst.NamedExpr: _on_single_target,
    cst.For: _on_for,
    cst.AsName: _on_as_name,
    cst.ImportAlias: _on_import_alias,
    cst.Global: _on_nonlocal,
    cst.Nonlocal: _on_nonlocal,
    cst.Yield: _on_yield,
    cst.Call: _on_call,
}
