"""Tensors put on the GPU by code that a data loader runs in its worker processes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import libcst as cst

from memlint.semantics.devices import Place, moved_to, place_of
from memlint.semantics.events import Call
from memlint.semantics.knowledge import loaders as known
from memlint.semantics.knowledge import torch as torch_known
from memlint.semantics.module import Module
from memlint.semantics.naming import words_of
from memlint.semantics.scopes import Scope
from memlint.semantics.values import Kind, Value


@dataclass(frozen=True, eq=False)
class WorkerMove:
    """A call in a data set or a collate function that puts something on a device."""

    call: Call
    runs_in: str
    """Who calls it, for the message: "`Frames.__getitem__`"."""
    place: Place
    has_workers: bool | None
    """Whether a loader in view runs it in workers; None: its loader is out of view."""
    by_name: bool
    """Only names say that it is a data set, or a collate function."""
    spawns: bool
    """The file sets how processes are started: on purpose, it may be."""
    is_sure: bool
    """A loader in view has workers, one of the project has, or a device is named: not kept on it on purpose."""
    workers_in_view: bool
    """A loader in this file has workers, or one in the project's files may have."""

    @property
    def moved(self) -> cst.BaseExpression | None:
        """What is moved, where the call does nothing else."""
        return self.call.receiver_node if self.call.method in ("to", "cuda") else None


@dataclass(frozen=True, eq=False)
class _Entry:
    """A function that a worker runs."""

    scope: Scope
    has_workers: bool | None
    by_name: bool


def worker_moves(module: Module) -> Iterator[WorkerMove]:
    if "torch" not in module.words:
        return
    loaders = list(module.calls_of(torch_known.LOADERS))
    spawns = not module.words.isdisjoint(known.SPAWNING_WORDS)
    seen: set[cst.CSTNode] = set()
    for entry in (*_data_sets(module, loaders), *_collating(module, loaders)):
        if entry.has_workers is False:
            continue
        elsewhere: list[bool] | None = None
        for scope in _run_by(module, entry.scope):
            for call in module.calls_in(scope):
                place = _puts_on(module, call)
                if place not in (Place.DEVICE, Place.VARIABLE) or call.statement in seen:
                    continue
                if elsewhere is None and entry.has_workers is None:
                    elsewhere = _workers_elsewhere(module, entry)
                if elsewhere is not None and not any(elsewhere):
                    break
                seen.add(call.statement)
                name = ".".join(entry.scope.qualname.lstrip(":").split(".")[-2:])
                in_view = bool(entry.has_workers or elsewhere)
                sure = in_view or (place is Place.DEVICE and not _keeps_all_on(module, entry.scope.enclosing_class()))
                yield WorkerMove(call, name, place, entry.has_workers, entry.by_name, spawns, sure, in_view)


# --- what runs in a worker ---


def _data_sets(module: Module, loaders: list[Call]) -> Iterator[_Entry]:
    for owner in module.scopes:
        if not owner.is_class:
            continue
        certain = bool(module.analysis.base_names(owner.qualname) & torch_known.DATASET_BASES)
        if not certain and not _looks_like_a_data_set(module, owner):
            continue
        has_workers = _any_workers(loaders, [call for call in loaders if _loads(call, owner.qualname)])
        for method in owner.children:
            if method.name in known.WORKER_METHODS:
                yield _Entry(method, has_workers, not certain)


def _looks_like_a_data_set(module: Module, owner: Scope) -> bool:
    """`class Frames(BaseDataset)` with the methods of one; the base is out of view."""
    methods = {child.name for child in owner.children}
    if "__getitem__" not in methods or module.analysis.is_module_class(owner.qualname):
        return False
    names = {owner.name, *(base.rpartition(".")[2] for base in module.analysis.base_names(owner.qualname))}
    return any("dataset" in words_of(name) or name.endswith("Dataset") for name in names)


def _collating(module: Module, loaders: list[Call]) -> Iterator[_Entry]:
    given: set[str] = set()
    for call in loaders:
        for keyword in known.WORKER_ARGUMENTS & call.keywords.keys():
            argument = call.keywords[keyword]
            for scope in _functions(module, argument.expression, argument.value):
                given.add(scope.qualname)
                yield _Entry(scope, _workers_of(call), by_name=False)
    if not any(known.COLLATE_WORD in scope.name.lower() for scope in module.scopes):
        return
    called = {name for call in module.calls for name in call.callee.quals}
    for scope in module.scopes:
        owner = scope.parent
        if scope.qualname in called:
            continue  # what calls it here is no worker
        named = known.COLLATE_WORD in scope.name.lower() and isinstance(scope.node, cst.FunctionDef)
        is_method = owner is not None and owner.is_class and scope.name != "__call__"
        if named and scope.qualname not in given and (not is_method or scope.name not in known.WORKER_METHODS):
            yield _Entry(scope, _any_workers(loaders, []), by_name=True)


def _functions(module: Module, node: cst.BaseExpression, value: Value) -> Iterator[Scope]:
    if isinstance(node, cst.Lambda):
        yield module.analysis.scope_of(node)
    for name in value.quals:
        scope = module.analysis.scope_named(name)
        if scope is not None:
            yield scope
    if value.cls is not None and value.cls.startswith(":"):
        called = module.analysis.method(value.cls, "__call__")
        if called is not None:
            yield called


def _run_by(module: Module, scope: Scope) -> Iterator[Scope]:
    """The function, what is nested in it, and the methods of its class that it calls."""
    pending, seen = [scope], {scope}
    while pending:
        current = pending.pop()
        yield current
        called = [
            method
            for call in module.calls_in(current)
            for name in call.callee.quals
            if (method := module.analysis.scope_named(name)) is not None and method.parent is scope.parent
        ]
        for inner in (*called, *current.children):
            # Of the functions of a class; those of the file the training loop may call as well.
            if inner.is_function and inner not in seen and inner.parent is not module.analysis.root:
                seen.add(inner)
                pending.append(inner)


# --- does its loader have workers? ---


def _any_workers(loaders: list[Call], its: list[Call]) -> bool | None:
    """Whether one of its loaders has workers, or none of all in view has. None: it is not known."""
    found = [_workers_of(call) for call in its or loaders]
    if not found:
        return None
    if not its:
        return False if all(workers is False for workers in found) else None
    return True if True in found else (None if None in found else False)


def _loads(call: Call, name: str) -> bool:
    data = call.positional[0] if call.positional else call.keywords.get("dataset")
    return data is not None and data.value.cls == name


def _workers_of(call: Call) -> bool | None:
    given = call.keywords.get(known.NUM_WORKERS)
    if given is None and len(call.positional) > known.NUM_WORKERS_POSITION:
        given = call.positional[known.NUM_WORKERS_POSITION]
    if given is None:
        return None if call.unpacks else False
    return given.value.literal != "0"


def _workers_elsewhere(module: Module, entry: _Entry) -> list[bool] | None:
    """Whether each loader in a file that mentions the class, or the function, may have workers; None: there is none."""
    view, owner = module.analysis.view, entry.scope
    if view is None:
        return None
    name = owner.parent.name if owner.parent is not None and owner.parent.is_class else owner.name
    return list(view.loaders_with(name)) or None


# --- what puts something on a device ---


def _keeps_all_on(module: Module, owner: Scope | None) -> bool:
    """Its constructor puts the data on the device: it is meant for the main process."""
    made = module.analysis.method(owner.qualname, "__init__") if owner is not None else None
    if made is None:
        return False
    moved = (call for call in module.calls_in(made) if isinstance(call.statement, cst.Assign))
    return any(_puts_on(module, call) in (Place.DEVICE, Place.VARIABLE) for call in moved)


def _puts_on(module: Module, call: Call) -> Place | None:
    if call.callee.quals:
        if any(name.startswith("torch.cuda.") and name.endswith("Tensor") for name in call.callee.quals):
            return Place.DEVICE
        if not all(name.startswith("torch.") for name in call.callee.quals):
            return None
        if "device" in call.keywords:
            return _unless_of_a_device_object(call, moved_to(module, call))
        for keyword in known.DEVICE_ARGUMENTS & call.keywords.keys():
            return place_of(module, call.scope, call.keywords[keyword].expression)
        return None
    if call.receiver is None or call.receiver.kind in (Kind.LOADER, Kind.DATASET):
        return None
    if call.method in ("to", "cuda") or (call.method or "").startswith("new_"):
        return moved_to(module, call)
    return None


def _unless_of_a_device_object(call: Call, place: Place | None) -> Place | None:
    """`torch.device(...)` and generators allocate nothing."""
    names = {name.rpartition(".")[2] for name in call.callee.quals}
    return None if names & {"device", "Generator", "autocast"} else place
