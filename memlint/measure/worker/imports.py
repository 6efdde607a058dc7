"""Importing the target's modules: texts served in place of files, probes in watched statements, patches on arrival."""

from __future__ import annotations

import ast
import builtins
import importlib.abc
import importlib.util
import linecache
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

from memlint.measure.user_code import is_user_file

# What a probe calls. Looked up among the builtins, so that it is found in every module.
_PROBE = "__memlint_ran__"

Patch = Callable[[ModuleType], None]


class Sources:
    """The texts that are served in place of files, and which watched lines have run.

    Reading and compiling go through here for the modules of `overlay` and `watched` alone (both by absolute path).
    """

    def __init__(self, overlay: Mapping[str, str], watched: Mapping[str, Sequence[int]]) -> None:
        self._overlay = {os.path.realpath(path): text for path, text in overlay.items()}
        self._watched = {os.path.realpath(path): frozenset(lines) for path, lines in watched.items()}
        self._names = {os.path.realpath(path): path for path in [*overlay, *watched]}
        self._probes: list[tuple[str, frozenset[int]]] = []
        self._ran: set[int] = set()
        setattr(builtins, _PROBE, self._ran.add)

    def __contains__(self, path: str) -> bool:
        return os.path.realpath(path) in self._names

    def text(self, path: str) -> str | bytes:
        """The text that stands for the file; its own bytes where none does. Raises OSError."""
        text = self._overlay.get(os.path.realpath(path))
        if text is not None:
            # A time of None: linecache never asks the disk about this entry again.
            linecache.cache[path] = (len(text), None, text.splitlines(keepends=True), path)
            return text
        with open(path, "rb") as stream:  # noqa: PTH123
            return stream.read()

    def compile(self, path: str) -> CodeType:
        """The file's code, under its own name. Raises OSError, SyntaxError and ValueError."""
        text = self.text(path)
        watched = self._watched.get(os.path.realpath(path))
        if not watched:
            return compile(text, path, "exec", dont_inherit=True)
        tree = ast.parse(text, path)
        _Probes(watched, lambda lines: self._probe(path, lines)).visit(tree)
        return compile(ast.fix_missing_locations(tree), path, "exec", dont_inherit=True)

    def ran_lines(self) -> dict[str, frozenset[int]]:
        """The files of the user that were loaded, and the watched lines that ran in each."""
        loaded = {_file_of(module) for module in list(sys.modules.values())}
        ran: dict[str, set[int]] = {path: set() for path in loaded if path and is_user_file(path)}
        for number in self._ran:
            path, lines = self._probes[number]
            ran.setdefault(path, set()).update(lines)
        return {self._names.get(os.path.realpath(path), path): frozenset(lines) for path, lines in ran.items()}

    def _probe(self, path: str, lines: frozenset[int]) -> ast.stmt:
        self._probes.append((path, lines))
        call = ast.Call(ast.Name(_PROBE, ast.Load()), [ast.Constant(len(self._probes) - 1)], [])
        return ast.Expr(call)


def _file_of(module: ModuleType) -> str | None:
    file = getattr(module, "__file__", None)
    # Not every module has been read from a file: `torch.ops` says `_ops.py`.
    return file if isinstance(file, str) and Path(file).is_absolute() and file.endswith((".py", ".pyw")) else None


class _Probes(ast.NodeTransformer):
    """Puts a probe before each statement that has watched lines of its own.

    Of a compound statement its header is its own. What is watched in the header of a function (its decorators, its
    defaults) is there for its calls, so the probe goes to the top of its body.
    """

    def __init__(self, watched: frozenset[int], make: Callable[[frozenset[int]], ast.stmt]) -> None:
        self._watched = watched
        self._make = make

    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        for name in ("body", "orelse", "finalbody"):
            block = getattr(node, name, None)
            if isinstance(block, list):
                setattr(node, name, [new for statement in block for new in self._probed(statement)])
        return node

    def _probed(self, statement: ast.AST) -> list[ast.AST]:
        if not isinstance(statement, ast.stmt):
            return [statement]
        lines = self._watched.intersection(_own_lines(statement))
        if not lines or _must_come_first(statement):
            return [statement]
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)):
            first = 1 if ast.get_docstring(statement, clean=False) is not None else 0
            probe = ast.copy_location(self._make(lines), statement.body[0])
            statement.body.insert(first, probe)
            return [statement]
        return [ast.copy_location(self._make(lines), statement), statement]


def _must_come_first(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.ImportFrom):
        return statement.module == "__future__"
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _own_lines(statement: ast.stmt) -> range:
    """The lines of a statement, less those of the blocks below it."""
    start = _first_line(statement)
    block: list[ast.stmt | ast.match_case] = getattr(statement, "body", None) or getattr(statement, "cases", [])
    if not block:
        return range(start, (statement.end_lineno or start) + 1)
    return range(start, _first_line(block[0]))  # of `if debug: keep(x)` the line is the body's


def _first_line(node: ast.stmt | ast.match_case) -> int:
    if isinstance(node, ast.match_case):
        return int(node.pattern.lineno)
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    return min(node.lineno, *(decorator.lineno for decorator in decorators)) if decorators else node.lineno


class Importer(importlib.abc.MetaPathFinder):
    """Serves `sources`, and calls a patch with the module that it is for, once that has been imported."""

    def __init__(self, sources: Sources, patches: Mapping[str, Patch]) -> None:
        self._sources = sources
        self._patches = patches

    def install(self) -> None:
        sys.meta_path.insert(0, self)
        for name, patch in self._patches.items():
            if name in sys.modules:
                patch(sys.modules[name])

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = self._found_by_others(fullname, path, target)
        if spec is None or spec.loader is None:
            return spec
        if spec.origin is not None and spec.origin in self._sources:
            spec.loader = _SourceLoader(fullname, spec.origin, self._sources)
        elif fullname in self._patches:
            spec.loader = _PatchingLoader(spec.loader, self._patches[fullname])
        return spec

    def _found_by_others(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None
    ) -> ModuleSpec | None:
        for finder in sys.meta_path:
            if finder is self or not hasattr(finder, "find_spec"):
                continue
            spec = finder.find_spec(fullname, path, target)
            if spec is not None:
                return spec
        return None


class _SourceLoader(SourceFileLoader):
    def __init__(self, name: str, path: str, sources: Sources) -> None:
        super().__init__(name, path)
        self._sources = sources

    def get_code(self, fullname: str) -> CodeType:
        # Never from a .pyc: that is the code of what lies on the disk, without probes.
        return self._sources.compile(self.get_filename(fullname))

    def get_source(self, fullname: str) -> str:
        text = self._sources.text(self.get_filename(fullname))
        return text if isinstance(text, str) else importlib.util.decode_source(text)


class _PatchingLoader(importlib.abc.Loader):
    def __init__(self, loader: importlib.abc.Loader, patch: Patch) -> None:
        self._loader = loader
        self._patch = patch

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        # From here on the module is the real loader's: resources and sources are asked of that one.
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        self._patch(module)
