"""The analysis of one file: runs the flows of its scopes, holds what they share, yields the file's facts."""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import libcst as cst

from memlint.project.names import is_symbol
from memlint.project.surface import FUNCTIONS, Definition
from memlint.semantics.autograd_functions import input_of_function
from memlint.semantics.events import Loop, Use
from memlint.semantics.flow import Flow
from memlint.semantics.grad_effects import GRAD_MODE_WORDS, context_effect, decorator_effect
from memlint.semantics.imports import TRAINING_WORDS
from memlint.semantics.knowledge import torch as known
from memlint.semantics.library_objects import object_of
from memlint.semantics.modes import is_known_base, is_layer_method, is_module_base, library_decorator_mode, method_mode
from memlint.semantics.questions import CallSite, FunctionFacts, GradOnEntry, ModuleFacts
from memlint.semantics.reading import Reading
from memlint.semantics.scopes import CALLED_AS_MODEL, Scope, imported_names, parameters, path_of, scan
from memlint.semantics.summaries import (
    DIFFERENTIATING_WORDS,
    FunctionSummary,
    ParameterEffects,
    Result,
    forwards_of,
    result_of,
    store_of,
)
from memlint.semantics.values import (
    NONE_NEEDED,
    NOTHING,
    NUMBER,
    PARAMETER,
    Condition,
    Grad,
    Kind,
    Mode,
    Proof,
    Root,
    Value,
    join,
)

if TYPE_CHECKING:
    from memlint.semantics.project import View


_MODULE_PROOFS = known.MODULE_METHODS - {"zero_grad", "load_state_dict"}
_FROM_USE = {
    "module": Value(Kind.MODULE),
    "frozen": Value(Kind.MODULE, mode=Mode.OFF),
    "optimizer": Value(Kind.OPTIMIZER),
    "scaler": Value(Kind.SCALER),
    "called as model": Value(Kind.MODULE, weak=True),
}


# What a function this far down a chain of calls does is nothing to the first of them. (It is read by itself later.)
_DEEPEST_CALL = 100
# So many parts of a container that carry a graph are as good as all.
_MAX_CARRYING = 8


@dataclass(eq=False)
class Box:
    """A container, by the expression that makes it."""

    node: cst.CSTNode
    born_in: frozenset[cst.CSTNode]
    """The loops around the expression: each of their iterations makes a new one."""
    content: Value = field(default_factory=lambda: Value(Kind.UNKNOWN, Grad.MIXED))
    filled: bool = False
    carrying: list[Value] = field(default_factory=list)
    """What was put into it that carries a graph."""
    escaped: bool = False
    returned: bool = False
    in_object: bool = False
    bounded: bool = False
    """`deque(maxlen=...)`."""
    items: dict[str, Value] | None = None
    """What stands under each key, where all of them are literals."""
    counts: bool = False
    """It holds numbers: `sums[key] += value` adds to one, and makes no list longer."""
    emptied_in: set[cst.CSTNode] = field(default_factory=set)
    """Loops in whose body it is cleared."""


@dataclass(frozen=True, eq=False)
class Callee:
    """What a call of a function of this file needs to know of it."""

    name: str
    result: Value
    parameters: tuple[tuple[int, Value], ...]
    """Each parameter's root and what this call gives for it."""
    done: dict[int, ParameterEffects]
    """What the function itself does with them."""
    backed: frozenset[int]
    has_forward: bool
    has_backward: bool
    has_step: bool


class Analysis:
    """Everything known of one parsed file."""

    def __init__(self, tree: cst.Module, view: View | None = None, only: str | None = None) -> None:
        """`view` is the project as the file sees it; with `only`, nothing but that function is read."""
        self.tree = tree
        self.view = view
        self.root = scan(tree)
        self.roots: list[Root] = []
        self.boxes: list[Box] = []
        self.uses: dict[int, list[Use]] = {}
        self.proven: set[int] = set()
        """Definitions on which a backward pass was started: they carry a graph."""
        self.differentiated: set[int] = set()
        """Definitions and stores that reach a backward pass."""
        self.escaped: set[int] = set()
        """Definitions and stores that reach code out of view."""
        self.stored: set[int] = set()
        """The markers of all stores."""
        self.shared: set[int] = set()
        """Definitions and stores that reach an attribute, a global or a closure."""
        self._regions: set[int] = set()
        """Markers of where grad mode is switched by what nobody knows; proven: grad mode is on there."""
        self.grad_on: set[str] = set()
        """Functions that differentiate, whenever they are called, what they computed in their caller's grad mode."""
        self._claims: dict[int, frozenset[Condition]] = {}
        self._certain: set[int] = set()
        self.imported: dict[int, str] = {}
        """The results of calls of what other files define: the qualified name of what is called."""
        self.called: dict[int, str] = {}
        """The results of calls out of view: what the code calls the function."""
        self._passing: tuple[int, frozenset[str]] = (0, frozenset())
        self.unseen: set[int] = set()
        """The results of calls out of view."""
        self.losses: set[int] = set()
        """Those of them that are called like a loss function: what they return has the graph of what they get."""
        self.handed_over: set[str] = set()
        self.switches_grad_off = False
        self._root_ids: dict[int, int] = {}
        self._marker_ids: dict[int, int] = {}
        self._box_ids: dict[int, int] = {}
        self._flows: dict[Scope, Flow] = {}
        self._running: set[Scope] = set()
        self._done: dict[Scope, dict[int, ParameterEffects]] = {}
        self._seeds: dict[Scope, dict[str, Value]] = {}
        self._sites: list[tuple[str, str, Mode]] = []
        self._members: dict[tuple[str, str], Value | None] = {}
        self._bases: dict[str, frozenset[str]] = {}
        self._called_in_class: dict[tuple[Scope, str], set[str]] = {}
        self._module_classes: dict[str, bool] = {}
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
        if only is None:
            self._run_all()
        else:
            self.flow(self.root)

    @cached_property
    def trains(self) -> bool:
        """Whether the file mentions what training or evaluating code does."""
        return any(scope.words & TRAINING_WORDS for scope in self.scopes)

    @cached_property
    def imports_torch(self) -> bool:
        names = (qual for value in self.top_level_names.values() for qual in value.quals)
        return any(name == "torch" or name.startswith("torch.") for name in names)

    # --- running ---

    def _run_all(self) -> None:
        """Callers before callees, so that a function's parameters are known by what it is given."""
        self.flow(self.root)
        # What the file's top level mentions has been read with it; that it binds a name is no mention.
        inner = [scope for scope in self.scopes if scope.parent is not None and not scope.is_class]
        mentioned = {word for scope in inner for word in scope.words}
        functions = [scope for scope in self.scopes if scope.is_function]
        for scope in functions:
            if scope.name not in mentioned:
                self.flow(scope)
        for scope in functions:
            self.flow(scope)

    def flow(self, scope: Scope) -> Flow | None:
        """The scope's flow; None while it is being read (recursion), and where it is called too deep down."""
        done = self._flows.get(scope)
        if done is not None:
            return None if scope in self._running else done
        if len(self._running) > _DEEPEST_CALL:
            return None
        if scope.parent is not None and scope.parent not in self._running and not scope.parent.is_class:
            self.flow(scope.parent)
            if scope in self._flows:
                return self.flow(scope)
        flow = Flow(self, scope, self.entry_mode(scope), self._initial_variables(scope))
        self._flows[scope] = flow
        self._running.add(scope)
        self._declare_parameters(flow)
        node = scope.node
        if isinstance(node, cst.Lambda):
            flow.run_expression(node.body)
        elif isinstance(node, cst.Module):
            flow.run(node.body)
        elif isinstance(node, (cst.FunctionDef, cst.ClassDef)):
            flow.run(node.body.body)
        self._running.discard(scope)
        if isinstance(node, (cst.FunctionDef, cst.Lambda)):
            # Later a caller may differentiate what this one returns: that is nothing that the function does.
            roots = [self.root_for(param) for param in parameters(node.params)]
            self._done[scope] = {root: self._effects(root, flow) for root in roots}
        return flow

    @property
    def flows(self) -> list[Flow]:
        return list(self._flows.values())

    def _initial_variables(self, scope: Scope) -> dict[str, Value]:
        return dict(self.top_level_names) if scope.parent is None else {}

    def _declare_parameters(self, flow: Flow) -> None:
        node = flow.scope.node
        if not isinstance(node, (cst.FunctionDef, cst.Lambda)):
            return
        seeds = self._seeds.get(flow.scope, {})
        owner = flow.scope.parent
        for index, param in enumerate(parameters(node.params)):
            name = param.name.value
            if index == 0 and owner is not None and owner.is_class and not _has_decorator(node, "staticmethod"):
                flow.state.vars[name] = self._self_value(owner, _has_decorator(node, "classmethod"))
                continue
            if isinstance(param.default, (cst.List, cst.Dict, cst.Set)):
                # A mutable default outlives every call.
                box = self.box_for(param.default, None)
                self.boxes[box].in_object = True
                flow.state.vars[name] = Value(Kind.CONTAINER, boxes=frozenset({box}))
                continue
            value = flow.unknown(param, NOTHING)
            pattern = seeds.get(name)
            if param.annotation is not None:
                pattern = flow.annotated(param.annotation.annotation) or pattern
            if pattern is None and _is_setting(param.default):
                pattern = NUMBER
            if pattern is None:
                pattern = input_of_function(flow.scope, name, index, self.base_names)
            if param.star in ("*", "**"):
                pattern = None
            flow.state.vars[name] = value if pattern is None else flow.with_kind(value, pattern)

    def _self_value(self, owner: Scope, is_class: bool) -> Value:
        if is_class:
            return Value(Kind.CALLABLE, quals=frozenset({owner.qualname}))
        kind = Kind.MODULE if self.is_module_class(owner.qualname) else Kind.INSTANCE
        return Value(kind, cls=owner.qualname)

    def release(self) -> None:
        """Take everything apart: scopes and flows refer to each other and to this."""
        for part in (*self._flows.values(), *self.scopes):
            part.__dict__.clear()
        self.__dict__.clear()

    # --- definitions and containers ---

    def root_for(self, node: cst.CSTNode) -> int:
        found = self._root_ids.get(id(node))
        if found is None:
            found = len(self.roots)
            self.roots.append(Root(node))
            self._root_ids[id(node)] = found
        return found

    def marker_for(self, node: cst.CSTNode) -> int:
        """A root that marks a place without defining a value there."""
        found = self._marker_ids.get(id(node))
        if found is None:
            found = len(self.roots)
            self.roots.append(Root(node))
            self._marker_ids[id(node)] = found
        return found

    def region_for(self, node: cst.CSTNode) -> int:
        """The marker of what switches grad mode to nobody knows what."""
        region = self.marker_for(node)
        self._regions.add(region)
        return region

    def carried_marker(self, loop: cst.CSTNode, path: str) -> int:
        """A root that marks what a variable holds when the next iteration of the loop starts."""
        return self.member_root(self.marker_for(loop), path, loop)

    def member_root(self, owner: int, name: str, node: cst.CSTNode) -> int:
        """The definition of an attribute or item of a definition."""
        members = self.roots[owner].members
        if name not in members:
            members[name] = len(self.roots)
            self.roots.append(Root(node))
        return members[name]

    def box_for(self, node: cst.CSTNode, loop: Loop | None) -> int:
        found = self._box_ids.get(id(node))
        if found is None:
            found = len(self.boxes)
            loops = loop.outer() if loop is not None else ()
            self.boxes.append(Box(node, frozenset(item.node for item in loops)))
            self._box_ids[id(node)] = found
        return found

    def put(self, box: int, value: Value) -> None:
        target = self.boxes[box]
        target.counts |= value.kind is Kind.NUMBER
        target.items = None
        target.content = join(target.content, value) if target.filled else value
        if value.carries_graph and len(target.carrying) < _MAX_CARRYING:
            target.carrying.append(value)
        target.filled = True

    # --- who carries a graph ---

    def claim(self, root: int, conditions: frozenset[Condition] | None) -> None:
        """The value defined at the root carries a graph if all conditions hold; None: only a backward proves it."""
        if conditions is None:
            self._claims.pop(root, None)
            self._certain.discard(root)
            return
        self._claims[root] = conditions
        if all(not isinstance(condition, Proof) or condition.root in self._certain for condition in conditions):
            self._certain.add(root)

    def prove(self, value: Value) -> None:
        """A backward pass was started on the value: it carries a graph, and so does whatever alone can give it one."""
        self._prove_regions(value.conditions)
        self.proven |= value.proves
        self._prove_summands(value.proves)
        source = self._origin({root for root in value.roots if self._is_source(root)})
        if source is None:
            return
        # All of the graph comes out of one call: `loss = ce(recon, x) + kl(mu, logvar)` with all of `vae(x)`.
        self._prove_regions(self._claims.get(source, NONE_NEEDED))
        self.proven.add(source)
        for root in value.roots:
            claim = self._claims.get(root)
            if claim is not None and all(self._comes_from(condition, source) for condition in self.basis(claim)):
                self.proven.add(root)

    def _prove_regions(self, conditions: frozenset[Condition]) -> None:
        """Grad mode was on where something that is differentiated was computed."""
        basis = self.basis(conditions) if self._regions else ()
        self.proven.update(item.root for item in basis if isinstance(item, Proof) and item.root in self._regions)

    def _prove_summands(self, totals: frozenset[int]) -> None:
        """What is added to a loss and came out of a model has a graph: nobody adds a constant to a loss."""
        pending = list(totals)
        while pending:
            for part in self.roots[pending.pop()].summands - self.proven:
                made = self.roots[part]
                if made.may_carry and any(self._runs_a_model(root) for root in made.ancestors | {part}):
                    self.proven.add(part)
                    pending.append(part)

    def _is_source(self, root: int) -> bool:
        if not self.roots[root].saves or root in self.losses:
            return False
        claim = self._claims.get(root)
        return claim is None or any(isinstance(item, Proof) and item.root in self._regions for item in claim)

    def _origin(self, sources: set[int]) -> int | None:
        """The one call that all of a loss's graph came out of; None where several may have given it one.

        Of `prepare(batch)`, `encoder(x)` and `model(z)`, one computed from the other, the last that runs a model, with
        `criterion(z)` after it.
        """
        if len(sources) == 1:
            return next(iter(sources))
        models = {root for root in sources if self._runs_a_model(root)}
        last = [root for root in models if all(other in self.roots[root].ancestors for other in models - {root})]
        return last[0] if len(last) == 1 else None

    def _runs_a_model(self, root: int) -> bool:
        made = self.roots[root]
        if made.is_forward or made.of_module:
            return True
        path = path_of(made.node.func) if isinstance(made.node, cst.Call) else None
        return path is not None and path.rpartition(".")[2] in known.MODEL_NAMES

    def _comes_from(self, condition: Condition, source: int) -> bool:
        return not isinstance(condition, Proof) or source in self.roots[condition.root].ancestors

    def unproven(self, value: Value) -> int:
        """How many of the value's conditions nothing but a backward pass can prove."""
        return sum(
            isinstance(condition, Proof) and condition.root not in self._certain for condition in value.conditions
        )

    def basis(self, conditions: Iterable[Condition]) -> frozenset[Condition]:
        """The conditions that are left when every claim is followed to what it rests on."""
        left: set[Condition] = set()
        seen: set[Condition] = set()
        pending = list(conditions)
        while pending:
            condition = pending.pop()
            if condition in seen:
                continue
            seen.add(condition)
            if not isinstance(condition, Proof):
                if not (isinstance(condition, GradOnEntry) and condition.function in self.grad_on):
                    left.add(condition)
            elif condition.root in self.proven:
                continue
            elif condition.root in self._claims:
                pending.extend(self._claims[condition.root])
            elif not self._is_passed_on(condition.root):
                left.add(condition)
        return frozenset(left)

    def foundations(self, conditions: Iterable[Condition]) -> frozenset[Condition]:
        """What the conditions rest on, for one call of several: also the questions below what is proven.

        Another call's backward pass proves nothing of the grad mode in which this one runs.
        """
        left: set[Condition] = set()
        seen: set[tuple[Condition, bool]] = set()
        pending = [(condition, True) for condition in conditions]
        while pending:
            condition, is_needed = pending.pop()
            if (condition, is_needed) in seen:
                continue
            seen.add((condition, is_needed))
            if not isinstance(condition, Proof):
                left.add(condition)
                continue
            is_proven = condition.root in self.proven
            claim = self._claims.get(condition.root)
            if is_needed and (is_proven or claim is None):
                left.add(condition)
            pending += [(item, is_needed and not is_proven) for item in claim or ()]
        return frozenset(left)

    def _is_passed_on(self, root: int) -> bool:
        """What a function out of view makes of a graph, when it is known to pass another one on."""
        name = self.called.get(root)
        if name is None:
            return False
        if self._passing[0] != len(self.proven):
            names = frozenset(self.called[item] for item in self.proven if item in self.called)
            self._passing = (len(self.proven), names)
        return name in self._passing[1] and not self.proven.isdisjoint(self.roots[root].ancestors - {root})

    # --- names, classes, members ---

    def scope_of(self, node: cst.CSTNode) -> Scope:
        return self._by_node[id(node)]

    def scope_named(self, qualname: str) -> Scope | None:
        scope = self._by_name.get(qualname)
        return scope if scope is not None and scope.is_function else None

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
        names: set[str] = set()
        if scope is not None and isinstance(scope.node, cst.ClassDef):
            for base in scope.node.bases:
                expression = base.value.value if isinstance(base.value, cst.Subscript) else base.value
                name = self.qualify(expression) or "?"
                names.add(name)
                if name.startswith(":"):
                    names |= self.base_names(name)
                elif self.view is not None and name.startswith("@"):
                    names.update(self.view.bases(name))
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

    def _unknown_bases(self, bases: frozenset[str]) -> bool:
        return not all(is_known_base(base) for base in bases)

    def method(self, qualname: str, name: str) -> Scope | None:
        """The method of a class of this file, looked up through its bases of this file."""
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
        self._members[key] = None
        value, complete = self._assigned_member(qualname, name)
        if complete:
            self._members[key] = value
        else:
            del self._members[key]
        return value

    def _imported_member(self, cls: str, name: str) -> Value | None:
        method = self.imported_method(cls, name)
        if method is not None:
            return Value(Kind.CALLABLE, quals=frozenset({method}))
        assert self.view is not None
        path = f"self.{name}"
        shown = _kind_shown_by(self.view.methods_called(cls, path))
        return _FROM_USE["frozen"] if shown == "module" and self.view.freezes(cls, path) else _FROM_USE.get(shown)

    def _assigned_member(self, qualname: str, name: str) -> tuple[Value | None, bool]:
        value: Value | None = None
        complete = True
        for cls in (qualname, *sorted(self.base_names(qualname))):
            scope = self._by_name.get(cls)
            if scope is None or not scope.is_class:
                continue
            for method in sorted(scope.children, key=lambda child: child.name != "__init__"):
                if name not in method.attributes_stored:
                    continue
                flow = self.flow(method)
                if flow is None:
                    complete = False
                    continue
                found = flow.final.get(f"self.{name}")
                if found is not None:
                    found = _seen_from_inside(found)
                    value = found if value is None else join(value, found)
                    # A method that reads the attribute before it assigns it finds what those before it have.
                    self._members[qualname, name] = value
        return value, complete

    def kind_from_use(self, scope: Scope, path: str) -> Value | None:
        """What the methods called on a path prove it to be."""
        methods = self._methods_called(scope, path)
        shown = _kind_shown_by(methods) if methods else ""
        if not shown and CALLED_AS_MODEL in methods and self.imports_torch:
            shown = "called as model"
        return _FROM_USE["frozen"] if shown == "module" and self.is_frozen(scope, path) else _FROM_USE.get(shown)

    def is_frozen(self, scope: Scope, path: str) -> bool:
        """Whether the parameters of the module were told to need no gradient, anywhere in view."""
        if path.startswith("self."):
            owner = scope.enclosing_class()
            if owner is None:
                return False
            return any(path in inner.frozen for inner in owner.descendants()) or any(
                self.view.freezes(base, path) for base in self._project_bases(owner) if self.view is not None
            )
        current: Scope | None = scope
        while current is not None:
            if path in current.frozen:
                return True
            current = current.parent
        return False

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
        methods: set[str] = set()
        for inner in owner.descendants():
            methods |= inner.methods_called.get(path, set())
        for base in self._project_bases(owner):
            assert self.view is not None
            methods |= self.view.methods_called(base, path)
        return methods

    def _project_bases(self, owner: Scope) -> list[str]:
        if self.view is None:
            return []
        return [base for base in self.base_names(owner.qualname) if base.startswith("@")]

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

    def _freezes_itself(self, cls: str) -> bool:
        """Whether a method of the class, a constructor mostly, tells all its parameters to need no gradient."""
        if cls.startswith("@"):
            return self.view is not None and self.view.freezes(cls, "self")
        scope = self._by_name.get(cls)
        return scope is not None and any("self" in method.frozen for method in scope.children)

    # --- calls between functions of this file ---

    def callee(self, scope: Scope, reading: Reading, caller: Flow) -> Callee | None:
        """What the function does when called so; None while it is being read."""
        given = _bind_arguments(scope, reading)
        if scope not in self._flows:
            self._seeds[scope] = {name: value for name, value in given.items() if _is_object(value)}
        flow = self.flow(scope)
        if not caller.quiet:
            self._sites.append((scope.qualname, caller.scope.qualname, caller.state.mode))
        if flow is None or flow.only_raises:
            return None
        node = scope.node
        assert isinstance(node, (cst.FunctionDef, cst.Lambda))
        by_root = tuple(
            (self.root_for(param), given[param.name.value])
            for param in parameters(node.params)
            if param.name.value in given
        )
        return Callee(
            scope.qualname,
            flow.result(_parts_taken(caller.statement, reading.node))
            if not scope.has_yield
            else Value(Kind.UNKNOWN, Grad.MIXED, roots=flow.result().roots),
            by_root,
            self._done[scope],
            flow.backed_at_end or NOTHING,
            flow.has_forward,
            flow.has_backward,
            flow.has_step,
        )

    # --- grad mode on entry ---

    def entry_mode(self, scope: Scope) -> Mode:
        """The grad mode in which a scope's body starts, as far as its decorators, class and framework tell."""
        if scope.parent is None or scope.is_class:
            return Mode.ON
        if not isinstance(scope.node, cst.FunctionDef):
            return Mode.ENTRY
        for decorator in scope.node.decorators:
            mode = self._decorator_mode(decorator, scope.node)
            if mode is not Mode.KEEP:
                return mode
        if scope.parent.is_class:
            return self._method_mode(scope, scope.parent)
        return Mode.ENTRY

    def _decorator_mode(self, decorator: cst.Decorator, function: cst.FunctionDef) -> Mode:
        expression = decorator.decorator
        call = expression if isinstance(expression, cst.Call) else None
        name = self.qualify(call.func if call is not None else expression)
        if name is None:
            return Mode.UNKNOWN
        if name in known.GRAD_OFF_CONTEXTS:
            # An `async def` runs after the decorator's context has been left.
            return Mode.OFF if function.asynchronous is None and not (call and call.args) else Mode.UNKNOWN
        if name in known.SET_GRAD_ENABLED:
            literal = call is not None and len(call.args) == 1 and path_of(call.args[0].value)
            return {"False": Mode.OFF, "True": Mode.ON}.get(str(literal), Mode.UNKNOWN)
        if name.startswith(":"):
            return self._own_decorator_mode(name)
        if self.view is not None and name.startswith("@"):
            mode = self.view.decorator_mode(name)
            return Mode.UNKNOWN if mode is Mode.OFF and function.asynchronous is not None else mode
        return library_decorator_mode(name)

    def decorators(self, scope: Scope) -> list[str]:
        """The qualified names of a function's decorators, `?` for those that have none."""
        if not isinstance(scope.node, cst.FunctionDef):
            return []
        expressions = [decorator.decorator for decorator in scope.node.decorators]
        return [self.qualify(item.func if isinstance(item, cst.Call) else item) or "?" for item in expressions]

    def _own_decorator_mode(self, name: str) -> Mode:
        """A decorator of this file leaves grad mode alone unless something in it mentions grad mode."""
        scope = self._by_name.get(name)
        if scope is None:
            return Mode.UNKNOWN
        if not scope.words_within & GRAD_MODE_WORDS:
            return Mode.KEEP
        node = self._python_node(scope)
        return Mode.UNKNOWN if node is None else decorator_effect(node, mentions=True)

    def _python_node(self, scope: Scope) -> Definition | None:
        """The function or class as Python's own parser sees it."""
        try:
            body = ast.parse(textwrap.dedent(self.tree.code_for_node(scope.node))).body
        except (SyntaxError, ValueError, RecursionError):
            return None
        return body[0] if len(body) == 1 and isinstance(body[0], (*FUNCTIONS, ast.ClassDef)) else None

    def context_mode(self, name: str) -> Mode | None:
        """Grad mode inside `with name(...):`, KEEP for what it was; None where it makes no context manager."""
        if name.startswith("@"):
            makes_context = self.view is not None and self.view.is_context_manager(name)
            return self.view.context_mode(name) if self.view is not None and makes_context else None
        scope = self._by_name.get(name)
        if scope is None:
            return None
        if scope.is_class and self.method(name, "__enter__") is None:
            return None
        if not scope.is_class and "contextlib.contextmanager" not in self.decorators(scope):
            return None
        if scope.is_class and self.base_names(name) - {"object", "contextlib.ContextDecorator"}:
            return Mode.OFF if self.base_names(name) <= known.GRAD_OFF_CONTEXTS else Mode.UNKNOWN
        if not scope.words_within & GRAD_MODE_WORDS:
            return Mode.KEEP
        node = self._python_node(scope)
        return Mode.UNKNOWN if node is None else context_effect(node, mentions=True)

    def _method_mode(self, scope: Scope, owner: Scope) -> Mode:
        mode = method_mode(scope.name, self.base_names(owner.qualname))
        is_module = mode is Mode.UNKNOWN and "register_buffer" in owner.words_within
        if is_module and is_layer_method(scope.name, scope.words):
            return Mode.ENTRY  # a layer, whatever its base out of view is: no framework runs it by itself
        return mode

    # --- for other files ---

    def summary(self, qualname: str, seeds: Iterable[tuple[str, Kind]]) -> FunctionSummary | None:
        """What the function does when it is called; None where it cannot be told."""
        scope = self.scope_named(qualname)
        if scope is None or not isinstance(scope.node, cst.FunctionDef):
            return None
        self._seeds[scope] = {name: Value(kind) for name, kind in seeds}
        flow = self.flow(scope)
        if flow is None:
            return None
        assert self.view is not None
        declared = {self.root_for(param): param.name.value for param in parameters(scope.node.params)}
        result = Result(Kind.UNKNOWN, Grad.MIXED)
        if not scope.has_yield and scope.node.asynchronous is None:
            result = result_of(self, flow, flow.result(), declared, self.view.file)
        return FunctionSummary(
            {name: self._effects(root, flow) for root, name in declared.items()},
            result,
            flow.has_forward,
            flow.has_backward,
            flow.has_step,
            forwards_of(self, flow),
            bool(scope.words_but_off & DIFFERENTIATING_WORDS) or scope.has_yield,
        )

    def _effects(self, root: int, flow: Flow) -> ParameterEffects:
        store = store_of(self, flow, root) if root in self.shared or flow.stores else None
        return ParameterEffects(
            root in self.differentiated,
            root in self.proven,
            root in self.escaped,
            root in self.shared,
            root in (flow.backed_at_end or NOTHING),
            store is not None,
            store is not None and store.how == "accumulate",
        )

    # --- facts ---

    def facts(self) -> ModuleFacts:
        """The plain data from which open questions are answered."""
        functions = {
            scope.qualname: FunctionFacts(
                scope.qualname,
                self.entry_mode(scope).value,
                # A lambda is made to be handed over.
                scope.qualname in self.handed_over or isinstance(scope.node, cst.Lambda),
            )
            for scope in self.scopes
            if scope.is_function or scope.parent is None
        }
        return ModuleFacts(functions, (*self._certain_calls(), *self._possible_calls()), self.switches_grad_off)

    def _certain_calls(self) -> Iterator[CallSite]:
        for callee, caller, mode in self._sites:
            result = self._flows[self._by_name[callee]].return_roots & self.stored
            left = self._flows[self._by_name[caller]].return_roots
            clean = result.isdisjoint(self.differentiated | self.escaped | self.shared | left)
            yield CallSite(callee, caller, mode.value, True, clean)

    def _possible_calls(self) -> Iterator[CallSite]:
        """Calls `x.name(...)` of an unknown x that may be a method of this file."""
        methods: dict[str, list[str]] = {}
        for scope in self.scopes:
            if scope.is_function and scope.parent is not None and scope.parent.is_class:
                methods.setdefault(scope.name, []).append(scope.qualname)
        for flow in self._flows.values():
            for call in flow.calls:
                if call.method in methods and not call.callee.quals:
                    for name in methods[call.method]:
                        yield CallSite(name, call.scope.qualname, call.mode.value, False, False)


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
    return ""


def _is_setting(default: cst.BaseExpression | None) -> bool:
    """`momentum=0.9`, `train=True`: a number. `total=0` may well be where a sum of tensors begins."""
    if isinstance(default, (cst.Integer, cst.Float)):
        return default.evaluated_value != 0
    return isinstance(default, cst.Name) and default.value in ("True", "False")


def _is_object(value: Value) -> bool:
    return value.kind in (Kind.MODULE, Kind.OPTIMIZER, Kind.LOADER, Kind.SCALER, Kind.DATASET, Kind.INSTANCE)


def _parts_taken(statement: cst.CSTNode, call: cst.CSTNode) -> int | None:
    """3 for `out, mean, var = normalise(x)`: of what the function returns, it is a tuple of three."""
    if not isinstance(statement, cst.Assign) or statement.value is not call or len(statement.targets) != 1:
        return None
    target = statement.targets[0].target
    if not isinstance(target, (cst.Tuple, cst.List)):
        return None
    starred = any(isinstance(element, cst.StarredElement) for element in target.elements)
    return None if starred else len(target.elements)


def _has_decorator(node: cst.FunctionDef | cst.Lambda, name: str) -> bool:
    if isinstance(node, cst.Lambda):
        return False
    return any(path_of(decorator.decorator) == name for decorator in node.decorators)


def _bind_arguments(scope: Scope, reading: Reading) -> dict[str, Value]:
    """Parameter name -> what the call gives. Unpacked arguments give nothing that is known."""
    node = scope.node
    assert isinstance(node, (cst.FunctionDef, cst.Lambda))
    names = [param.name.value for param in (*node.params.posonly_params, *node.params.params)]
    bound = scope.parent is not None and scope.parent.is_class and not _has_decorator(node, "staticmethod")
    if bound and (reading.receiver is None or reading.receiver.kind is not Kind.CALLABLE):
        names = names[1:]
    given: dict[str, Value] = {}
    if not reading.unpacks:
        given.update(zip(names, (argument.value for argument in reading.positional), strict=False))
    keyword_names = {*names, *(param.name.value for param in node.params.kwonly_params)}
    given.update({name: argument.value for name, argument in reading.keywords.items() if name in keyword_names})
    return given


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
