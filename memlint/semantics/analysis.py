"""The analysis of one file: runs the flows of its scopes, holds what they share, yields the file's facts."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import libcst as cst

from memlint.semantics.events import Loop, Use
from memlint.semantics.flow import Flow
from memlint.semantics.knowledge import frameworks
from memlint.semantics.knowledge import torch as known
from memlint.semantics.questions import CallSite, FunctionFacts, ImportCarriesGraph, ModuleFacts
from memlint.semantics.reading import Reading
from memlint.semantics.scopes import Scope, imported_names, parameters, path_of, scan
from memlint.semantics.values import NOTHING, PARAMETER, Condition, Grad, Kind, Mode, Proof, Root, Value, join

_GRAD_MODE_WORDS = frozenset({"no_grad", "inference_mode", "set_grad_enabled", "enable_grad"})
_MODULE_PROOFS = known.MODULE_METHODS - {"zero_grad", "load_state_dict"}
_FROM_USE = {
    "module": Value(Kind.MODULE),
    "frozen": Value(Kind.MODULE, mode=Mode.OFF),
    "optimizer": Value(Kind.OPTIMIZER),
    "scaler": Value(Kind.SCALER),
}


@dataclass(eq=False)
class Box:
    """A container, by the expression that makes it."""

    node: cst.CSTNode
    born_in: frozenset[cst.CSTNode]
    """The loops around the expression: each of their iterations makes a new one."""
    content: Value = field(default_factory=lambda: Value(Kind.UNKNOWN, Grad.MIXED))
    filled: bool = False
    escaped: bool = False
    returned: bool = False
    in_object: bool = False
    bounded: bool = False
    """`deque(maxlen=...)`."""
    emptied_in: set[cst.CSTNode] = field(default_factory=set)
    """Loops in whose body it is cleared."""


@dataclass(frozen=True, eq=False)
class Callee:
    """What a call of a function of this file needs to know of it."""

    name: str
    result: Value
    parameters: tuple[tuple[int, Value], ...]
    """Each parameter's root and what this call gives for it."""
    backed: frozenset[int]
    has_forward: bool
    has_backward: bool
    has_step: bool


class Analysis:
    """Everything known of one parsed file."""

    def __init__(self, tree: cst.Module) -> None:
        self.tree = tree
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
        self._claims: dict[int, frozenset[Condition]] = {}
        self._certain: set[int] = set()
        self.imported: dict[int, ImportCarriesGraph] = {}
        self.unseen: set[int] = set()
        """The results of calls out of view."""
        self.handed_over: set[str] = set()
        self.switches_grad_off = False
        self._root_ids: dict[int, int] = {}
        self._marker_ids: dict[int, int] = {}
        self._box_ids: dict[int, int] = {}
        self._flows: dict[Scope, Flow] = {}
        self._running: set[Scope] = set()
        self._seeds: dict[Scope, dict[str, Value]] = {}
        self._sites: list[tuple[str, str, Mode]] = []
        self._members: dict[tuple[str, str], Value | None] = {}
        self._bases: dict[str, frozenset[str]] = {}
        self._module_classes: dict[str, bool] = {}
        self.scopes: list[Scope] = [self.root, *self.root.descendants()]
        self._by_node = {id(scope.node): scope for scope in self.scopes}
        self._by_name: dict[str, Scope] = {}
        for scope in self.scopes:
            self._by_name[scope.qualname] = scope
        self.top_level_names = _hoisted_names(self.root)
        self._run_all()

    # --- running ---

    def _run_all(self) -> None:
        """Callers before callees, so that a function's parameters are known by what it is given."""
        self.flow(self.root)
        mentioned = {word for scope in self.scopes for word in scope.words if not scope.is_class}
        functions = [scope for scope in self.scopes if scope.is_function]
        for scope in functions:
            if scope.name not in mentioned:
                self.flow(scope)
        for scope in functions:
            self.flow(scope)

    def flow(self, scope: Scope) -> Flow | None:
        """The scope's flow; None while it is being read (recursion)."""
        done = self._flows.get(scope)
        if done is not None:
            return None if scope in self._running else done
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
            if param.star in ("*", "**"):
                pattern = None
            flow.state.vars[name] = value if pattern is None else flow.with_kind(value, pattern)

    def _self_value(self, owner: Scope, is_class: bool) -> Value:
        if is_class:
            return Value(Kind.CALLABLE, quals=frozenset({owner.qualname}))
        kind = Kind.MODULE if self.is_module_class(owner.qualname) else Kind.INSTANCE
        return Value(kind, cls=owner.qualname)

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
        target.content = join(target.content, value) if target.filled else value
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
        self.proven |= value.proves
        sources = {root for root in value.roots if self._is_source(root)}
        if len(sources) != 1:
            return
        # All of the graph comes out of one call: `loss = ce(recon, x) + kl(mu, logvar)` with all of `vae(x)`.
        self.proven |= sources
        (source,) = sources
        for root in value.roots:
            claim = self._claims.get(root)
            if claim is not None and all(self._comes_from(condition, source) for condition in self.basis(claim)):
                self.proven.add(root)

    def _is_source(self, root: int) -> bool:
        return self.roots[root].saves and root not in self._claims

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
                left.add(condition)
            elif condition.root in self.proven:
                continue
            elif condition.root in self._claims:
                pending.extend(self._claims[condition.root])
            else:
                left.add(condition)
        return frozenset(left)

    # --- names, classes, members ---

    def scope_of(self, node: cst.CSTNode) -> Scope:
        return self._by_node[id(node)]

    def scope_named(self, qualname: str) -> Scope | None:
        scope = self._by_name.get(qualname)
        return scope if scope is not None and scope.is_function else None

    def is_class(self, qualname: str) -> bool:
        scope = self._by_name.get(qualname)
        return scope is not None and scope.is_class

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
        head, _, rest = path.partition(".")
        value = self.top_level_names.get(head)
        base = head if value is None else min(value.quals, default=head)
        return f"{base}.{rest}" if rest else base

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
        self._bases[qualname] = frozenset(names)
        return self._bases[qualname]

    def is_module_class(self, qualname: str) -> bool:
        found = self._module_classes.get(qualname)
        if found is None:
            bases = self.base_names(qualname)
            found = any(_is_module_base(base) for base in bases)
            if not found and self._unknown_bases(bases):
                scope = self._by_name.get(qualname)
                found = scope is not None and any(child.name == "forward" for child in scope.children)
            self._module_classes[qualname] = found
        return found

    def _unknown_bases(self, bases: frozenset[str]) -> bool:
        return not all(_is_known_base(base) for base in bases)

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

    def _assigned_member(self, qualname: str, name: str) -> tuple[Value | None, bool]:
        value: Value | None = None
        complete = True
        for cls in (qualname, *sorted(self.base_names(qualname))):
            scope = self._by_name.get(cls)
            if scope is None or not scope.is_class:
                continue
            for method in scope.children:
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
        return value, complete

    def kind_from_use(self, scope: Scope, path: str) -> Value | None:
        """What the methods called on a path prove it to be."""
        methods = self._methods_called(scope, path)
        if not methods:
            return None
        if methods & _MODULE_PROOFS:
            return _FROM_USE["frozen" if self.is_frozen(scope, path) else "module"]
        if {"zero_grad", "step"} <= methods:
            return _FROM_USE["optimizer"]
        if "unscale_" in methods or {"scale", "update"} <= methods:
            return _FROM_USE["scaler"]
        return None

    def is_frozen(self, scope: Scope, path: str) -> bool:
        """Whether the parameters of the module were told to need no gradient, anywhere in view."""
        if path.startswith("self."):
            owner = scope.enclosing_class()
            return owner is not None and any(path in inner.frozen for inner in owner.descendants())
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
            methods: set[str] = set()
            for inner in owner.descendants():
                methods |= inner.methods_called.get(path, set())
            return methods
        methods = set()
        current: Scope | None = scope
        while current is not None:
            methods |= current.methods_called.get(path, set())
            if path.partition(".")[0] in current.bound:
                break
            current = current.parent
        return methods

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
            if qual.startswith("torch.nn.") and _is_module_base(qual):
                return Value(Kind.MODULE, cls=qual)
            if qual.startswith(":") and self.is_class(qual):
                return Value(Kind.INSTANCE, cls=qual)
        return None

    # --- calls between functions of this file ---

    def callee(self, scope: Scope, reading: Reading, caller: Flow) -> Callee | None:
        """What the function does when called so; None while it is being read."""
        given = _bind_arguments(scope, reading)
        if scope not in self._flows:
            self._seeds[scope] = {name: value for name, value in given.items() if _is_object(value)}
        flow = self.flow(scope)
        if not caller.quiet:
            self._sites.append((scope.qualname, caller.scope.qualname, caller.state.mode))
        if flow is None:
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
            flow.result() if not scope.has_yield else Value(Kind.UNKNOWN, Grad.MIXED, roots=flow.result().roots),
            by_root,
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
        if name in known.GRAD_ON_CONTEXTS:
            return Mode.ON
        if name in known.SET_GRAD_ENABLED:
            literal = call is not None and len(call.args) == 1 and path_of(call.args[0].value)
            return {"False": Mode.OFF, "True": Mode.ON}.get(str(literal), Mode.UNKNOWN)
        if name.startswith(":"):
            return self._own_decorator_mode(name)
        neutral = name in frameworks.NEUTRAL_DECORATORS or name.rpartition(".")[2] in ("setter", "getter", "deleter")
        return Mode.KEEP if neutral or name.split(".")[0] in sys.stdlib_module_names else Mode.UNKNOWN

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
        return Mode.UNKNOWN if scope.words_within & _GRAD_MODE_WORDS else Mode.KEEP

    def _method_mode(self, scope: Scope, owner: Scope) -> Mode:
        bases = self.base_names(owner.qualname)
        if scope.name in frameworks.FUNCTION_GRAD_OFF and bases & known.AUTOGRAD_FUNCTIONS:
            return Mode.OFF
        if scope.name in frameworks.LIGHTNING_GRAD_OFF and bases & known.LIGHTNING_MODULES:
            return Mode.OFF
        if scope.name != "__init__" and self._unknown_bases(bases):
            return Mode.UNKNOWN
        return Mode.ENTRY

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


def _is_object(value: Value) -> bool:
    return value.kind in (Kind.MODULE, Kind.OPTIMIZER, Kind.LOADER, Kind.SCALER, Kind.DATASET, Kind.INSTANCE)


def _is_module_base(name: str) -> bool:
    if name in known.MODULE_BASES:
        return True
    prefix, _, last = name.rpartition(".")
    return prefix in ("torch.nn", "torch.nn.modules") and last not in known.NN_NOT_MODULES and last[:1].isupper()


def _is_known_base(name: str) -> bool:
    return (
        name.startswith(":")
        or name in frameworks.PLAIN_BASES
        or name in known.DATASET_BASES
        or _is_module_base(name)
        or name.split(".", maxsplit=1)[0] in sys.stdlib_module_names
    )


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
