"""The part of another file that says what one of its functions does.

The function, the definitions of its file that it mentions (and those that they mention), the file's imports and plain
assignments. Parsing that much costs a small part of parsing the file, and each definition is parsed once, whichever
slices it is part of.
"""

from __future__ import annotations

import ast
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import libcst as cst

from memlint.project.names import Names, file_of, name_in_file
from memlint.project.reads import Read
from memlint.project.surface import FUNCTIONS, Definition, top_level, words_of
from memlint.semantics.parsing import parse
from memlint.semantics.typed_assignments import with_typed_assignments

# Whatever leads to more code than this is not worth reading for one call.
_MAX_LINES = 4_000
# So many lines of code are kept, parsed by Python (about 1 KiB a line) or by LibCST (2), those asked for last.
_LINES_KEPT = 40_000

_Span = tuple[int, int]
_Statement = cst.SimpleStatementLine | cst.BaseCompoundStatement


class Slices:
    """The slices of one project."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._files: dict[str, _File | None] = {}

    def tree(self, symbol: str) -> cst.Module | None:
        """The slice of a function or method; None where there is none.

        A method's class comes with the methods it mentions alone.
        """
        file = self._file(file_of(symbol))
        parts = file.slice(name_in_file(symbol)) if file is not None else None
        if file is None or parts is None or sum(part.lines for part in parts) > _MAX_LINES:
            return None
        try:
            return cst.Module([statement for part in parts for statement in file.parsed(part)])
        except (cst.ParserSyntaxError, cst.CSTValidationError, cst.CSTLogicError):
            return None

    def _file(self, name: str) -> _File | None:
        self._names.reads.note(Read("file", name))
        found = self._files.pop(name, None)
        if found is None:
            while sum(file.lines_held for file in self._files.values() if file is not None) > _LINES_KEPT:
                del self._files[next(iter(self._files))]
            tree = self._names.tree(name)
            found = None if tree is None else _read(tree, self._names.text(name))
        self._files[name] = found
        return found


@dataclass(frozen=True)
class _Part:
    """A statement of the top level, or a class with some of what stands in it."""

    span: _Span
    """All of the statement, or the class up to its first line that may be left out."""
    inner: tuple[_Span, ...] = ()

    @property
    def lines(self) -> int:
        return sum(end - start + 1 for start, end in (self.span, *self.inner))


def _read(tree: ast.Module, content: bytes) -> _File | None:
    try:
        # Not `splitlines`: a form feed begins no line.
        return _File(tree, list(io.StringIO(content.decode("utf-8-sig"), newline="")))
    except UnicodeDecodeError:
        return None


class _File:
    def __init__(self, tree: ast.Module, lines: Sequence[str]) -> None:
        self.lines_held = len(lines)
        self._lines = lines
        self._parsed: dict[tuple[_Span, ...], Sequence[_Statement]] = {}
        self._words: dict[int, frozenset[str]] = {}
        self._imports = [_Part(_span(node)) for node in tree.body if _is_import(node)]
        self._definitions: dict[str, Definition] = {
            node.name: node for node in tree.body if isinstance(node, (*FUNCTIONS, ast.ClassDef))
        }
        self._assignments: dict[str, list[ast.stmt]] = {}
        for node in tree.body:
            for name in _assigned(node):
                self._assignments.setdefault(name, []).append(node)

    # --- which parts ---

    def slice(self, wanted: str) -> list[_Part] | None:
        """The parts of the slice, in the order of the file; None where there is no such function."""
        owner, _, method = wanted.partition(".")
        start = self._definitions.get(owner)
        if start is None or "." in method or (method and not isinstance(start, ast.ClassDef)):
            return None
        kept = set(self._imports)
        pending: list[tuple[ast.stmt, frozenset[str] | None]] = [
            (start, frozenset({method, "__init__"}) if method else None)
        ]
        seen: set[int] = set()
        while pending:
            node, methods = pending.pop()
            if id(node) in seen:
                continue
            seen.add(id(node))
            part, words = self._part(node, methods)
            kept.add(part)
            for name in words:
                definition = self._definitions.get(name)
                if definition is not None:
                    methods = frozenset({"__init__"}) if isinstance(definition, ast.ClassDef) else None
                    pending.append((definition, methods))
                pending.extend((statement, None) for statement in self._assignments.get(name, ()))
        return sorted(kept, key=lambda part: part.span)

    def _part(self, node: ast.stmt, methods: frozenset[str] | None) -> tuple[_Part, frozenset[str]]:
        """The node, of a class with those methods alone, and the words in it."""
        span = _span(node)
        if not isinstance(node, ast.ClassDef) or methods is None:
            return _Part(span), self._words_of(node)
        wanted, words = self._methods_needed(node, methods)
        body = [item for item in node.body if not isinstance(item, FUNCTIONS) or item.name in wanted]
        if not body or body[0].lineno == node.lineno:
            return _Part(span), words
        header = (span[0], min(_span(item)[0] for item in node.body) - 1)
        return _Part(header, tuple(dict.fromkeys(map(_span, body)))), words

    def _methods_needed(self, node: ast.ClassDef, methods: frozenset[str]) -> tuple[set[str], frozenset[str]]:
        """The methods, those of the class that they mention, and every word in them."""
        own = {item.name: item for item in node.body if isinstance(item, FUNCTIONS)}
        wanted: set[str] = set()
        words: set[str] = set()
        for item in (*node.bases, *node.decorator_list):
            words |= self._words_of(item)
        pending = [name for name in methods if name in own]
        while pending:
            name = pending.pop()
            if name in wanted:
                continue
            wanted.add(name)
            inside = self._words_of(own[name])
            words |= inside
            pending.extend(inside & own.keys())
        for statement in node.body:
            if not isinstance(statement, FUNCTIONS):
                words |= self._words_of(statement)
        return wanted, frozenset(words)

    def _words_of(self, node: ast.AST) -> frozenset[str]:
        found = self._words.get(id(node))
        if found is None:
            found = self._words[id(node)] = words_of(node)
        return found

    # --- their code ---

    def parsed(self, part: _Part) -> Sequence[_Statement]:
        """The statements of a part. Raises what the parser raises."""
        if not part.inner:
            return self._parsed_once(part.span)
        inner: list[cst.CSTNode] = []
        for span in part.inner:
            (node,) = cast("Sequence[cst.ClassDef]", self._parsed_once(part.span, span))
            inner.extend(node.body.body)
        return [node.with_changes(body=node.body.with_changes(body=inner))]

    def _parsed_once(self, *spans: _Span) -> Sequence[_Statement]:
        if spans not in self._parsed:
            lines = [line for start, end in spans for line in self._lines[start - 1 : end]]
            self.lines_held += len(lines)
            self._parsed[spans] = with_typed_assignments(parse("".join(lines))).body
        return self._parsed[spans]


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


def _span(node: ast.stmt) -> _Span:
    """The lines of a statement, those of its decorators included."""
    decorators = getattr(node, "decorator_list", [])
    start = min([node.lineno, *(item.lineno for item in decorators)])
    return start, node.end_lineno or node.lineno
