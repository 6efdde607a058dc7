"""What one file of the project shows to the others: its imports, classes and functions, as plain data."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
Function = ast.FunctionDef | ast.AsyncFunctionDef

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True)
class FunctionSurface:
    """A function or method. Decorators are dotted names as the file spells them, `?` for anything else."""

    decorators: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()
    """Those that an argument can be given for by position; a method's first, its object, is left out."""
    abstract: bool = False
    """Its body only raises: what it does, subclasses say."""


@dataclass(frozen=True)
class ClassSurface:
    """A class. `bases` are dotted names as the file spells them, `?` for anything else."""

    bases: tuple[str, ...]
    methods: dict[str, FunctionSurface]


@dataclass(frozen=True)
class ClassBody:
    """What stands in a class: dearer to learn than its surface, and asked of few."""

    methods_called: dict[str, frozenset[str]]
    """`self.model` -> the methods that the class calls on it."""
    frozen: frozenset[str]
    """Paths, `self` or `self.x`, whose parameters are told to need no gradient."""
    words: frozenset[str]
    """Every identifier and attribute name in the class."""
    words_of_forward: frozenset[str]
    """Those of its `forward` and of the methods that it names, directly or through others."""


@dataclass(frozen=True)
class Surface:
    """One file. Names are those of its top level, also inside `if` and `try`."""

    imports: dict[str, str] = field(default_factory=dict)
    """Bound name -> qualified name; relative ones keep their dots."""
    stars: tuple[str, ...] = ()
    """The modules of `from m import *`."""
    classes: dict[str, ClassSurface] = field(default_factory=dict)
    functions: dict[str, FunctionSurface] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    """`name = other.path`."""


def surface_of(tree: ast.Module) -> Surface:
    imports: dict[str, str] = {}
    stars: list[str] = []
    classes: dict[str, ClassSurface] = {}
    functions: dict[str, FunctionSurface] = {}
    aliases: dict[str, str] = {}
    for node in top_level(tree.body):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            for bound, qualified in imported_names(node):
                if bound == "*":
                    stars.append(qualified)
                else:
                    imports[bound] = qualified
        elif isinstance(node, ast.ClassDef):
            classes[node.name] = _class(node)
        elif isinstance(node, FUNCTIONS):
            functions[node.name] = _function(node, bound=False)
        elif isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            path = dotted(node.value)
            if path is not None:
                aliases[node.targets[0].id] = path
    return Surface(imports, tuple(stars), classes, functions, aliases)


def top_level(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements of a module and those in its `if`, `try` and `with` blocks; a main branch comes last."""
    for node in body:
        yield node
        if isinstance(node, ast.If):
            yield from top_level(node.orelse)
            yield from top_level(node.body)
        elif isinstance(node, ast.Try):
            for handler in node.handlers:
                yield from top_level(handler.body)
            yield from top_level(node.body)
        elif isinstance(node, ast.With):
            yield from top_level(node.body)


def imported_names(node: ast.Import | ast.ImportFrom) -> Iterator[tuple[str, str]]:
    """(bound name, qualified name) of each name; of a star import (`*`, module)."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            first = alias.name.partition(".")[0]
            yield (alias.asname, alias.name) if alias.asname else (first, first)
        return
    base = "." * node.level + (node.module or "")
    separator = "" if base.endswith(".") or not base else "."
    for alias in node.names:
        yield ("*", base) if alias.name == "*" else (alias.asname or alias.name, f"{base}{separator}{alias.name}")


def decorators_of(node: Definition) -> tuple[str, ...]:
    return tuple(dotted(item.func if isinstance(item, ast.Call) else item) or "?" for item in node.decorator_list)


def dotted(node: ast.expr) -> str | None:
    """`a.b.c` for a chain of names, None for anything else."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return None
    parts.append(node.id)
    return ".".join(reversed(parts))


def words_of(node: ast.AST) -> frozenset[str]:
    """Every identifier and attribute name below the node."""
    words: set[str] = set()
    for item in ast.walk(node):
        if isinstance(item, ast.Name):
            words.add(item.id)
        elif isinstance(item, ast.Attribute):
            words.add(item.attr)
    return frozenset(words)


def _function(node: Function, *, bound: bool) -> FunctionSurface:
    decorators = decorators_of(node)
    names = tuple(item.arg for item in (*node.args.posonlyargs, *node.args.args))
    parameters = names[1:] if bound and "staticmethod" not in decorators else names
    return FunctionSurface(decorators, parameters, _only_raises(node.body))


def _only_raises(body: list[ast.stmt]) -> bool:
    """Nothing but a docstring and a `raise`."""
    return isinstance(body[-1], ast.Raise) and all(isinstance(line, ast.Expr) for line in body[:-1])


def _class(node: ast.ClassDef) -> ClassSurface:
    bases = tuple(dotted(base.value if isinstance(base, ast.Subscript) else base) or "?" for base in node.bases)
    methods = {item.name: _function(item, bound=True) for item in node.body if isinstance(item, FUNCTIONS)}
    return ClassSurface(bases, methods)


def body_of(node: ast.ClassDef) -> ClassBody:
    called: dict[str, set[str]] = {}
    frozen: set[str] = set()
    for item in ast.walk(node):
        if isinstance(item, ast.For):
            frozen |= _frozen_by(item)
        elif isinstance(item, ast.Call) and isinstance(item.func, ast.Attribute):
            path = dotted(item.func.value)
            if path is None or not path.startswith("self"):
                continue
            called.setdefault(path, set()).add(item.func.attr)
            if item.func.attr == "requires_grad_" and item.args and _is_false(item.args[0]):
                frozen.add(path)
    by_path = {path: frozenset(names) for path, names in called.items()}
    return ClassBody(by_path, frozenset(frozen), _words_in(node), _words_below(node, "forward"))


def _words_below(node: ast.ClassDef, name: str) -> frozenset[str]:
    methods = {item.name: item for item in node.body if isinstance(item, FUNCTIONS)}
    words: set[str] = set()
    pending = {name}
    while pending & methods.keys():
        found = frozenset().union(*(_words_in(methods.pop(each)) for each in pending & methods.keys()))
        pending = set(found)
        words |= found
    return frozenset(words)


def _words_in(node: ast.AST) -> frozenset[str]:
    named = {item.id for item in ast.walk(node) if isinstance(item, ast.Name)}
    return frozenset(named | {item.attr for item in ast.walk(node) if isinstance(item, ast.Attribute)})


def _frozen_by(node: ast.For) -> set[str]:
    """`for p in self.net.parameters(): p.requires_grad = False` freezes `self.net`."""
    iterated = node.iter
    if not (isinstance(iterated, ast.Call) and isinstance(iterated.func, ast.Attribute)):
        return set()
    owner = dotted(iterated.func.value)
    if owner is None or iterated.func.attr not in ("parameters", "named_parameters"):
        return set()
    for line in node.body:
        if isinstance(line, ast.Assign) and _is_false(line.value):
            target = line.targets[0]
            if isinstance(target, ast.Attribute) and target.attr == "requires_grad":
                return {owner}
        call = line.value if isinstance(line, ast.Expr) else None
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute):
            stops = call.func.attr == "requires_grad_" and call.args and _is_false(call.args[0])
            if stops or call.func.attr == "detach_":
                return {owner}
    return set()


def _is_false(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is False
