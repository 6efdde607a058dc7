"""What the project around a file says of it: the definitions behind its imports, and its callers."""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path

import libcst as cst

from memlint.project.files import project_mentions
from memlint.project.names import Names, file_of, is_symbol, name_in_file
from memlint.project.reads import Memo, Read, Reads
from memlint.semantics.answers import Answers, Remembered, WatchedSites, asked
from memlint.semantics.callers import Callers, Literals, Site
from memlint.semantics.grad_effects import effect_as_context, effect_as_decorator, is_context_manager
from memlint.semantics.other_loaders import is_test, workers_of_loaders
from memlint.semantics.own_surface import surface_of
from memlint.semantics.slices import Slices
from memlint.semantics.summaries import FunctionSummary
from memlint.semantics.values import Kind, Mode

# A summary may rest on the summaries of what the function imports, and those on theirs, this many files deep. Each
# depth has its own summaries, so that two files that import each other read the same whichever is asked first.
_DEPTH = 2
# Code that mentions none of these gives back what carries a graph as it is.
_DETACHING_WORDS = frozenset(
    {"no_grad", "inference_mode", "set_grad_enabled", "detach", "detach_", "data", "item", "numpy"}
)
_GRADIENT_WORDS = frozenset({"backward", "autograd", "create_graph", "jacobian", "hessian", "vjp", "jvp"})

Seeds = tuple[tuple[str, Kind], ...]
"""Of which kind the parameters are that a call gives modules, optimizers or loaders for."""


class Project:
    """The files below one root. What was read of them is kept: one run, one project."""

    def __init__(self, root: str) -> None:
        self.names = Names(root)
        self.callers = Callers(self.names)
        self._summaries: Memo[tuple[str, Seeds, int], FunctionSummary | None] = {}
        self._modes: Memo[tuple[str, str], Mode] = {}
        self._slices = Slices(self.names)

    def view(self, path: Path | str, remembered: Remembered | None = None) -> View | None:
        """The project as the file sees it; None for a file outside."""
        file = self.names.path_in_project(path)
        return None if file is None else View(self, file, _DEPTH, remembered)

    def mode(self, symbol: str, role: str) -> Mode:
        """Grad mode below a decorator, or inside a context manager, of the project."""
        effect = effect_as_context if role == "context" else effect_as_decorator
        return self.names.reads.once(self._modes, (symbol, role), lambda: effect(self.names, symbol))

    def summary(self, symbol: str, seeds: Seeds, depth: int) -> FunctionSummary | None:
        key = (symbol, seeds, depth)
        return self.names.reads.once(self._summaries, key, lambda: self._read(symbol, seeds, depth))

    def _read(self, symbol: str, seeds: Seeds, depth: int) -> FunctionSummary | None:
        from memlint.semantics.analysis import Analysis

        tree = self._slices.tree(symbol)
        if tree is None:
            return None
        name = ":" + name_in_file(symbol)
        analysis = Analysis(tree, View(self, file_of(symbol), depth), only=name)
        summary = analysis.summary(name, seeds)
        analysis.release()
        return summary


class View:
    """The project as one file sees it. A symbol of the file itself is `:name`, as in the file's own analysis."""

    def __init__(self, project: Project, file: str, depth: int, remembered: Remembered | None = None) -> None:
        self._project = project
        self._names = project.names
        self.file = file
        self._depth = depth
        self.answers = Answers(project.names, remembered)

    def show_own(self, tree: cst.Module) -> None:
        """Give the tree of the file itself: it is not parsed again to see whether it shows the others what it did."""
        if self.answers.doubts(Read("surface", self.file)):
            self._names.put_surface(self.file, surface_of(tree))

    # --- what it is worked out from ---

    @property
    def reads(self) -> Reads:
        return self._names.reads

    @property
    def text_digest(self) -> str:
        """A digest of all texts of the project, as they were searched; empty where they were not."""
        return self._project.callers.text_digest

    def digest_of_file(self, file: str) -> str:
        """A digest of a file of the project, as it was read; empty where it was not."""
        return self._names.digest_of_file(file)

    def digest_of_folder(self, folder: str) -> str:
        """A digest of what a folder holds that imports are followed by; empty where nobody has looked."""
        return self._names.digest_of_folder(folder)

    # --- names ---

    @cached_property
    def _own(self) -> str:
        return f"@{self.file}:"

    @asked
    def canonical(self, name: str) -> str:
        """What a qualified name in this file denotes."""
        found = self._names.canonical(self.file, name)
        return found if found == self._own else self.local(found)

    @asked
    def attribute(self, symbol: str, name: str) -> str:
        return self.local(self._names.attribute(symbol, name))

    @asked
    def bases(self, symbol: str) -> tuple[str, ...]:
        return self._names.bases(symbol)

    @asked
    def method(self, symbol: str, name: str) -> str | None:
        return self._names.method(symbol, name)

    @asked
    def words_of_class(self, symbol: str) -> frozenset[str]:
        """Every identifier and attribute name in a class of the project."""
        return self._names.body(symbol).words

    @asked
    def is_class(self, symbol: str) -> bool:
        return name_in_file(symbol) in self._names.surface(file_of(symbol)).classes

    @asked
    def leaves_forward_open(self, symbol: str) -> bool:
        """Whether the class's forward only raises: each of its subclasses has its own."""
        method = self.method(symbol, "forward")
        if method is None:
            return False
        owner = method.rpartition(".")[0]
        return self._names.surface(file_of(owner)).classes[name_in_file(owner)].methods["forward"].abstract

    @asked
    def defines(self, symbol: str) -> bool:
        """Whether the project has a class, function or method of this name."""
        surface, name = self._names.surface(file_of(symbol)), name_in_file(symbol)
        owner, _, method = name.rpartition(".")
        if owner:
            return owner in surface.classes and method in surface.classes[owner].methods
        return name in surface.functions or name in surface.classes

    @asked
    def parameters(self, symbol: str) -> tuple[str, ...]:
        """The parameters of a function or method that an argument can be given for by position."""
        surface, name = self._names.surface(file_of(symbol)), name_in_file(symbol)
        owner, _, method = name.rpartition(".")
        function = surface.classes[owner].methods[method] if owner else surface.functions[name]
        return function.parameters

    @asked
    def is_context_manager(self, symbol: str) -> bool:
        return is_context_manager(self._names, symbol)

    @asked
    def context_mode(self, symbol: str) -> Mode:
        return self._project.mode(symbol, "context")

    @asked
    def decorator_mode(self, symbol: str) -> Mode:
        return self._project.mode(symbol, "decorator")

    @asked
    def forward_may_detach(self, symbol: str) -> bool:
        """Whether what the class's forward returns may have lost its graph, or never had one.

        It, or a method that it names, mentions how; or its class freezes something.
        """
        method = self.method(symbol, "forward")
        if method is None:
            return False
        owner = method.rpartition(".")[0]
        surface = self._names.surface(file_of(owner)).classes[name_in_file(owner)]
        body = self._names.body(owner)
        is_frozen = "requires_grad_" in body.words
        return bool(surface.methods["forward"].decorators or body.words_of_forward & _DETACHING_WORDS or is_frozen)

    @asked
    def takes_gradients(self, symbol: str) -> bool:
        """Whether code of a class, or of its bases, mentions what takes gradients, other than to train itself."""
        for cls in self._own_line(symbol):
            words = self._names.body(cls).words
            if words & _GRADIENT_WORDS - ({"backward"} if "zero_grad" in words else set()):
                return True
        return False

    @asked
    def mentions_gradients(self, function: str) -> bool | None:
        """Whether a function or method of this name, in any file, speaks of gradients; None: there is none."""
        return self._project.callers.mentions_gradients(function)

    @asked
    def methods_called(self, symbol: str, path: str) -> frozenset[str]:
        """The methods that a class of the project, or a base of it, calls on `self.x`."""
        none: frozenset[str] = frozenset()
        return none.union(*(self._names.body(cls).methods_called.get(path, none) for cls in self._own_line(symbol)))

    @asked
    def freezes(self, symbol: str, path: str) -> bool:
        return any(path in self._names.body(cls).frozen for cls in self._own_line(symbol))

    def _own_line(self, symbol: str) -> list[str]:
        """The class and those of its bases that the project defines."""
        return [cls for cls in (symbol, *self.bases(symbol)) if is_symbol(cls)]

    @asked
    def summary(self, symbol: str, seeds: Seeds = ()) -> FunctionSummary | None:
        """What a function of the project does; None where it cannot be told."""
        return self._project.summary(symbol, seeds, self._depth - 1) if self._depth > 0 else None

    # --- texts ---

    @asked
    def is_mentioned(self, text: str) -> bool:
        """Whether a word, or a piece of code, stands in a file of the project."""
        return bool(self._project.callers.mentioning(text))

    @asked
    def some_file_has(self, pieces: tuple[str, ...], mentioning: str) -> bool | None:
        """Whether a file in which the word stands has one of the pieces; None: too large a project to be searched."""
        files = self._project.callers.mentioning(mentioning)
        wanted = [piece.encode() for piece in pieces]
        return None if files is None else any(piece in self._names.text(file) for file in files for piece in wanted)

    @asked
    def another_file_matches(self, *alternatives: tuple[str, ...]) -> bool:
        """Whether the text of another file of the project matches each pattern of one of the alternatives."""
        compiled = [[re.compile(pattern.encode()) for pattern in patterns] for patterns in alternatives]
        texts = (text for file, text in self._project.callers.texts() if file != self.file)
        return any(all(pattern.search(text) for pattern in patterns) for text in texts for patterns in compiled)

    @asked
    def loaders_with(self, mentioning: str) -> tuple[bool, ...]:
        """Of each `DataLoader(...)` in the files in which the word stands, whether it may have workers.

        A unit test loads without workers whatever its library is made for: it does not count.
        """
        files = [file for file in self._project.callers.mentioning(mentioning) or () if not is_test(file)]
        return tuple(workers for file in files for workers in workers_of_loaders(self._names, file))

    @asked
    def project_mentions(self, texts: tuple[str, ...]) -> bool:
        """Whether a file of the project contains one of the texts, or may: one that cannot be read counts."""
        self._names.reads.note(*(Read("piece", text) for text in texts))
        self._project.callers.read_texts()
        return project_mentions(self._names.root, texts)

    # --- callers ---

    def sites(self, function: str) -> WatchedSites | None:
        """The calls from other files of a function of this file (`:f`), or from any of one of the project.

        None where they cannot be told.
        """
        callers = self._project.callers
        if function.startswith("@"):
            return self.answers.watch(function, lambda: callers.sites(function))
        return self.answers.watch(function, lambda: callers.sites(f"@{self.file}{function}", outside=self.file))

    @asked
    def entry_mode(self, symbol: str) -> Mode:
        """What decorators, bases and frameworks say of the grad mode in which a function of the project runs."""
        return self._project.callers.entry_mode(symbol)

    @asked
    def is_nested(self, symbol: str) -> bool:
        """Whether it is a function in a function of the project."""
        return self._project.callers.is_nested(symbol)

    @asked
    def result_is_clean(self, site: Site) -> bool:
        """Nothing in the caller differentiates what the call returns, or hands it on."""
        return self._project.callers.result_is_clean(site)

    @asked
    def literals_at(self, site: Site) -> Literals | None:
        """The literals that a call gives."""
        return self._project.callers.literals_at(site)

    @asked
    def puts_into_eval(self, site: Site, model: str, names: tuple[str, ...], bound: bool) -> str | None:
        """The path on which a caller calls `.eval()` before the call, of the model that the function names so."""
        return self._project.callers.puts_into_eval(site, model, names, bound=bound)

    @asked
    def words_around(self, site: Site) -> frozenset[str]:
        """The words of the function in which a call stands, or of the file where it stands at its top level."""
        return self._project.callers.words_around(site)

    def local(self, symbol: str) -> str:
        """A definition of this file is `:f`, as in its own analysis."""
        return symbol[len(self._own) - 1 :] if symbol.startswith(self._own) else symbol
