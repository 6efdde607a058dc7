"""Large outputs that outlive their loss: logits over a vocabulary that a name still holds when backward starts.

Catalogue, rule 26. What is large is known of language models only: their output has a number for each token and each
entry of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import libcst as cst

from memlint.semantics.blocks import path_to
from memlint.semantics.events import Backward, Call
from memlint.semantics.flow import Flow
from memlint.semantics.knowledge import torch as known
from memlint.semantics.knowledge import vocabulary
from memlint.semantics.module import Module
from memlint.semantics.naming import words_of
from memlint.semantics.scopes import path_of, walk

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
    nodes, shows_sizes = module.once(_Regions).nodes_of(region)
    if not certain and not shows_sizes and module.words.isdisjoint(_SIZE_WORDS):
        return None
    held = _Holders(nodes, forward, names)
    if not held.are_simple:
        return None
    if not certain and (
        is_over_characters(module)
        or not (_is_over_vocabulary(module, nodes, held.names) or _is_by_token(module, forward, held.names))
    ):
        return None
    places = {id(node): place for place, node in enumerate(nodes)}
    start, end = places.get(id(forward.node)), places.get(id(backward.node))
    if start is None or end is None or end < start:
        return None
    inside = _reads(nodes, held.names)
    if not all(start <= places[id(name)] <= end or _takes_loss(node) for name, node in inside):
        return None  # a metric after backward, the state of the next round
    if any(_is_read_elsewhere(flow, forward, places, name) for name in held.names):
        return None
    if _is_captured(region, held.names):
        return None
    above = _above(module, region, forward, backward)
    if above is not None and any(places[id(name)] > end for name, _ in inside):
        above = None
    return LingeringOutput(forward, backward, tuple(held.names), certain, above)


class _Regions:
    """The code of loops and functions: listed once, however many models run in them."""

    def __init__(self, _: Module) -> None:
        self._known: dict[int, tuple[list[cst.CSTNode], bool]] = {}

    def nodes_of(self, region: cst.For | cst.While | cst.FunctionDef) -> tuple[list[cst.CSTNode], bool]:
        """Every node of the body, and whether one shows that something is as wide as a vocabulary."""
        if id(region) not in self._known:
            nodes = list(walk(region.body))
            calls = (node for node in nodes if type(node) is cst.Call)
            subscripts = (node for node in nodes if type(node) is cst.Subscript)
            shows_sizes = any(map(_flattened_to_vocabulary, calls)) or any(map(is_token_shift, subscripts))
            self._known[id(region)] = nodes, shows_sizes
        return self._known[id(region)]


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


class _Holders:
    """The names that hold an output, and their aliases: `logits = outputs.logits`, `flat = logits.view(-1, n)`."""

    def __init__(self, nodes: list[cst.CSTNode], forward: Call, names: list[str]) -> None:
        self.names = list(names)
        self.are_simple = True
        self._mentioned: set[str] = set()
        for node in nodes:
            if isinstance(node, cst.Name):
                self._mentioned.add(node.value)
            elif isinstance(node, cst.Assign) and node is not forward.statement:
                self._follow(node)
            elif isinstance(
                node, (cst.Del, cst.AugAssign, cst.NamedExpr, cst.For, cst.CompFor, cst.AsName, cst.AnnAssign)
            ):
                self.are_simple &= not self._binds(node)

    def _follow(self, node: cst.Assign) -> None:
        """Of an assignment: an alias more, or an end to what is simple."""
        view = _view_source(node.value)
        for item in node.targets:
            for name in _target_names(item.target):
                if view in self.names and not _is_loss_word(name):
                    # What is read before it is set here is what the iteration before has left.
                    self.are_simple &= name in self.names or name not in self._mentioned
                    self.names += [name] if name not in self.names else []
                elif name in self.names:
                    self.are_simple = False
            if isinstance(item.target, (cst.Attribute, cst.Subscript)) and view in self.names:
                self.are_simple = False  # kept on purpose

    def _binds(self, node: cst.CSTNode) -> bool:
        if isinstance(node, cst.Del):
            return any(isinstance(part, cst.Name) and part.value in self.names for part in walk(node.target))
        target = node.name if isinstance(node, cst.AsName) else node.target  # type: ignore[attr-defined]
        return any(name in self.names for name in _target_names(target))


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


def _reads(nodes: list[cst.CSTNode], names: list[str]) -> list[tuple[cst.Name, cst.CSTNode | None]]:
    """The reads of the names, each with the attribute or item that is taken of it."""
    bound = {
        id(part)
        for node in nodes
        if isinstance(node, cst.AssignTarget)
        for part in ([node.target] if isinstance(node.target, cst.Name) else _parts(node.target))
    }
    skipped = {id(node.attr) for node in nodes if isinstance(node, cst.Attribute)}
    skipped |= {id(node.keyword) for node in nodes if isinstance(node, cst.Arg) and node.keyword is not None}
    taken = {id(node.value): node for node in nodes if isinstance(node, (cst.Attribute, cst.Subscript))}
    return [
        (node, taken.get(id(node)))
        for node in nodes
        if isinstance(node, cst.Name) and node.value in names and id(node) not in bound | skipped
    ]


def _is_read_elsewhere(flow: Flow, forward: Call, inside: dict[int, int], name: str) -> bool:
    """Whether what the region has left in the name is read outside it: after it, or in the next round around it."""
    if forward.loop is None:
        return False  # the region is the whole function
    before, after = True, False
    rounds = forward.loop.outer()[-1].node
    in_rounds = {id(node) for node in walk(rounds)}
    first_before: bool | None = None
    for node, is_read in _mentions(flow.scope.node, name):
        if id(node) in inside:
            before, after = False, True
        elif after:
            return is_read  # of what comes first, a read or a binding
        elif before and first_before is None and id(node) in in_rounds:
            first_before = is_read
    return bool(first_before)


def _mentions(scope: cst.CSTNode, name: str) -> Iterator[tuple[cst.CSTNode, bool]]:
    """Where the name is read (True) or bound (False), in the order in which the code runs."""
    nodes = list(walk(scope))
    read = {id(node) for node, _ in _reads(nodes, [name])}
    late: list[tuple[set[int], cst.CSTNode]] = []
    for node in nodes:
        while late and id(node) not in late[-1][0]:
            yield late.pop()[1], False
        if isinstance(node, cst.Assign) and any(name in _target_names(item.target) for item in node.targets):
            late.append(({id(part) for part in walk(node)}, node))  # the right-hand side comes first
        elif id(node) in read:
            yield node, True
        elif isinstance(node, (cst.For, cst.CompFor, cst.NamedExpr)) and name in _target_names(node.target):
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


def _is_captured(region: cst.CSTNode, names: list[str]) -> bool:
    """Whether a function made in the region mentions one of the names."""
    body = region.body  # type: ignore[attr-defined]
    return any(
        isinstance(node, _SCOPES) and any(isinstance(part, cst.Name) and part.value in names for part in walk(node))
        for node in walk(body)
    )


# --- is it large? ---


def _is_over_vocabulary(module: Module, nodes: list[cst.CSTNode], names: list[str]) -> bool:
    """What the code does with it: flattens it to the size of a vocabulary, or shifts it by one token."""
    for node in nodes:
        flattened = _flattened_to_vocabulary(node) if isinstance(node, cst.Call) else None
        if flattened is not None and _view_source(flattened) in names:
            return True
        if isinstance(node, cst.Subscript) and is_token_shift(node) and _view_source(node.value) in names:
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
    return any(isinstance(node, cst.Call) and _flattened_rows(node) in names for node in walk(module.tree))


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
