"""Copies of a language model's logits: tensors with one number for each token and each entry of the vocabulary.

Catalogue, rule 38. Whether a tensor is that large is not in the code; what the code does with it tells: it leaves out
the last token, flattens it to the size of a vocabulary, or computed it with the language-model head.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from itertools import pairwise

import libcst as cst

from memlint.semantics.blocks import path_to
from memlint.semantics.events import Call
from memlint.semantics.knowledge import torch as known
from memlint.semantics.knowledge import vocabulary
from memlint.semantics.module import Module
from memlint.semantics.naming import words_of
from memlint.semantics.outputs import is_over_characters, is_token_shift, is_vocabulary_size
from memlint.semantics.scopes import NODES_REMEMBERED, Scope, assignments_in, path_of, walk
from memlint.semantics.values import Kind

_PARTS = ("logit", "vocab", "lm_head", "ntoken")
_COPIES_A_SLICE = frozenset({"contiguous", "reshape", "flatten"})
_UPCASTS = frozenset({"float", "to", "type"})
_FLOAT32 = frozenset({"torch.float32", "torch.float"})
_LOG_SOFTMAX = frozenset({"torch.log_softmax", "torch.nn.functional.log_softmax", "torch.special.log_softmax"})
_GATHER = frozenset({"torch.gather"})
# What needs more than 16 bits, or all of the numbers.
_NEEDS_ALL = frozenset(
    """softmax multinomial kl_div KLDivLoss topk argmax sigmoid Categorical logsumexp log_softmax generate tanh
    logits_processor""".split()
)
_CROSS_ENTROPY = frozenset({"cross_entropy", "CrossEntropyLoss", "loss_fct", "loss_function", "criterion", "nll_loss"})
_LABEL_WORDS = frozenset({"label", "labels", "target", "targets"})
_TOKEN_WORDS = frozenset({"ids", "token", "tokens", "completion"})


class Copy(Enum):
    SHIFTED = "shifted"
    """All but the last token, made contiguous."""
    UPCAST = "upcast"
    """In float32, for the cross entropy, which computes in float32 anyway."""
    LOG_SOFTMAX = "log softmax"
    """The logarithms for every entry of the vocabulary, of which one for each token is taken."""
    ALL_POSITIONS = "all positions"
    """The head runs on every token, and the last one is used."""
    FORWARD = "forward"
    """So does the head in the model's forward, of which a method that samples uses the last token."""


@dataclass(frozen=True, eq=False)
class LogitsCopy:
    kind: Copy
    call: Call
    copied: cst.BaseExpression


def logits_copies(module: Module) -> Iterator[LogitsCopy]:
    if not any(part in word for word in module.words for part in _PARTS) or is_over_characters(module):
        return
    for call in module.calls:
        found = _copy(module, call)
        if found is not None:
            yield found


def _copy(module: Module, call: Call) -> LogitsCopy | None:
    if call.method in _COPIES_A_SLICE and call.receiver_node is not None:
        return _shifted(module, call)
    if call.method in _UPCASTS and call.receiver_node is not None:
        return _upcast(module, call)
    if call.method == "gather" or call.names(_GATHER):
        return _gathered(module, call)
    return _last_position(module, call) or _last_of_forward(module, call)


# --- the last token left out ---


def _shifted(module: Module, call: Call) -> LogitsCopy | None:
    """`logits[..., :-1, :].contiguous()`, `logits[:, :-1].reshape(-1, vocab_size)`"""
    assert call.receiver_node is not None
    if call.method == "contiguous" and call.positional:
        return None
    if isinstance(call.receiver_node, cst.Name) and not _is_called_logits(call.receiver_node):
        return None
    sliced = _slice_of(call, call.receiver_node)
    if sliced is None or (isinstance(call.statement, cst.Return) and call.statement.value is call.node):
        return None  # handed out as it is: there is no loss whose labels could be shifted instead
    if _is_called_logits(sliced.value) or _is_flattened(module, call) or _names_logits(call.statement):
        return LogitsCopy(Copy.SHIFTED, call, sliced.value)
    return None


def _slice_of(call: Call, node: cst.BaseExpression) -> cst.Subscript | None:
    """The slice that is copied: itself, or what the name was bound to, once, in the function."""
    if isinstance(node, cst.Subscript):
        return node if is_token_shift(node) else None
    if not isinstance(node, cst.Name):
        return None
    value = _bound_to(call, node.value)
    return value if isinstance(value, cst.Subscript) and is_token_shift(value) else None


def _bound_to(call: Call, name: str) -> cst.BaseExpression | None:
    """What the name was last bound to before the call, in the statements of its function."""
    found: cst.BaseExpression | None = None
    for node in walk(call.scope.node):
        if node is call.node:
            break
        if isinstance(node, cst.Assign) and any(path_of(item.target) == name for item in node.targets):
            found = node.value if node is not call.statement else found
    return found


def _is_called_logits(node: cst.BaseExpression) -> bool:
    """`logits`, `outputs.logits`, `lm_logits`, `outputs["logits"]`, `prediction_scores`"""
    if isinstance(node, cst.Subscript):
        index = node.slice[0].slice
        literal = index.value if isinstance(index, cst.Index) else None
        return isinstance(literal, cst.SimpleString) and "logits" in literal.value
    if isinstance(node, cst.Call) and isinstance(node.func, cst.Attribute):
        return _is_called_logits(node.func.value) if node.func.attr.value in known.COPYING_METHODS else False
    path = path_of(node)
    if path is None:
        return False
    last = path.rpartition(".")[2]
    return bool(words_of(last) & vocabulary.LOGITS_WORDS) or last == "prediction_scores"


def _names_logits(statement: cst.CSTNode) -> bool:
    """`shift_logits = outputs[0][..., :-1, :].contiguous()`"""
    return isinstance(statement, cst.Assign) and any(
        isinstance(item.target, cst.Name) and _is_called_logits(item.target) for item in statement.targets
    )


def _is_flattened(module: Module, call: Call) -> bool:
    """`output[:, :-1].contiguous().view(-1, vocab_size)`"""
    if call.method == "reshape":
        return len(call.positional) > 1 and is_vocabulary_size(call.positional[-1].expression)
    for other in module.calls_in(call.scope):
        if other.method in ("view", "reshape") and other.receiver_node is call.node and len(other.positional) > 1:
            return is_vocabulary_size(other.positional[-1].expression)
    return False


# --- float32 ---


def _upcast(module: Module, call: Call) -> LogitsCopy | None:
    """`logits.float()`, `self.lm_head(hidden).float()` before a cross entropy."""
    assert call.receiver_node is not None
    if call.method == "float" and (call.positional or call.keywords):
        return None
    if call.method != "float":
        given = [*call.positional, *call.keywords.values()]
        if len(given) != 1 or not given[0].value.quals or not given[0].value.quals <= _FLOAT32:
            return None
    words = call.scope.words
    if words & _NEEDS_ALL or not words & _CROSS_ENTROPY:
        return None
    if _is_for_loss_alone(call):
        return None  # on purpose: with 16 bits its last digits differ
    if not _is_called_logits(call.receiver_node) and not _is_head(call.receiver_node):
        return None
    return LogitsCopy(Copy.UPCAST, call, call.receiver_node) if _is_over_vocabulary(module, call) else None


def _is_for_loss_alone(call: Call) -> bool:
    """Whether it is made on a condition on the labels."""
    return any(
        _is_about_labels(around.test) and not _is_without_them_too(around, below)
        for around, below in pairwise(path_to(call.scope.node, call.node))
        if isinstance(around, (cst.If, cst.IfExp))
    )


def _is_about_labels(test: cst.BaseExpression) -> bool:
    names = (path_of(part) for part in walk(test) if isinstance(part, (cst.Name, cst.Attribute)))
    return any(words_of(name) & _LABEL_WORDS for name in names if name is not None)


def _is_without_them_too(around: cst.If | cst.IfExp, below: cst.CSTNode) -> bool:
    """The `else` of `if training and labels is not None`, where a loss is computed, too, if there are labels."""
    if below is not around.orelse or not isinstance(around, cst.If):
        return False
    comparisons = (part for part in walk(around.test) if isinstance(part, cst.Comparison))
    is_given = any(isinstance(item.operator, cst.IsNot) for part in comparisons for item in part.comparisons)
    paths = (path_of(part) for part in walk(below) if isinstance(part, (cst.Name, cst.Attribute)))
    return is_given and any(path.rpartition(".")[2] in _CROSS_ENTROPY for path in paths if path is not None)


def _is_head(node: cst.BaseExpression) -> bool:
    """`self.lm_head(hidden)`"""
    if not isinstance(node, cst.Call):
        return False
    name = path_of(node.func)
    return name is not None and name.rpartition(".")[2] in vocabulary.HEADS


def _is_over_vocabulary(module: Module, call: Call) -> bool:
    """Whether the function computes logits with a language-model head, shifts them, or knows the vocabulary's size."""
    return bool(call.scope.words & vocabulary.HEADS) or _shows_vocabulary(call.scope.node)


@lru_cache(maxsize=NODES_REMEMBERED)
def _shows_vocabulary(function: cst.CSTNode) -> bool:
    for node in walk(function):
        if isinstance(node, cst.Subscript) and is_token_shift(node) and _is_called_logits(node.value):
            return True
        if isinstance(node, (cst.Name, cst.Attribute)) and path_of(node) is not None:
            last = str(path_of(node)).rpartition(".")[2]
            if last in vocabulary.VOCABULARY_WORDS and last != "block_size":
                return True
    return False


# --- one entry of all ---


def _gathered(module: Module, call: Call) -> LogitsCopy | None:
    """`logits.log_softmax(-1).gather(2, labels.unsqueeze(2))`, `torch.gather(logps, 2, ids)`"""
    given = [argument.expression for argument in call.positional]
    is_method = not call.names(_GATHER)
    if is_method and call.callee.quals:
        return None
    source = call.receiver_node if is_method else (given[0] if given else _keyword(call, "input"))
    rest = given if is_method else given[1:]
    dim = rest[0] if rest else _keyword(call, "dim")
    index = rest[1] if len(rest) > 1 else _keyword(call, "index")
    if source is None or dim is None or index is None:
        return None
    if not _is_one_each(index):
        return None  # the best few, for a divergence
    if isinstance(source, cst.Name):
        if _times_read(call, source.value) > 1:
            return None  # for the entropy, too
        source = _bound_to(call, source.value)
    logits = _softmaxed(module, source)
    if logits is None or not _is_called_logits(_unsliced(logits)):
        return None
    return LogitsCopy(Copy.LOG_SOFTMAX, call, logits) if _is_by_token(dim, index, logits) else None


def _is_one_each(index: cst.BaseExpression) -> bool:
    """`labels.unsqueeze(-1)`, `labels[..., None]`: one entry for each token."""
    if isinstance(index, cst.Subscript):
        last = index.slice[-1].slice
        return isinstance(last, cst.Index) and isinstance(last.value, cst.Name) and last.value.value == "None"
    while isinstance(index, cst.Call) and isinstance(index.func, cst.Attribute):
        if index.func.attr.value == "unsqueeze":
            return True
        index = index.func.value
    return False


def _times_read(call: Call, name: str) -> int:
    """How often the name is read in the call's function."""
    nodes = list(walk(call.scope.node))
    bound = {id(item.target) for node in nodes if isinstance(node, cst.Assign) for item in node.targets}
    return sum(isinstance(node, cst.Name) and node.value == name and id(node) not in bound for node in nodes)


def _keyword(call: Call, name: str) -> cst.BaseExpression | None:
    argument = call.keywords.get(name)
    return None if argument is None else argument.expression


def _softmaxed(module: Module, node: cst.BaseExpression | None) -> cst.BaseExpression | None:
    """What `log_softmax` is given."""
    call = module.call_at(node) if isinstance(node, cst.Call) else None
    if call is None:
        return None
    if call.names(_LOG_SOFTMAX) and call.positional:
        return call.positional[0].expression
    return call.receiver_node if call.method == "log_softmax" and not call.callee.quals else None


def _unsliced(node: cst.BaseExpression) -> cst.BaseExpression:
    while isinstance(node, cst.Subscript) and not _is_called_logits(node):
        node = node.value
    return node


def _is_by_token(dim: cst.BaseExpression, index: cst.BaseExpression, logits: cst.BaseExpression) -> bool:
    """Three dimensions: batch, token, vocabulary. Of actions and classes there are two."""
    if isinstance(dim, cst.Integer) and dim.value == "2":
        return True
    if isinstance(logits, cst.Subscript) and is_token_shift(logits):
        return True
    return any(isinstance(part, cst.Name) and words_of(part.value) & _TOKEN_WORDS for part in walk(index))


# --- every position ---


def _last_position(module: Module, call: Call) -> LogitsCopy | None:
    """`self.lm_head(x)[:, -1, :]`"""
    if not _runs_on_all(module, call):
        return None
    reads = _reads_of_result(call)
    if not reads or not all(_is_last_position(node) for node in reads):
        return None
    return LogitsCopy(Copy.ALL_POSITIONS, call, call.positional[0].expression)


def _runs_on_all(module: Module, call: Call) -> bool:
    """A head over a vocabulary that is given more than some positions."""
    if len(call.positional) != 1 or call.callee.kind not in (Kind.MODULE, Kind.UNKNOWN):
        return False
    if isinstance(call.positional[0].expression, cst.Subscript):
        return False
    return _is_head(call.call) or _is_made_as_head(module, call)


def _is_made_as_head(module: Module, call: Call) -> bool:
    """The class makes it so: `self.head = nn.Linear(width, vocab_size)`."""
    owner, path = call.scope.enclosing_class(), path_of(call.call.func)
    if owner is None or path is None or not path.startswith("self."):
        return False
    made = [node.value for node in assignments_in(owner.node).get(path, ())]
    return bool(made) and all(_is_linear_over_vocabulary(module, module.call_at(node)) for node in made)


def _is_linear_over_vocabulary(module: Module, call: Call | None) -> bool:
    """As large as a vocabulary by its name, or as an embedding of the same class: `nn.Embedding(words, width)`."""
    if call is None or not call.names(vocabulary.LINEAR_LAYERS):
        return False
    size = call.positional[1] if len(call.positional) > 1 else call.keywords.get("out_features")
    if size is None or is_vocabulary_size(size.expression):
        return size is not None
    embeddings = (other for other in module.calls_in(call.scope) if other.names(vocabulary.EMBEDDINGS))
    entries = (other.positional[0].expression for other in embeddings if other.positional)
    return any(module.text(item) == module.text(size.expression) for item in entries)


def _last_of_forward(module: Module, call: Call) -> LogitsCopy | None:
    """`logits, _ = self(tokens)` of a model of this file, of which only `logits[:, -1]` is read."""
    owner = call.scope.enclosing_class()
    if owner is None or path_of(call.call.func) not in ("self", "self.forward"):
        return None
    if len(call.positional) != 1 or len(call.call.args) != 1 or _is_last_token(call.positional[0].expression):
        return None
    forward = module.analysis.method(owner.qualname, "forward")
    place, reads = _reads_of_logits(call)
    if forward is None or not reads or not all(_is_last_position(node) for node in reads):
        return None
    if forward.words & vocabulary.CARRIED_WORDS or not _returns_all_logits(module, forward, place):
        return None
    return LogitsCopy(Copy.FORWARD, call, call.positional[0].expression)


def _is_last_token(given: cst.BaseExpression) -> bool:
    """`tokens[:, -1:]`: what is sampled with a cache."""
    return isinstance(given, cst.Subscript) and any(
        isinstance(item.slice, cst.Slice) and _is_minus_one(item.slice.lower) for item in given.slice
    )


def _reads_of_logits(call: Call) -> tuple[int | None, list[cst.CSTNode]]:
    """Which part of the result holds the logits, None for all of it, and where they are read."""
    statement = call.statement
    target = statement.targets[0].target if isinstance(statement, cst.Assign) else None
    if not isinstance(statement, cst.Assign) or not isinstance(target, cst.Tuple) or statement.value is not call.node:
        return None, _reads_of_result(call)
    names = [element.value for element in target.elements]
    for place, name in enumerate(names):
        if isinstance(name, cst.Name) and _is_called_logits(name):
            return place, _reads_of_name(call, name.value)
    return None, []


def _returns_all_logits(module: Module, forward: Scope, place: int | None) -> bool:
    """Whatever way it takes, the function returns the head's output for every token."""
    found = False
    for node in walk(forward.node):
        if not isinstance(node, cst.Return):
            continue
        value = node.value
        if place is not None:
            elements = value.elements if isinstance(value, cst.Tuple) else ()
            value = elements[place].value if place < len(elements) else None
        found = True
        if value is None or not all(_is_output_of_head(module, made) for made in _made_as(forward, value)):
            return False
    return found


def _made_as(function: Scope, value: cst.BaseExpression) -> list[cst.BaseExpression]:
    """The expression itself, or all that its name is bound to in the function."""
    if not isinstance(value, cst.Name):
        return [value]
    assigned = (node for node in walk(function.node) if isinstance(node, cst.Assign))
    made = [node.value for node in assigned if any(path_of(item.target) == value.value for item in node.targets)]
    return made or [value]


def _is_output_of_head(module: Module, node: cst.BaseExpression) -> bool:
    call = module.call_at(node)
    return call is not None and _runs_on_all(module, call)


def _reads_of_result(call: Call) -> list[cst.CSTNode]:
    """The subscripts (or other expressions) that read what the head has returned."""
    direct = [node for node in walk(call.scope.node) if isinstance(node, cst.Subscript) and node.value is call.node]
    statement = call.statement
    if direct:
        return list(direct)
    if not isinstance(statement, cst.Assign) or statement.value is not call.node or len(statement.targets) != 1:
        return []
    target = statement.targets[0].target
    return _reads_of_name(call, target.value) if isinstance(target, cst.Name) else []


def _reads_of_name(call: Call, name: str) -> list[cst.CSTNode]:
    """What reads the name that the call's result is bound to."""
    nodes = list(walk(call.scope.node))
    after = nodes[next(place for place, node in enumerate(nodes) if node is call.node) :]
    return _reads_until_bound(after, name)


def _reads_until_bound(nodes: list[cst.CSTNode], name: str) -> list[cst.CSTNode]:
    """The reads of the name up to the statement that binds it anew; that statement's own are among them."""
    taken = {id(node.value): node for node in nodes if isinstance(node, cst.Subscript)}
    no_reads = {id(node.attr) for node in nodes if isinstance(node, cst.Attribute)}
    no_reads |= {id(node.keyword) for node in nodes if isinstance(node, cst.Arg) and node.keyword is not None}
    reads: list[cst.CSTNode] = []
    for node in nodes:
        if isinstance(node, cst.Assign) and any(path_of(item.target) == name for item in node.targets):
            inner = [part for part in walk(node.value) if isinstance(part, cst.Name) and part.value == name]
            return reads + [taken.get(id(part), part) for part in inner]
        if isinstance(node, cst.Name) and node.value == name and id(node) not in no_reads:
            reads.append(taken.get(id(node), node))
    return reads


def _is_last_position(node: cst.CSTNode) -> bool:
    """`x[:, -1]`, `x[:, -1, :]`, `x[:, [-1], :]`"""
    if not isinstance(node, cst.Subscript) or len(node.slice) not in (2, 3):
        return False
    first, second = node.slice[0].slice, node.slice[1].slice
    if not isinstance(first, cst.Slice) or first.lower is not None or first.upper is not None:
        return False
    if not isinstance(second, cst.Index):
        return False
    value = second.value
    if isinstance(value, cst.List) and len(value.elements) == 1:
        value = value.elements[0].value
    return _is_minus_one(value)


def _is_minus_one(node: cst.BaseExpression | None) -> bool:
    return (
        isinstance(node, cst.UnaryOperation)
        and isinstance(node.operator, cst.Minus)
        and isinstance(node.expression, cst.Integer)
        and node.expression.value == "1"
    )
