"""Transitions that are stored with the graph of the policy that made them (catalogue, item 30)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import libcst as cst

from memlint.semantics.attribute_reads import AttributeReads
from memlint.semantics.definitions import Box
from memlint.semantics.events import Call, Loop, Store
from memlint.semantics.keepers import KeptArgument, carrying_loops, imported_classes, keeps, kept_arguments
from memlint.semantics.knowledge import rollouts as known
from memlint.semantics.knowledge.torch import DETACHING_METHODS
from memlint.semantics.module import Module
from memlint.semantics.naming import words_of
from memlint.semantics.questions import GradOnEntry, Question
from memlint.semantics.retention import retentions
from memlint.semantics.scopes import NODES_REMEMBERED, path_of, walk
from memlint.semantics.values import Kind, Mode, Proof, Value

_STEPPED = frozenset({"step"})
_EMPTYING = frozenset({"clear", "append", "extend", "pop"})


@dataclass(frozen=True, eq=False)
class RolloutStore:
    """A call that puts a value with its graph into a buffer."""

    call: Call
    buffer: cst.BaseExpression
    stored: tuple[cst.BaseExpression, ...]
    detached: cst.CSTNode | None
    """Where all that the buffer holds is detached: proof that nobody wants the graph."""
    certain: bool
    """What the buffer does with it is in view."""
    questions: frozenset[Question]


def rollout_stores(module: Module) -> list[RolloutStore]:
    """All of a file, worked out once however many rules ask."""
    return module.once(_all_stores)


def _all_stores(module: Module) -> list[RolloutStore]:
    if module.words.isdisjoint(known.STORING_METHODS):
        return []
    found: list[RolloutStore] = []
    for call in module.calls:
        if call.method not in known.STORING_METHODS or call.receiver_node is None:
            continue
        if call.mode in (Mode.OFF, Mode.UNKNOWN) or call.receiver is None or call.receiver.kind is Kind.MODULE:
            continue
        store = _pushed(module, call) if call.handed else None
        if store is None and call.method == "append":
            store = _detached_later(module, call) or _listed_in_episode(module, call)
        if store is not None:
            found.append(store)
    return found


def kept_by_meters(module: Module) -> list[KeptArgument]:
    """The arguments that callees keep, without those that are transitions."""
    transitions = {id(store.call) for store in rollout_stores(module)}
    return [kept for kept in kept_arguments(module) if id(kept.call) not in transitions]


def draws_old_transitions(module: Module, call: Call | None) -> bool:
    """`replay.sample(256)`: data, unless the file puts values with their graph into a buffer."""
    if call is None or call.method not in known.DRAWING_METHODS or not is_buffer(module, call):
        return False
    return not rollout_stores(module)


# --- a buffer that is asked to store ---


def _pushed(module: Module, call: Call) -> RolloutStore | None:
    """`memory.push(state, policy(state), reward)` while an environment is stepped through."""
    assert call.receiver_node is not None
    if not is_buffer(module, call):
        return None
    stored: list[cst.BaseExpression] = []
    questions: frozenset[Question] = frozenset()
    certain = True
    for handed in call.handed:
        keeping = keeps(module, call, handed.argument)
        classes = imported_classes(module, call.receiver) if call.receiver is not None else frozenset()
        by_name = bool(classes) and classes <= known.BUFFER_CLASSES
        by_name |= not classes and _is_replay(call)
        bounded = _bounded_list(module, call)
        if keeping is None and not by_name and not bounded:
            continue
        root = keeping.root if keeping is not None else -1
        if root in module.analysis.differentiated:
            continue  # on-policy: the graph is wanted
        certain &= bounded or (keeping is not None and keeping.certain)
        if not _lives_on(module, call, keeping.attribute if keeping is not None else None):
            continue
        for node, value in handed.carriers:
            if keeping is None and _is_of_policy_gradient(node):
                continue
            asked = _carries(module, value)
            if asked is None:
                continue
            stored.append(node)
            questions |= asked
    if not stored:
        return None
    return RolloutStore(call, call.receiver_node, tuple(stored), None, certain, questions | _entry(call))


def _is_of_policy_gradient(node: cst.BaseExpression) -> bool:
    """`log_prob`, `dist.entropy()`: what comes out of a buffer that nobody knows may well be differentiated."""
    names = (part.value for part in walk(node) if isinstance(part, cst.Name))
    return any(not words_of(name).isdisjoint(known.ON_POLICY_WORDS) for name in names)


def is_buffer(module: Module, call: Call) -> bool:
    """Whether the receiver, or its class, is named like a store of transitions."""
    path = path_of(call.receiver_node) if call.receiver_node is not None else None
    names = [path.rpartition(".")[2]] if path is not None else []
    if call.receiver is not None and call.receiver.cls is not None:
        names.append(call.receiver.cls.rpartition(".")[2].removeprefix(":"))
    if call.receiver is not None:
        names += sorted(imported_classes(module, call.receiver))
    return any(not words_of(name).isdisjoint(known.BUFFER_WORDS) for name in names)


def _is_replay(call: Call) -> bool:
    """What nobody knows, and is called a replay, is sampled from for as long as training goes on."""
    path = path_of(call.receiver_node) if call.receiver_node is not None else None
    is_unknown = call.receiver is not None and call.receiver.kind is Kind.UNKNOWN and not call.receiver.quals
    return is_unknown and path is not None and "replay" in words_of(path.rpartition(".")[2])


def _bounded_list(module: Module, call: Call) -> bool:
    """`deque(maxlen=10000)`: an unbounded list is MEM102's."""
    boxes = call.receiver.boxes if call.receiver is not None else ()
    return bool(boxes) and all(module.box(index).bounded and not module.box(index).escaped for index in boxes)


def _lives_on(module: Module, call: Call, attribute: str | None) -> bool:
    """Whether the buffer outlives the steps of an episode, and nothing empties it in between."""
    return not module.once(_stepping_loops).isdisjoint(carrying_loops(module, call, attribute))


def _stepping_loops(module: Module) -> set[Loop]:
    """The loops with an `env.step(action)` in them."""
    loops = (call.loop for call in module.calls if call.method in _STEPPED and _steps_environment(call))
    return {around for loop in loops if loop is not None for around in loop.outer()}


def _steps_environment(call: Call) -> bool:
    if call.receiver is None or call.receiver.kind in (Kind.OPTIMIZER, Kind.SCALER):
        return False
    return bool(call.positional or call.keywords)


# --- lists that are detached when they are used ---


def _detached_later(module: Module, call: Call) -> RolloutStore | None:
    """`memory.logprobs.append(dist.log_prob(action))`, and later `torch.stack(memory.logprobs).detach()`."""
    target = call.receiver_node
    if not isinstance(target, cst.Attribute) or len(call.positional) != 1 or call.scope.name == "__init__":
        return None
    argument = call.positional[0]
    asked = _carries(module, argument.value)
    if asked is None:
        return None
    cut = _cut_of_all(module, target.attr.value)
    if cut is None or any(retention.store.node is call.node for retention in retentions(module)):
        return None  # MEM102 says it
    return RolloutStore(call, target, (argument.expression,), cut, True, asked | _entry(call))


def _listed_in_episode(module: Module, call: Call) -> RolloutStore | None:
    """`values.append(critic(state))` in a list of the function, and after the episode `torch.cat(values).detach()`."""
    store = module.once(_stores_by_node).get(id(call.node))
    if store is None or not isinstance(store.target, cst.Name) or len(call.positional) != 1:
        return None
    if not store.boxes or any(_is_seen_elsewhere(module.box(index)) for index in store.boxes):
        return None
    asked = _carries(module, call.positional[0].value)
    if asked is None or module.once(_stepping_loops).isdisjoint(store.carried_by):
        return None
    analysis, flow = module.analysis, module.flow_of(call.scope)
    if flow is None or store.root in analysis.differentiated | analysis.escaped | analysis.shared | flow.return_roots:
        return None
    cut = next((other.node for other in flow.calls if _detaches(other, store.root)), None)
    if cut is None or any(retention.store is store for retention in retentions(module)):
        return None
    return RolloutStore(call, store.target, (call.positional[0].expression,), cut, True, asked | _entry(call))


def _stores_by_node(module: Module) -> dict[int, Store]:
    return {id(store.node): store for store in module.stores}


def _is_seen_elsewhere(box: Box) -> bool:
    return box.escaped or box.in_object or box.returned or box.bounded


def _detaches(call: Call, root: int) -> bool:
    return call.method in DETACHING_METHODS and call.receiver is not None and root in call.receiver.roots


@lru_cache(maxsize=NODES_REMEMBERED)
def _cut_of_all(module: Module, name: str) -> cst.CSTNode | None:
    """Where what the attribute holds is detached, if every read of it is."""
    reads = module.once(AttributeReads)
    found: cst.CSTNode | None = None
    for node in reads.named(name):
        if reads.is_bound(node) or _is_emptied(reads, node):
            continue
        found = reads.cut(node)
        if found is None:
            return None
    return found


def _is_emptied(reads: AttributeReads, node: cst.CSTNode) -> bool:
    """`logprobs.clear()`, `del logprobs[:]`; `len(logprobs)` says nothing either."""
    parent = reads.parent(node)
    if isinstance(parent, cst.Attribute) and parent.value is node:
        return parent.attr.value in _EMPTYING
    if isinstance(parent, cst.Arg):
        call = reads.parent(parent)
        return isinstance(call, cst.Call) and isinstance(call.func, cst.Name) and call.func.value == "len"
    return isinstance(reads.outside_tuple(parent if isinstance(parent, cst.Subscript) else node), cst.Del)


# --- what carries a graph ---


def _entry(call: Call) -> frozenset[Question]:
    return frozenset({GradOnEntry(call.scope.qualname)}) if call.mode is Mode.ENTRY else frozenset()


def _carries(module: Module, value: Value) -> frozenset[Question] | None:
    """The questions on which it depends that the value carries the graph of a module; None: it does not."""
    if not value.carries_graph:
        return None
    left = module.analysis.basis(value.conditions)
    origins = [item.root for item in left if isinstance(item, Proof)]
    if not all(_is_of_network(module, module.analysis.roots[root].node) for root in origins):
        return None
    if not origins and not module.graph_sources(value) and not _is_of_other_file(module, value):
        return None
    return frozenset(item for item in left if not isinstance(item, Proof))


def _is_of_other_file(module: Module, value: Value) -> bool:
    """A function of the project returned it, or what it was computed from."""
    calls = (module.call_at(module.analysis.roots[root].node) for root in value.roots)
    return any(call is not None and call.summary is not None for call in calls)


def _is_of_network(module: Module, node: cst.CSTNode) -> bool:
    """`policy(state)` of a parameter called so, whose output the same function differentiates at another call."""
    call = module.call_at(node)
    path = path_of(call.call.func) if call is not None else None
    if call is None or path is None or words_of(path.rpartition(".")[2]).isdisjoint(known.NETWORK_WORDS):
        return False
    return call.callee.kind is Kind.UNKNOWN and any(
        path_of(other.call.func) == path and other.root in module.analysis.differentiated
        for other in module.calls_in(call.scope)
    )
