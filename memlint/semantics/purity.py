"""Is a variable of a function only read? Its uses, and those of everything that may share its memory, by name.

The answer holds for all values the names ever have, wherever a loop comes back to: a name that is rebound is not
written to, a name that is written to anywhere is. What is not known to read only counts as a write.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import Enum
from functools import cached_property

import libcst as cst

from memlint.semantics.events import Call
from memlint.semantics.knowledge import copies as known
from memlint.semantics.knowledge.torch import VIEW_ATTRIBUTES
from memlint.semantics.scopes import Scope, parts_of, path_of, target_names, walk
from memlint.semantics.values import Kind

_FRESH_OPERATORS = (cst.Add, cst.Subtract, cst.Multiply, cst.Divide, cst.MatrixMultiply)
_READING_OPERATORS = (*_FRESH_OPERATORS, cst.Power, cst.FloorDivide, cst.Modulo)
_IDENTITY_OPERATORS = (cst.Is, cst.IsNot, cst.In, cst.NotIn)
# They run code of their own, at another time, or write.
_NOT_READING = (
    cst.FunctionDef,
    cst.ClassDef,
    cst.Lambda,
    cst.AugAssign,
    cst.Yield,
    cst.Await,
    cst.With,
    cst.Del,
    cst.CompFor,
)
CallAt = Callable[[cst.CSTNode], Call | None]


class _Outcome(Enum):
    READ = "read"
    ESCAPES = "escapes"


class FunctionBody:
    """One function's code, with parents, for questions about its names."""

    def __init__(self, scope: Scope, call_at: CallAt) -> None:
        assert isinstance(scope.node, cst.FunctionDef)
        self.scope = scope
        self._call_at = call_at
        self._nodes = list(walk(scope.node.body))
        self._parents = {id(child): node for node in self._nodes for child in parts_of(node)}
        self._names: dict[str, list[cst.Name]] = {}
        for node in self._nodes:
            if isinstance(node, cst.Name):
                self._names.setdefault(node.value, []).append(node)

    # --- what a name is ---

    def only_fresh(self, name: str) -> bool:
        """Every value that the name is given was allocated by the very expression: nobody else holds it."""
        bindings = self._bindings(name)
        return bindings is not None and bool(bindings) and all(self.is_fresh(value) for value in bindings)

    def _bindings(self, name: str) -> list[cst.BaseExpression] | None:
        """What plain assignments give the name; None where it is bound in another way."""
        if name in self._bound_otherwise:
            return None
        values: list[cst.BaseExpression] = []
        for node in self._names.get(name, ()):
            parent = self._parents.get(id(node))
            if isinstance(parent, cst.AssignTarget):
                assignment = self._parents[id(parent)]
                assert isinstance(assignment, cst.Assign)
                values.append(assignment.value)
            elif isinstance(parent, cst.AnnAssign) and parent.target is node and parent.value is not None:
                values.append(parent.value)
        return values

    @cached_property
    def _bound_otherwise(self) -> frozenset[str]:
        """Names bound by a loop, by unpacking, by `with`, in a chain of assignments."""
        names: set[str] = set(self.scope.nonlocal_names)
        for node in self._nodes:
            if isinstance(node, (cst.For, cst.CompFor, cst.NamedExpr, cst.AugAssign)):
                names.update(target_names(node.target))
            elif isinstance(node, cst.Assign) and (
                len(node.targets) > 1 or not isinstance(node.targets[0].target, cst.Name)
            ):
                names.update(name for target in node.targets for name in target_names(target.target))
            elif isinstance(node, cst.AsName):
                names.update(target_names(node.name))
        return frozenset(names)

    def is_fresh(self, node: cst.BaseExpression) -> bool:
        """The expression allocates its value, and the backward pass does not need that value."""
        if is_fresh_operator(node):
            return True
        call = self._call_at(node)
        return call is not None and allocates(call)

    # --- what is done with names ---

    def only_read(self, names: Iterable[str]) -> bool:
        """Neither the names nor what may share memory with them is written to, kept, or handed to unknown code."""
        pending, seen = list(names), set()
        while pending:
            name = pending.pop()
            if name in seen:
                continue
            seen.add(name)
            if self._is_captured(name):
                return False
            for node in self._names.get(name, ()):
                aliases = self._aliases(node)
                if aliases is None:
                    return False
                pending.extend(aliases)
        return True

    def _is_captured(self, name: str) -> bool:
        return name in self.scope.nonlocal_names or name in self.scope.captured()

    def _aliases(self, name: cst.Name) -> list[str] | None:
        """The names that this use gives to the tensor's memory; None where the use may do more than read."""
        parent = self._parents.get(id(name))
        if _is_only_a_label(parent, name):
            return []
        node: cst.CSTNode | _Outcome = name
        while isinstance(node, cst.CSTNode):
            parent = self._parents.get(id(node))
            if isinstance(parent, cst.Assign):
                target = parent.targets[0].target
                return [target.value] if len(parent.targets) == 1 and isinstance(target, cst.Name) else None
            node = self._step(node, parent)
        return [] if node is _Outcome.READ else None

    def _step(self, node: cst.CSTNode, parent: cst.CSTNode | None) -> cst.CSTNode | _Outcome:
        """The larger expression that may share the node's memory, or what the parent does with the node."""
        if parent is None:
            return _Outcome.ESCAPES
        if self._reads(parent, node):
            return _Outcome.READ
        if isinstance(parent, cst.Attribute):
            call = self._parents.get(id(parent))
            if isinstance(call, cst.Call) and call.func is parent:
                return self._method(call, parent.attr.value)
            return parent if parent.attr.value in VIEW_ATTRIBUTES else _Outcome.ESCAPES
        if isinstance(parent, cst.Subscript) and parent.value is node:
            return parent
        if isinstance(parent, cst.IfExp):
            return parent
        if isinstance(parent, cst.Element):
            argument = self._parents.get(id(self._parents[id(parent)]))
            return self._argument(argument) if isinstance(argument, cst.Arg) else _Outcome.ESCAPES
        return self._argument(parent) if isinstance(parent, cst.Arg) else _Outcome.ESCAPES

    def _reads(self, parent: cst.CSTNode, node: cst.CSTNode) -> bool:
        """The parent takes the values and nothing of the memory."""
        if isinstance(parent, cst.BinaryOperation):
            return isinstance(parent.operator, _READING_OPERATORS)
        if isinstance(parent, cst.UnaryOperation):
            return not isinstance(parent.operator, cst.Plus)
        if isinstance(parent, (cst.Comparison, cst.ComparisonTarget)):
            comparison = parent if isinstance(parent, cst.Comparison) else self._parents[id(parent)]
            assert isinstance(comparison, cst.Comparison)
            return not any(isinstance(item.operator, _IDENTITY_OPERATORS) for item in comparison.comparisons)
        if isinstance(parent, cst.Attribute):
            return parent.attr.value in known.READING_ATTRIBUTES
        if isinstance(parent, (cst.If, cst.While, cst.Assert, cst.IfExp)):
            return parent.test is node
        return isinstance(parent, (cst.FormattedStringExpression, cst.Expr, cst.Slice, cst.Index))

    def _method(self, node: cst.Call, name: str) -> cst.CSTNode | _Outcome:
        if _writes(node):
            return _Outcome.ESCAPES
        if name in known.READING_METHODS:
            return _Outcome.READ
        return node if name in known.ALIASING_METHODS else _Outcome.ESCAPES

    def _argument(self, argument: cst.Arg) -> _Outcome:
        node = self._parents.get(id(argument))
        call = self._call_at(node) if node is not None else None
        if call is not None and not argument.star and self._only_reads(call):
            return _Outcome.READ
        return _Outcome.ESCAPES

    # --- the function as a whole ---

    def runs_only_known_code(self) -> bool:
        """Nothing in the function can write to a tensor of its caller: known operations only, and no stores."""
        return all(self._is_known(node) for node in self._nodes)

    def _is_known(self, node: cst.CSTNode) -> bool:
        if isinstance(node, cst.Call):
            call = self._call_at(node)
            return call is not None and (self._only_reads(call) or self._is_alias(call))
        if isinstance(node, cst.AssignTarget):
            return _binds_names_only(node.target)
        if isinstance(node, _NOT_READING):
            return False
        return not isinstance(node, cst.For) or self._counts(node.iter)

    def _counts(self, iterable: cst.BaseExpression) -> bool:
        call = self._call_at(iterable)
        return call is not None and call.names({"range"})

    def _only_reads(self, call: Call) -> bool:
        if call.unpacks or _writes(call.call):
            return False
        if call.callee.quals:
            return call.names(known.READING_FUNCTIONS)
        return call.method in known.READING_METHODS and call.receiver is not None and call.receiver.kind is Kind.TENSOR

    def _is_alias(self, call: Call) -> bool:
        if call.unpacks or _writes(call.call) or call.receiver is None or call.callee.quals:
            return False
        return call.method in known.ALIASING_METHODS and call.receiver.kind is Kind.TENSOR


def allocates(call: Call) -> bool:
    """The call returns a newly allocated tensor that nothing else refers to and no backward pass needs."""
    return is_factory(call) or is_fresh_operation(call)


def is_fresh_operator(node: cst.BaseExpression) -> bool:
    return isinstance(node, cst.BinaryOperation) and isinstance(node.operator, _FRESH_OPERATORS)


def is_factory(call: Call) -> bool:
    if call.unpacks or "out" in call.keywords or "requires_grad" in call.keywords:
        return False
    if call.callee.quals:
        return call.names(known.FACTORIES)
    return call.method in known.FACTORY_METHODS and _may_be_tensor(call)


def is_fresh_operation(call: Call) -> bool:
    if call.unpacks or _writes(call.call) or call.result.kind is not Kind.TENSOR:
        return False
    if call.callee.quals:
        return call.names(known.FRESH_FUNCTIONS) and len(call.positional) + len(call.keywords) >= 1
    return call.method in known.FRESH_METHODS and call.receiver is not None and call.receiver.kind is Kind.TENSOR


def _may_be_tensor(call: Call) -> bool:
    return call.receiver is not None and call.receiver.kind in (Kind.TENSOR, Kind.UNKNOWN)


def _writes(call: cst.Call) -> bool:
    """It has a keyword, or a positional flag, that may make it write to an argument."""
    name = (path_of(call.func) or "").rpartition(".")[2]
    if name in known.INPLACE_BY_POSITION and len(call.args) > 1:
        return True
    for argument in call.args:
        if argument.keyword is not None and argument.keyword.value in known.WRITING_KEYWORDS:
            return True
        if argument.keyword is None and isinstance(argument.value, cst.Name) and argument.value.value == "True":
            return True
    return False


def _binds_names_only(target: cst.BaseExpression) -> bool:
    if isinstance(target, cst.Tuple):
        return all(isinstance(element.value, cst.Name) for element in target.elements)
    return isinstance(target, cst.Name)


def _is_only_a_label(parent: cst.CSTNode | None, name: cst.Name) -> bool:
    """A keyword, another thing's attribute, or the name being bound anew: no use of the tensor."""
    if isinstance(parent, cst.Attribute):
        return parent.attr is name
    if isinstance(parent, cst.Arg):
        return parent.keyword is name
    return isinstance(parent, cst.AssignTarget) or (isinstance(parent, cst.AnnAssign) and parent.target is name)
