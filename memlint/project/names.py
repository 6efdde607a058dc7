"""Which definition a name in one file of the project denotes, through imports, re-exports and aliases.

A definition of the project is written as a symbol, `@pkg/nets.py:Net.forward`: the file, from the project's root, and
the name within it. A module is `@pkg/nets.py:`, a folder without an `__init__.py` is `@pkg/:`.
"""

from __future__ import annotations

import ast
import sys
import warnings
from functools import cached_property
from pathlib import Path

from memlint.project.files import MAX_FILES, ROOT_MARKERS, python_files
from memlint.project.reads import UNREADABLE, Memo, Read, Reads, digest_of, digest_of_names, meaningful
from memlint.project.surface import ClassBody, Surface, body_of, surface_of, top_level

# A file is parsed for its surface; the trees of the last few are kept, since questions about a file come together.
_TREES_KEPT = 24
# A folder without an `__init__.py` gives way to an installed package of its name (PEP 420, "Specification").
_INSTALLED = frozenset({"torch"})
_UNREADABLE = Surface()
_EMPTY = ClassBody({}, frozenset(), frozenset(), frozenset())


def is_symbol(name: str) -> bool:
    return name.startswith("@")


def is_module_symbol(name: str) -> bool:
    return name.startswith("@") and name.endswith(":")


def file_of(symbol: str) -> str:
    """The file of a symbol, from the project's root."""
    return symbol[1:].partition(":")[0]


def name_in_file(symbol: str) -> str:
    """`Net.forward` of `@pkg/nets.py:Net.forward`."""
    return symbol.partition(":")[2]


class Names:
    """The names of one project. Files are read when they are asked for, and once."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.reads = Reads()
        self._digests: dict[str, str] = {}
        self._surfaces: dict[str, Surface] = {}
        self._surface_digests: dict[str, str] = {}
        self._trees: dict[str, ast.Module | None] = {}
        self._canonical: Memo[tuple[str, str], str] = {}
        self._bases: Memo[str, tuple[str, ...]] = {}
        self._imported: Memo[str, frozenset[str]] = {}
        self._methods: Memo[tuple[str, str], str | None] = {}
        self._bodies: dict[str, ClassBody] = {}
        self._folders: dict[str, frozenset[str]] = {}

    # --- files ---

    def path_in_project(self, path: Path | str) -> str | None:
        """The path from the project's root, with slashes; None for a file outside it."""
        try:
            return Path(path).relative_to(self.root).as_posix()
        except ValueError:
            return None

    @cached_property
    def files(self) -> tuple[str, ...]:
        """Every Python file of the project, sorted; none in a project that is too large to be searched.

        Nothing is noted of this: whoever asks notes what of the files it reads.
        """
        found = []
        for count, path in enumerate(python_files(self.root)):
            if count == MAX_FILES:
                return ()
            found.append(path.relative_to(self.root).as_posix())
        return tuple(sorted(found))

    def text(self, file: str) -> bytes:
        """The bytes of a file; nothing where it cannot be read."""
        self.reads.note(Read("file", file))
        return self.raw(file)

    def raw(self, file: str) -> bytes:
        """The same, for those who note themselves what they read."""
        try:
            content = Path(self.root, file).read_bytes()
        except OSError:
            self._digests[file] = UNREADABLE
            return b""
        self._digests[file] = digest_of(content)
        return content

    def digest_of_file(self, file: str) -> str:
        """A name for what a file said when it was read last; empty where it was not."""
        return self._digests.get(file, "")

    def digest_of_folder(self, folder: str) -> str:
        """A name for what a folder holds that imports are followed by; empty where nobody has looked."""
        entries = self._folders.get(folder)
        return "" if entries is None else digest_of_names(meaningful(entries))

    def tree(self, file: str) -> ast.Module | None:
        """Python's own tree of a file; None where it does not parse."""
        self.reads.note(Read("file", file))
        return self._tree(file)

    def _tree(self, file: str) -> ast.Module | None:
        if file not in self._trees:
            if len(self._trees) >= _TREES_KEPT:
                del self._trees[next(iter(self._trees))]
            self._trees[file] = _parsed(self.raw(file))
        return self._trees[file]

    def surface(self, file: str) -> Surface:
        self.reads.note(Read("surface", file))
        found = self._surfaces.get(file)
        if found is None:
            tree = self._tree(file)
            found = self._surfaces[file] = _UNREADABLE if tree is None else surface_of(tree)
        return found

    def put_surface(self, file: str, surface: Surface) -> None:
        """Say what a file shows, where somebody has parsed it who has no use for Python's tree."""
        self._surfaces.setdefault(file, surface)

    def has_surface(self, file: str) -> bool:
        """Whether the file was read for its surface."""
        return file in self._surfaces

    def digest_of_surface(self, file: str) -> str:
        """A name for all that a file shows to the others."""
        if file not in self._surface_digests:
            self._surface_digests[file] = digest_of(repr(self.surface(file)).encode(errors="surrogatepass"))
        return self._surface_digests[file]

    def _entries(self, folder: str) -> frozenset[str]:
        """The names of what lies in a folder; those of folders end in a slash."""
        self.reads.note(Read("folder", folder))
        found = self._folders.get(folder)
        if found is None:
            try:
                found = frozenset(
                    entry.name + ("/" if entry.is_dir() else "") for entry in Path(self.root, folder).iterdir()
                )
            except OSError:
                found = frozenset()
            self._folders[folder] = found
        return found

    # --- names ---

    def canonical(self, file: str, name: str) -> str:
        """What a qualified name in the file denotes: a symbol, or the name that its library gives it.

        A name that cannot be followed stays as it is. A re-exported `torch.no_grad` is `torch.no_grad`.
        """
        return self.reads.once(self._canonical, (file, name), lambda: self._follow(file, name, set()) or name)

    def attribute(self, symbol: str, name: str) -> str:
        """What an attribute of a module or class of the project denotes."""
        if not is_module_symbol(symbol):
            return f"{symbol}.{name}"
        return self._in_module(symbol, name, set()) or f"{symbol}{name}"

    def _follow(self, file: str, name: str, seen: set[tuple[str, str]]) -> str | None:
        """`seen` is shared by one search: each name in each file is followed once, however many stars lead to it."""
        if is_symbol(name):
            return name
        if (file, name) in seen:
            return None
        seen.add((file, name))
        start, rest = self._start(file, name)
        if start is None:
            return None
        symbol: str | None = start
        for part in rest:
            if symbol is None:
                return None
            symbol = self._in_module(symbol, part, seen) if is_module_symbol(symbol) else f"{symbol}.{part}"
        return symbol

    def _start(self, file: str, name: str) -> tuple[str | None, list[str]]:
        """The module or folder in which the search begins, and the parts that are left."""
        dots = len(name) - len(name.lstrip("."))
        parts = [part for part in name[dots:].split(".") if part]
        folder = _parent(file)
        if dots:
            for _ in range(dots - 1):
                if not folder:
                    return None, parts
                folder = _parent(folder)
            return self._module(folder), parts
        if not parts or parts[0] in sys.stdlib_module_names:
            return None, parts
        for base in self._search_path(folder):
            found = self._submodule(base, parts[0])
            if found is not None and not (parts[0] in _INSTALLED and found.endswith("/:")):
                return found, parts[1:]
        if parts[0] == Path(self.root).name and not self._has_project_file():
            return self._module(""), parts[1:]  # a package without an `__init__.py`: its folder was taken for the root
        return None, parts

    def _has_project_file(self) -> bool:
        return any(Path(self.root, marker).exists() for marker in ROOT_MARKERS)

    def _search_path(self, folder: str) -> list[str]:
        """Where an absolute import of a file in this folder looks, as Python would when the project is run."""
        path = []
        outermost = folder
        while outermost and "__init__.py" in self._entries(outermost):
            outermost = _parent(outermost)
        if outermost == folder:
            path.append(folder)  # a script: its own folder comes first
        current = outermost
        while True:
            path.append(current)
            if not current:
                break
            current = _parent(current)
        if "src/" in self._entries(""):
            path.append("src")
        if outermost != folder:
            path.append(folder)  # a module that is also run as a script
        return path

    def _submodule(self, folder: str, name: str) -> str | None:
        entries = self._entries(folder)
        inner = f"{folder}/{name}" if folder else name
        if f"{name}/" in entries and ("__init__.py" in self._entries(inner) or f"{name}.py" not in entries):
            has_python = any(entry.endswith((".py", "/")) for entry in self._entries(inner))
            return self._module(inner) if has_python else None
        return f"@{inner}.py:" if f"{name}.py" in entries else None

    def _module(self, folder: str) -> str:
        if "__init__.py" in self._entries(folder):
            return f"@{folder}/__init__.py:" if folder else "@__init__.py:"
        return f"@{folder}/:"

    def _in_module(self, symbol: str, name: str, seen: set[tuple[str, str]]) -> str | None:
        file = file_of(symbol)
        found = None if file.endswith("/") else self._defined(file, name, seen)
        if found is None and file.endswith(("/", "__init__.py")):
            found = self._submodule(_folder(symbol), name)
        if found is None and not file.endswith("/"):
            stars = reversed(self.surface(file).stars)
            found = next(filter(None, (self._through_star(file, star, name, seen) for star in stars)), None)
        return found

    def _defined(self, file: str, name: str, seen: set[tuple[str, str]]) -> str | None:
        surface = self.surface(file)
        if name in surface.classes or name in surface.functions:
            return f"@{file}:{name}"
        qualified = surface.imports.get(name)
        if qualified is not None and (file, qualified) in seen:
            return None  # `from pkg import part` in `pkg/__init__.py` itself
        if qualified is not None:
            return self._follow(file, qualified, seen) or (None if qualified.startswith(".") else qualified)
        alias = surface.aliases.get(name)
        if alias is not None and (file, "=" + name) not in seen:
            seen.add((file, "=" + name))
            return self._alias(file, alias, seen)
        return None

    def _through_star(self, file: str, star: str, name: str, seen: set[tuple[str, str]]) -> str | None:
        module = self._module_named(file, star)
        if module is None or (module, name) in seen:
            return None
        seen.add((module, name))
        if not self._may_define(file_of(module), name):
            return None
        return self._in_module(module, name, seen)

    def _may_define(self, file: str, name: str) -> bool:
        """Judged from the text: of hundreds of modules behind stars, few are worth parsing."""
        if file.endswith("/"):
            return True
        if file in self._surfaces:
            self.reads.note(Read("surface", file))
            return True
        text = self.text(file)
        return name.encode() in text or b"import *" in text

    def _module_named(self, file: str, name: str) -> str | None:
        """The module or folder of an import, by the project's files alone."""
        module, rest = self._start(file, name)
        for part in rest:
            if module is None or not module.endswith(("/:", "__init__.py:")):
                return None
            module = self._submodule(_folder(module), part)
        return module

    def _alias(self, file: str, path: str, seen: set[tuple[str, str]]) -> str | None:
        head, _, rest = path.partition(".")
        found = self._in_module(f"@{file}:", head, seen)
        for part in rest.split(".") if rest else ():
            if found is None:
                return None
            if not is_symbol(found):
                found = f"{found}.{part}"
            elif is_module_symbol(found):
                found = self._in_module(found, part, seen)
            else:
                found = f"{found}.{part}"
        return found

    def qualify(self, file: str, path: str) -> str:
        """What a dotted path written in the file denotes at its top level."""
        found = self._alias(file, path, set())
        return found if found is not None else path

    def package(self, file: str) -> str | None:
        """The outermost package around a file; None for a script in a plain folder."""
        folder, outermost = _parent(file), None
        while "__init__.py" in self._entries(folder):
            outermost = folder
            if not folder:
                break
            folder = _parent(folder)
        return outermost

    def imports_from(self, file: str, other: str) -> bool:
        """Whether one file imports from the other, or imports it."""
        return other in self.reads.once(self._imported, file, lambda: self._files_imported_by(file))

    def _files_imported_by(self, file: str) -> frozenset[str]:
        return frozenset(file_of(self.canonical(file, name)) for name in self.surface(file).imports.values())

    # --- classes ---

    def bases(self, symbol: str) -> tuple[str, ...]:
        """Every base of a class of the project, nearest first: symbols, names of libraries, `?` for the unknown."""
        return self.reads.once(self._bases, symbol, lambda: self._bases_of(symbol))

    def _bases_of(self, symbol: str) -> tuple[str, ...]:
        order: list[str] = []
        pending = [symbol]
        while pending:
            current = pending.pop(0)
            surface = self.surface(file_of(current)).classes.get(name_in_file(current))
            if surface is None:
                order.append("?")
                continue
            for base in surface.bases:
                name = "?" if base == "?" else self.qualify(file_of(current), base)
                if name in order or name == symbol:
                    continue
                order.append(name)
                if is_symbol(name):
                    pending.append(name)
        return tuple(order)

    def body(self, symbol: str) -> ClassBody:
        """What stands in a class of the project; of one that cannot be read, nothing."""
        self.reads.note(Read("file", file_of(symbol)))
        found = self._bodies.get(symbol)
        if found is None:
            tree, name = self.tree(file_of(symbol)), name_in_file(symbol)
            statements = top_level(tree.body) if tree is not None else ()
            node = next((item for item in statements if isinstance(item, ast.ClassDef) and item.name == name), None)
            found = self._bodies[symbol] = _EMPTY if node is None else body_of(node)
        return found

    def method(self, symbol: str, name: str) -> str | None:
        """The symbol of a method of a class of the project, looked up through its bases."""
        return self.reads.once(self._methods, (symbol, name), lambda: self._method(symbol, name))

    def _method(self, symbol: str, name: str) -> str | None:
        for cls in (symbol, *self.bases(symbol)):
            if not is_symbol(cls):
                continue
            surface = self.surface(file_of(cls)).classes.get(name_in_file(cls))
            if surface is not None and name in surface.methods:
                return f"{cls}.{name}"
        return None


def _folder(module: str) -> str:
    """The folder of a package or of a folder without an `__init__.py`."""
    file = file_of(module)
    return file[:-1] if file.endswith("/") else _parent(file)


def _parent(path: str) -> str:
    return path.rstrip("/").rpartition("/")[0]


def _parsed(content: bytes) -> ast.Module | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(content)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
