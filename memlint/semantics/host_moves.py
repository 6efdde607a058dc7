"""What becomes of a list of outputs when the loop that filled it is over: does all of it go to the host?"""

from __future__ import annotations

from collections.abc import Iterator

import libcst as cst

from memlint.semantics.devices import Place, moved_to
from memlint.semantics.events import Call, Loop
from memlint.semantics.knowledge import predictions as known
from memlint.semantics.model_outputs import Key, is_name, targets_of
from memlint.semantics.module import Module
from memlint.semantics.naming import words_of
from memlint.semantics.reading import literal_index, literal_key
from memlint.semantics.scopes import path_of, walk
from memlint.semantics.values import Value

_DEPTH = 8
_COMPREHENSIONS = (cst.ListComp, cst.SetComp, cst.GeneratorExp, cst.DictComp)


class Collection:
    """A list, or dictionary, of outputs: the calls of the file that come after the loop, and what they do with it."""

    def __init__(
        self, module: Module, boxes: frozenset[int], part: Key, later: list[Call], given: cst.Param | None = None
    ) -> None:
        """`part` is where in each of its items the output stands; `later` are the calls that come after the loop.

        `given` is the parameter as which a framework hands it over.
        """
        self._module = module
        self._part = part
        self._given = given.name.value if given is not None else None
        self._later = later
        self._items = set(boxes)
        """The containers whose items are those of the list."""
        self._outputs = set(boxes) if part is None else set()
        """The containers whose items are the outputs themselves."""
        self._copied_by_comprehensions()

    def moved(self) -> Call | None:
        """The call that moves all of it to the host, or saves it; None: that is not known."""
        joined = [call for call in self._later if call.names(known.JOINS) and self._is_given(call, self._outputs)]
        joined += list(self._joined_columns())
        moves = [moved_after(self._module, call, self._later) or self._by_callers(call) for call in joined]
        if joined and None not in moves:
            return moves[0]
        staying = [call for call, move in zip(joined, moves, strict=True) if move is None]
        others = (*self._one_by_one(), *self._as_a_whole())
        # `if as_tensor: return torch.stack(outputs)`, `else: [o.cpu() for o in outputs]`: they need not all be there.
        return next((move for move in others if all(call.excludes(move) for call in staying)), None)

    # --- which containers hold it ---

    def _copied_by_comprehensions(self) -> None:
        """`[outputs[i] for i in order]`, `[o["logits"].squeeze(1) for o in outputs]`"""
        numbers = {id(box.node): index for index, box in enumerate(self._module.analysis.boxes)}
        for loop in self._module.loops:
            index = numbers.get(id(loop.node))
            if index is None or not isinstance(loop.node, _COMPREHENSIONS):
                continue
            made = loop.node.value if isinstance(loop.node, cst.DictComp) else loop.node.elt
            content = self._module.box(index).content
            names = self._item_names(loop)
            is_picked = _is_picked(made) and not self._items.isdisjoint(content.boxes)
            if is_picked or (isinstance(made, cst.Name) and made.value in names):
                self._add(index)
            elif self._is_the_output(made, names) and not any(self._ends_on_host(part) for part in walk(made)):
                self._outputs.add(index)

    def _add(self, index: int) -> None:
        self._items.add(index)
        if self._part is None:
            self._outputs.add(index)

    def _is_given(self, call: Call, boxes: set[int]) -> bool:
        return bool(call.positional) and not boxes.isdisjoint(call.positional[0].value.boxes)

    def _item_names(self, loop: Loop) -> set[str]:
        """The names that the loop binds to the items, one after the other."""
        node = loop.node
        if isinstance(node, cst.For):
            target, iterable = node.target, node.iter
        elif isinstance(node, _COMPREHENSIONS):
            target, iterable = node.for_in.target, node.for_in.iter
        else:
            return set()
        is_given = self._given is not None and path_of(iterable) == self._given
        if isinstance(self._part, int) and isinstance(target, cst.Tuple) and (is_given or self._holds(loop.iterates)):
            names = [element.value for element in target.elements]
            at = names[self._part] if self._part < len(names) else None
            return {at.value} if isinstance(at, cst.Name) else set()
        wrapped = self._module.call_at(iterable)
        given = {id(item.expression): item.value for item in wrapped.positional} if wrapped is not None else {}
        found = set()
        for name, expression in targets_of(target, iterable):
            value = given.get(id(expression), loop.iterates)
            is_whole = expression is iterable or id(expression) in given or len(given) == 0
            if is_whole and (is_given or self._holds(value)):
                found.add(name.value)
        return found

    def _holds(self, value: Value) -> bool:
        return not (self._items | self._outputs).isdisjoint(value.boxes)

    def _is_the_output(self, node: cst.BaseExpression, names: set[str]) -> bool:
        """`o["logits"].squeeze(1)`, where the outputs are what stands under that key in each item."""
        base, keys = _chain(node)
        if base is None or base.value not in names:
            return False
        if self._part is None or isinstance(self._part, int):
            named = frozenset(word for key in keys if isinstance(key, str) for word in words_of(key))
            return named.isdisjoint(known.LOSS_WORDS) and (self._part is None or keys[:1] in ([], [self._part]))
        return keys[:1] == [self._part]

    # --- joined ---

    def _joined_columns(self) -> Iterator[Call]:
        """`means, spreads = zip(*outputs)`, `torch.cat(means)`"""
        if not isinstance(self._part, int):
            return
        for call in self._later:
            name = self._column(call, self._part)
            for other in self._later if name is not None else ():
                is_later = other.scope is call.scope and other.order > call.order
                is_join = other.names(known.JOINS) and bool(other.positional)
                if is_later and is_join and path_of(other.positional[0].expression) == name:
                    yield other

    def _column(self, call: Call, part: int) -> str | None:
        """The name that `means, spreads = zip(*outputs)` binds to all that stands at this place."""
        statement, unpacked = call.statement, call.call.args[0].value if call.call.args else None
        if not call.names({"zip"}) or unpacked is None or not call.unpacks or not isinstance(statement, cst.Assign):
            return None
        flow, target = self._module.flow_of(call.scope), statement.targets[0].target
        value = flow.final.get(path_of(unpacked) or "") if flow is not None else None
        if value is None or not self._holds(value) or not isinstance(target, cst.Tuple) or part >= len(target.elements):
            return None
        return path_of(target.elements[part].value)

    def _by_callers(self, joined: Call) -> Call | None:
        return _moved_by_callers(self._module, joined, self._later)

    # --- one by one, or the list as it is ---

    def _one_by_one(self) -> Iterator[Call]:
        """`[o.cpu() for o in outputs]`, `for o in outputs: done.append(to_numpy(o))`, `map(to_numpy, outputs)`"""
        names: dict[int, set[str]] = {}
        for call in self._later:
            if call.names({"map"}) and len(call.positional) == 2 and self._holds(call.positional[1].value):
                yield from [call] if is_host_function(self._module, call.positional[0].expression) else ()
            if call.loop is None or not self._ends_on_host(call.node):
                continue
            if self._is_picked_out(call):
                yield call
            for loop in call.loop.outer():
                if id(loop.node) not in names:
                    names[id(loop.node)] = self._names_within(loop)
                if self._is_the_output(call.call, names[id(loop.node)]):
                    yield call

    def _is_picked_out(self, call: Call) -> bool:
        """`probabilities[key].cpu()` for each key"""
        node = call.receiver_node
        return node is not None and _is_picked(node) and call.receiver is not None and self._holds(call.receiver)

    def _names_within(self, loop: Loop) -> set[str]:
        names = self._item_names(loop)
        if names and isinstance(loop.node, cst.For):
            for node in walk(loop.node.body):
                if isinstance(node, cst.Assign) and isinstance(node.targets[0].target, cst.Name):
                    base, keys = _chain(node.value)
                    if base is not None and base.value in names and not keys:
                        names.add(node.targets[0].target.value)
        return names

    def _as_a_whole(self) -> Iterator[Call]:
        """`torch.save(outputs, path)`, `to_numpy(outputs)`"""
        for call in self._later:
            if self._is_given(call, self._items) and _takes_to_host(self._module, call):
                yield call

    def _ends_on_host(self, node: cst.CSTNode) -> bool:
        call = self._module.call_at(node)
        return call is not None and (goes_to_host(self._module, call) or _is_host_helper(self._module, call))


def _is_picked(node: cst.BaseExpression) -> bool:
    """`outputs[i]`"""
    if not isinstance(node, cst.Subscript) or not isinstance(node.value, cst.Name):
        return False
    return literal_index(node) is None and literal_key(node) is None


def _chain(node: cst.BaseExpression) -> tuple[cst.Name | None, list[Key]]:
    """The name that a chain of methods, items and functions of the same size begins with, and the keys in it."""
    keys: list[Key] = []
    while True:
        if isinstance(node, cst.Call):
            if isinstance(node.func, cst.Attribute) and not _is_function_of_torch(node.func):
                node = node.func.value
            elif node.args:
                node = node.args[0].value
            else:
                return None, []
        elif isinstance(node, cst.Attribute):
            if node.attr.value not in ("data", "T"):
                keys.insert(0, node.attr.value)
            node = node.value
        elif isinstance(node, cst.Subscript):
            key: Key = literal_key(node)
            keys.insert(0, key if key is not None else literal_index(node))
            node = node.value
        else:
            return (node if isinstance(node, cst.Name) else None), keys


def _is_function_of_torch(node: cst.Attribute) -> bool:
    return path_of(node.value) in ("torch", "F", "np", "torch.nn.functional", "nn.functional")


# --- what goes to the host ---


def goes_to_host(module: Module, call: Call) -> bool:
    return call.method == "tolist" or moved_to(module, call) is Place.HOST


def is_host_function(module: Module, node: cst.BaseExpression) -> bool:
    """`lambda t: t.cpu().numpy()`, or a function of this file, or of that name, that does it."""
    if isinstance(node, cst.Lambda):
        return _returns_on_host(module, node.body, {param.name.value for param in node.params.params})
    path = path_of(node)
    return path is not None and path.rpartition(".")[2] in known.HOST_FUNCTIONS


def _is_host_helper(module: Module, call: Call) -> bool:
    """`to_numpy(output)`: a function of this file that gives its argument back on the host, or one called so."""
    if call.receiver is not None and not call.receiver.quals and not call.callee.quals:
        return False
    own = next(iter(call.callee.quals), "") if len(call.callee.quals) == 1 else ""
    scope = module.analysis.scope_named(own) if own.startswith(":") else None
    if scope is None or not isinstance(scope.node, cst.FunctionDef):
        return is_host_function(module, call.call.func)
    names = {param.name.value for param in scope.node.params.params}
    returned = [node.value for node in walk(scope.node) if isinstance(node, cst.Return) and node.value is not None]
    return bool(returned) and all(_returns_on_host(module, node, names) for node in returned)


def _returns_on_host(module: Module, node: cst.BaseExpression, names: set[str]) -> bool:
    base, _ = _chain(node)
    if base is None or base.value not in names:
        return False
    calls = (module.call_at(part) for part in walk(node))
    return any(call is not None and goes_to_host(module, call) for call in calls)


def _takes_to_host(module: Module, call: Call) -> bool:
    return call.names(known.SAVING) or _is_host_helper(module, call)


# --- a joined tensor ---


def moved_after(module: Module, joined: Call, calls: list[Call], since: int = 0) -> Call | None:
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
            if takes(call, frozenset(roots)) or any(id(item.expression) in nodes for item in call.positional):
                if _takes_to_host(module, call):
                    found = found or call
                    continue
                if not _is_same_size_function(call):
                    return None  # computed with, on the device
                nodes.add(id(call.node))
                roots |= call.result.idents
            continue
        if goes_to_host(module, call):
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


def takes(call: Call, roots: frozenset[int]) -> bool:
    given = (*call.positional, *call.keywords.values())
    received = call.receiver.idents if call.receiver is not None else frozenset()
    return bool(received & roots) or any(argument.value.idents & roots for argument in given)


# --- by every caller ---


def _moved_by_callers(module: Module, joined: Call, calls: list[Call]) -> Call | None:
    """`return torch.cat(outputs)`, of which every caller in view makes `predict(model, loader).cpu()`."""
    name = joined.scope.qualname
    callers = list(module.calls_of(frozenset({name})))
    if not callers or name in module.analysis.handed_over or any(caller.scope is joined.scope for caller in callers):
        return None
    if any(takes(call, joined.result.idents) for call in calls if call.scope is joined.scope and call is not joined):
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
        if not is_name(node, target.value) or id(node) in within:
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
        if is_name(node, name):
            return _moved_chain(module, node)
    return None


def _binds(node: cst.CSTNode, name: str) -> bool:
    return isinstance(node, cst.Assign) and any(is_name(target.target, name) for target in node.targets)


def _moved_chain(module: Module, node: cst.CSTNode) -> Call | None:
    """`node.float().cpu()`."""
    for _ in range(_DEPTH):
        call = next((item for item in module.calls if item.receiver_node is node), None)
        if call is None or goes_to_host(module, call):
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
    places = [at for at, part in enumerate(parts) if part is joined.node or (path is not None and is_name(part, path))]
    if len(places) != 1:
        return None
    return places[0] if isinstance(returned[0], cst.Tuple) else -1
