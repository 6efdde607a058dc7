"""Large outputs that outlive their loss: logits over a vocabulary that a name still holds when backward starts.

Catalogue, rule 26. What is large is known of language models only: their output has a number for each token and each
entry of the vocabulary.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from heapq import heappop, heappush
from itertools import pairwise

import libcst as cst

from memlint.semantics.blocks import path_to
from memlint.semantics.events import Backward, Call
from memlint.semantics.flow import Flow
from memlint.semantics.knowledge import torch as known
from memlint.semantics.knowledge import vocabulary
from memlint.semantics.module import Module
from memlint.semantics.naming import words_of
from memlint.semantics.scopes import nodes_within, path_of, walk

_SCOPES = (cst.FunctionDef, cst.Lambda, cst.ClassDef)
_VIEWS = known.SHAPING_METHODS | {"view", "unsqueeze", "view_as", "reshape_as", "detach"}
# A copy in float32 holds twice as much.
_COPIES = frozenset({"float"})
_FLATTENING = frozenset({"view", "reshape"})
# `_, loss = model(x, y)`: the name that nobody reads holds what it is given all the same. Beside the loss alone it is
# the logits; of more parts, `out, _, state = model(x)`, it may be any.
_IGNORED = "_"
# Parts of a model's output that are no large tensor.
_SMALL_MEMBERS = frozenset({"loss", "losses", "aux_loss", "metrics"})


@dataclass(frozen=True, eq=False)
class LingeringOutput:
    """The output of a forward pass that names hold while backward runs, and that nobody reads any more."""

    forward: Call
    backward: Backward
    names: tuple[str, ...]
    """The names that hold it, in the order in which they are bound."""
    certain: bool
    """The model's class says what it puts out."""
    above: cst.BaseStatement | None
    """The statement below which nobody reads the names any more; None where it is not one of backward's own block."""


def lingering_outputs(module: Module) -> Iterator[LingeringOutput]:
    seen: set[int] = set()
    for flow in module.flows:
        for backward in flow.backwards:
            if backward.handler:
                continue
            for forward in _forwards(module, flow, backward):
                if id(forward) in seen:
                    continue
                found = _lingering(module, flow, forward, backward)
                if found is not None:
                    seen.add(id(forward))
                    yield found


def _forwards(module: Module, flow: Flow, backward: Backward) -> Iterator[Call]:
    """The calls of modules, or of what may be one, in the same round of the same loop, that are differentiated."""
    for root in sorted(backward.differentiated.roots):
        made = module.analysis.roots[root]
        call = module.call_at(made.node) if made.is_forward or root in module.analysis.unseen else None
        if call is not None and call.scope is flow.scope and call.loop is backward.loop and call.order < backward.order:
            yield call


def _lingering(module: Module, flow: Flow, forward: Call, backward: Backward) -> LingeringOutput | None:
    if isinstance(flow.scope.node, cst.Lambda) or not flow.scope.words.isdisjoint({"exec", "locals", "vars"}):
        return None
    region = forward.loop.node if forward.loop is not None else flow.scope.node
    if not isinstance(region, (cst.For, cst.While, cst.FunctionDef)):
        return None
    names = _names_bound(forward, backward)
    if not names:
        return None
    certain = is_language_model(forward)
    code = module.once(_Listed).code_of(region.body)
    if not certain and not code.shows_sizes and module.words.isdisjoint(_SIZE_WORDS):
        return None
    held = _Holders(code, forward, names)
    if not held.are_simple:
        return None
    if not certain and (
        is_over_characters(module)
        or not (_is_over_vocabulary(module, code, held.names) or _is_by_token(module, forward, held.names))
    ):
        return None
    places = code.places
    start, end = places.get(id(forward.node)), places.get(id(backward.node))
    if start is None or end is None or end < start:
        return None
    inside = [read for name in held.names for read in code.reads_of(name)]
    if not all(start <= places[id(name)] <= end or _takes_loss(node) for name, node in inside):
        return None  # a metric after backward, the state of the next round
    if any(_is_read_elsewhere(module, flow, forward, places, name) for name in held.names):
        return None
    if not code.captured.isdisjoint(held.names):
        return None
    above = _above(module, region, forward, backward)
    if above is not None and any(places[id(name)] > end for name, _ in inside):
        above = None
    return LingeringOutput(forward, backward, tuple(held.names), certain, above)


class _Listed:
    """The code of loops and functions: listed once, however many models run in them."""

    def __init__(self, _: Module) -> None:
        self._known: dict[int, _Code] = {}

    def code_of(self, node: cst.CSTNode) -> _Code:
        if id(node) not in self._known:
            self._known[id(node)] = _Code(node)
        return self._known[id(node)]


class _Code:
    """A piece of code, and where in it names are bound, viewed and read. Places are those in the order of the text."""

    def __init__(self, node: cst.CSTNode) -> None:
        self.nodes = list(walk(node))
        self.places = {id(node): place for place, node in enumerate(self.nodes)}
        self.handled: dict[str, list[int]] = {}
        """By name: the places where it is bound, deleted, or the source of an assignment."""
        self._named: dict[str, list[cst.Name]] = {}
        self.wide: set[str | None] = set()
        """What is flattened to the size of a vocabulary, or shifted by one token."""
        self.shows_sizes = False
        self.captured: set[str] = set()
        """What functions made here mention."""
        for place, part in enumerate(self.nodes):
            self._note(place, part)

    def _note(self, place: int, node: cst.CSTNode) -> None:
        if isinstance(node, cst.Name):
            self._named.setdefault(node.value, []).append(node)
        elif isinstance(node, (cst.Assign, *_BINDING)):
            for name in set(_handled_names(node)):
                self.handled.setdefault(name, []).append(place)
        elif isinstance(node, _SCOPES):
            self.captured.update(part.value for part in walk(node) if isinstance(part, cst.Name))
        elif isinstance(node, cst.Call):
            self._note_wide(_flattened_to_vocabulary(node))
        elif isinstance(node, cst.Subscript) and is_token_shift(node):
            self._note_wide(node.value)

    def _note_wide(self, node: cst.BaseExpression | None) -> None:
        if node is not None:
            self.shows_sizes = True
            self.wide.add(_view_source(node))

    def is_named_before(self, name: str, place: int) -> bool:
        named = self._named.get(name)
        return named is not None and self.places[id(named[0])] < place

    def reads_of(self, name: str) -> list[tuple[cst.Name, cst.CSTNode | None]]:
        """The reads of the name, each with the attribute or item that is taken of it."""
        named = self._named.get(name, ())
        return [(node, self._taken.get(id(node))) for node in named if id(node) not in self._no_reads]

    @cached_property
    def _no_reads(self) -> set[int]:
        found: set[int] = set()
        for node in self.nodes:
            if isinstance(node, cst.AssignTarget):
                found.update(map(id, [node.target] if isinstance(node.target, cst.Name) else _parts(node.target)))
            elif isinstance(node, cst.Attribute):
                found.add(id(node.attr))
            elif isinstance(node, cst.Arg) and node.keyword is not None:
                found.add(id(node.keyword))
        return found

    @cached_property
    def _taken(self) -> dict[int, cst.CSTNode]:
        return {id(node.value): node for node in self.nodes if isinstance(node, (cst.Attribute, cst.Subscript))}


# One of them stands in each file of which only words say that an output is as wide as a vocabulary.
_SIZE_WORDS = vocabulary.VOCABULARY_WORDS | vocabulary.CROSS_ENTROPY | {"vocab_size"}


def is_language_model(forward: Call) -> bool:
    """Whether the class of the model that is called is that of a language model, as libraries name them."""
    cls = forward.callee.cls
    return cls is not None and cls.endswith(vocabulary.LANGUAGE_MODELS)


# --- the names that hold the output ---


def _names_bound(forward: Call, backward: Backward) -> list[str]:
    """`logits = model(x)`, `outputs = model(x)`, `logits, loss = model(x)`: all but what is differentiated itself."""
    statement = forward.statement
    if not isinstance(statement, cst.Assign) or len(statement.targets) != 1:
        return []
    target = statement.targets[0].target
    if not _is_view_of(statement.value, forward.node):
        return []
    given = backward.call.receiver_node
    differentiated = {path_of(given)} if given is not None else set()
    differentiated |= {path_of(argument.expression) for argument in backward.call.positional}
    if isinstance(target, cst.Name):
        names = [target.value]
    elif isinstance(target, cst.Tuple):
        bound = [element.value.value for element in target.elements if isinstance(element.value, cst.Name)]
        losses = [name for name in bound if name in differentiated or _is_loss_word(name)]
        ignored = {_IGNORED} if len(losses) == len(target.elements) - 1 else set()
        names = [name for name in bound if name in ignored or words_of(name) & vocabulary.LOGITS_WORDS]
    else:
        return []
    return [name for name in names if name not in differentiated and not _is_loss_word(name)]


def _is_loss_word(name: str) -> bool:
    return bool(words_of(name) & {"loss", "losses", "cost", "error"})


def _is_view_of(node: cst.BaseExpression, inner: cst.CSTNode) -> bool:
    """`inner`, `inner.logits`, `inner[0]`, `inner.view(-1, n)`: nothing that makes another tensor."""
    current: cst.BaseExpression | None = node
    while current is not None and current is not inner:
        current = _viewed(current)
    return current is inner


def _viewed(node: cst.BaseExpression) -> cst.BaseExpression | None:
    """What the expression is a part, an item or a view of."""
    if isinstance(node, cst.Attribute):
        return node.value if node.attr.value not in _SMALL_MEMBERS else None
    if isinstance(node, cst.Subscript):
        return node.value
    if isinstance(node, cst.Call) and isinstance(node.func, cst.Attribute) and node.func.attr.value in _VIEWS | _COPIES:
        return node.func.value
    return None


_BINDING = (cst.Del, cst.AugAssign, cst.NamedExpr, cst.For, cst.CompFor, cst.AsName, cst.AnnAssign)


def _handled_names(node: cst.CSTNode) -> Iterator[str]:
    """The names that it binds, or deletes, and the one that an assignment takes a view of."""
    if isinstance(node, cst.Assign):
        for item in node.targets:
            yield from _target_names(item.target)
        source = _view_source(node.value)
        yield from () if source is None else (source,)
    elif isinstance(node, cst.Del):
        yield from (part.value for part in walk(node.target) if isinstance(part, cst.Name))
    else:
        yield from _target_names(node.name if isinstance(node, cst.AsName) else node.target)  # type: ignore[attr-defined]


class _Holders:
    """The names that hold an output, and their aliases: `logits = outputs.logits`, `flat = logits.view(-1, n)`."""

    def __init__(self, code: _Code, forward: Call, names: list[str]) -> None:
        self.names: list[str] = []
        self.are_simple = True
        self._code = code
        self._waiting: list[tuple[int, str, int]] = []
        """Of each name the next place that handles it, and which that is of its places; the next one of all first."""
        for name in names:
            self._hold(name, -1)
        while self._waiting and self.are_simple:
            place, name, index = heappop(self._waiting)
            self._wait_for(name, index + 1)
            node = code.nodes[place]
            if not isinstance(node, cst.Assign):
                self.are_simple = False  # bound anew, or deleted
            elif node is not forward.statement:
                self._follow(node, place)

    def _hold(self, name: str, since: int) -> None:
        if name not in self.names:
            self.names.append(name)
            self._wait_for(name, bisect_right(self._code.handled.get(name, ()), since))

    def _wait_for(self, name: str, index: int) -> None:
        places = self._code.handled.get(name, ())
        if index < len(places):
            heappush(self._waiting, (places[index], name, index))

    def _follow(self, node: cst.Assign, place: int) -> None:
        """Of an assignment: an alias more, or an end to what is simple."""
        view = _view_source(node.value)
        for item in node.targets:
            for name in _target_names(item.target):
                if view in self.names and not _is_loss_word(name):
                    # What is read before it is set here is what the iteration before has left.
                    self.are_simple &= name in self.names or not self._code.is_named_before(name, place)
                    self._hold(name, place)
                elif name in self.names:
                    self.are_simple = False
            if isinstance(item.target, (cst.Attribute, cst.Subscript)) and view in self.names:
                self.are_simple = False  # kept on purpose


def _target_names(target: cst.CSTNode) -> Iterator[str]:
    if isinstance(target, cst.Name):
        yield target.value
    elif isinstance(target, (cst.Tuple, cst.List)):
        for element in target.elements:
            yield from _target_names(element.value)
    elif isinstance(target, cst.StarredElement):
        yield from _target_names(target.value)


def _view_source(node: cst.BaseExpression) -> str | None:
    """The name of which the expression is a view, a part or the thing itself."""
    current: cst.BaseExpression | None = node
    while current is not None and not isinstance(current, cst.Name):
        if isinstance(current, cst.Subscript) and not _takes_much(current):
            return None
        current = _viewed(current)
    return None if current is None else current.value


def _takes_much(node: cst.Subscript) -> bool:
    """`logits[..., :-1, :]`, `outputs[1]`; `outputs[0]` and `outputs["loss"]` may be the loss."""
    index = node.slice[0].slice
    if isinstance(index, cst.Index) and isinstance(index.value, cst.SimpleString):
        return "logits" in index.value.value
    return not (isinstance(index, cst.Index) and isinstance(index.value, cst.Integer) and index.value.value == "0")


# --- reads ---


def _is_read_elsewhere(module: Module, flow: Flow, forward: Call, inside: dict[int, int], name: str) -> bool:
    """Whether what the region has left in the name is read outside it: after it, or in the next round around it."""
    if forward.loop is None:
        return False  # the region is the whole function
    before, after = True, False
    rounds = forward.loop.outer()[-1].node
    in_rounds = nodes_within(rounds)
    first_before: bool | None = None
    for node, is_read in _mentions(module.once(_Listed).code_of(flow.scope.node), name):
        if id(node) in inside:
            before, after = False, True
        elif after:
            return is_read  # of what comes first, a read or a binding
        elif before and first_before is None and id(node) in in_rounds:
            first_before = is_read
    return bool(first_before)


def _mentions(code: _Code, name: str) -> Iterator[tuple[cst.CSTNode, bool]]:
    """Where the name is read (True) or bound (False), in the order in which the code runs."""
    read = {code.places[id(node)] for node, _ in code.reads_of(name)}
    late: list[tuple[frozenset[int], cst.CSTNode]] = []
    for place in sorted(read.union(code.handled.get(name, ()))):
        node = code.nodes[place]
        while late and id(node) not in late[-1][0]:
            yield late.pop()[1], False
        if place in read:
            yield node, True
        elif isinstance(node, cst.Assign) and any(name in _target_names(item.target) for item in node.targets):
            late.append((frozenset(id(part) for part in walk(node)), node))  # the right-hand side comes first
        elif isinstance(node, (cst.For, cst.CompFor, cst.NamedExpr)):
            yield node, False
    for _, node in reversed(late):
        yield node, False


def _parts(target: cst.CSTNode) -> Iterator[cst.CSTNode]:
    if isinstance(target, (cst.Tuple, cst.List)):
        for element in target.elements:
            yield element.value


def _takes_loss(node: cst.CSTNode | None) -> bool:
    """`outputs.loss`, `outputs["loss"]`"""
    if isinstance(node, cst.Attribute):
        return node.attr.value == "loss"
    if isinstance(node, cst.Subscript) and isinstance(node.slice[0].slice, cst.Index):
        index = node.slice[0].slice.value
        return isinstance(index, cst.SimpleString) and index.evaluated_value == "loss"
    return False


# --- is it large? ---


def _is_over_vocabulary(module: Module, code: _Code, names: list[str]) -> bool:
    """What the code does with it: flattens it to the size of a vocabulary, or shifts it by one token."""
    if module.words & vocabulary.ACTIONS:
        return False
    if not code.wide.isdisjoint(names):
        return True
    if module.words & vocabulary.FEW_CLASSES:
        return False
    if any(words_of(name) & vocabulary.LOGITS_WORDS for name in names):
        return bool(module.words & vocabulary.VOCABULARY_WORDS)
    return _IGNORED in names and "vocab_size" in module.words


def _is_by_token(module: Module, forward: Call, names: list[str]) -> bool:
    """`pred = model(input_ids)`, and `pred.flatten(0, 1)`: one row of numbers for each token, for a cross entropy."""
    if module.words & vocabulary.FEW_CLASSES or not module.words & vocabulary.CROSS_ENTROPY:
        return False
    given = [*forward.positional, *forward.keywords.values()]
    paths = {(path_of(argument.expression) or "").rpartition(".")[2] for argument in given}
    if not paths & vocabulary.TOKEN_INPUTS:
        return False
    return not module.once(_with_flattened_rows).isdisjoint(names)


def _with_flattened_rows(module: Module) -> frozenset[str | None]:
    return frozenset(_flattened_rows(node) for node in walk(module.tree) if isinstance(node, cst.Call))


def _flattened_rows(node: cst.Call) -> str | None:
    """`pred` of `pred.flatten(0, 1)` and of `pred.view(-1, pred.size(-1))`."""
    if not isinstance(node.func, cst.Attribute) or len(node.args) != 2:
        return None
    name = path_of(node.func.value)
    first, last = node.args[0].value, node.args[1].value
    if node.func.attr.value == "flatten":
        is_rows = all(isinstance(item, cst.Integer) for item in (first, last))
        return name if is_rows and (first.value, last.value) == ("0", "1") else None  # type: ignore[attr-defined]
    if node.func.attr.value not in _FLATTENING or not isinstance(first, cst.UnaryOperation):
        return None
    return name if any(path_of(item) == name for item in walk(last)) else None


def is_over_characters(module: Module) -> bool:
    """Whether the vocabulary is an alphabet: its logits are no large tensor."""
    return not module.words.isdisjoint(vocabulary.ALPHABETS)


def _flattened_to_vocabulary(node: cst.Call) -> cst.BaseExpression | None:
    """`logits` of `logits.view(-1, vocab_size)`"""
    if not isinstance(node.func, cst.Attribute) or node.func.attr.value not in _FLATTENING or len(node.args) < 2:
        return None
    return node.func.value if is_vocabulary_size(node.args[-1].value) else None


def is_vocabulary_size(node: cst.BaseExpression) -> bool:
    """`vocab_size`, `config.vocab_size`, `ntokens`, `len(vocab)`"""
    return any(isinstance(part, cst.Name) and words_of(part.value) & vocabulary.SIZE_WORDS for part in walk(node))


def is_token_shift(node: cst.Subscript) -> bool:
    """`x[..., :-1, :]`, `x[:, :-1]`, `x[:, :-1, :]`: all but the last token."""
    slices = [element.slice for element in node.slice]
    if len(slices) not in (2, 3) or not isinstance(slices[1], cst.Slice):
        return False
    first, last = slices[0], slices[2] if len(slices) == 3 else None
    whole = isinstance(first, cst.Slice) and first.lower is None and first.upper is None
    dots = isinstance(first, cst.Index) and isinstance(first.value, cst.Ellipsis)
    if not whole and not (dots and last is not None):
        return False
    if last is not None and not (isinstance(last, cst.Slice) and last.lower is None and last.upper is None):
        return False
    upper = slices[1].upper
    return (
        slices[1].lower is None
        and isinstance(upper, cst.UnaryOperation)
        and isinstance(upper.operator, cst.Minus)
        and isinstance(upper.expression, cst.Integer)
        and upper.expression.value == "1"
    )


# --- where a `del` belongs ---


def _above(module: Module, region: cst.CSTNode, forward: Call, backward: Backward) -> cst.BaseStatement | None:
    """The statement before that of the backward pass, where the names are surely bound and not read any more."""
    if backward.guarded or forward.guarded or forward.in_try or backward.in_try:
        return None
    path = path_to(region, backward.node)
    for block, statement in pairwise(path):
        if not isinstance(block, cst.IndentedBlock) or not isinstance(statement, cst.SimpleStatementLine):
            continue
        index = next(place for place, item in enumerate(block.body) if item is statement)
        if index and not any(part is forward.node for part in walk(statement)):
            return block.body[index - 1]
    return None
