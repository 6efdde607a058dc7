"""The names, classes and attributes of one file, as far as the project around it tells."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Set
from functools import cached_property
from typing import TYPE_CHECKING

import libcst as cst

from memlint.project.names import is_symbol
from memlint.semantics.definitions import Definitions
from memlint.semantics.freezing import frozen_by_helpers, frozen_parameters, frozen_paths
from memlint.semantics.imports import TRAINING_WORDS
from memlint.semantics.knowledge import torch as known
from memlint.semantics.library_objects import object_of
from memlint.semantics.modes import is_known_base, is_module_base
from memlint.semantics.scopes import CALLED_AS_MODEL, Scope, imported_names, path_of, scan
from memlint.semantics.values import NO_GRAD_TENSOR, PARAMETER, Grad, Kind, Mode, Proof, Value, join

if TYPE_CHECKING:
    from memlint.semantics.events import Argument
    from memlint.semantics.flow import Flow
    from memlint.semantics.project import View


_MODULE_PROOFS = known.MODULE_METHODS - {"zero_grad", "load_state_dict"}
_FROM_USE = {
    "module": Value(Kind.MODULE),
    "frozen": Value(Kind.MODULE, mode=Mode.OFF),
    "optimizer": Value(Kind.OPTIMIZER),
    "scaler": Value(Kind.SCALER),
    "called as model": Value(Kind.MODULE, weak=True),
}
# What makes a class one of nothing but its fields.
_RECORD_DECORATORS = frozenset({"dataclasses.dataclass"})
_RECORD_BASES = frozenset({"typing.NamedTuple"})
_BUILDERS = frozenset({"__init__", "__new__", "__post_init__"})


class Classes(Definitions):
    """What a name, a class or an attribute of the file is."""

    def __init__(self, tree: cst.Module, view: View | None) -> None:
        super().__init__()
        self.tree = tree
        self.view = view
        self.root = scan(tree)
        self._flows: dict[Scope, Flow] = {}
        self._running: set[Scope] = set()
        self._records: dict[str, tuple[str, ...] | None] = {}
        self._members: dict[tuple[str, str], Value | None] = {}
        self._bases: dict[str, frozenset[str]] = {}
        self._named_bases: dict[str, list[str]] = {}
        """Those that each class names itself."""
        self._methods: dict[tuple[str, str], Scope | None] = {}
        self._called_in_class: dict[tuple[Scope, str], set[str]] = {}
        self._shown_by_use: dict[tuple[Scope, str], Value | None] = {}
        self._module_classes: dict[str, bool] = {}
        self._frozen: dict[Scope, frozenset[str]] = {}
        self._frozen_by_class: dict[tuple[Scope, bool], frozenset[str]] = {}
        self.scopes: list[Scope] = [self.root, *self.root.descendants()]
        self._by_node = {id(scope.node): scope for scope in self.scopes}
        self._by_name: dict[str, Scope] = {}
        for scope in self.scopes:
            self._by_name[scope.qualname] = scope
        self.top_level_names = {
            name: value if value.quals == {qual} else Value(Kind.CALLABLE, quals=frozenset({qual}))
            for name, value in _hoisted_names(self.root).items()
            for qual in [self.canonical(min(value.quals))]
        }
        self.top_level_names.update(_unbound_modules(tree, self.scopes))

    @abstractmethod
    def flow(self, scope: Scope) -> Flow | None:
        """The scope's flow; None while it is being read (recursion), and where it is called too deep down."""

    @cached_property
    def trains(self) -> bool:
        """Whether the file mentions what training or evaluating code does."""
        return any(scope.words & TRAINING_WORDS for scope in self.scopes)

    @cached_property
    def imports_torch(self) -> bool:
        names = (qual for value in self.top_level_names.values() for qual in value.quals)
        return any(name == "torch" or name.startswith("torch.") for name in names)

    def scope_of(self, node: cst.CSTNode) -> Scope:
        return self._by_node[id(node)]

    def definition(self, qualname: str) -> Scope | None:
        """The function or class of this file with that name."""
        return self._by_name.get(qualname)

    def scope_named(self, qualname: str) -> Scope | None:
        scope = self._by_name.get(qualname)
        return scope if scope is not None and scope.is_function else None

    def function_given(self, argument: Argument) -> Scope | None:
        """The lambda, or the function of this file, that an argument is."""
        if isinstance(argument.expression, cst.Lambda):
            return self.scope_of(argument.expression)
        quals = argument.value.quals
        return self.scope_named(next(iter(quals))) if len(quals) == 1 else None

    def is_class(self, qualname: str) -> bool:
        scope = self._by_name.get(qualname)
        return scope is not None and scope.is_class

    def class_words(self, name: str) -> frozenset[str]:
        """The words of the body of a class of this file, or of all of a class of the project."""
        if is_symbol(name) and self.view is not None:
            return self.view.words_of_class(name)
        scope = self._by_name.get(name)
        return frozenset(scope.words) if scope is not None else frozenset()

    def outer_variable(self, scope: Scope, name: str) -> Value | None:
        """The value that a name not bound in the scope has in the scopes around it."""
        if name in scope.bound and name not in scope.nonlocal_names and scope.parent is not None:
            return None
        outer = scope.parent
        while outer is not None:
            if not outer.is_class:
                flow = self._flows.get(outer)
                if flow is not None:
                    found = flow.state.vars.get(name) if outer in self._running else flow.final.get(name)
                    if found is not None:
                        for box in found.boxes:
                            self.boxes[box].in_object = True
                        return _seen_from_inside(found)
                if name in outer.bound and outer.parent is not None:
                    return None
            outer = outer.parent
        return self.top_level_names.get(name)

    def qualify(self, node: cst.BaseExpression) -> str | None:
        """The qualified name of a path, by the file's top-level imports and definitions."""
        path = path_of(node)
        if path is None:
            return None
        head, *rest = path.split(".")
        value = self.top_level_names.get(head)
        name = head if value is None else min(value.quals, default=head)
        for part in rest:
            name = self.attribute_name(name, part)
        return name

    def canonical(self, qualified: str) -> str:
        """What an imported name denotes: a symbol of the project (`@file:name`), or its name in its library."""
        if self.view is None or qualified.startswith(":"):
            return qualified
        return self.view.canonical(qualified)

    def attribute_name(self, qualified: str, name: str) -> str:
        """What an attribute of a module or class denotes."""
        if self.view is None or not qualified.startswith("@"):
            return f"{qualified}.{name}"
        return self.view.attribute(qualified, name)

    def base_names(self, qualname: str) -> frozenset[str]:
        """The qualified names of all bases of a class of this file, those of its own classes' bases among them."""
        found = self._bases.get(qualname)
        if found is not None:
            return found
        self._bases[qualname] = frozenset()
        scope = self._by_name.get(qualname)
        named: list[str] = []
        if scope is not None and isinstance(scope.node, cst.ClassDef):
            bases = (base.value for base in scope.node.bases)
            named = [self.qualify(base.value if isinstance(base, cst.Subscript) else base) or "?" for base in bases]
        names = set(named)
        for name in named:
            if name.startswith(":"):
                names |= self.base_names(name)
            elif self.view is not None and name.startswith("@"):
                names.update(self.view.bases(name))
        self._named_bases[qualname] = named
        self._bases[qualname] = frozenset(names)
        return self._bases[qualname]

    def is_module_class(self, qualname: str) -> bool:
        """Whether objects of a class of this file (`:Net`) or of the project (`@file:Net`) are modules."""
        found = self._module_classes.get(qualname)
        if found is None:
            bases = self.all_bases(qualname)
            found = any(is_module_base(base) for base in bases)
            if not found and self._unknown_bases(bases):
                scope = self._by_name.get(qualname)
                found = scope is not None and any(child.name == "forward" for child in scope.children)
            self._module_classes[qualname] = found
        return found

    def may_be_module(self, owner: Scope) -> bool:
        """Whether a class is one of modules, or has a base of which nobody knows."""
        return self.is_module_class(owner.qualname) or self._unknown_bases(self.all_bases(owner.qualname))

    def all_bases(self, cls: str) -> frozenset[str]:
        """The bases of a class of this file or of the project."""
        if cls.startswith("@"):
            return frozenset(self.view.bases(cls)) if self.view is not None else frozenset({"?"})
        return self.base_names(cls)

    def imported_method(self, cls: str, name: str) -> str | None:
        """The symbol of a method that a class of the project defines, or a class of this file inherits from it."""
        if self.view is None:
            return None
        if cls.startswith("@"):
            return self.view.method(cls, name)
        for base in sorted(self.base_names(cls)):
            found = self.view.method(base, name) if base.startswith("@") else None
            if found is not None:
                return found
        return None

    def method_of_calls(self, called: Value) -> str | None:
        """`Actor.__call__`, which `actor(batch)` of an object runs; None where no such method is in view."""
        if called.kind is not Kind.INSTANCE or called.cls is None:
            return None
        method = self.method(called.cls, "__call__")
        return method.qualname if method is not None else self.imported_method(called.cls, "__call__")

    def _unknown_bases(self, bases: frozenset[str]) -> bool:
        return not all(is_known_base(base) for base in bases)

    def method(self, qualname: str, name: str) -> Scope | None:
        """The method of a class of this file, looked up through its bases of this file."""
        key = (qualname, name)
        if key not in self._methods:
            self._methods[key] = self._look_up_method(qualname, name)
        return self._methods[key]

    def _look_up_method(self, qualname: str, name: str) -> Scope | None:
        for cls in (qualname, *sorted(self.base_names(qualname))):
            scope = self._by_name.get(f"{cls}.{name}") if cls.startswith(":") else None
            if scope is not None and scope.is_function:
                return scope
        return None

    def member(self, qualname: str, name: str) -> Value | None:
        """What `self.name` is: the methods that assign it decide. None where the class says nothing."""
        key = (qualname, name)
        if key in self._members:
            return self._members[key]
        if qualname.startswith("@"):
            self._members[key] = self._imported_member(qualname, name)
            return self._members[key]
        method = self.method(qualname, name)
        if method is not None:
            is_property = isinstance(method.node, cst.FunctionDef) and bool(method.node.decorators)
            return None if is_property else Value(Kind.CALLABLE, quals=frozenset({method.qualname}))
        # What the methods that assign it find in it, if they read it first.
        self._members[key] = NO_GRAD_TENSOR if self.inherits_statistic(qualname, name) else None
        value, complete = self._assigned_member(qualname, name)
        owner = self._by_name.get(qualname)
        if value is not None and value.kind is Kind.MODULE and owner is not None and self._freezes(owner, name):
            value = Value(Kind.MODULE, cls=value.cls, mode=Mode.OFF)
        if complete:
            self._members[key] = value
        else:
            del self._members[key]
        return value

    def _freezes(self, owner: Scope, name: str) -> bool:
        """Whether a method of the class tells the parameters of `self.name` to need no gradient."""
        return f"self.{name}" in self._frozen_by(owner, nested=False)

    def _imported_member(self, cls: str, name: str) -> Value | None:
        method = self.imported_method(cls, name)
        if method is not None:
            return Value(Kind.CALLABLE, quals=frozenset({method}))
        assert self.view is not None
        path = f"self.{name}"
        shown = _kind_shown_by(self.view.methods_called(cls, path))
        return _FROM_USE["frozen"] if shown == "module" and self.view.freezes(cls, path) else _FROM_USE.get(shown)

    def inherits_statistic(self, qualname: str, name: str) -> bool:
        """Whether `self.name` is a buffer of a layer of torch that the class derives from."""
        return name in known.RUNNING_STATISTICS and not self.all_bases(qualname).isdisjoint(known.NORMS_WITH_STATISTICS)

    def _assigned_member(self, qualname: str, name: str) -> tuple[Value | None, bool]:
        value = self._members[qualname, name]
        complete = True
        for cls in (qualname, *sorted(self.base_names(qualname))):
            scope = self._by_name.get(cls)
            if scope is None or not scope.is_class:
                continue
            for method in scope.children_storing.get(name, ()):
                flow = self.flow(method)
                if flow is None:
                    complete = False
                    flow = self._flows.get(method)  # it is being read: it calls the method that asks
                    found = flow.state.vars.get(f"self.{name}") if flow is not None else None
                else:
                    found = flow.final.get(f"self.{name}")
                if found is not None:
                    found = _seen_from_inside(found)
                    value = found if value is None else join(value, found)
                    # A method that reads the attribute before it assigns it finds what those before it have.
                    self._members[qualname, name] = value
        return value, complete

    def kind_from_use(self, scope: Scope, path: str) -> Value | None:
        """What the methods called on a path prove it to be."""
        key = (scope, path)
        if key not in self._shown_by_use:
            self._shown_by_use[key] = self._kind_from_use(scope, path)
        return self._shown_by_use[key]

    def _kind_from_use(self, scope: Scope, path: str) -> Value | None:
        methods = self._methods_called(scope, path)
        shown = _kind_shown_by(methods) if methods else ""
        if not shown and CALLED_AS_MODEL in methods and self.imports_torch:
            shown = "called as model"
        return _FROM_USE["frozen"] if shown == "module" and self.is_frozen(scope, path) else _FROM_USE.get(shown)

    def kind_from_call(self, scope: Scope, path: str | None) -> Value | None:
        """What an unknown object must be that is called with arguments, as far as the rest of the code shows it.

        What takes a state is a module, and so is the `decoder` of an `encoder` that is one.
        """
        if path is None or not self.imports_torch or self.is_frozen(scope, path):
            return None
        if "load_state_dict" in self._methods_called(scope, path):
            return _FROM_USE["module"]
        if not path.endswith("decoder"):
            return None
        encoder = self.kind_from_use(scope, path.removesuffix("decoder") + "encoder")
        return _FROM_USE["called as model"] if encoder is not None and encoder.kind is Kind.MODULE else None

    def is_frozen(self, scope: Scope, path: str) -> bool:
        """Whether the parameters of the module were told to need no gradient, anywhere in view."""
        if path.startswith("self."):
            owner = scope.enclosing_class()
            if owner is None:
                return False
            return path in self._frozen_by(owner, nested=True) or any(
                self.view.freezes(base, path) for base in self._project_bases(owner) if self.view is not None
            )
        current: Scope | None = scope
        while current is not None:
            if path in self._frozen_in(current):
                return True
            current = current.parent
        return False

    def _frozen_by(self, owner: Scope, *, nested: bool) -> frozenset[str]:
        """What the methods of a class freeze, or all that is nested in it."""
        key = (owner, nested)
        if key not in self._frozen_by_class:
            scopes = owner.descendants() if nested else owner.children
            self._frozen_by_class[key] = frozenset().union(*map(self._frozen_in, scopes))
        return self._frozen_by_class[key]

    def _frozen_in(self, scope: Scope) -> frozenset[str]:
        """What the scope freezes itself, or gives to functions of this file that freeze it."""
        if scope not in self._frozen:
            self._frozen[scope] = frozen_paths(scope) | frozen_by_helpers(scope, self._freezing_functions)
        return self._frozen[scope]

    @cached_property
    def _freezing_functions(self) -> dict[str, Scope]:
        """Those of this file that freeze what they are given, by their names."""
        return {scope.name: scope for scope in self.scopes if scope.is_function and any(frozen_parameters(scope))}

    def _methods_called(self, scope: Scope, path: str) -> set[str]:
        if path.startswith("self."):
            owner = scope.enclosing_class()
            if owner is None:
                return set()
            key = (owner, path)
            if key not in self._called_in_class:
                self._called_in_class[key] = self._called_by_class(owner, path)
            return self._called_in_class[key]
        methods: set[str] = set()
        current: Scope | None = scope
        while current is not None:
            methods |= current.methods_called.get(path, set())
            if path.partition(".")[0] in current.bound:
                break
            current = current.parent
        return methods

    def _called_by_class(self, owner: Scope, path: str) -> set[str]:
        """The methods that a class of this file, and its bases in the project, call on `self.x`."""
        methods = set(owner.called_within.get(path, ()))
        for base in self._project_bases(owner):
            assert self.view is not None
            methods |= self.view.methods_called(base, path)
        return methods

    def _project_bases(self, owner: Scope) -> Iterator[str]:
        """The classes of the project that the class, or a base of it in this file, derives from: they have theirs."""
        for name in (owner.qualname, *self.base_names(owner.qualname)):
            yield from (base for base in self._named_bases.get(name, ()) if base.startswith("@"))

    def kind_of_annotation(self, quals: frozenset[str]) -> Value | None:
        for qual in quals:
            if qual == "torch.nn.Parameter":
                return PARAMETER
            if qual in known.TENSOR_ANNOTATIONS or qual == "Tensor":
                return Value(Kind.TENSOR)
            if qual in known.LOADERS:
                return Value(Kind.LOADER)
            if qual in known.MODULE_BASES or (
                qual.startswith(":") and self.is_class(qual) and self.is_module_class(qual)
            ):
                return Value(Kind.MODULE, cls=qual if qual.startswith(":") else None)
            if qual in ("torch.optim.Optimizer", "torch.optim.optimizer.Optimizer"):
                return Value(Kind.OPTIMIZER)
            if qual in ("int", "float", "bool"):
                return Value(Kind.NUMBER, cls=qual)
            if qual in ("list", "dict", "set", "typing.List", "typing.Dict", "collections.abc.MutableSequence"):
                return Value(Kind.CONTAINER)
            if qual in ("str", "torch.device"):
                return Value(Kind.PLAIN, cls=qual)
            if qual.startswith("torch.nn.") and is_module_base(qual):
                return Value(Kind.MODULE, cls=qual)
            if qual.startswith(":") and self.is_class(qual):
                return Value(Kind.INSTANCE, cls=qual)
            if self.view is not None and qual.startswith("@") and self.view.is_class(qual):
                return self.made_by(qual)
            of_library = object_of(qual)
            if of_library is not None:
                return of_library
        return None

    def made_by(self, cls: str) -> Value:
        """What the call of a class of this file, or of the project, makes."""
        if self.is_module_class(cls):
            return Value(Kind.MODULE, cls=cls, mode=Mode.OFF if self._freezes_itself(cls) else None)
        bases = self.all_bases(cls)
        kind = Kind.DATASET if bases & known.DATASET_BASES else Kind.LOADER if bases & known.LOADERS else Kind.INSTANCE
        return Value(kind, cls=cls)

    def record_fields(self, cls: str) -> tuple[str, ...] | None:
        """The fields of a dataclass or a named tuple of this file that is built from them; None: it is neither."""
        if cls not in self._records:
            scope = self._by_name.get(cls)
            node = scope.node if scope is not None else None
            if scope is not None and isinstance(node, cst.ClassDef) and self._is_record(scope, node):
                self._records[cls] = tuple(_fields(node))
            else:
                self._records[cls] = None
        return self._records[cls]

    def _is_record(self, scope: Scope, node: cst.ClassDef) -> bool:
        bases = {self.qualify(argument.value) for argument in node.bases}
        if any(child.name in _BUILDERS for child in scope.children) or not bases <= _RECORD_BASES:
            return False
        decorators = [item.decorator for item in node.decorators]
        names = {self.qualify(item.func if isinstance(item, cst.Call) else item) for item in decorators}
        return names == _RECORD_DECORATORS or (not names and bases == _RECORD_BASES)

    def _freezes_itself(self, cls: str) -> bool:
        """Whether a method of the class, a constructor mostly, tells all its parameters to need no gradient."""
        if cls.startswith("@"):
            return self.view is not None and self.view.freezes(cls, "self")
        scope = self._by_name.get(cls)
        return scope is not None and any("self" in frozen_paths(method) for method in scope.children)


def _fields(node: cst.ClassDef) -> Iterator[str]:
    for line in node.body.body:
        for part in line.body if isinstance(line, cst.SimpleStatementLine) else ():
            if isinstance(part, cst.AnnAssign) and isinstance(part.target, cst.Name):
                yield part.target.value


def _seen_from_inside(value: Value) -> Value:
    """A variable of an outer scope, or an attribute, read at another time: its autograd state may have changed.

    What object it is has not.
    """
    if value.grad is Grad.NO:
        return value
    return (
        Value(
            value.kind,
            Grad.YES,
            conditions=frozenset(Proof(ident) for ident in value.idents),
            roots=value.roots,
            idents=value.idents,
            cls=value.cls,
            boxes=value.boxes,
            weak=True,
        )
        if value.idents and value.grad is Grad.YES
        else Value(value.kind, Grad.MIXED, roots=value.roots, cls=value.cls, boxes=value.boxes)
    )


def _kind_shown_by(methods: Set[str]) -> str:
    """What an object must be on which these methods are called: a key of `_FROM_USE`, or nothing."""
    if methods & _MODULE_PROOFS:
        return "module"
    if {"backward", "step"} <= methods:
        return "module"  # a DeepSpeed engine
    if {"zero_grad", "step"} <= methods:
        return "optimizer"
    if "unscale_" in methods or {"scale", "update"} <= methods:
        return "scaler"
    return "called as model" if methods & known.STEPS_OF_MODELS else ""


def _hoisted_names(root: Scope) -> dict[str, Value]:
    """Imports, functions and classes of the top level: visible from every function, wherever they stand."""
    names: dict[str, Value] = {}
    for child in root.children:
        if isinstance(child.node, (cst.FunctionDef, cst.ClassDef)):
            names[child.name] = Value(Kind.CALLABLE, quals=frozenset({child.qualname}))
    pending: list[cst.CSTNode] = list(reversed(root.node.body)) if isinstance(root.node, cst.Module) else []
    while pending:
        node = pending.pop()
        if isinstance(node, (cst.Import, cst.ImportFrom)):
            for name, qualified in imported_names(node):
                names[name] = Value(Kind.CALLABLE, quals=frozenset({qualified}))
        elif isinstance(node, (cst.SimpleStatementLine, cst.IndentedBlock, cst.SimpleStatementSuite)):
            pending.extend(reversed(node.body))
        elif isinstance(node, (cst.If, cst.Try, cst.TryStar, cst.With, cst.Else)):
            pending.extend(_inner_blocks(node))
    return names


_USUAL_NAMES = {"torch": "torch", "nn": "torch.nn", "F": "torch.nn.functional"}


def _unbound_modules(tree: cst.Module, scopes: Iterable[Scope]) -> Iterator[tuple[str, Value]]:
    """torch's modules by their usual names, where a star import binds what the file itself does not."""
    if not any(_imports_a_star(statement) for statement in tree.body):
        return
    for name, module in _USUAL_NAMES.items():
        if any(name in scope.words for scope in scopes) and not any(name in scope.bound for scope in scopes):
            yield name, Value(Kind.CALLABLE, quals=frozenset({module}))


def _imports_a_star(node: cst.CSTNode) -> bool:
    if not isinstance(node, cst.SimpleStatementLine):
        return False
    return any(isinstance(item, cst.ImportFrom) and isinstance(item.names, cst.ImportStar) for item in node.body)


def _inner_blocks(node: cst.If | cst.Try | cst.TryStar | cst.With | cst.Else) -> Iterator[cst.CSTNode]:
    # The main branch is read last, so that its import wins over a fallback's.
    if isinstance(node, (cst.Try, cst.TryStar)):
        yield node.body
        for handler in node.handlers:
            yield handler.body
        return
    yield node.body
    if isinstance(node, cst.If) and node.orelse is not None:
        yield node.orelse
