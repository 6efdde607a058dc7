"""What a file shows to the others, from the tree that its own analysis has of it: Python's parser need not read it too.

The same as `memlint.project.surface` says of Python's tree.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

import libcst as cst

from memlint.project.surface import ClassSurface, FunctionSurface, Surface
from memlint.semantics.scopes import imported_names, path_of

# LibCST takes these literals for names.
_LITERALS = frozenset({"None", "True", "False"})


def surface_of(module: cst.Module) -> Surface:
    """The surface of a module."""
    surface = Surface()
    stars: list[str] = []
    for node in _top_level(module.body):
        if isinstance(node, (cst.Import, cst.ImportFrom)):
            surface.imports.update(imported_names(node))
            if isinstance(node, cst.ImportFrom) and isinstance(node.names, cst.ImportStar):
                stars.append("." * len(node.relative) + (_dotted(node.module) or ""))
        elif isinstance(node, cst.ClassDef):
            surface.classes[node.name.value] = _class(node)
        elif isinstance(node, cst.FunctionDef):
            surface.functions[node.name.value] = _function(node, bound=False)
        elif isinstance(node, cst.Assign) and len(node.targets) == 1:
            target, path = node.targets[0].target, _dotted(node.value)
            if isinstance(target, cst.Name) and path is not None:
                surface.aliases[target.value] = path
    return Surface(surface.imports, tuple(stars), surface.classes, surface.functions, surface.aliases)


def _top_level(body: Iterable[cst.CSTNode]) -> Iterator[cst.CSTNode]:
    """The statements of a module and those in its `if`, `try` and `with` blocks; a main branch comes last."""
    for node in body:
        if isinstance(node, cst.SimpleStatementLine):
            yield from node.body
            continue
        yield node
        if isinstance(node, cst.If):
            orelse = node.orelse
            yield from _top_level([orelse] if isinstance(orelse, cst.If) else orelse.body.body if orelse else ())
            yield from _top_level(node.body.body)
        elif isinstance(node, cst.Try):
            for handler in node.handlers:
                yield from _top_level(handler.body.body)
            yield from _top_level(node.body.body)
        elif isinstance(node, cst.With) and node.asynchronous is None:
            yield from _top_level(node.body.body)


def _dotted(node: cst.CSTNode | None) -> str | None:
    """`a.b.c` for a chain of names, None for anything else."""
    path = None if node is None else path_of(node)
    return None if path is None or path.partition(".")[0] in _LITERALS else path


def _class(node: cst.ClassDef) -> ClassSurface:
    methods = {
        item.name.value: _function(item, bound=True) for item in node.body.body if isinstance(item, cst.FunctionDef)
    }
    return ClassSurface(tuple(_base(base) for base in node.bases), methods)


def _base(base: cst.Arg) -> str:
    value = base.value.value if isinstance(base.value, cst.Subscript) else base.value
    return "?" if base.star else _dotted(value) or "?"


def _function(node: cst.FunctionDef, *, bound: bool) -> FunctionSurface:
    decorators = tuple(_decorator(item.decorator) for item in node.decorators)
    names = tuple(item.name.value for item in (*node.params.posonly_params, *node.params.params))
    parameters = names[1:] if bound and "staticmethod" not in decorators else names
    return FunctionSurface(decorators, parameters, _only_raises(node.body.body))


def _decorator(node: cst.BaseExpression) -> str:
    return _dotted(node.func if isinstance(node, cst.Call) else node) or "?"


def _only_raises(body: Sequence[cst.CSTNode]) -> bool:
    """Nothing but a docstring and a `raise`."""
    lines = (line.body if isinstance(line, cst.SimpleStatementLine) else [line] for line in body)
    *first, last = chain.from_iterable(lines)
    return isinstance(last, cst.Raise) and all(isinstance(item, cst.Expr) for item in first)
