"""What the project around a file says of it: the definitions behind its imports, and its callers."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import libcst as cst

from memlint.project.names import Names, file_of, is_symbol, name_in_file
from memlint.semantics.callers import Callers, Site, Sites
from memlint.semantics.grad_effects import effect_as_context, effect_as_decorator, is_context_manager
from memlint.semantics.parsing import parse
from memlint.semantics.slices import slice_of
from memlint.semantics.summaries import FunctionSummary
from memlint.semantics.values import Kind, Mode

# A summary may rest on the summaries of what the function imports, and those on theirs, this many files deep. Each
# depth has its own summaries, so that two files that import each other read the same whichever is asked first.
_DEPTH = 2
_SLICES_KEPT = 16
# Code that mentions none of these gives back what carries a graph as it is.
_DETACHING_WORDS = frozenset(
    {"no_grad", "inference_mode", "set_grad_enabled", "detach", "detach_", "data", "item", "numpy", "requires_grad_"}
)

Seeds = tuple[tuple[str, Kind], ...]
"""Of which kind the parameters are that a call gives modules, optimizers or loaders for."""


class Project:
    """The files below one root. What was read of them is kept: one run, one project."""

    def __init__(self, root: str) -> None:
        self.names = Names(root)
        self.callers = Callers(self.names)
        self._summaries: dict[tuple[str, Seeds, int], FunctionSummary | None] = {}
        self._modes: dict[tuple[str, str], Mode] = {}
        self._slices: dict[str, cst.Module | None] = {}

    def view(self, path: Path) -> View | None:
        """The project as the file sees it; None for a file outside."""
        file = self.names.path_in_project(path)
        return None if file is None else View(self, file, _DEPTH)

    def mode(self, symbol: str, role: str) -> Mode:
        """Grad mode below a decorator, or inside a context manager, of the project."""
        key = (symbol, role)
        if key not in self._modes:
            effect = effect_as_context if role == "context" else effect_as_decorator
            self._modes[key] = effect(self.names, symbol)
        return self._modes[key]

    def summary(self, symbol: str, seeds: Seeds, depth: int) -> FunctionSummary | None:
        key = (symbol, seeds, depth)
        if key not in self._summaries:
            self._summaries[key] = self._read(symbol, seeds, depth)
        return self._summaries[key]

    def _read(self, symbol: str, seeds: Seeds, depth: int) -> FunctionSummary | None:
        from memlint.semantics.analysis import Analysis

        tree = self._slice(symbol)
        if tree is None:
            return None
        name = ":" + name_in_file(symbol)
        analysis = Analysis(tree, View(self, file_of(symbol), depth), only=name)
        summary = analysis.summary(name, seeds)
        analysis.release()
        return summary

    def _slice(self, symbol: str) -> cst.Module | None:
        """The parsed slice of a function; those of the last few are kept, since each seed and depth asks anew."""
        if symbol not in self._slices:
            if len(self._slices) >= _SLICES_KEPT:
                del self._slices[next(iter(self._slices))]
            self._slices[symbol] = _parsed(slice_of(self.names, symbol))
        return self._slices[symbol]


def _parsed(text: str | None) -> cst.Module | None:
    if text is None:
        return None
    try:
        return parse(text)
    except (cst.ParserSyntaxError, cst.CSTValidationError, cst.CSTLogicError):
        return None


class View:
    """The project as one file sees it. A symbol of the file itself is `:name`, as in the file's own analysis."""

    def __init__(self, project: Project, file: str, depth: int) -> None:
        self.project = project
        self.names = project.names
        self.file = file
        self.depth = depth

    @cached_property
    def _own(self) -> str:
        return f"@{self.file}:"

    def canonical(self, name: str) -> str:
        """What a qualified name in this file denotes."""
        found = self.names.canonical(self.file, name)
        return found if found == self._own else self.local(found)

    def attribute(self, symbol: str, name: str) -> str:
        return self.local(self.names.attribute(symbol, name))

    def bases(self, symbol: str) -> tuple[str, ...]:
        return self.names.bases(symbol)

    def method(self, symbol: str, name: str) -> str | None:
        return self.names.method(symbol, name)

    def is_class(self, symbol: str) -> bool:
        return name_in_file(symbol) in self.names.surface(file_of(symbol)).classes

    def leaves_forward_open(self, symbol: str) -> bool:
        """Whether the class's forward only raises: each of its subclasses has its own."""
        method = self.method(symbol, "forward")
        if method is None:
            return False
        owner = method.rpartition(".")[0]
        return self.names.surface(file_of(owner)).classes[name_in_file(owner)].methods["forward"].abstract

    def defines(self, symbol: str) -> bool:
        """Whether the project has a class, function or method of this name."""
        surface, name = self.names.surface(file_of(symbol)), name_in_file(symbol)
        owner, _, method = name.rpartition(".")
        if owner:
            return owner in surface.classes and method in surface.classes[owner].methods
        return name in surface.functions or name in surface.classes

    def parameters(self, symbol: str) -> tuple[str, ...]:
        """The parameters of a function or method that an argument can be given for by position."""
        surface, name = self.names.surface(file_of(symbol)), name_in_file(symbol)
        owner, _, method = name.rpartition(".")
        function = surface.classes[owner].methods[method] if owner else surface.functions[name]
        return function.parameters

    def is_context_manager(self, symbol: str) -> bool:
        return is_context_manager(self.names, symbol)

    def context_mode(self, symbol: str) -> Mode:
        return self.project.mode(symbol, "context")

    def decorator_mode(self, symbol: str) -> Mode:
        return self.project.mode(symbol, "decorator")

    def forward_may_detach(self, symbol: str) -> bool:
        """Whether what the class's forward returns may have lost its graph: it, or its class, mentions how."""
        method = self.method(symbol, "forward")
        if method is None:
            return False
        owner = method.rpartition(".")[0]
        surface = self.names.surface(file_of(owner)).classes[name_in_file(owner)]
        return bool(surface.methods["forward"].decorators or self.names.body(owner).words & _DETACHING_WORDS)

    def methods_called(self, symbol: str, path: str) -> frozenset[str]:
        """The methods that a class of the project, or a base of it, calls on `self.x`."""
        none: frozenset[str] = frozenset()
        return none.union(*(self.names.body(cls).methods_called.get(path, none) for cls in self._own_line(symbol)))

    def freezes(self, symbol: str, path: str) -> bool:
        return any(path in self.names.body(cls).frozen for cls in self._own_line(symbol))

    def _own_line(self, symbol: str) -> list[str]:
        """The class and those of its bases that the project defines."""
        return [cls for cls in (symbol, *self.bases(symbol)) if is_symbol(cls)]

    def summary(self, symbol: str, seeds: Seeds = ()) -> FunctionSummary | None:
        """What a function of the project does; None where it cannot be told."""
        return self.project.summary(symbol, seeds, self.depth - 1) if self.depth > 0 else None

    # --- callers ---

    def sites(self, function: str) -> Sites | None:
        """The calls from other files of a function of this file (`:f`), or from any of one of the project.

        None where they cannot be told.
        """
        if function.startswith("@"):
            return self.project.callers.sites(function)
        return self.project.callers.sites(f"@{self.file}{function}", outside=self.file)

    def entry_mode(self, symbol: str) -> Mode:
        """What decorators, bases and frameworks say of the grad mode in which a function of the project runs."""
        return self.project.callers.entry_mode(symbol)

    def result_is_clean(self, site: Site) -> bool:
        """Nothing in the caller differentiates what the call returns, or hands it on."""
        return self.project.callers.result_is_clean(site)

    def words_around(self, site: Site) -> frozenset[str]:
        """The words of the function in which a call stands, or of the file where it stands at its top level."""
        return self.project.callers.words_around(site)

    def local(self, symbol: str) -> str:
        """A definition of this file is `:f`, as in its own analysis."""
        return symbol[len(self._own) - 1 :] if symbol.startswith(self._own) else symbol
