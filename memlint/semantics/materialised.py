"""All batches of a loader, held at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

import libcst as cst

from memlint.project.names import is_symbol
from memlint.semantics.devices import Place, moved_to
from memlint.semantics.events import Call, Loop
from memlint.semantics.knowledge import loaders as known
from memlint.semantics.knowledge import torch as torch_known
from memlint.semantics.loaders import hands_out_few, is_named_loader, made_by, unwrapped
from memlint.semantics.module import Module
from memlint.semantics.naming import words_of
from memlint.semantics.scopes import nodes_of, path_of, walk
from memlint.semantics.values import Kind, Value

_COMPREHENSIONS = (cst.ListComp, cst.SetComp, cst.DictComp, cst.GeneratorExp)


class Part(Enum):
    """How much of a batch an expression keeps."""

    WHOLE = "whole"
    INPUTS = "inputs"
    """The first of its parts, or what stands under a key such as `image`."""
    REST = "rest"
    """Targets, indices: small as a rule."""


@dataclass(frozen=True, eq=False)
class HeldBatches:
    """An expression that holds what a whole pass over a loader gives."""

    node: cst.BaseExpression
    iterable: cst.BaseExpression
    on_device: bool
    certain: bool
    """It is surely a loader, and whole batches are kept."""
    call: Call | None
    """`list(loader)` and the like; None: a comprehension."""
    looped_over: bool
    """It is what a `for` loop iterates over, one batch at a time."""
    is_cache: bool
    """A loop inside another one or in a nested function reads it again and again, or its name or the function's says
    so: made on purpose."""


def held_batches(module: Module) -> Iterator[HeldBatches]:
    if "torch" not in module.words:
        return
    seen: set[int] = set()
    drained: dict[int, Call] = {}
    for call in module.calls:
        if not call.names(known.HOLDS_EVERY_ITEM) or not call.positional or call.unpacks:
            continue
        if not known.BOUNDED.isdisjoint(call.keywords) or (
            call.names({"collections.deque"}) and len(call.positional) > 1
        ):
            continue
        argument = call.positional[0]
        if isinstance(argument.expression, cst.GeneratorExp):
            drained[id(argument.expression)] = call
            continue
        certain = _is_loader(module, argument.expression, argument.value)
        if certain is None or id(call.node) in seen or _is_in_memory(module, argument.expression, argument.value):
            continue
        if isinstance(call.statement, cst.Assign) and _says_few(call.statement.targets[0].target):
            continue
        seen.add(id(call.node))
        yield _held(module, call, call.call, argument.expression, False, certain, call)
    for loop in module.loops:
        found = _in_comprehension(module, loop, drained)
        if found is not None and id(found.node) not in seen:
            seen.add(id(found.node))
            yield found


def _says_few(target: cst.BaseExpression) -> bool:
    """`fixed_batches = list(val_loader)`."""
    path = path_of(target)
    return path is not None and not words_of(path.rpartition(".")[2]).isdisjoint(known.FEW_WORDS)


def _held(
    module: Module,
    event: Call | Loop,
    node: cst.BaseExpression,
    iterable: cst.BaseExpression,
    on_device: bool,
    certain: bool,
    call: Call | None,
) -> HeldBatches:
    box = _box_made_by(module, node)
    loops = [loop for loop in module.loops if not loop.is_comprehension and _iterates(module, loop, node, box)]
    directly = any(loop.iterable is not None and unwrapped(module, loop.iterable) is node for loop in loops)
    born_in = module.box(box).born_in if box is not None else frozenset()
    reused = not directly and any(outer.node not in born_in for loop in loops for outer in loop.outer()[1:])
    is_named = not words_of(event.scope.name).isdisjoint(known.CACHE_WORDS)
    is_cache = reused or is_named or _is_read_by_closures(module, event, node)
    return HeldBatches(node, iterable, on_device, certain, call, directly, is_cache)


def _is_read_by_closures(module: Module, event: Call | Loop, node: cst.BaseExpression) -> bool:
    """A loop in a function nested in this one reads it whenever that is called: the closure of an L-BFGS step."""
    if not event.scope.is_function or not event.scope.children:
        return False
    holding = (item for item in nodes_of(event.scope.node, cst.Assign) if item.value is node)
    names = {path_of(target.target) for item in holding for target in item.targets} & event.scope.captured()
    inner = set(event.scope.descendants())
    return any(
        loop.scope in inner and loop.iterable is not None and path_of(unwrapped(module, loop.iterable)) in names
        for loop in module.loops
    )


def _box_made_by(module: Module, node: cst.BaseExpression) -> int | None:
    return next((index for index, box in enumerate(module.analysis.boxes) if box.node is node), None)


def _iterates(module: Module, loop: Loop, node: cst.BaseExpression, box: int | None) -> bool:
    if loop.iterable is None:
        return False
    inner = unwrapped(module, loop.iterable)
    if inner is node:
        return True
    call = module.call_at(loop.iterable)
    values = [loop.iterates, *(argument.value for argument in call.positional)] if call is not None else [loop.iterates]
    return box is not None and any(box in value.boxes for value in values)


# --- is it a loader, and of what? ---


def _is_loader(module: Module, node: cst.BaseExpression, value: Value) -> bool | None:
    """True: surely. False: by its name. None: it is none, or it hands out a few batches only."""
    if hands_out_few(module, node, value) or _is_chosen(module, node, value) or _runs_in_parallel(module, node, value):
        return None
    if _is_of_own_class(module, node, value):
        return None  # whether it collates, and what, the constructor says
    if value.kind is Kind.LOADER:
        return not value.weak
    if not is_named_loader(module, node, value):
        return None
    path = path_of(unwrapped(module, node))
    if path is None or not (_says_data(path) or _is_drawn_from(module, path)):
        return None
    called = {name for scope in module.scopes for name in scope.methods_called.get(path, ())}
    return False if called.isdisjoint(known.NO_LOADER_METHODS) else None


def _says_data(path: str) -> bool:
    """`train_loader`, not `yaml_loader`: all that the name says is a role of data."""
    words = words_of(path.rpartition(".")[2])
    return all(word in known.DATA_WORDS or len(word) == 1 or word.endswith("loader") for word in words)


def _is_drawn_from(module: Module, path: str) -> bool:
    """A loop that takes batches from it: it takes them apart, or feeds them to a model."""
    return any(
        loop.iterable is not None
        and path_of(unwrapped(module, loop.iterable)) == path
        and (loop.feeds_forward or loop.has_backward or _takes_pairs(loop))
        for loop in module.loops
    )


def _takes_pairs(loop: Loop) -> bool:
    clause = loop.node.for_in if isinstance(loop.node, _COMPREHENSIONS) else loop.node
    return isinstance(clause, (cst.For, cst.CompFor)) and isinstance(clause.target, (cst.Tuple, cst.List))


def _loader_calls(module: Module, node: cst.BaseExpression, value: Value) -> Iterator[Call]:
    """The constructors of the loader, also behind `tqdm`."""
    for call in made_by(module, node, value):
        if call.names(torch_known.ITERATION_WRAPPERS) and call.positional:
            inner = call.positional[0]
            if inner.value is not value:
                yield from _loader_calls(module, inner.expression, inner.value)
        else:
            yield call


def _runs_in_parallel(module: Module, node: cst.BaseExpression, value: Value) -> bool:
    """Nothing is collated: the loader's workers run a function, whatever it returns."""
    for call in _loader_calls(module, node, value):
        size, collate = call.keywords.get("batch_size"), call.keywords.get("collate_fn")
        if size is not None and size.value.kind is Kind.NONE:
            return True
        if collate is not None and collate.value.quals and collate.value.quals <= known.NOT_COLLATING:
            return True
    return False


def _is_of_own_class(module: Module, node: cst.BaseExpression, value: Value) -> bool:
    """The project has derived the loader from torch's; `iter` and the like may stand around it."""
    call = module.call_at(node)
    if call is not None and call.names(torch_known.ITERATION_WRAPPERS) and call.positional:
        inner = call.positional[0]
        return _is_of_own_class(module, inner.expression, inner.value)
    return value.cls is not None and (value.cls.startswith(":") or is_symbol(value.cls))


def _is_chosen(module: Module, node: cst.BaseExpression, value: Value) -> bool:
    """A few samples, on purpose: so says the name, or it loads a `Subset`."""
    return _says_few(unwrapped(module, node)) or _loads_any(module, node, value, known.CHOSEN_DATASETS)


def _is_in_memory(module: Module, node: cst.BaseExpression, value: Value) -> bool:
    """The loader cuts a data set into batches that is in memory anyway."""
    return _loads_any(module, node, value, known.IN_MEMORY_DATASETS)


def _loads_any(module: Module, node: cst.BaseExpression, value: Value, classes: frozenset[str]) -> bool:
    for call in _loader_calls(module, node, value):
        data = call.positional[0] if call.positional else call.keywords.get("dataset")
        if data is None:
            continue
        made = [module.call_at(data.expression), *(module.call_at(item) for item in module.definitions(data.value))]
        if data.value.cls in classes or any(item is not None and item.names(classes) for item in made):
            return True
    return False


# --- comprehensions ---


def _in_comprehension(module: Module, loop: Loop, drained: dict[int, Call]) -> HeldBatches | None:
    node = loop.node
    if not isinstance(node, (cst.ListComp, cst.SetComp, cst.DictComp, cst.GeneratorExp)) or loop.iterable is None:
        return None
    call = drained.get(id(node))
    if isinstance(node, cst.GeneratorExp) and call is None:
        return None
    is_dataset = loop.iterates.kind is Kind.DATASET
    certain = False if is_dataset else _is_loader(module, loop.iterable, loop.iterates)
    if certain is None:
        return None
    element = node.value if isinstance(node, cst.DictComp) else node.elt
    on_device = any(_moves(module, part) for part in walk(element))
    if not on_device and (is_dataset or _is_in_memory(module, loop.iterable, loop.iterates)):
        return None
    parts = _bound(module, node.for_in.target, loop.iterable, Part.WHOLE)
    clause: cst.CompFor | None = node.for_in
    while clause is not None:
        if clause.ifs:
            return None  # a selection
        clause = clause.inner_for_in
        if clause is not None:
            inner = _kept(module, clause.iter, parts)
            parts |= _bound(module, clause.target, clause.iter, inner) if inner is not None else {}
    kept = _kept(module, element, parts)
    if kept is None or kept is Part.REST:
        return None
    whole = node if call is None else call.call
    return _held(module, loop, whole, loop.iterable, on_device, certain and kept is Part.WHOLE, call)


def _bound(module: Module, target: cst.BaseExpression, iterable: cst.BaseExpression, part: Part) -> dict[str, Part]:
    """Which part of a batch each name of a target holds."""
    call = module.call_at(iterable)
    pair = list(target.elements) if isinstance(target, (cst.Tuple, cst.List)) else []
    if call is not None and call.names(torch_known.ITERATION_WRAPPERS) and call.positional:
        if call.names({"enumerate", "tqdm.contrib.tenumerate"}):
            return _bound(module, pair[1].value, call.positional[0].expression, part) if len(pair) == 2 else {}
        if call.names({"zip"}):
            found: dict[str, Part] = {}
            for element, argument in zip(pair, call.positional, strict=False):
                found |= _bound(module, element.value, argument.expression, part)
            return found
        return _bound(module, target, call.positional[0].expression, part)
    if call is not None and call.method == "items" and len(pair) == 2:
        return _names(pair[1].value, part)
    if not pair or part is not Part.WHOLE:
        return _names(target, part)
    first, *others = pair
    if len(pair) == 1:
        return _names(first.value, part)
    return {
        **_names(first.value, Part.INPUTS),
        **{name: Part.REST for element in others for name in _names(element.value, Part.REST)},
    }


def _names(target: cst.BaseExpression, part: Part) -> dict[str, Part]:
    return {node.value: part for node in walk(target) if isinstance(node, cst.Name)}


def _kept(module: Module, node: cst.BaseExpression, parts: dict[str, Part]) -> Part | None:
    """How much of the batch an expression keeps; None: nothing, or it is not known."""
    if isinstance(node, cst.Name):
        return parts.get(node.value)
    if isinstance(node, (cst.Tuple, cst.List, cst.Set)):
        return _most(_kept(module, element.value, parts) for element in node.elements)
    if isinstance(node, cst.Dict):
        return _most(_kept(module, element.value, parts) for element in node.elements)
    if isinstance(node, cst.Subscript):
        return _kept_item(node, _kept(module, node.value, parts))
    if isinstance(node, _COMPREHENSIONS):
        inner = _kept(module, node.for_in.iter, parts)
        if inner is None or node.for_in.inner_for_in is not None:
            return None
        element = node.value if isinstance(node, cst.DictComp) else node.elt
        bound = _bound(module, node.for_in.target, node.for_in.iter, inner)
        kept = _kept(module, element, parts | bound)
        return inner if kept is not None else None
    if isinstance(node, cst.Call):
        return _kept_by_call(module, node, parts)
    return None


def _kept_by_call(module: Module, node: cst.Call, parts: dict[str, Part]) -> Part | None:
    call = module.call_at(node)
    if call is None:
        return None
    if call.names(known.HOLDS_EVERY_ITEM) or _moves_by_name(call):
        return _most(_kept(module, argument.expression, parts) for argument in call.positional)
    same = torch_known.COPYING_METHODS | torch_known.SHAPING_METHODS | known.SAME_DATA_METHODS
    if call.method in same and call.receiver_node is not None and not call.callee.quals:
        return _kept(module, call.receiver_node, parts)
    return None


def _kept_item(node: cst.Subscript, whole: Part | None) -> Part | None:
    index = node.slice[0].slice
    if whole is not Part.WHOLE or len(node.slice) != 1 or not isinstance(index, cst.Index):
        return None
    if isinstance(index.value, cst.Integer):
        return Part.INPUTS if index.value.value == "0" else Part.REST
    is_input = isinstance(index.value, cst.SimpleString) and index.value.evaluated_value in known.INPUT_KEYS
    return Part.INPUTS if is_input else None


def _most(parts: Iterator[Part | None]) -> Part | None:
    found = set(parts)
    return next((part for part in (Part.WHOLE, Part.INPUTS, Part.REST) if part in found), None)


def _moves(module: Module, node: cst.CSTNode) -> bool:
    call = module.call_at(node)
    if call is None:
        return False
    return _moves_by_name(call) or moved_to(module, call) in (Place.DEVICE, Place.VARIABLE)


def _moves_by_name(call: Call) -> bool:
    """`to_device(batch, device)`, `move_to_cuda(batch)`."""
    name = path_of(call.call.func)
    return name is not None and call.receiver is None and not words_of(name).isdisjoint({"device", "cuda", "gpu"})
