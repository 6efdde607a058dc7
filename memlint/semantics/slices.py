"""The part of another file that says what one of its functions does.

The function, the definitions of its file that it mentions (and those that they mention), the file's imports and plain
assignments. Parsing that much costs a small part of parsing the file.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator

from memlint.project.names import Names, file_of, name_in_file
from memlint.project.surface import FUNCTIONS, Definition, top_level, words_of

# Whatever leads to more code than this is not worth reading for one call.
_MAX_LINES = 4_000
_Lines = list[tuple[int, int]]


def slice_of(names: Names, symbol: str) -> str | None:
    """The text of the slice, None where there is none. A method's class comes with the methods it mentions alone."""
    file = file_of(symbol)
    tree = names.tree(file)
    if tree is None:
        return None
    kept = _Slice(tree, name_in_file(symbol)).lines()
    if kept is None or sum(end - start + 1 for start, end in kept) > _MAX_LINES:
        return None
    try:
        lines = names.text(file).decode("utf-8-sig").splitlines(keepends=True)
    except UnicodeDecodeError:
        return None
    return "".join("".join(lines[start - 1 : end]) for start, end in sorted(kept))


class _Slice:
    def __init__(self, tree: ast.Module, wanted: str) -> None:
        self.tree = tree
        self.wanted = wanted
        self.definitions: dict[str, Definition] = {
            node.name: node for node in tree.body if isinstance(node, (*FUNCTIONS, ast.ClassDef))
        }
        self.assignments: dict[str, list[ast.stmt]] = {}
        for node in tree.body:
            for name in _assigned(node):
                self.assignments.setdefault(name, []).append(node)

    def lines(self) -> _Lines | None:
        owner, _, method = self.wanted.partition(".")
        start = self.definitions.get(owner)
        if start is None or "." in method:
            return None
        kept: _Lines = [_span(node) for node in self.tree.body if _is_import(node)]
        pending: list[tuple[ast.stmt, frozenset[str] | None]] = []
        if method:
            if not isinstance(start, ast.ClassDef):
                return None
            pending.append((start, frozenset({method, "__init__"})))
        else:
            pending.append((start, None))
        seen: set[int] = set()
        while pending:
            node, methods = pending.pop()
            if id(node) in seen:
                continue
            seen.add(id(node))
            words = self._keep(node, methods, kept)
            for name in words:
                definition = self.definitions.get(name)
                if definition is not None:
                    methods = frozenset({"__init__"}) if isinstance(definition, ast.ClassDef) else None
                    pending.append((definition, methods))
                pending.extend((statement, None) for statement in self.assignments.get(name, ()))
        return kept

    def _keep(self, node: ast.stmt, methods: frozenset[str] | None, kept: _Lines) -> frozenset[str]:
        """Note the node's lines; the words in them."""
        if not isinstance(node, ast.ClassDef) or methods is None:
            kept.append(_span(node))
            return words_of(node)
        wanted, words = _methods_needed(node, methods)
        body = [item for item in node.body if not isinstance(item, FUNCTIONS) or item.name in wanted]
        start, _ = _span(node)
        if not body or body[0].lineno == node.lineno:
            kept.append(_span(node))
        else:
            kept.append((start, min(_span(item)[0] for item in node.body) - 1))
            kept.extend(_span(item) for item in body)
        return words


def _methods_needed(node: ast.ClassDef, methods: frozenset[str]) -> tuple[set[str], frozenset[str]]:
    """The methods, those of the class that they mention, and every word in them."""
    own = {item.name: item for item in node.body if isinstance(item, FUNCTIONS)}
    wanted: set[str] = set()
    words: set[str] = set()
    for item in (*node.bases, *node.decorator_list):
        words |= words_of(item)
    pending = [name for name in methods if name in own]
    while pending:
        name = pending.pop()
        if name in wanted:
            continue
        wanted.add(name)
        inside = words_of(own[name])
        words |= inside
        pending.extend(inside & own.keys())
    for statement in node.body:
        if not isinstance(statement, FUNCTIONS):
            words |= words_of(statement)
    return wanted, frozenset(words)


def _is_import(node: ast.stmt) -> bool:
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return True
    if not isinstance(node, (ast.If, ast.Try)):
        return False
    return any(isinstance(item, (ast.Import, ast.ImportFrom)) for item in top_level([node]))


def _assigned(node: ast.stmt) -> Iterator[str]:
    targets: Iterable[ast.expr] = ()
    if isinstance(node, ast.Assign):
        targets = node.targets
    elif isinstance(node, ast.AnnAssign):
        targets = [node.target]
    for target in targets:
        for item in target.elts if isinstance(target, (ast.Tuple, ast.List)) else [target]:
            if isinstance(item, ast.Name):
                yield item.id


def _span(node: ast.stmt) -> tuple[int, int]:
    """The lines of a statement, those of its decorators included."""
    decorators = getattr(node, "decorator_list", [])
    start = min([node.lineno, *(item.lineno for item in decorators)])
    return start, node.end_lineno or node.lineno
