"""Outputs that are collected on the device, to be moved to the host when the loop is over."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import libcst as cst

from memlint.semantics.devices import Place, moved_to, uses_a_device
from memlint.semantics.events import Call, Loop, Store
from memlint.semantics.knowledge import predictions as known
from memlint.semantics.loaders import is_named_loader, unwrapped
from memlint.semantics.module import Module
from memlint.semantics.naming import words_of
from memlint.semantics.scopes import chain_of, path_of, walk
from memlint.semantics.values import Grad, Kind, Mode, Value

_DEPTH = 8


@dataclass(frozen=True, eq=False)
class PiledPredictions:
    """A list of the outputs of all batches that goes to the host as a whole."""

    node: cst.CSTNode
    """The store into the list, or the comprehension that makes it."""
    output: cst.BaseExpression
    moved: Call
    """The call that moves everything to the host."""
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
        if store.how not in ("append", "extend") or not store.boxes:
            continue
        if (
            store.value.grad is not Grad.NO
            and store.mode is not Mode.OFF
            and not _ran_without_grad(module, store.value)
        ):
            continue
        loop = _evaluating_loop(module, store)
        if loop is None or not _is_output(module, store.value_node, loop.node, _DEPTH):
            continue
        if not module.once(uses_a_device):
            return
        moved = _moved_together(module, store.boxes, loop, store)
        if moved is not None:
            pieces = _cuts_one_input(module, loop)
            yield PiledPredictions(store.node, store.value_node, moved, loop.draws_from_loader, of_one_input=pieces)
    for loop in module.loops:
        found = _in_comprehension(module, loop)
        if found is not None:
            yield found
    if not module.words.isdisjoint(known.JOINING_WORDS):
        for call in module.calls:
            found = _growing(module, call)
            if found is not None:
                yield found


def _ran_without_grad(module: Module, value: Value) -> bool:
    """The models that may have made it all ran with grad off, whatever the mode is where it is kept."""
    made = (module.call_at(module.analysis.roots[root].node) for root in value.roots)
    models = [call for call in made if call is not None and _runs_a_model(call)]
    return bool(models) and all(call.mode is Mode.OFF for call in models)


# --- a tensor that grows ---


def _growing(module: Module, call: Call) -> PiledPredictions | None:
    """`preds = out if preds is None else torch.cat((preds, out))` in an evaluation loop, `preds.cpu()` after it."""
    if call.loop is None or not (call.names(known.JOINS) or call.names(known.NESTED_JOINS)) or not call.positional:
        return None
    path, added = _grown(call)
    statement = call.statement
    if path is None or added is None or not isinstance(statement, cst.Assign):
        return None
    loop = _evaluating(module, call.loop.outer(), frozenset())
    if loop is None or not _only_grows(loop.node, path) or not _is_output(module, added, loop.node, _DEPTH):
        return None
    if not _carries_no_graph(module, call, added):
        return None
    inside = [other for other in module.calls_in(call.scope) if _within(other, loop) and other is not call]
    roots = call.result.idents
    if not roots or any(_takes(other, roots) for other in inside) or not module.once(uses_a_device):
        return None
    last = max((other.order for other in (*inside, call)), default=0)
    after = [other for other in module.calls_in(call.scope) if other.order > last]
    moved = _moved_after(module, call, after, last)
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


def _takes(call: Call, roots: frozenset[int]) -> bool:
    given = (*call.positional, *call.keywords.values())
    received = call.receiver.idents if call.receiver is not None else frozenset()
    return bool(received & roots) or any(argument.value.idents & roots for argument in given)


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
    if box is None or not _is_output(module, node.elt, node, _DEPTH) or not module.once(uses_a_device):
        return None
    moved = _moved_together(module, frozenset({box}), loop, None)
    if moved is None:
        return None
    pieces = _cuts_one_input(module, loop)
    return PiledPredictions(node, node.elt, moved, loop.draws_from_loader, of_one_input=pieces)


def _evaluating_loop(module: Module, store: Store) -> Loop | None:
    """The loop over batches around the store; nothing in it trains, nothing empties the list."""
    return _evaluating(module, store.carried_by, store.boxes)


def _evaluating(module: Module, loops: Sequence[Loop], boxes: frozenset[int]) -> Loop | None:
    for loop in loops:
        if loop.is_comprehension or loop.is_training_loop:
            return None
        if any(loop.node in module.box(box).emptied_in or module.box(box).bounded for box in boxes):
            return None
        if not loop.runs_layers and (loop.draws_from_loader or loop.feeds_forward or _takes_batches(module, loop)):
            return loop
    return None


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
    node, call = loop.node, module.call_at(loop.iterable) if loop.iterable is not None else None
    if call is None or not isinstance(node, (cst.For, cst.ListComp)):
        return False
    target = node.target if isinstance(node, cst.For) else node.for_in.target
    cut = call.names(known.SPLITS) or (call.method in known.SPLITTING_METHODS and not call.callee.quals)
    if not cut and not (call.names({"range"}) and _slices_by(target, node)):
        return False
    inside = (item for item in module.calls_in(loop.scope) if _within(item, loop))
    return not any(moved_to(module, item) in (Place.DEVICE, Place.VARIABLE) for item in inside)


# --- is it what a model gives for a batch? ---


def _is_output(module: Module, node: cst.BaseExpression, inside: cst.CSTNode, depth: int) -> bool:
    """The output of a model, as large as it came: not reduced to numbers or classes, not on the host.

    `inside` is the loop, or the function, whose assignments say what a name is.
    """
    if depth == 0:
        return False
    if isinstance(node, cst.Name):
        made = list(_assigned_in(inside, node.value))
        return bool(made) and all(_is_output(module, item, inside, depth - 1) for item in made)
    if isinstance(node, cst.List) and len(node.elements) == 1:  # `outputs += [model(x)]`
        return _is_output(module, node.elements[0].value, inside, depth - 1)
    if isinstance(node, cst.Attribute):
        named = words_of(node.attr.value)
        return named.isdisjoint(known.LOSS_WORDS) and _is_output(module, node.value, inside, depth - 1)
    if isinstance(node, cst.Subscript):
        return _words_in(node).isdisjoint(known.LOSS_WORDS) and _is_output(module, node.value, inside, depth - 1)
    call = module.call_at(node)
    if call is None:
        return False
    if _runs_a_model(call):
        return not _is_criterion(call)
    own = next(iter(call.callee.quals), "") if len(call.callee.quals) == 1 else ""
    if own.startswith(":"):
        return not _is_criterion(call) and _returns_output(module, own, depth)
    name = call.method or own.rpartition(".")[2]
    if name not in known.SAME_SIZE or moved_to(module, call) is Place.HOST:
        return False
    if call.receiver_node is not None and not call.callee.quals:
        return _is_output(module, call.receiver_node, inside, depth - 1)
    return bool(call.positional) and _is_output(module, call.positional[0].expression, inside, depth - 1)


def _runs_a_model(call: Call) -> bool:
    """The call of a module, `model.encode(x)`, or of something unknown that is called a model."""
    if call.is_forward:
        return True
    if call.receiver is not None and call.receiver.kind is Kind.MODULE and not call.callee.quals:
        return call.method is not None and call.method not in known.NO_OUTPUT_METHODS
    path = path_of(call.call.func)
    named = path is not None and not words_of(path.rpartition(".")[2]).isdisjoint(known.MODEL_WORDS)
    return named and call.callee.kind is Kind.UNKNOWN and not call.callee.quals


def _returns_output(module: Module, function: str, depth: int) -> bool:
    """A function of this file whose every return is the output of a model."""
    scope = module.analysis.scope_named(function)
    if scope is None or not isinstance(scope.node, cst.FunctionDef) or scope.has_yield:
        return False
    returned = [node.value for node in walk(scope.node) if isinstance(node, cst.Return) and node.value is not None]
    return bool(returned) and all(_is_output(module, node, scope.node, depth - 1) for node in returned)


def _assigned_in(inside: cst.CSTNode, name: str) -> Iterator[cst.BaseExpression]:
    """What the code assigns to a name; of an unpacked call the call."""
    for node in walk(inside):
        if not isinstance(node, cst.Assign):
            continue
        for item in node.targets:
            names = [part.value for part in walk(item.target) if isinstance(part, cst.Name)]
            # `out = out.squeeze()`: what it was before decides.
            is_target = name in names and isinstance(item.target, (cst.Name, cst.Tuple))
            if is_target and (not _is_about(node.value, name) or _moves(node.value)):
                yield node.value


def _moves(node: cst.BaseExpression) -> bool:
    """`out[:n].to("cpu", non_blocking=True)`: where it is from now on, this decides."""
    return any(call.func.attr.value in ("to", "cpu") for call in chain_of(node))  # type: ignore[attr-defined]


def _is_about(node: cst.BaseExpression, name: str) -> bool:
    """A method chain, or a function of the same size, on the name itself."""
    while True:
        if isinstance(node, cst.Call):
            function = node.func.attr if isinstance(node.func, cst.Attribute) else node.func
            if not isinstance(function, cst.Name) or function.value not in known.SAME_SIZE:
                return False
            if node.args and _is_name(node.args[0].value, name):
                return True  # `torch.softmax(out, 1)`
            if not isinstance(node.func, cst.Attribute):
                return False
            node = node.func.value
        elif isinstance(node, (cst.Subscript, cst.Attribute)):
            node = node.value
        else:
            return _is_name(node, name)


def _is_name(node: cst.CSTNode, name: str) -> bool:
    return isinstance(node, cst.Name) and node.value == name


def _is_criterion(call: Call) -> bool:
    cls, path = call.callee.cls, path_of(call.call.func)
    if cls is not None and cls.rpartition(".")[2].endswith("Loss"):
        return True
    return path is not None and not words_of(path.rpartition(".")[2]).isdisjoint(known.LOSS_WORDS)


def _words_in(node: cst.Subscript) -> frozenset[str]:
    keys = (item.raw_value for element in node.slice for item in walk(element) if isinstance(item, cst.SimpleString))
    return frozenset(word for key in keys for word in words_of(key))


# --- does all of it go to the host? ---


def _moved_together(module: Module, boxes: frozenset[int], loop: Loop, store: Store | None) -> Call | None:
    """The call that moves all that is in the list to the host."""
    calls = [call for call in module.calls if not _within(call, loop) and not _earlier(call, store)]
    for call in calls:
        if call.names(known.JOINS) and call.positional and call.positional[0].value.boxes & boxes:
            moved = _moved_after(module, call, calls) or _moved_by_callers(module, call, calls)
            if moved is not None:
                return moved
    for call in calls:
        if call.loop is None or call.method not in known.HOST_METHODS | {"to"} or not _goes_to_host(module, call):
            continue
        reading = [item for item in call.loop.outer() if item.iterates.boxes & boxes]
        if any(call.receiver is not None and item.element in call.receiver.roots for item in reading):
            return call
    return None


def _goes_to_host(module: Module, call: Call) -> bool:
    return call.method == "tolist" or moved_to(module, call) is Place.HOST


def _moved_by_callers(module: Module, joined: Call, calls: list[Call]) -> Call | None:
    """`return torch.cat(outputs)`, of which every caller in view makes `predict(model, loader).cpu()`."""
    name = joined.scope.qualname
    callers = list(module.calls_of(frozenset({name})))
    if not callers or name in module.analysis.handed_over or any(caller.scope is joined.scope for caller in callers):
        return None
    if any(_takes(call, joined.result.idents) for call in calls if call.scope is joined.scope and call is not joined):
        return None
    index = _returned_at(joined)
    if index is None:
        return None
    moves = [_moved_by(module, caller, index) for caller in callers]
    return moves[0] if None not in moves else None


def _moved_by(module: Module, caller: Call, index: int) -> Call | None:
    """The call that moves what the function returned to the host, if that is what the caller does with it."""
    statement = caller.statement
    if not isinstance(statement, cst.Assign) or statement.value is not caller.node or len(statement.targets) != 1:
        return _moved_chain(module, caller.node) if index < 0 else None
    target: cst.BaseExpression = statement.targets[0].target
    if index >= 0:
        if not isinstance(target, cst.Tuple) or index >= len(target.elements):
            return None
        target = target.elements[index].value
    if not isinstance(target, cst.Name):
        return None
    found: Call | None = None
    nodes = list(walk(caller.scope.node))
    at = next((place for place, node in enumerate(nodes) if node is statement), len(nodes))
    bound = {id(node.target) for node in nodes if isinstance(node, (cst.AssignTarget, cst.For, cst.CompFor))}
    within = {id(node) for node in walk(statement)}
    for node in nodes[at:]:
        if not _is_name(node, target.value) or id(node) in within:
            continue
        if id(node) in bound:
            break  # `feats = feats.cpu()`: its value, which is read first, decides below
        moved = _moved_chain(module, node)
        if moved is None:
            return None
        found = found or moved
    again = next((node for node in nodes[at + 1 :] if _binds(node, target.value)), None)
    if found is None and isinstance(again, cst.Assign):
        return _first_moved(module, again.value, target.value)
    return found


def _first_moved(module: Module, value: cst.BaseExpression, name: str) -> Call | None:
    for node in walk(value):
        if _is_name(node, name):
            return _moved_chain(module, node)
    return None


def _binds(node: cst.CSTNode, name: str) -> bool:
    return isinstance(node, cst.Assign) and any(_is_name(target.target, name) for target in node.targets)


def _moved_chain(module: Module, node: cst.CSTNode) -> Call | None:
    """`node.float().cpu()`."""
    for _ in range(_DEPTH):
        call = next((item for item in module.calls if item.receiver_node is node), None)
        if call is None or _goes_to_host(module, call):
            return call
        if call.method not in known.AFTER_JOINING:
            return None
        node = call.node
    return None


def _returned_at(joined: Call) -> int | None:
    """Where the result is in what the function returns: -1 for all of it; None where it is not returned, once."""
    statement = joined.statement
    path = None
    if isinstance(statement, cst.Assign) and statement.value is joined.node and len(statement.targets) == 1:
        path = path_of(statement.targets[0].target)
        if path is None or "." in path:
            return None
    returned = [
        node.value for node in walk(joined.scope.node) if isinstance(node, cst.Return) and node.value is not None
    ]
    if len(returned) != 1:
        return None
    parts = [item.value for item in returned[0].elements] if isinstance(returned[0], cst.Tuple) else [returned[0]]
    places = [at for at, part in enumerate(parts) if part is joined.node or (path is not None and _is_name(part, path))]
    if len(places) != 1:
        return None
    return places[0] if isinstance(returned[0], cst.Tuple) else -1


def _moved_after(module: Module, joined: Call, calls: list[Call], since: int = 0) -> Call | None:
    """The call that moves the joined tensor to the host, if that is all that happens to it since then."""
    nodes, roots = {id(joined.node)}, set(joined.result.idents)
    found: Call | None = None
    for call in calls:
        if call.scope is not joined.scope or call is joined:
            continue
        receiver = call.receiver_node
        while isinstance(receiver, cst.Attribute) and receiver.attr.value == "data":
            receiver = receiver.value
        is_on_it = id(receiver) in nodes or (call.receiver is not None and bool(call.receiver.idents & roots))
        if not is_on_it:
            if any(argument.value.idents & roots for argument in (*call.positional, *call.keywords.values())):
                if not _is_same_size_function(call):
                    return None  # computed with, on the device
                nodes.add(id(call.node))
                roots |= call.result.idents
            continue
        if _goes_to_host(module, call):
            found = found or call
        elif call.method in known.AFTER_JOINING:
            nodes.add(id(call.node))
            roots |= call.result.idents
        else:
            return None
    uses = (use for root in joined.result.idents for use in module.uses_of(root))
    return None if any(use.how == "operand" and use.order >= since for use in uses) else found


def _is_same_size_function(call: Call) -> bool:
    return bool(call.callee.quals) and all(qual.rpartition(".")[2] in known.AFTER_JOINING for qual in call.callee.quals)


def _within(call: Call, loop: Loop) -> bool:
    return call.loop is not None and any(item.node is loop.node for item in call.loop.outer())


def _earlier(call: Call, store: Store | None) -> bool:
    return store is not None and call.scope is store.scope and call.order < store.order
