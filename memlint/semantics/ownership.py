"""Who trains a module: the optimizers that own its parameters, and what says that nobody is meant to.

The question "is this model trained, or frozen?" is answered only where everything that is done with the model is in
view: where it is built, whatever its parameters are given to, every function that gets it. What is not known to be
harmless counts as "may be frozen, or trained". A model that comes as a parameter is what the callers in view give;
where there are none the answer rests on an `Unseen` parameter, of which facts about the whole project may know more.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property

import libcst as cst

from memlint.semantics.events import Call
from memlint.semantics.knowledge import torch as torch_known
from memlint.semantics.knowledge import training as known
from memlint.semantics.module import Module
from memlint.semantics.naming import words_of
from memlint.semantics.scopes import Scope, parameters, parts_of, path_of, walk
from memlint.semantics.values import Kind

# --- optimizers ---


@dataclass(frozen=True, eq=False)
class Optimizer:
    """An optimizer of torch that this file makes."""

    call: Call
    path: str | None
    """What it is assigned to: `optimizer`, `self.opt`."""

    @property
    def parameters(self) -> cst.BaseExpression | None:
        """The expression that says what it trains."""
        if self.call.positional:
            return self.call.positional[0].expression
        keyword = self.call.keywords.get("params")
        return keyword.expression if keyword is not None else None


def optimizers(module: Module) -> list[Optimizer]:
    """Every optimizer made in this file."""
    return module.once(_optimizers)


def _optimizers(module: Module) -> list[Optimizer]:
    return [Optimizer(call, _assigned_path(call)) for call in module.calls if call.result.kind is Kind.OPTIMIZER]


def _assigned_path(call: Call) -> str | None:
    statement = call.statement
    if isinstance(statement, cst.Assign) and len(statement.targets) == 1 and statement.value is call.node:
        return path_of(statement.targets[0].target)
    return None


def made_as(module: Module, scope: Scope, path: str) -> list[Optimizer]:
    """The optimizers that a path may stand for in a scope: those assigned to it here, around, or in the class."""
    home = home_of(scope, path)
    return [item for item in optimizers(module) if item.path == path and home_of(item.call.scope, path) == home]


# --- where a model lives ---


@dataclass(frozen=True)
class Home:
    """A variable of a scope, or an attribute of the instances of a class."""

    scope: Scope
    name: str

    @property
    def is_attribute(self) -> bool:
        return self.scope.is_class

    @property
    def is_parameter(self) -> bool:
        node = self.scope.node
        return isinstance(node, (cst.FunctionDef, cst.Lambda)) and any(
            param.name.value == self.name for param in parameters(node.params)
        )


def home_of(scope: Scope, path: str) -> Home | None:
    """Where a path lives as seen from a scope; None for what belongs to something else (`trainer.model`)."""
    head, _, rest = path.partition(".")
    if head == "self" and rest.isidentifier():
        owner = scope.enclosing_class()
        return Home(owner, rest) if owner is not None else None
    if rest:
        return None
    current: Scope | None = scope
    while current is not None:
        if head in current.bound and head not in current.nonlocal_names and (not current.is_class or current is scope):
            return Home(current, head)
        current = current.parent
    return None


@dataclass(frozen=True)
class Unseen:
    """A parameter of a function that nobody in view calls: what it is given only the project can tell."""

    function: str
    parameter: str


@dataclass
class Standing:
    """What is known of a model: all that is done with it in view."""

    home: Home
    is_open: bool = False
    """Something is done with it that may freeze it, or have it trained; or it comes from out of view."""
    is_model: bool = False
    """It is built in view, and has parameters."""
    evals: list[cst.Call] = field(default_factory=list)
    """The calls that put it into eval mode."""
    trains: bool = False
    """`.train()` is called on it."""
    loads: bool = False
    """Weights are loaded into it."""
    is_copy: bool = False
    """It is a deep copy of another model."""
    built: list[cst.Call] = field(default_factory=list)
    unseen: set[Unseen] = field(default_factory=set)

    @property
    def is_untrained(self) -> bool:
        """In no optimizer, frozen nowhere, with parameters: its gradients are computed for nobody."""
        return not self.is_open and not self.unseen and self.is_model

    @property
    def is_meant_frozen(self) -> bool:
        """Eval mode was the last word, in code that trains: as good as said, unless it is unfrozen elsewhere."""
        return bool(self.evals) and not self.trains


def standing(module: Module, home: Home) -> Standing:
    """What is known of the model that lives there."""
    return module.once(_Register).of(home)


class _Mention(Enum):
    HARMLESS = "harmless"
    DOUBTFUL = "doubtful"


class _Register:
    """The standings of a file's models, each worked out once."""

    def __init__(self, module: Module) -> None:
        self.module = module
        self._known: dict[Home, Standing] = {}
        self._asked: dict[Home, Standing] = {}
        """What is being worked out: an answer that rests on an unfinished one is not kept."""
        self._parents: dict[int, cst.CSTNode] = {}
        self._names: dict[str, list[cst.Name]] = {}
        self._attributes: dict[str, list[cst.Attribute]] = {}
        for node in walk(module.tree):
            for child in parts_of(node):
                self._parents[id(child)] = node
            kind = type(node)  # not isinstance, which costs ten times as much for these classes
            if kind is cst.Name:
                self._names.setdefault(node.value, []).append(node)  # type: ignore[attr-defined, arg-type]
            elif kind is cst.Attribute and path_of(node.value) == "self":  # type: ignore[attr-defined]
                self._attributes.setdefault(node.attr.value, []).append(node)  # type: ignore[attr-defined, arg-type]

    def of(self, home: Home) -> Standing:
        found = self._known.get(home) or self._asked.get(home)
        if found is not None:
            return found
        is_first = not self._asked
        found = self._asked[home] = Standing(home)
        self._work_out(found)
        if is_first:
            self._known[home] = found
            self._asked.clear()
        return found

    def _work_out(self, result: Standing) -> None:
        if self._reached_otherwise(result.home) or self._models_own_optimizers:
            result.is_open = True
            return
        if result.home.is_parameter:
            self._from_callers(result)
        for node in self._mentions(result.home):
            if self._classify(result, node) is _Mention.DOUBTFUL:
                result.is_open = True
                return
        values = list(self._assigned(result.home))
        if not (values or result.home.is_parameter) or not all(self._builds(result, value) for value in values):
            result.is_open = True

    def _reached_otherwise(self, home: Home) -> bool:
        """Whether code gets at it by a computed name, or at an attribute's parameters from outside its class."""
        if not home.is_attribute:
            return not self.module.words.isdisjoint({"locals", "globals", "exec"})
        if not home.scope.words_within.isdisjoint({"__dict__", "vars"}):
            return True
        for call in self.module.calls_of(frozenset({"getattr", "setattr"})):
            of_self = bool(call.positional) and path_of(call.positional[0].expression) == "self"
            literal = len(call.positional) > 1 and isinstance(call.positional[1].expression, cst.SimpleString)
            if of_self and not literal and call.scope.enclosing_class() is home.scope:
                return True
        return any(
            f".{home.name}.{method}" in f".{path}"
            for path in self._called_paths
            if not path.startswith("self.")
            for method in ("parameters", "named_parameters", "requires_grad_")
        )

    @cached_property
    def _models_own_optimizers(self) -> bool:
        """`self.critic.optimizer.step()`: the classes of models make optimizers for themselves."""
        paths = [path.removeprefix("self.").split(".") for path in self._called_paths]
        imported = self.module.analysis.top_level_names
        return any(len(path) > 2 and path[-2] in known.OPTIMIZER_WORDS and path[0] not in imported for path in paths)

    @cached_property
    def _called_paths(self) -> set[str]:
        """`agent.encoder.parameters`, for every method that is called on a path."""
        return {
            f"{path}.{method}"
            for scope in self.module.scopes
            for path, methods in scope.methods_called.items()
            for method in methods
        }

    # --- where it is mentioned ---

    def _mentions(self, home: Home) -> Iterator[cst.Name | cst.Attribute]:
        if home.is_attribute:
            for attribute in self._attributes.get(home.name, ()):
                if self._scope_at(attribute).enclosing_class() is home.scope:
                    yield attribute
            return
        for name in self._names.get(home.name, ()):
            if not self._is_label(name) and home_of(self._scope_at(name), name.value) == home:
                yield name

    def _is_label(self, name: cst.Name) -> bool:
        """A keyword, another thing's attribute, or a parameter's own name."""
        parent = self._parents.get(id(name))
        if isinstance(parent, cst.Attribute):
            return parent.attr is name
        if isinstance(parent, cst.Arg):
            return parent.keyword is name
        return isinstance(parent, (cst.Param, cst.NameItem))

    def _scope_at(self, node: cst.CSTNode) -> Scope:
        current: cst.CSTNode | None = self._parents.get(id(node))
        child = node
        while current is not None:
            if isinstance(current, (cst.FunctionDef, cst.ClassDef, cst.Lambda)) and not isinstance(
                child, (cst.Decorator, cst.Parameters)
            ):
                return self.module.analysis.scope_of(current)
            child, current = current, self._parents.get(id(current))
        return self.module.analysis.root

    # --- what a mention does ---

    def _classify(self, result: Standing, node: cst.CSTNode) -> _Mention:
        parent = self._parents.get(id(node))
        if isinstance(parent, cst.Attribute):
            return self._attribute(result, parent)
        if isinstance(parent, cst.Call) and parent.func is node:
            return _Mention.HARMLESS  # a forward pass
        if isinstance(parent, cst.Arg):
            call = self._parents.get(id(parent))
            return self._argument(result, call, parent) if isinstance(call, cst.Call) else _Mention.DOUBTFUL
        if isinstance(parent, cst.Assign) and parent.value is node:
            return self._alias(result, parent)
        if isinstance(parent, (cst.AssignTarget, cst.AnnAssign, cst.Del, cst.Expr, cst.Assert)):
            return _Mention.HARMLESS
        if isinstance(parent, (cst.Comparison, cst.ComparisonTarget, cst.FormattedStringExpression)):
            return _Mention.HARMLESS
        if isinstance(parent, (cst.If, cst.IfExp, cst.While)) and parent.test is node:
            return _Mention.HARMLESS
        if isinstance(parent, (cst.UnaryOperation, cst.BooleanOperation)):
            return self._classify(result, parent) if isinstance(parent, cst.BooleanOperation) else _Mention.HARMLESS
        return _Mention.DOUBTFUL

    def _attribute(self, result: Standing, node: cst.Attribute) -> _Mention:
        """`teacher.eval()`, `teacher.module.parameters()`, `teacher.config`."""
        names = [node.attr.value]
        parent = self._parents.get(id(node))
        while isinstance(parent, cst.Attribute):
            node = parent
            names.append(node.attr.value)
            parent = self._parents.get(id(node))
        if not isinstance(parent, cst.Call) or parent.func is not node:
            return self._read(node, names)
        method = names[-1]
        if method in ("parameters", "named_parameters"):
            return self._parameters_of(parent)
        if method in ("eval", "train") and (len(names) == 1 or names[:-1] == ["module"]):
            off = method == "eval" or (len(parent.args) == 1 and path_of(parent.args[0].value) == "False")
            result.evals += [parent] if off else []
            result.trains |= not off
            return self._classify_result(result, parent)
        if method in torch_known.MODULE_SELF_METHODS - {"requires_grad_", "apply"}:
            return self._classify_result(result, parent)
        if method in known.NEUTRAL_MODULE_METHODS:
            if method in known.PARTS_OF_A_MODULE and self._freezes_in_loop(parent):
                return _Mention.DOUBTFUL
            result.loads |= method == "load_state_dict"
            return _Mention.HARMLESS
        doubtful = method in ("requires_grad_", "apply", "zero_grad") or words_of(method) & known.FREEZING_WORDS
        return _Mention.DOUBTFUL if doubtful else _Mention.HARMLESS

    def _read(self, node: cst.Attribute, names: list[str]) -> _Mention:
        if not {"requires_grad", "grad"}.isdisjoint(names):
            return _Mention.DOUBTFUL
        parent = self._parents.get(id(node))
        if isinstance(parent, (cst.Assign, cst.Arg, cst.Element, cst.StarredElement, cst.DictElement)):
            # `student.embeddings = teacher.embeddings` shares weights, `Adam([net.weight])` trains them.
            return _Mention.HARMLESS if names[-1].endswith(known.PLAIN_ATTRIBUTES) else _Mention.DOUBTFUL
        return _Mention.HARMLESS

    def _classify_result(self, result: Standing, call: cst.Call) -> _Mention:
        """What is done with the module that a call returns."""
        return self._classify(result, call)

    def _parameters_of(self, call: cst.Call) -> _Mention:
        """Whether it only goes through the parameters, to copy, average or count them."""
        node: cst.CSTNode = call
        parent = self._parents.get(id(node))
        while parent is not None:
            if isinstance(parent, (cst.For, cst.CompFor)):
                return self._loop_over_parameters(parent) if parent.iter is node else _Mention.DOUBTFUL
            if isinstance(parent, cst.Call):
                name = (path_of(parent.func) or "").rpartition(".")[2]
                words = words_of(name)
                if name == "next" or (words & known.LOOKING_WORDS and not words & known.FREEZING_WORDS):
                    return _Mention.HARMLESS
                if name not in known.LOOKING_FUNCTIONS:
                    return _Mention.DOUBTFUL
            elif not isinstance(parent, cst.Arg):
                return _Mention.DOUBTFUL
            node, parent = parent, self._parents.get(id(parent))
        return _Mention.DOUBTFUL

    def _loop_over_parameters(self, loop: cst.For | cst.CompFor) -> _Mention:
        body: cst.CSTNode = loop
        if isinstance(loop, cst.CompFor):
            around = self._parents[id(loop)]
            argument = self._parents.get(id(around))
            call = self._parents.get(id(argument)) if isinstance(argument, cst.Arg) else None
            if not isinstance(call, cst.Call) or path_of(call.func) not in known.LOOKING_FUNCTIONS:
                return _Mention.DOUBTFUL
            body = around
        else:
            body = loop.body
        names = {node.value for node in walk(body) if isinstance(node, cst.Name)}
        if not names.isdisjoint(known.FREEZING_A_PARAMETER) and isinstance(loop, cst.For):
            return _Mention.DOUBTFUL
        appended = names & {"append", "extend", "add"}
        return _Mention.DOUBTFUL if appended else _Mention.HARMLESS

    def _freezes_in_loop(self, call: cst.Call) -> bool:
        """`for part in model.modules(): for p in part.parameters(recurse=False): p.detach_()`."""
        loop = self._parents.get(id(call))
        if not isinstance(loop, cst.For) or loop.iter is not call:
            return False
        names = {node.value for node in walk(loop.body) if isinstance(node, cst.Name)}
        return not names.isdisjoint(known.FREEZING_A_PARAMETER - {"grad"})

    # --- who gets it ---

    def _argument(self, result: Standing, call: cst.Call, argument: cst.Arg) -> _Mention:
        event = self.module.call_at(call)
        if event is None or event.result.kind is Kind.OPTIMIZER:
            return _Mention.DOUBTFUL
        if event.names(frozenset({"copy.deepcopy", "copy.copy"})):
            return _Mention.HARMLESS
        if event.names(torch_known.RETURNS_ITS_MODULE):
            return self._classify_result(result, call)
        name = (path_of(call.func) or "").rpartition(".")[2]
        if event.callee.quals and all(qual.startswith(":") for qual in event.callee.quals):
            return self._given_in_view(result, event, argument)
        if name == "prepare" and event.receiver is not None:
            return self._classify_result(result, call) if len(call.args) == 1 else _Mention.DOUBTFUL
        words = words_of(name)
        looks = name in known.LOOKING_FUNCTIONS - {"list", "tuple", "zip", "enumerate", "map", "filter", "set", "iter"}
        if looks or (words & known.LOOKING_WORDS and not words & known.FREEZING_WORDS):
            return _Mention.HARMLESS
        return _Mention.DOUBTFUL

    def _given_in_view(self, result: Standing, event: Call, argument: cst.Arg) -> _Mention:
        """A function, or the constructor of a class, of this file gets it: what does that do with it?"""
        for qual in event.callee.quals:
            scope = self._function(qual)
            name = _parameter_for(event, argument, scope) if scope is not None else None
            if scope is None or name is None:
                return _Mention.DOUBTFUL
            inner = self.of(Home(scope, name))
            if inner.is_open:
                return _Mention.DOUBTFUL
            result.evals += [call for call in inner.evals if call not in result.evals]
            result.trains |= inner.trains
            result.loads |= inner.loads
        return _Mention.HARMLESS

    def _function(self, qual: str) -> Scope | None:
        analysis = self.module.analysis
        return analysis.method(qual, "__init__") if analysis.is_class(qual) else analysis.scope_named(qual)

    def _from_callers(self, result: Standing) -> None:
        """A parameter is what the callers in view give."""
        scope = result.home.scope
        name = scope.qualname
        if scope.name == "__init__" and scope.parent is not None and scope.parent.is_class:
            name = scope.parent.qualname
        callers = list(self.module.calls_of(frozenset({name})))
        if not callers or name in self.module.analysis.handed_over:
            result.unseen.add(Unseen(scope.qualname, result.home.name))
            return
        result.is_model = True
        for call in callers:
            given = _argument_for(call, scope, result.home.name)
            path = path_of(given) if given is not None else None
            home = home_of(call.scope, path) if path is not None else None
            outer = self.of(home) if home is not None else None
            if outer is None or outer is result:
                result.is_open = True
                return
            result.is_open |= outer.is_open
            result.is_model &= outer.is_model
            result.is_copy |= outer.is_copy
            result.evals += outer.evals
            result.trains |= outer.trains
            result.loads |= outer.loads
            result.built += outer.built
            result.unseen |= outer.unseen

    def _alias(self, result: Standing, statement: cst.Assign) -> _Mention:
        """`self.teacher = teacher`: what is done with the one is done with the other."""
        if len(statement.targets) != 1:
            return _Mention.DOUBTFUL
        path = path_of(statement.targets[0].target)
        home = home_of(self._scope_at(statement), path) if path is not None else None
        if home is None:
            return _Mention.DOUBTFUL
        if home == result.home:
            return _Mention.HARMLESS
        other = self.of(home)
        if other.is_open:
            return _Mention.DOUBTFUL
        result.evals += [call for call in other.evals if call not in result.evals]
        result.trains |= other.trains
        result.loads |= other.loads
        return _Mention.HARMLESS

    # --- where it is built ---

    def _assigned(self, home: Home) -> Iterator[cst.BaseExpression]:
        for node in self._mentions(home):
            parent = self._parents.get(id(node))
            if isinstance(parent, cst.AssignTarget):
                statement = self._parents[id(parent)]
                assert isinstance(statement, cst.Assign)
                yield statement.value
            elif isinstance(parent, cst.AnnAssign) and parent.target is node and parent.value is not None:
                yield parent.value
            elif isinstance(parent, (cst.Element, cst.For, cst.AsName, cst.NamedExpr)) and node in _targets(parent):
                yield cst.Name("unpacked")

    def _builds(self, result: Standing, value: cst.BaseExpression) -> bool:
        """Whether the expression builds a model whose parameters need gradients."""
        if path_of(value) == "None":
            return True
        if isinstance(value, cst.IfExp):
            return self._builds(result, value.body) and self._builds(result, value.orelse)
        while isinstance(value, cst.Call) and isinstance(value.func, cst.Attribute):
            if value.func.attr.value not in torch_known.MODULE_SELF_METHODS | {"module"}:
                break
            if value.func.attr.value in ("requires_grad_", "apply"):
                return False
            if value.func.attr.value == "eval" and value not in result.evals:
                result.evals.append(value)
            value = value.func.value
        path = path_of(value)
        if path is not None:
            return self._is_same(result, value, path)
        while isinstance(value, (cst.Attribute, cst.Subscript)):
            value = value.value  # `vgg19(...).features[:36]`
        event = self.module.call_at(value) if isinstance(value, cst.Call) else None
        return event is not None and self._is_builder(result, event)

    def _is_same(self, result: Standing, node: cst.BaseExpression, path: str) -> bool:
        """`teacher = teacher.to(device)`; `self.teacher = teacher`, whatever that is."""
        home = home_of(self._scope_at(node), path)
        if home == result.home:
            return True
        other = self.of(home) if home is not None else None
        if other is None or other.is_open:
            return False
        result.is_model |= other.is_model
        result.is_copy |= other.is_copy
        result.built += other.built
        result.unseen |= other.unseen
        return True

    def _is_builder(self, result: Standing, event: Call) -> bool:
        analysis = self.module.analysis
        quals = event.callee.quals
        if event.names(torch_known.RETURNS_ITS_MODULE - {"copy.deepcopy"}) and event.positional:
            return self._builds(result, event.positional[0].expression)
        if event.names(frozenset({"copy.deepcopy"})) and event.positional:
            source = path_of(event.positional[0].expression)
            if source is None or analysis.is_frozen(event.scope, source):
                return False
            result.is_copy = result.is_model = True
        elif event.keywords.keys() & known.QUANTIZING_KEYWORDS:
            return False
        elif any(words_of(name) & known.FREEZING_WORDS or name == "requires_grad" for name in event.keywords):
            return False  # `Vgg16(requires_grad=False)`
        elif isinstance(event.call.func, cst.Subscript):
            result.is_model |= bool(result.evals) or result.loads  # `models.__dict__[name](...)`, any architecture
        elif len(quals) != 1 or not self._is_model_of(result, event, min(quals)):
            return False
        result.built.append(event.call)
        return True

    def _is_model_of(self, result: Standing, event: Call, qual: str) -> bool:
        analysis = self.module.analysis
        last = qual.replace(":", ".").rpartition(".")[2]
        if analysis.is_class(qual):
            return self._is_own_model(result, qual)
        if qual.startswith(":"):
            return self._is_own_builder(result, qual)
        if self._is_given_modules(event, last):
            return False  # `nn.Sequential(encoder, decoder)`: who trains those trains it
        if qual.startswith("torch.nn."):
            result.is_model |= last not in torch_known.MODULES_WITHOUT_PARAMETERS and "Loss" not in last
            return event.result.kind is Kind.MODULE and not event.unpacks
        if qual.startswith(known.MODEL_BUILDERS) or qual.endswith(".from_pretrained"):
            is_model = event.result.kind is Kind.MODULE
            result.is_model |= is_model or bool(result.evals)
            return True
        if qual == "torch.load":
            result.is_model |= bool(result.evals)
            return True
        is_class = last[:1].isupper() and not words_of(last) & known.SELF_FROZEN_WORDS
        if is_class or last.startswith(known.ARCHITECTURES):
            has_role = not words_of(result.home.name).isdisjoint(known.FROZEN_ROLES)
            result.is_model |= bool(result.evals) or result.loads or has_role
            return True
        return self._also_builds_the_trained(result, event)

    def _is_given_modules(self, event: Call, name: str) -> bool:
        """Modules that live elsewhere, not those made on the spot, by themselves or in a list: `Ensemble([first])`."""
        held: list[cst.BaseExpression] = []
        for argument in (*event.positional, *event.keywords.values()):
            expression = argument.expression
            if argument.value.kind in (Kind.MODULE, Kind.INSTANCE) and not isinstance(expression, cst.Call):
                return True
            if isinstance(expression, (cst.List, cst.Tuple)):
                held += [element.value for element in expression.elements]
            elif name in torch_known.CONTAINERS_OF_MODULES:
                held.append(expression)
        return any(self._may_be_object(event.scope, expression) for expression in held)

    def _may_be_object(self, scope: Scope, expression: cst.BaseExpression) -> bool:
        """A variable that comes from outside, or that the call of a class has made: no width, no setting."""
        path = path_of(expression)
        home = home_of(scope, path) if path is not None else None
        if home is None or home.is_parameter:
            return home is not None
        made = [node for value in self._assigned(home) for node in walk(value) if isinstance(node, cst.Call)]
        return any((path_of(call.func) or "").rpartition(".")[2][:1].isupper() for call in made)

    def _is_own_model(self, result: Standing, qual: str) -> bool:
        """A class of this file, with layers, that freezes nothing of itself; nor do its bases."""
        analysis = self.module.analysis
        bases = analysis.base_names(qual)
        if not analysis.is_module_class(qual) or any(not base.startswith((":", "torch.nn.")) for base in bases):
            return False
        family = [scope for scope in analysis.scopes if scope.is_class and scope.qualname in {qual, *bases}]
        words = frozenset().union(*(scope.words_within for scope in family))
        if _may_freeze(words):
            return False
        if any(optimizer.call.scope.enclosing_class() in family for optimizer in optimizers(self.module)):
            return False  # each makes an optimizer for itself
        builds = any(
            call.result.kind is Kind.MODULE and call.result.cls is None and call.scope.enclosing_class() in family
            for call in self.module.calls
            if call.callee.quals
        )
        result.is_model |= builds or result.loads or not words.isdisjoint(known.LAYERS_WITH_PARAMETERS)
        return True

    def _is_own_builder(self, result: Standing, qual: str) -> bool:
        """A function of this file that builds a model, and neither freezes it nor gives its parameters away."""
        scope = self.module.analysis.scope_named(qual)
        if scope is None or _may_freeze(scope.words_within):
            return False
        if not scope.words_within.isdisjoint({"parameters", "named_parameters", "yield"}):
            return False
        result.is_model |= bool(result.evals) or result.loads or "load_state_dict" in scope.words_within
        return True

    def _also_builds_the_trained(self, result: Standing, event: Call) -> bool:
        """`get_model(...)` builds the student too: it freezes nothing."""
        others = [call for call in self.module.calls_of(event.callee.quals) if call.node is not event.node]
        trained = {
            name.value
            for optimizer in optimizers(self.module)
            if optimizer.parameters is not None
            for name in walk(optimizer.parameters)
            if isinstance(name, cst.Name)
        }
        if not any((_assigned_path(call) or "?").rpartition(".")[2] in trained for call in others):
            return False
        result.is_model |= bool(result.evals) or result.loads
        return True


def _may_freeze(words: Set[str]) -> bool:
    """Whether code with these words may freeze parameters, or run with grad off."""
    return any(word in known.FREEZING_ITSELF or words_of(word) & {"freeze", "frozen", "requires"} for word in words)


def _targets(parent: cst.CSTNode) -> list[cst.CSTNode]:
    if isinstance(parent, cst.Element):
        return [parent.value]
    if isinstance(parent, cst.AsName):
        return [parent.name]
    return [parent.target]  # type: ignore[attr-defined]


def _parameter_for(event: Call, argument: cst.Arg, scope: Scope) -> str | None:
    """The parameter of the function that the call gives this argument for."""
    node = scope.node
    if not isinstance(node, (cst.FunctionDef, cst.Lambda)) or argument.star:
        return None
    if argument.keyword is not None:
        return argument.keyword.value
    names = _positional_names(event, scope)
    index = next(index for index, other in enumerate(event.call.args) if other is argument)
    return names[index] if index < len(names) and not any(item.star for item in event.call.args[:index]) else None


def _argument_for(event: Call, scope: Scope, name: str) -> cst.BaseExpression | None:
    if name in event.keywords:
        return event.keywords[name].expression
    names = _positional_names(event, scope)
    index = names.index(name) if name in names else -1
    if event.unpacks or not 0 <= index < len(event.positional):
        return None
    return event.positional[index].expression


def _positional_names(event: Call, scope: Scope) -> list[str]:
    node = scope.node
    assert isinstance(node, (cst.FunctionDef, cst.Lambda))
    names = [param.name.value for param in (*node.params.posonly_params, *node.params.params)]
    is_method = scope.parent is not None and scope.parent.is_class
    return names[1:] if is_method and names[:1] in (["self"], ["cls"]) else names
