"""Who calls a function from other files of the project, in which grad mode, and what becomes of the result.

The files that mention the name are found by their text and read with Python's own parser.
"""

from __future__ import annotations

import ast
import bisect
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath

from memlint.project.files import MAX_TEXT_BYTES
from memlint.project.names import Names, file_of, is_symbol, name_in_file
from memlint.project.reads import Memo, Read, Reads, digest_of_texts
from memlint.project.surface import FUNCTIONS, decorators_of, dotted, words_of
from memlint.project.texts import Texts
from memlint.semantics.grad_effects import (
    GRAD_MODE_WORDS,
    definition,
    effect_as_context,
    effect_as_decorator,
    is_context_manager,
    library_context,
)
from memlint.semantics.modes import library_decorator_mode, may_switch_grad_mode, method_mode
from memlint.semantics.values import Mode

# A method's name that so many files call is a common word: who calls what cannot be told by it.
_MAX_CALLING = 200

_DIFFERENTIATING_WORDS = frozenset({"backward", "manual_backward", "autograd", "grad"})
GRADIENT_WORDS = (
    GRAD_MODE_WORDS
    | _DIFFERENTIATING_WORDS
    | {"create_graph", "requires_grad", "requires_grad_", "jacobian", "hessian", "vjp", "jvp"}
)
"""What code mentions that switches grad mode, or differentiates itself."""
# Or a decorator whose name speaks of it: `@smart_inference_mode()`.
_GRADIENT_TEXT = re.compile(rb"\b(?:" + "|".join(sorted(GRADIENT_WORDS)).encode() + rb")\b|@\S*(?:grad|inference|eval)")
_OWN_CALL = re.compile(rb"\bself\.([^\W\d]\w*)\(")
# Deeper than this a method hands its work on too far to be judged by texts.
_MOST_DELEGATIONS = 3


@dataclass(frozen=True)
class Site:
    """One call, or use, of a function in another file. `caller` is a symbol; `@file:` is the file's top level."""

    caller: str
    mode: Mode
    """ON, OFF, UNKNOWN, or ENTRY: that of the caller."""
    certain: bool
    """False where only the name of the method matches."""
    place: tuple[str, int, int] | None
    """File, line and column of the call; None where the function is used as a value: somebody unseen may call it."""


@dataclass(frozen=True)
class Literals:
    """The literals that a call gives: each in a tuple of its own, an empty one for anything else."""

    positional: tuple[tuple[object, ...], ...]
    keywords: tuple[tuple[str, tuple[object, ...]], ...]


class Sites:
    """Call sites, searched for only as far as somebody reads: the first one may decide."""

    def __init__(self, search: Iterator[Site], reads: Reads) -> None:
        self._search = search
        self._reads = reads
        self._found: list[tuple[Site | None, frozenset[Read]]] = []
        """What is found so far, and what was read for each; None: there is no more."""

    def __iter__(self) -> Iterator[Site]:
        index = 0
        while True:
            if index == len(self._found):
                with self._reads.collected() as reads:
                    following = next(self._search, None)
                self._found.append((following, frozenset(reads)))
            site, read = self._found[index]
            self._reads.note(*read)
            if site is None:
                return
            yield site
            index += 1

    def __bool__(self) -> bool:
        return next(iter(self), None) is not None


class Callers:
    """The call sites of one project."""

    def __init__(self, names: Names) -> None:
        self.names = names
        self.reads = names.reads
        self._sites: Memo[tuple[str, str], Sites | None] = {}
        self._entries: Memo[str, Mode] = {}
        self._mentions: dict[str, list[str] | None] = {}
        self._mentioned: Memo[tuple[str, str], _Mentions | None] = {}
        self._switching: Memo[str, bool] = {}
        self._speaking: Memo[str, bool | None] = {}
        self._known: Memo[tuple[str, str], bool] = {}
        self._on_others: Memo[tuple[str, str], bool] = {}

    def sites(self, symbol: str, *, outside: str = "") -> Sites | None:
        """The calls in the project's files, those in the file `outside` left out; None where they cannot be told."""
        return self.reads.once(self._sites, (symbol, outside), lambda: self._find(symbol, outside))

    def entry_mode(self, symbol: str) -> Mode:
        """What decorators, bases and frameworks say of the grad mode in which a function of the project runs."""
        return self.reads.once(self._entries, symbol, lambda: self._entry(symbol))

    def is_nested(self, symbol: str) -> bool:
        """Whether it is no function of a file's top level and no method of a class there."""
        owner, _, name = name_in_file(symbol).rpartition(".")
        cls = self.names.surface(file_of(symbol)).classes.get(owner)
        return bool(owner) and (cls is None or name not in cls.methods)

    # --- text ---

    @cached_property
    def _texts(self) -> Texts | None:
        """All text of the project; None where it is too large."""
        contents: list[tuple[str, bytes]] = []
        size = 0
        for file in self.names.files:
            contents.append((file, self.names.raw(file)))
            size += len(contents[-1][1]) + 1
            if size > MAX_TEXT_BYTES:
                return None
        return Texts(contents) if contents else None

    def read_texts(self) -> bool:
        """Read every file of the project; False where it is too large."""
        return self._texts is not None

    @property
    def text_digest(self) -> str:
        """A name for all that is searched for words; empty where nobody has searched."""
        if "_texts" not in vars(self):
            return ""
        return digest_of_texts(
            {} if self._texts is None else {file: self.names.digest_of_file(file) for file in self.names.files}
        )

    def texts(self) -> Iterator[tuple[str, bytes]]:
        """Every file of the project and its text; nothing of a project that is too large."""
        self.reads.note(Read("all"))
        return iter(self._texts or ())

    def mentioning(self, word: str) -> list[str] | None:
        """The files in which a word, or a piece of code, stands; None where the project is too large."""
        self.reads.note(Read("word", word))
        if word not in self._mentions:
            self._mentions[word] = None if self._texts is None else self._texts.files_with(word)
        return self._mentions[word]

    # --- sites ---

    def _find(self, symbol: str, outside: str) -> Sites | None:
        name = name_in_file(symbol).rpartition(".")[2]
        if name in ("forward", "__call__") and "." in name_in_file(symbol):
            return Sites(iter(()), self.reads)  # a module is called by its own name
        files = self._candidates(symbol, name, outside)
        if files is None or len(files) > _MAX_CALLING:
            return None
        found = (site for file in files for site in self._sites_in(file, symbol, name))
        return Sites(found, self.reads)

    def _sites_in(self, file: str, symbol: str, name: str) -> Iterator[Site]:
        imports = self.names.surface(file).imports
        # `from engine import evaluate as run`
        spellings = {name} | {bound for bound, full in imports.items() if full.endswith("." + name)}
        for spelling in sorted(spellings):
            mentions = self._mentions_in(file, spelling)
            if mentions is None:
                continue
            for raw in mentions.calls:
                certain = self._calls_it(file, raw, symbol, name)
                if certain is not None:
                    mode = Mode.UNKNOWN if self._switches(file) else raw.mode
                    yield Site(f"@{file}:{raw.caller}", mode, certain, (file, raw.line, raw.column))
            if mentions.values and self.names.qualify(file, spelling) == symbol:
                yield Site(f"@{file}:{mentions.values[0]}", Mode.UNKNOWN, True, None)

    def _mentions_in(self, file: str, word: str) -> _Mentions | None:
        def work() -> _Mentions | None:
            tree = self.names.tree(file)
            return None if tree is None else _Mentions(self.names, file, tree, word)

        return self.reads.once(self._mentioned, (file, word), work)

    def _switches(self, file: str) -> bool:
        def work() -> bool:
            text = self.names.text(file)
            tree = self.names.tree(file) if b"set_grad_enabled" in text or b"enter_context" in text else None
            return tree is not None and _switches_grad_mode(tree)

        return self.reads.once(self._switching, file, work)

    def _calls_it(self, file: str, raw: _RawSite, symbol: str, name: str) -> bool | None:
        """Whether the callee is the function: surely (True), by its name alone (False), or not (None)."""
        path, owner = raw.path, symbol.rpartition(".")[0] if "." in name_in_file(symbol) else None
        target = self.names.qualify(file, path) if path is not None else None
        if target == symbol:
            return True
        if owner is None:
            return None
        if target is not None and is_symbol(target):
            # `Trainer.evaluate(...)` of the project: perhaps one that inherits it.
            return True if self.names.method(target.rpartition(".")[0], name) == symbol else None
        if path == f"self.{name}" and raw.cls is not None:
            own = f"@{file}:{raw.cls}"
            return True if self.names.method(own, name) == symbol or own in self.names.bases(owner) else None
        head = (path or "").partition(".")[0]
        if head and head in self.names.surface(file).imports:
            return None  # a library's own
        return False if self._knows(file, owner) else None

    def _names_class(self, file: str, owner: str) -> bool:
        """Whether the file mentions the class, or one that inherits, and not another one of that name."""
        name = name_in_file(owner)
        if re.search(rb"\b" + name.encode() + rb"\b", self.names.text(file)) is None:
            return False
        named = self.names.qualify(file, name)
        if not is_symbol(named):
            return name not in self.names.surface(file).imports
        return named == owner or owner in self.names.bases(named) or named in self.names.bases(owner)

    def _knows(self, file: str, owner: str) -> bool:
        """Whether a file may hold objects of a class: it is of the same package, names the class or imports its file.

        In a folder of scripts that have nothing to do with each other, the same name says nothing.
        """
        return self.reads.once(self._known, (file, owner), lambda: self._may_know(file, owner))

    def _may_know(self, file: str, owner: str) -> bool:
        home = file_of(owner)
        package = self.names.package(home)
        return (
            (package is not None and package == self.names.package(file))
            or self._names_class(file, owner)
            or any(self.names.imports_from(one, other) for one, other in ((file, home), (home, file)))
        )

    def result_is_clean(self, site: Site) -> bool:
        """Nothing in the caller differentiates what the call returns, or hands it on."""
        if site.place is None:
            return False
        file, line, column = site.place
        tree = self.names.tree(file)
        return tree is not None and _is_clean(tree, line, column)

    def literals_at(self, site: Site) -> Literals | None:
        """None where the arguments are unpacked, or the function is not called but handed over."""
        if site.place is None:
            return None
        file, line, column = site.place
        tree = self.names.tree(file)
        function = _function_at(tree, line) if tree is not None else None
        call = next((node for node in ast.walk(function) if _stands_at(node, line, column)), None) if function else None
        if not isinstance(call, ast.Call) or any(isinstance(item, ast.Starred) for item in call.args):
            return None
        keywords = tuple((item.arg, _literal(item.value)) for item in call.keywords if item.arg is not None)
        if len(keywords) < len(call.keywords):
            return None
        return Literals(tuple(_literal(item) for item in call.args), keywords)

    def puts_into_eval(self, site: Site, model: str, names: tuple[str, ...], *, bound: bool) -> str | None:
        """The path on which the caller calls `.eval()` before the call, if `.train()` was not called after it.

        `model` is a path of the called function, `names` its parameters; `bound`: the first is its object.
        """
        if site.place is None:
            return None
        file, line, column = site.place
        tree = self.names.tree(file)
        function = _function_at(tree, line) if tree is not None else None
        call = next((node for node in ast.walk(function) if _stands_at(node, line, column)), None) if function else None
        given = _given_for(call, model, names, bound=bound) if isinstance(call, ast.Call) else None
        return _in_eval(function, given, line) if function is not None and given is not None else None

    def mentions_gradients(self, function: str) -> bool | None:
        """Whether a function or method of this name, in any file, speaks of gradients; None: there is none.

        It speaks of them too where a method that it calls on its own object does (`self.test()`), a few calls deep.
        """
        return self.reads.once(self._speaking, function, lambda: self._speaks(function))

    def _speaks(self, function: str) -> bool | None:
        bodies = self._definitions(function)
        if not bodies:
            return None
        names = {function}
        for _ in range(_MOST_DELEGATIONS + 1):
            if any(_GRADIENT_TEXT.search(body) for body in bodies):
                return True
            called = {match[1].decode() for body in bodies for match in _OWN_CALL.finditer(body)} - names
            names |= called
            bodies = [body for name in sorted(called) for body in self._definitions(name)]
        return bool(bodies)

    def _definitions(self, function: str) -> list[bytes]:
        """The texts of all functions and methods of this name in the project."""
        pattern = re.compile(rb"^([ \t]*)(?:async )?def " + function.encode() + rb"\(", re.MULTILINE)
        texts = [self.names.text(file) for file in self.mentioning(f"def {function}(") or ()]
        return [_definition_at(text, match) for text in texts for match in pattern.finditer(text)]

    def words_around(self, site: Site) -> frozenset[str]:
        """The words of the function in which a call stands, or of the file where it stands at its top level."""
        if site.place is None:
            return frozenset()
        file, line, _ = site.place
        tree = self.names.tree(file)
        return words_of(_function_at(tree, line)) if tree is not None else frozenset()

    def _candidates(self, symbol: str, name: str, outside: str) -> list[str] | None:
        """The files that may call it: for a function, those that also mention its module or a package around it."""
        if "." in name_in_file(symbol):
            calling = self.mentioning(f".{name}(")
            if calling is None:
                return None
            return [file for file in calling if file != outside and self._may_call(file, symbol, name)]
        mentioning = self.mentioning(name)
        if mentioning is None:
            return None
        file = PurePosixPath(file_of(symbol))
        stem = file.parent.name if file.name == "__init__.py" else file.stem
        words = {stem}
        reexporting = {str(parent / "__init__.py"): parent.name for parent in file.parents}
        words |= {package for init, package in reexporting.items() if init in mentioning and package}
        importing = set().union(*(self.mentioning(word) or () for word in words), {str(file)})
        return [item for item in mentioning if item in importing and item != outside]

    def _may_call(self, file: str, symbol: str, name: str) -> bool:
        """Judged from the text: `self.evaluate()` in a class that is no relation of the method's is no call of it."""
        if self.reads.once(self._on_others, (file, name), lambda: self._is_called_on_others(file, name)):
            return True
        owner = symbol.rpartition(".")[0]
        own_line = [item for item in (owner, *self.names.bases(owner)) if is_symbol(item)]
        return any(file == file_of(item) for item in own_line) or name_in_file(owner).encode() in self.names.text(file)

    def _is_called_on_others(self, file: str, name: str) -> bool:
        text = self.names.text(file)
        return text.count(f".{name}(".encode()) != text.count(f"self.{name}(".encode())

    def _entry(self, symbol: str) -> Mode:
        file, path = file_of(symbol), name_in_file(symbol)
        if not path:
            return Mode.ON
        surface = self.names.surface(file)
        owner, _, name = path.rpartition(".")
        if not owner:
            function = surface.functions.get(name)
            return Mode.UNKNOWN if function is None else self._decorated(file, function.decorators)
        cls = surface.classes.get(owner)
        if cls is None or name not in cls.methods:
            return self._nested_entry(symbol)
        mode = self._decorated(file, cls.methods[name].decorators)
        return mode if mode is not Mode.ENTRY else method_mode(name, frozenset(self.names.bases(f"@{file}:{owner}")))

    def _nested_entry(self, symbol: str) -> Mode:
        """Of a function in a function: its decorators say, or nobody knows who calls it."""
        node = definition(self.names, symbol)
        mode = self._decorated(file_of(symbol), decorators_of(node)) if node is not None else Mode.ENTRY
        return Mode.UNKNOWN if mode is Mode.ENTRY else mode

    def _decorated(self, file: str, decorators: tuple[str, ...]) -> Mode:
        for decorator in decorators:
            mode = decorator_mode(self.names, self.names.qualify(file, decorator))
            if mode is not Mode.KEEP:
                return mode
        return Mode.ENTRY


def decorator_mode(names: Names, name: str) -> Mode:
    """Grad mode in a function below a decorator without arguments; KEEP: its caller's."""
    return effect_as_decorator(names, name) if is_symbol(name) else library_decorator_mode(name)


@dataclass(frozen=True)
class _RawSite:
    """A call as it stands in a file. `caller` and `cls` are names within the file."""

    path: str | None
    """The callee, where it is a chain of names."""
    mode: Mode
    caller: str
    cls: str | None
    line: int
    column: int


class _Mentions:
    """Where one word stands in the code of one file: the calls of what is called so, and its uses as a value.

    Only the statements on whose lines the word stands are looked into.
    """

    def __init__(self, names: Names, file: str, tree: ast.Module, word: str) -> None:
        self.names = names
        self.file = file
        self.word = word
        self.calls: list[_RawSite] = []
        self.values: list[str] = []
        """The callers that use the name as a value."""
        pattern = re.compile(rb"\b" + word.encode() + rb"\b")
        lines = enumerate(names.text(file).splitlines(), start=1)
        self._lines = [number for number, line in lines if pattern.search(line)]
        self._block(tree.body, Mode.ON, "", None)

    def _block(self, body: Iterable[ast.stmt], mode: Mode, caller: str, cls: str | None) -> None:
        for node in body:
            start = min([node.lineno, *(item.lineno for item in getattr(node, "decorator_list", ()))])
            at = bisect.bisect_left(self._lines, start)
            if at < len(self._lines) and self._lines[at] <= (node.end_lineno or node.lineno):
                self._statement(node, mode, caller, cls)

    def _statement(self, node: ast.stmt, mode: Mode, caller: str, cls: str | None) -> None:
        inner = f"{caller}.{getattr(node, 'name', '')}" if caller else getattr(node, "name", "")
        if isinstance(node, FUNCTIONS):
            self._expressions([*node.decorator_list, node.args], mode, caller, cls)
            self._block(node.body, Mode.ENTRY, inner, cls)
        elif isinstance(node, ast.ClassDef):
            self._expressions([*node.decorator_list, *node.bases], mode, caller, cls)
            self._block(node.body, mode, inner, inner)
        elif isinstance(node, (ast.With, ast.AsyncWith)):
            inside = mode
            for item in node.items:
                self._expressions([item.context_expr], inside, caller, cls)
                inside = self._entered(item.context_expr, inside)
            self._block(node.body, inside, caller, cls)
        else:
            children = list(ast.iter_child_nodes(node))
            self._expressions([item for item in children if not isinstance(item, _BLOCKS)], mode, caller, cls)
            for child in children:
                if isinstance(child, ast.stmt):
                    self._block([child], mode, caller, cls)
                elif isinstance(child, (ast.ExceptHandler, ast.match_case)):
                    self._block(child.body, mode, caller, cls)

    def _expressions(self, nodes: Iterable[ast.AST], mode: Mode, caller: str, cls: str | None) -> None:
        pending = [(node, mode) for node in nodes]
        while pending:
            node, mode = pending.pop()
            if isinstance(node, ast.Lambda):
                mode = Mode.UNKNOWN
            if isinstance(node, ast.Call) and self._is_word(node.func):
                site = _RawSite(dotted(node.func), mode, caller, cls, node.lineno, node.col_offset)
                self.calls.append(site)
                rest: list[ast.AST] = [*node.args, *node.keywords]
                if isinstance(node.func, ast.Attribute):
                    rest.append(node.func.value)
                pending.extend((item, mode) for item in rest)
            elif isinstance(node, ast.Name) and node.id == self.word:
                self.values.append(caller)
            else:
                pending.extend((item, mode) for item in ast.iter_child_nodes(node))

    def _is_word(self, func: ast.expr) -> bool:
        return (func.attr if isinstance(func, ast.Attribute) else getattr(func, "id", None)) == self.word

    def _entered(self, node: ast.expr, mode: Mode) -> Mode:
        call = node if isinstance(node, ast.Call) else None
        path = dotted(call.func if call is not None else node)
        name = self.names.qualify(self.file, path) if path is not None else "?"
        if is_symbol(name):
            inside = effect_as_context(self.names, name) if is_context_manager(self.names, name) else Mode.UNKNOWN
        elif path is not None and path.partition(".")[0] in self.names.surface(self.file).imports:
            inside = library_context(name, call)
        else:
            inside = Mode.UNKNOWN if may_switch_grad_mode(path or "") else Mode.KEEP
        return mode if inside is Mode.KEEP else inside


_BLOCKS = (ast.stmt, ast.ExceptHandler, ast.match_case)


def _definition_at(text: bytes, match: re.Match[bytes]) -> bytes:
    """The text of a function, from its decorators to the first line that is indented no deeper."""
    start = match.start()
    while True:
        before = text.rfind(b"\n", 0, max(start - 1, 0)) + 1
        if before == start or not text[before:start].lstrip().startswith(b"@"):
            break
        start = before
    indent = len(match[1])
    end = re.compile(rb"^[ \t]{0,%d}[^\s#)\]}]" % indent, re.MULTILINE).search(text, match.end())
    return text[start : end.start() if end is not None else len(text)]


def _switches_grad_mode(tree: ast.Module) -> bool:
    """Whether grad mode is switched by a statement, or entered through an `ExitStack`, somewhere in the file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            last = _last(dotted(node.value.func))
            if last == "set_grad_enabled" or (last == "enter_context" and words_of(node) & GRAD_MODE_WORDS):
                return True
    return False


def _last(path: str | None) -> str:
    return (path or "").rpartition(".")[2]


def _is_clean(tree: ast.Module, line: int, column: int) -> bool:
    """Nothing in the caller differentiates, and what the call at this place returns stays in it."""
    function = _function_at(tree, line)
    words: set[str] = set()
    names = {"?"}
    leaving: list[ast.AST] = []
    for node in _own_nodes(function):
        if isinstance(node, ast.Name):
            words.add(node.id)
        elif isinstance(node, ast.Attribute):
            words.add(node.attr)
        if isinstance(node, (ast.Return, ast.Yield, ast.YieldFrom, ast.Lambda)):
            leaving += ast.walk(node)
        elif isinstance(node, ast.Assign) and any(_stands_at(item, line, column) for item in ast.walk(node.value)):
            if not all(_binds_names(target) for target in node.targets):
                return False
            names.update(*(words_of(target) for target in node.targets))
    if words & _DIFFERENTIATING_WORDS:
        return False
    return not any(
        _stands_at(node, line, column) or (isinstance(node, ast.Name) and node.id in names) for node in leaving
    )


def _literal(node: ast.expr) -> tuple[object, ...]:
    return (node.value,) if isinstance(node, ast.Constant) else ()


def _given_for(call: ast.Call, model: str, names: tuple[str, ...], *, bound: bool) -> str | None:
    """How the code at a call names what the called function names `model`."""
    head, dot, rest = model.partition(".")
    if head not in names:
        return None
    position = names.index(head) - bound
    if position < 0:
        given: ast.expr | None = call.func.value if isinstance(call.func, ast.Attribute) else None
    else:
        given = next((item.value for item in call.keywords if item.arg == head), None)
        if given is None and position < len(call.args) and not any(isinstance(a, ast.Starred) for a in call.args):
            given = call.args[position]
    owner = dotted(given) if given is not None else None
    return None if owner is None else owner + dot + rest


def _in_eval(function: ast.AST, model: str, line: int) -> str | None:
    """The path, `model` or an owner of it, that was put into eval mode last before a line."""
    switches: list[tuple[int, str, bool]] = []
    for node in _own_nodes(function):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or node.lineno > line:
            continue
        if node.func.attr not in ("eval", "train") or len(node.args) > 1:
            continue
        path = dotted(node.func.value)
        if path is not None and (model == path or model.startswith(path + ".")):
            off = any(isinstance(item, ast.Constant) and item.value is False for item in node.args)
            switches.append((node.lineno, path, node.func.attr == "eval" or off))
    if not switches:
        return None
    _, path, is_eval = max(switches)
    return path if is_eval else None


def _stands_at(node: ast.AST, line: int, column: int) -> bool:
    return isinstance(node, ast.Call) and node.lineno == line and node.col_offset == column


def _function_at(tree: ast.Module, line: int) -> ast.AST:
    """The innermost function around a line, or the module."""
    found: ast.AST = tree
    for node in ast.walk(tree):  # outer nodes come first
        if isinstance(node, FUNCTIONS) and node.lineno <= line <= (node.end_lineno or node.lineno):
            found = node
    return found


def _own_nodes(function: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a function, or of a module, without those of the functions and classes in it."""
    pending: list[ast.AST] = list(ast.iter_child_nodes(function))
    while pending:
        node = pending.pop()
        if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            continue
        yield node
        pending.extend(ast.iter_child_nodes(node))


def _binds_names(target: ast.expr) -> bool:
    if isinstance(target, (ast.Tuple, ast.List)):
        return all(_binds_names(element) for element in target.elts)
    return isinstance(target, ast.Name)
