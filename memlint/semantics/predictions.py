"""Outputs that are collected on the device, to be moved to the host when the loop is over."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import libcst as cst

from memlint.semantics.devices import Place, moved_to, uses_a_device
from memlint.semantics.events import Call, Loop, Store
from memlint.semantics.host_moves import Collection, moved_after, takes
from memlint.semantics.knowledge import lightning_hooks as hooks
from memlint.semantics.knowledge import predictions as known
from memlint.semantics.loaders import is_named_loader, unwrapped
from memlint.semantics.model_outputs import Key, Outputs, Source, display_parts, runs_a_model
from memlint.semantics.module import Module
from memlint.semantics.naming import words_of
from memlint.semantics.retention import retentions
from memlint.semantics.scopes import Scope, chain_of, parameters, path_of, target_names, walk
from memlint.semantics.step_outputs import attribute_of, bases_in_view, empties, is_lightning, reached_from
from memlint.semantics.values import Grad, Mode, Value


@dataclass(frozen=True, eq=False)
class PiledPredictions:
    """A list of the outputs of all batches that goes to the host as a whole."""

    node: cst.CSTNode
    """The store into the list, or the comprehension that makes it."""
    output: cst.BaseExpression
    moved: Call | None
    """The call that moves everything to the host; None: whoever reads it is out of view."""
    certain: bool
    """It surely loops over a loader."""
    grows: bool = False
    """No list: `preds = torch.cat((preds, out))` copies, each time, all that there is."""
    of_one_input: bool = False
    """The batches are pieces of one tensor, which is where the model is: its outputs may well be there too."""

    @property
    def tensor(self) -> cst.BaseExpression:
        """The output itself: of `outputs += [model(x)]` what stands in the list."""
        node = self.output
        return node.elements[0].value if isinstance(node, cst.List) else node


def piled_predictions(module: Module) -> Iterator[PiledPredictions]:
    if module.words.isdisjoint(known.TRIGGERS) or "torch" not in module.words:
        return
    for store in module.stores:
        found = _in_loop(module, store)
        if found is not None:
            yield found
    for loop in module.loops:
        found = _in_comprehension(module, loop)
        if found is not None:
            yield found
    if not module.words.isdisjoint(known.JOINING_WORDS):
        for call in module.calls:
            found = _growing(module, call)
            if found is not None:
                yield found
    yield from _in_hooks(module)
    yield from _returned_by_steps(module)


# --- a list that a loop fills ---


def _in_loop(module: Module, store: Store) -> PiledPredictions | None:
    if not _is_collected(store) or not store.carried_by:
        return None
    if not _keeps_no_graph(module, store):
        return None
    may_train = store.value.grad is Grad.NO and store.mode is not Mode.OFF  # `preds.append(out.detach())`
    kept: list[tuple[Key, cst.BaseExpression]] = []
    source: Source | None = None
    for loop in store.carried_by:
        outputs = Outputs(module, loop.node)
        kept = _outputs_in(outputs, store.value_node)
        if kept:
            source = outputs.source(kept[0][1])
            break
    found = _evaluating(module, store.carried_by, store.boxes, source, may_train=may_train) if kept else None
    if found is None or not _piles_up(module, store, found) or not module.once(uses_a_device):
        return None
    later = [call for call in module.calls if not _within(call, found) and not _earlier(call, store)]
    return _moved_later(module, store, kept, later, found.draws_from_loader, _cuts_one_input(module, found))


def _keeps_no_graph(module: Module, store: Store) -> bool:
    """Whether what is put away carries no graph; where the caller decides about grad mode, unless MEM102 asks it."""
    if store.value.grad is Grad.NO or store.mode is Mode.OFF or _ran_without_grad(module, store.value):
        return True
    is_asked = any(retention.store is store for retention in retentions(module))
    return store.mode in (Mode.ENTRY, Mode.UNKNOWN) and not is_asked


def _is_collected(store: Store) -> bool:
    return store.how in ("append", "extend", "insert", "setitem") and bool(store.boxes)


def _outputs_in(outputs: Outputs, node: cst.BaseExpression) -> list[tuple[Key, cst.BaseExpression]]:
    """The outputs in what is put away, with their place in it: `("logits", out)` of `{"logits": out, "y": y}`."""
    parts = list(display_parts(node)) or [(None, node)]
    return [(key, part) for key, part in parts if outputs.source(part) is not None]


def _moved_later(
    module: Module,
    store: Store,
    kept: list[tuple[Key, cst.BaseExpression]],
    later: list[Call],
    certain: bool,
    pieces: bool = False,
) -> PiledPredictions | None:
    for key, output in kept:
        moved = Collection(module, store.boxes, key, later).moved()
        if moved is not None:
            return PiledPredictions(store.node, output, moved, certain, of_one_input=pieces)
    return None


def _piles_up(module: Module, store: Store, loop: Loop) -> bool:
    """Whether each batch brings new keys: `results[name] = out` for each name of the batch, no `feats[layer] = out`."""
    if isinstance(store.node, cst.Subscript):
        return any(_is_of_the_batch(loop, part) for element in store.node.slice for part in walk(element))
    call = store.node if isinstance(store.node, cst.Call) else None
    is_update = call is not None and isinstance(call.func, cst.Attribute) and call.func.attr.value == "update"
    return not is_update or not list(display_parts(store.value_node))


def _is_of_the_batch(loop: Loop, node: cst.CSTNode) -> bool:
    """A name that the loop, or what it is given, decides."""
    if not isinstance(node, cst.Name) or not isinstance(loop.node, cst.For):
        return False
    names = set(target_names(loop.node.target))
    for part in walk(loop.node.body):
        if isinstance(part, cst.Assign) and _mentions(part.value, names):
            names.update(name for target in part.targets for name in target_names(target.target))
        elif isinstance(part, (cst.For, cst.CompFor)) and _mentions(part.iter, names):
            names.update(target_names(part.target))
    return node.value in names


def _mentions(node: cst.CSTNode, names: set[str]) -> bool:
    return any(isinstance(part, cst.Name) and part.value in names for part in walk(node))


# --- a list that the hooks of a framework fill ---


def _in_hooks(module: Module) -> Iterator[PiledPredictions]:
    """`self.preds.append(outputs)` in `on_predict_batch_end`, `torch.cat(self.preds).cpu()` at the end of the epoch."""
    if module.words.isdisjoint(hooks.EVALUATION_STEPS):
        return
    seen: set[int] = set()
    for owner in module.scopes:
        if not owner.is_class or not any(is_lightning(base) for base in module.analysis.base_names(owner.qualname)):
            continue
        bases = bases_in_view(module, owner)
        steps = reached_from(module, owner, hooks.EVALUATION_STEPS, bases)
        training = reached_from(module, owner, hooks.TRAINING_STEPS, bases)
        later = [call for call in module.calls if call.scope not in steps]
        for store in module.stores:
            if store.scope not in steps or store.scope in training or not _is_collected(store) or id(store) in seen:
                continue
            found = _in_hook(module, owner, store, steps, later)
            if found is not None:
                seen.add(id(store))
                yield found


def _in_hook(
    module: Module, owner: Scope, store: Store, steps: dict[Scope, str], later: list[Call]
) -> PiledPredictions | None:
    attribute = attribute_of(store)
    if attribute is None or any(module.box(box).bounded for box in store.boxes):
        return None
    if any(empties(module, scope, attribute, owner) for scope in steps):
        return None  # once a batch
    node = store.scope.node
    names = {param.name.value for param in parameters(node.params)} if isinstance(node, cst.FunctionDef) else set()
    given = hooks.OUTPUT_PARAMETERS & names
    kept = _outputs_in(Outputs(module, node, given), store.value_node)
    found = _moved_later(module, store, kept, later, certain=True)
    if found is None and kept and steps[store.scope] in hooks.AFTER_PREDICTING and not module.words & {"cpu", "to"}:
        return PiledPredictions(store.node, kept[0][1], None, certain=False)
    return found


# --- what Lightning before 2.0 collects ---


def _returned_by_steps(module: Module) -> Iterator[PiledPredictions]:
    """`return {"preds": self(x)}` in `validation_step`, of which `validation_epoch_end` is given all."""
    if module.words.isdisjoint(hooks.GIVEN_ALL.values()):
        return
    for owner in module.scopes:
        if not owner.is_class or not any(is_lightning(base) for base in module.analysis.base_names(owner.qualname)):
            continue
        methods = {child.name: child for child in owner.children if isinstance(child.node, cst.FunctionDef)}
        for step, end in hooks.GIVEN_ALL.items():
            if step in methods and end in methods:
                yield from _returned_by(module, methods[step], methods[end])


def _returned_by(module: Module, step: Scope, end: Scope) -> Iterator[PiledPredictions]:
    params = parameters(end.node.params) if isinstance(end.node, cst.FunctionDef) else []
    if len(params) < 2:
        return
    later = module.calls_in(end)
    outputs = Outputs(module, step.node)
    for node in walk(step.node):
        value = node.value if isinstance(node, cst.Return) else None
        for key, output in _outputs_in(outputs, value) if value is not None else ():
            moved = Collection(module, frozenset(), key, later, params[1]).moved()
            if moved is not None:
                yield PiledPredictions(output, output, moved, certain=True)


# --- a list that a comprehension makes, a tensor that grows ---


def _ran_without_grad(module: Module, value: Value) -> bool:
    """The models that may have made it all ran with grad off, whatever the mode is where it is kept."""
    made = (module.call_at(module.analysis.roots[root].node) for root in value.roots)
    models = [call for call in made if call is not None and runs_a_model(call)]
    return bool(models) and all(call.mode is Mode.OFF for call in models)


def _growing(module: Module, call: Call) -> PiledPredictions | None:
    """`preds = out if preds is None else torch.cat((preds, out))` in an evaluation loop, `preds.cpu()` after it."""
    if call.loop is None or not (call.names(known.JOINS) or call.names(known.NESTED_JOINS)) or not call.positional:
        return None
    path, added = _grown(call)
    statement = call.statement
    if path is None or added is None or not isinstance(statement, cst.Assign):
        return None
    loop = _evaluating(module, call.loop.outer(), frozenset(), None)
    if loop is None or not _only_grows(loop.node, path) or Outputs(module, loop.node).source(added) is None:
        return None
    if not _carries_no_graph(module, call, added):
        return None
    inside = [other for other in module.calls_in(call.scope) if _within(other, loop) and other is not call]
    roots = call.result.idents
    if not roots or any(takes(other, roots) for other in inside) or not module.once(uses_a_device):
        return None
    last = max((other.order for other in (*inside, call)), default=0)
    after = [other for other in module.calls_in(call.scope) if other.order > last]
    moved = moved_after(module, call, after, last)
    if moved is None:
        return None
    pieces = _cuts_one_input(module, loop)
    return PiledPredictions(call.node, added, moved, loop.draws_from_loader, grows=True, of_one_input=pieces)


def _grown(call: Call) -> tuple[str | None, cst.BaseExpression | None]:
    """The variable that grows, and what is added to it."""
    statement, parts = call.statement, [argument.expression for argument in call.positional[:2]]
    if call.names(known.JOINS):
        together = parts[0]
        if not isinstance(together, (cst.Tuple, cst.List)):
            return None, None
        parts = [element.value for element in together.elements]
    if not isinstance(statement, cst.Assign) or len(statement.targets) != 1 or len(parts) != 2:
        return None, None
    value, path = statement.value, path_of(statement.targets[0].target)
    chosen = (value.body, value.orelse) if isinstance(value, cst.IfExp) else (value,)
    if path is None or path_of(parts[0]) != path or not any(item is call.node for item in chosen):
        return None, None
    return path, parts[1]


def _only_grows(loop: cst.CSTNode, path: str) -> bool:
    """Nothing in the loop sets it anew, but for what the first batch gives."""
    for node in walk(loop):
        if isinstance(node, (cst.AssignTarget, cst.NamedExpr)) and isinstance(node.target, cst.Tuple):
            if any(path_of(element.value) == path for element in node.target.elements):
                return False  # `preds, labels = None, None`
        elif isinstance(node, cst.Assign) and any(path_of(item.target) == path for item in node.targets):
            if path_of(node.value) == "None" or isinstance(node.value, (cst.List, cst.Subscript)):
                return False
            if isinstance(node.value, cst.Call) and path_of(node.value.func) in ("torch.empty", "torch.zeros"):
                return False
        elif isinstance(node, (cst.For, cst.CompFor)) and path_of(node.target) == path:
            return False
    return True


def _carries_no_graph(module: Module, call: Call, added: cst.BaseExpression) -> bool:
    if call.mode is Mode.OFF or call.result.grad is Grad.NO:
        return True
    return _ran_without_grad(module, call.result)


def _in_comprehension(module: Module, loop: Loop) -> PiledPredictions | None:
    """`torch.cat([model(x.to(device)) for x in loader]).cpu()`."""
    node = loop.node
    if not isinstance(node, cst.ListComp) or node.for_in.ifs or node.for_in.inner_for_in is not None:
        return None
    if not loop.draws_from_loader and not loop.feeds_forward:
        return None
    calls = [call for call in module.calls_in(loop.scope) if call.loop is loop]
    if not calls or any(call.mode is not Mode.OFF for call in calls) or loop.runs_layers:
        return None
    box = next((index for index, box in enumerate(module.analysis.boxes) if box.node is node), None)
    if box is None or Outputs(module, node).source(node.elt) is None or not module.once(uses_a_device):
        return None
    later = [call for call in module.calls if not _within(call, loop)]
    moved = Collection(module, frozenset({box}), None, later).moved()
    if moved is None:
        return None
    pieces = _cuts_one_input(module, loop)
    return PiledPredictions(node, node.elt, moved, loop.draws_from_loader, of_one_input=pieces)


# --- the loop over batches ---


def _evaluating(
    module: Module,
    loops: Sequence[Loop],
    boxes: frozenset[int],
    source: Source | None,
    *,
    may_train: bool = False,
) -> Loop | None:
    """The loop over batches around the store; nothing in it trains, nothing empties the list."""
    for loop in loops:
        if loop.is_comprehension or (loop.is_training_loop and not may_train):
            return None
        if any(loop.node in module.box(box).emptied_in or module.box(box).bounded for box in boxes):
            return None
        if loop.runs_layers:
            continue
        if loop.draws_from_loader or loop.feeds_forward or _takes_batches(module, loop) or _draws_noise(loop, source):
            return loop
    return None


def _draws_noise(loop: Loop, source: Source | None) -> bool:
    """`generator(torch.randn(64, 100))`: each round makes samples of its own."""
    if not isinstance(source, Call):
        return False
    return any(_is_noise(loop, argument.expression) for argument in (*source.positional, *source.keywords.values()))


def _is_noise(loop: Loop, node: cst.BaseExpression) -> bool:
    """`torch.randn(64, 100).to(device)`, or a name that the loop gives nothing else."""
    if isinstance(node, cst.Name):
        assigned = [item for item in walk(loop.node) if isinstance(item, cst.Assign)]
        made = [item.value for item in assigned if any(node.value in target_names(to.target) for to in item.targets)]
        return bool(made) and all(not isinstance(value, cst.Name) and _is_noise(loop, value) for value in made)
    for call in chain_of(node):
        node = call if path_of(call.func) in known.NOISE else call.func.value  # type: ignore[attr-defined]
    return isinstance(node, cst.Call) and path_of(node.func) in known.NOISE


def _takes_batches(module: Module, loop: Loop) -> bool:
    """By its names, or because each round cuts a batch out: `x[i : i + batch_size]`."""
    node = loop.node
    if not isinstance(node, cst.For) or loop.iterable is None:
        return False
    if is_named_loader(module, loop.iterable, loop.iterates):
        return True
    iterable = unwrapped(module, loop.iterable)
    path = path_of(iterable)
    if path is not None:
        return not words_of(path.rpartition(".")[2]).isdisjoint(known.BATCH_WORDS)
    call = module.call_at(iterable)
    if call is None or not call.names({"range"}):
        return False
    return _slices_by(node.target, node.body)


def _slices_by(target: cst.BaseExpression, body: cst.CSTNode) -> bool:
    counters = {part.value for part in walk(target) if isinstance(part, cst.Name)}
    slices = (part for part in walk(body) if isinstance(part, cst.Slice))
    return any(isinstance(part, cst.Name) and part.value in counters for item in slices for part in walk(item))


def _cuts_one_input(module: Module, loop: Loop) -> bool:
    """`model(rays[i : i + 1024])`, `for piece in rays.split(1024)`, with no move to the device in the loop."""
    node, call = loop.node, module.call_at(loop.source) if loop.source is not None else None
    if call is None or loop.item is None or not isinstance(node, (cst.For, cst.ListComp)):
        return False
    cut = call.names(known.SPLITS) or (call.method in known.SPLITTING_METHODS and not call.callee.quals)
    if not cut and not (call.names({"range"}) and _slices_by(loop.item, node)):
        return False
    inside = [item for item in module.calls_in(loop.scope) if _within(item, loop)]
    every = (*inside, *_calls_in_callees(module, inside))
    return not any(_moves_in(module, item) for item in every)


def _moves_in(module: Module, call: Call) -> bool:
    """`.cuda()`, `.to(device)`, whatever the device is by default."""
    place = moved_to(module, call)
    by_variable = call.method == "to" and bool(call.positional) and path_of(call.positional[0].expression) is not None
    return place in (Place.DEVICE, Place.VARIABLE) or (place is Place.HOST and by_variable)


def _calls_in_callees(module: Module, calls: list[Call], depth: int = 3) -> Iterator[Call]:
    """What functions of this file call in turn: `self.embed(texts[i : i + 32])` may move its inputs itself."""
    names = {name for call in calls for name in call.callee.quals if name.startswith(":")}
    for scope in (module.analysis.scope_named(name) for name in names):
        if scope is not None and depth > 0:
            inner = module.calls_in(scope)
            yield from inner
            yield from _calls_in_callees(module, inner, depth - 1)


def _within(call: Call, loop: Loop) -> bool:
    return call.loop is not None and any(item.node is loop.node for item in call.loop.outer())


def _earlier(call: Call, store: Store | None) -> bool:
    return store is not None and call.scope is store.scope and call.order < store.order
