"""What the forward pass of a module leaves behind in the module: values that carry a graph, in attributes and in lists.

Whoever wants to differentiate through such a value reads the attribute, in this file or in another: an auxiliary loss,
deep supervision. What nobody in view clears grows all the same; of a single slot it must be certain that nobody
differentiates through it.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import libcst as cst

from memlint.semantics.blocks import path_to
from memlint.semantics.events import AttributeStore, Store
from memlint.semantics.module import Module
from memlint.semantics.naming import words_of
from memlint.semantics.questions import Question
from memlint.semantics.running import is_run_in_view
from memlint.semantics.scopes import NODES_REMEMBERED, Scope, nodes_of, nodes_within, path_of, walk
from memlint.semantics.step_outputs import is_emptied, reached_from
from memlint.semantics.values import Kind, Mode, Value

_FORWARD = frozenset({"forward"})
_GROWING = frozenset({"append", "extend", "insert"})
# What is read through one of these is no part of any graph.
_MODE_WORDS = frozenset({"training", "train", "grad", "eval", "requires"})
_DETACHED = frozenset({"detach", "data", "item", "tolist", "numpy", "shape", "size", "dtype", "device"})


@dataclass(frozen=True, eq=False)
class KeptActivation:
    """A value that `forward` leaves in an attribute."""

    node: cst.CSTNode
    attribute: str
    cls: str
    grows: bool
    """It is put into a list that nobody empties; else it stays until the next forward pass."""
    source: cst.BaseExpression
    """The expression that is kept."""
    questions: frozenset[Question]
    certain: bool
    is_run: bool = True
    """False where nobody in view runs the module: who might read the slot is out of view."""


def kept_activations(module: Module) -> Iterator[KeptActivation]:
    if "forward" not in module.words:
        return
    for owner in module.scopes:
        if owner.is_class and module.analysis.is_module_class(owner.qualname):
            methods = reached_from(module, owner, _FORWARD)
            if methods:
                yield from _in_lists(module, owner, methods)
                yield from _in_slots(module, owner, methods)


# --- lists ---


def _in_lists(module: Module, owner: Scope, methods: dict[Scope, str]) -> Iterator[KeptActivation]:
    for store in module.stores:
        attribute = _attribute(store.path)
        if store.scope not in methods or attribute is None or store.how not in _GROWING or not store.boxes:
            continue
        questions = _graph(module, store.value)
        if questions is None or store.guarded or not _is_nobodys_business(module, owner, store, attribute):
            continue
        elsewhere = _is_mentioned_elsewhere(module, attribute)
        if elsewhere is not True:
            yield KeptActivation(
                store.node, attribute, owner.name, True, store.value_node, questions, elsewhere is False
            )


def _is_nobodys_business(module: Module, owner: Scope, store: Store, attribute: str) -> bool:
    """Nobody in view empties the list, differentiates through it, or hands it on."""
    analysis = module.analysis
    if store.root in analysis.differentiated or is_emptied(module, owner, attribute, store):
        return False
    boxes = [module.box(index) for index in store.boxes]
    if any(box.bounded or box.returned or box.escaped for box in boxes):
        return False
    return _is_only_filled(module, store.boxes, attribute)


@lru_cache(maxsize=NODES_REMEMBERED)
def _is_only_filled(module: Module, boxes: frozenset[int], attribute: str) -> bool:
    """Whether all who read the attribute put something into these containers."""
    filled = {id(store.target) for store in module.stores if store.boxes & boxes}
    return all(id(read) in filled for read in module.once(_Reads).plain(attribute))


# --- single slots ---


def _in_slots(module: Module, owner: Scope, methods: dict[Scope, str]) -> Iterator[KeptActivation]:
    for store in module.attribute_stores:
        if store.scope not in methods or _attribute(store.path) != store.name:
            continue
        if store.guarded and not _is_switched(store):
            continue
        questions = _graph(module, store.value)
        if questions is None or store.value.kind is Kind.CONTAINER:
            continue
        if _nobody_wants_the_graph(module, store, methods):
            is_run = bool(module.once(_Reads).detached(store.name)) or is_run_in_view(module, owner)
            yield KeptActivation(store.node, store.name, owner.name, False, store.source, questions, False, is_run)


def _nobody_wants_the_graph(module: Module, store: AttributeStore, methods: dict[Scope, str]) -> bool:
    """All who read the attribute take it out of its graph; or nobody in the whole project reads it.

    What `forward` itself reads is the state of the next step.
    """
    reads = module.once(_Reads)
    if reads.plain(store.name):
        return False
    elsewhere = _is_mentioned_elsewhere(module, store.name)
    detached = reads.detached(store.name)
    if not detached:
        return elsewhere is False and not store.guarded
    return elsewhere is not True and all(detached.isdisjoint(nodes_within(scope.node)) for scope in methods)


def _is_switched(store: AttributeStore) -> bool:
    """Behind nothing but switches of the object, `if self.keep:`; none for grad mode or training."""
    path = path_to(store.scope.node, store.node)
    for parent, child in pairwise(path):
        if isinstance(parent, cst.If):
            name = path_of(parent.test) or ""
            if child is not parent.body or not name.startswith("self.") or words_of(name) & _MODE_WORDS:
                return False
        elif isinstance(parent, (cst.Try, cst.For, cst.While, cst.Match)):
            return False
        elif isinstance(parent, cst.IndentedBlock):
            before = parent.body[: next(index for index, item in enumerate(parent.body) if item is child)]
            if any(isinstance(node, (cst.Return, cst.Continue)) for item in before for node in walk(item)):
                return False
    return True


# --- who reads an attribute ---


def _attribute(path: str | None) -> str | None:
    owner, _, attribute = (path or "").partition(".")
    return attribute if owner == "self" and attribute.isidentifier() else None


class _Reads:
    """Who reads the attributes of a file, by their names: listed once, however many are asked for."""

    def __init__(self, module: Module) -> None:
        self._named: dict[str, list[cst.Attribute]] = {}
        self._cut: dict[str, set[int]] = {}
        """`self.attention` of `self.attention.detach()` and of `self.attention[0].mean(1).cpu().detach()`."""
        for node in nodes_of(module.tree, cst.Attribute):
            self._named.setdefault(node.attr.value, []).append(node)
            start = _start_of_chain(node.value) if node.attr.value in _DETACHED else None
            if start is not None:
                self._cut.setdefault(start.attr.value, set()).add(id(start))
        targets = [node.target for node in nodes_of(module.tree, cst.AssignTarget)]
        targets += [node.target for node in nodes_of(module.tree, cst.AnnAssign)]
        self._bound = {id(part) for target in targets for part in (target, *_elements(target))}
        # A string of the name is a read too (`getattr`).
        self._strings: dict[str | bytes, list[cst.CSTNode]] = {}
        for literal in nodes_of(module.tree, cst.SimpleString):
            self._strings.setdefault(literal.evaluated_value, []).append(literal)
        self._without_grad = list(_without_grad(module))
        self._detached: dict[str, frozenset[int]] = {}
        self._plain: dict[str, list[cst.CSTNode]] = {}

    def detached(self, attribute: str) -> frozenset[int]:
        """The nodes that take it out of its graph, or read it where grad mode is off."""
        if attribute not in self._detached:
            cut = self._cut.get(attribute, set())
            named = {id(node) for node in self._named.get(attribute, ())}
            reads = [named & inside for words, inside in self._without_grad if words is None or attribute in words]
            self._detached[attribute] = frozenset(cut.union(*reads))
        return self._detached[attribute]

    def plain(self, attribute: str) -> list[cst.CSTNode]:
        """All other reads."""
        if attribute not in self._plain:
            detached = self.detached(attribute)
            named = (node for node in self._named.get(attribute, ()) if id(node) not in self._bound)
            reads = [node for node in named if id(node) not in detached]
            self._plain[attribute] = [*reads, *self._strings.get(attribute, ())]
        return self._plain[attribute]


def _start_of_chain(node: cst.BaseExpression) -> cst.Attribute | None:
    """The attribute on which a chain of methods is called, each on what the one before it gives."""
    while isinstance(node, (cst.Call, cst.Subscript)):
        if isinstance(node, cst.Subscript):
            node = node.value
        elif isinstance(node.func, cst.Attribute):
            node = node.func.value
        else:
            return None
    return node if isinstance(node, cst.Attribute) else None


def _elements(target: cst.BaseExpression) -> Iterator[cst.BaseExpression]:
    if isinstance(target, (cst.Tuple, cst.List)):
        yield from (element.value for element in target.elements)


def _without_grad(module: Module) -> Iterator[tuple[Set[str] | None, frozenset[int]]]:
    """The nodes of the functions and `with` blocks that run with grad mode off, but for what is set or returned there.

    What they return may be the value itself. With each function its words: what it does not mention it does not read.
    """
    facts = module.facts.functions
    for scope in module.scopes:
        known = facts.get(scope.qualname) if scope.is_function else None
        if known is not None and known.entry == Mode.OFF.value:
            yield scope.words, _read_in(scope.node)
    for node, _, value in module.withs:
        if value.kind is Kind.CONTEXT and value.mode is Mode.OFF:
            yield None, _read_in(node.body)


def _read_in(part: cst.CSTNode) -> frozenset[int]:
    handed_on: set[int] = set()
    for node in walk(part):
        if isinstance(node, (cst.AssignTarget, cst.AnnAssign, cst.AugAssign, cst.Return)):
            whole = node.value if isinstance(node, cst.Return) and node.value else node
            handed_on.update(map(id, walk(whole)))
    return frozenset(id(node) for node in walk(part)) - handed_on


def _is_mentioned_elsewhere(module: Module, attribute: str) -> bool | None:
    """Whether another file of the project has an attribute of this name; None where there is no project."""
    view = module.analysis.view
    if view is None:
        return None
    return view.another_file_matches((rf"\.{attribute}",), (f'"{attribute}"',), (f"'{attribute}'",))


# --- what is kept ---


def _graph(module: Module, value: Value) -> frozenset[Question] | None:
    """What is left to ask about whether the value carries a graph; None: it is not known to."""
    return module.questions(value.conditions) if value.carries_graph else None
