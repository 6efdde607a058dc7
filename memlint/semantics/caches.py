"""Caches that keep tensors, modules or whole data sets alive by their keys."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

import libcst as cst

from memlint.semantics.events import Call, Store
from memlint.semantics.knowledge import caches as known
from memlint.semantics.knowledge import torch
from memlint.semantics.module import Module
from memlint.semantics.scopes import Scope, nodes_of, parameters, path_of, walk
from memlint.semantics.typed_assignments import TypedAssign
from memlint.semantics.values import Kind


class Key(Enum):
    """What in the key is kept."""

    MODULE_SELF = "module self"
    DATASET_SELF = "data set self"
    SAMPLE = "sample"
    """`__getitem__` of a data set: every sample is kept, in every worker."""
    HOLDER_SELF = "holder self"
    """An object that holds modules."""
    TENSORS_SELF = "tensors self"
    """An object that holds tensors."""
    TENSOR = "tensor"
    MODULE = "module"
    TENSOR_ID = "tensor id"
    """`table[id(tensor)]`."""


@dataclass(frozen=True, eq=False)
class KeepingCache:
    """A cache whose key keeps something big, or never matches."""

    node: cst.BaseExpression
    """The decorator, the call that decorates by hand, or the store into a table."""
    key: Key
    name: str
    """The parameter that is the key, the class whose instances are, or the table."""
    certain: bool


def keeping_caches(module: Module) -> Iterator[KeepingCache]:
    cleared = _cleared_functions(module)
    for scope in module.scopes:
        decorator = _remembering(module, scope)
        if decorator is None or scope.name in cleared:
            continue
        found = _kept_by_method(module, scope, decorator) or _kept_by_parameter(module, scope, decorator)
        if found is not None:
            yield found
    if not module.words.isdisjoint(known.REMEMBERING_WORDS):
        for call in module.calls:
            found = _by_hand(module, call, cleared)
            if found is not None:
                yield found
    for store in module.stores:
        found = _table(module, store)
        if found is not None:
            yield found


def _remembering(module: Module, scope: Scope) -> cst.BaseExpression | None:
    if not isinstance(scope.node, cst.FunctionDef):
        return None
    for decorator in scope.node.decorators:
        if _is_remembering(module, decorator.decorator):
            return decorator.decorator
    return None


def _is_remembering(module: Module, expression: cst.BaseExpression) -> bool:
    """`lru_cache`, or `lru_cache(maxsize=...)` that keeps at least one entry."""
    if isinstance(expression, cst.Call):
        return module.analysis.qualify(expression.func) in known.REMEMBERING_DECORATORS and not _keeps_nothing(
            expression
        )
    return module.analysis.qualify(expression) in known.REMEMBERING_DECORATORS


def _keeps_nothing(call: cst.Call) -> bool:
    """`maxsize=0`."""
    return _maxsize(call) == 0


def _keeps_few(decorator: cst.BaseExpression) -> bool:
    """So few entries that samples in host memory do not matter."""
    size = _maxsize(decorator) if isinstance(decorator, cst.Call) else None
    return size is not None and size <= known.FEW_SAMPLES


def _maxsize(call: cst.Call) -> int | None:
    """The literal `maxsize`; None where there is none, or no limit."""
    sizes = [arg.value for arg in call.args if arg.keyword is None or arg.keyword.value == "maxsize"][:1]
    return next((int(size.value, 0) for size in sizes if isinstance(size, cst.Integer)), None)


def _cleared_functions(module: Module) -> frozenset[str]:
    """The functions whose cache is emptied in this file: somebody thought of it."""
    return frozenset(
        path.rpartition(".")[2]
        for scope in module.scopes
        for path, methods in scope.methods_called.items()
        if "cache_clear" in methods
    )


# --- methods: `self` is part of the key ---


def _kept_by_method(module: Module, scope: Scope, decorator: cst.BaseExpression) -> KeepingCache | None:
    owner = scope.parent
    if owner is None or not owner.is_class or not isinstance(scope.node, cst.FunctionDef):
        return None
    if any(path_of(item.decorator) in known.WITHOUT_SELF for item in scope.node.decorators):
        return None
    if not scope.node.params.posonly_params and not scope.node.params.params:
        return None
    analysis = module.analysis
    if analysis.is_module_class(owner.qualname):
        return KeepingCache(decorator, Key.MODULE_SELF, owner.name, module.surely_a_module(owner))
    if analysis.base_names(owner.qualname) & torch.DATASET_BASES and not _keeps_few(decorator):
        key = Key.SAMPLE if scope.name == "__getitem__" else Key.DATASET_SELF
        return KeepingCache(decorator, key, owner.name, True)
    if _holds_modules(module, owner):
        return KeepingCache(decorator, Key.HOLDER_SELF, owner.name, True)
    is_sampler = scope.name == "__getitem__" or analysis.base_names(owner.qualname) & torch.DATASET_BASES
    if not (is_sampler and _keeps_few(decorator)) and _holds_tensors(module, owner):
        return KeepingCache(decorator, Key.TENSORS_SELF, owner.name, False)
    return None


def _holds_modules(module: Module, owner: Scope) -> bool:
    names = {name for method in owner.children for name in method.attributes_stored}
    members = (module.analysis.member(owner.qualname, name) for name in sorted(names))
    return any(member is not None and member.kind is Kind.MODULE for member in members)


def _holds_tensors(module: Module, owner: Scope) -> bool:
    """An attribute is a tensor, or annotated as a container of tensors, here or in a base class of this file."""
    names = {owner.qualname, *module.analysis.base_names(owner.qualname)}
    classes = [scope for scope in module.scopes if scope.is_class and scope.qualname in names]
    return any(_stores_tensor(module, cls) or _declares_tensors(module, cls) for cls in classes)


def _stores_tensor(module: Module, cls: Scope) -> bool:
    return any(
        store.path is not None
        and store.path.startswith("self.")
        and store.value.is_tensor
        and store.scope.enclosing_class() is cls
        for store in module.attribute_stores
    )


def _declares_tensors(module: Module, cls: Scope) -> bool:
    """`embeddings: dict[str, torch.Tensor]`, in the class body or on `self`."""
    return any(
        isinstance(node, (cst.AnnAssign, TypedAssign))
        and (isinstance(node.target, cst.Attribute) or _is_field(cls, node))
        and any(
            module.analysis.qualify(part) in known.TENSOR_NAMES
            for part in walk(node.annotation)
            if isinstance(part, (cst.Name, cst.Attribute))
        )
        for node in walk(cls.node)
    )


def _is_field(cls: Scope, node: cst.AnnAssign | TypedAssign) -> bool:
    """A field of the class, not a variable of one of its methods."""
    return isinstance(node.target, cst.Name) and node.target.value in cls.bound


# --- parameters: each is part of the key ---


def _kept_by_parameter(module: Module, scope: Scope, node: cst.BaseExpression) -> KeepingCache | None:
    if not isinstance(scope.node, cst.FunctionDef):
        return None
    for param in parameters(scope.node.params):
        if _is_tensor(module, scope, param):
            return KeepingCache(node, Key.TENSOR, param.name.value, param.annotation is not None)
        if _is_module(module, param):
            return KeepingCache(node, Key.MODULE, param.name.value, True)
    return None


def _is_tensor(module: Module, scope: Scope, param: cst.Param) -> bool:
    if param.annotation is not None:
        return any(name in known.TENSOR_NAMES for name in _annotated(module, param.annotation.annotation))
    called = scope.methods_called.get(param.name.value, set())
    return not called.isdisjoint(torch.TENSOR_ONLY_METHODS)


def _is_module(module: Module, param: cst.Param) -> bool:
    if param.annotation is None:
        return False
    names = _annotated(module, param.annotation.annotation)
    return any(
        name in torch.MODULE_BASES or (name.startswith(":") and module.analysis.is_module_class(name)) for name in names
    )


def _annotated(module: Module, annotation: cst.BaseExpression) -> Iterator[str]:
    """The types of an annotation, those of `X | None` and `Optional[X]` too."""
    if isinstance(annotation, cst.BinaryOperation):
        yield from _annotated(module, annotation.left)
        yield from _annotated(module, annotation.right)
    elif isinstance(annotation, cst.Subscript):
        if module.analysis.qualify(annotation.value) in known.OPTIONAL:
            for element in annotation.slice:
                if isinstance(element.slice, cst.Index):
                    yield from _annotated(module, element.slice.value)
    elif isinstance(annotation, cst.SimpleString):
        yield from _in_string(module, str(annotation.evaluated_value))
    else:
        name = module.analysis.qualify(annotation)
        if name is not None:
            yield name


def _in_string(module: Module, text: str) -> Iterator[str]:
    try:
        yield from _annotated(module, cst.parse_expression(text))
    except cst.ParserSyntaxError:
        return


# --- the decorator called by hand ---


def _by_hand(module: Module, call: Call, cleared: frozenset[str]) -> KeepingCache | None:
    """`lru_cache(maxsize=256)(function)`, `cache(function)`."""
    if not call.positional or not _is_remembering(module, call.call.func):
        return None
    quals = call.positional[0].value.quals
    scope = module.analysis.scope_named(next(iter(quals))) if len(quals) == 1 else None
    if scope is None or scope.name in cleared:
        return None
    return _kept_by_parameter(module, scope, call.call)


# --- tables of the module ---


def _table(module: Module, store: Store) -> KeepingCache | None:
    """`TABLE[id(tensor)] = ...`, `TABLE[tensor] = ...` with a dictionary that lives as long as the program."""
    if store.how != "setitem" or not isinstance(store.node, cst.Subscript) or store.path is None:
        return None
    index = store.node.slice[0].slice
    if not store.scope.is_function or len(store.node.slice) != 1 or not isinstance(index, cst.Index):
        return None
    found = _tensor_key(module, store, index.value)
    return found if found is not None and _lives_on(module, store, store.path) else None


def _tensor_key(module: Module, store: Store, key: cst.BaseExpression) -> KeepingCache | None:
    assert isinstance(store.node, cst.Subscript)
    call = module.call_at(key)
    if call is not None and call.names({"id"}) and call.positional:
        argument = call.positional[0]
        if argument.value.is_tensor or _is_tensor_parameter(module, store.scope, argument.expression):
            return KeepingCache(store.node, Key.TENSOR_ID, store.path or "", True)
    if _is_tensor_parameter(module, store.scope, key, annotated=True):
        return KeepingCache(store.node, Key.TENSOR, module.text(key), True)
    return None


def _is_tensor_parameter(
    module: Module, scope: Scope, expression: cst.BaseExpression, *, annotated: bool = False
) -> bool:
    if not isinstance(expression, cst.Name) or not isinstance(scope.node, cst.FunctionDef):
        return False
    named = [param for param in parameters(scope.node.params) if param.name.value == expression.value]
    return any(_is_tensor(module, scope, param) for param in named if param.annotation is not None or not annotated)


def _lives_on(module: Module, store: Store, path: str) -> bool:
    """A dictionary of the module from which nothing is ever taken."""
    root = module.analysis.root
    if path not in root.bound or (path in store.scope.bound and path not in store.scope.nonlocal_names):
        return False
    boxes = [module.box(index) for index in store.boxes]
    if not boxes or any(box.born_in for box in boxes):
        return False
    for scope in module.scopes:
        if path in scope.nonlocal_names or scope.methods_called.get(path, set()) & known.REMOVING_METHODS:
            return False
    return not any(_deletes_from(node, path) for node in nodes_of(module.tree, cst.Del))


def _deletes_from(node: cst.Del, path: str) -> bool:
    return any(isinstance(item, cst.Name) and item.value == path for item in walk(node))
