"""Stores that keep autograd graphs: which values are kept from iteration to iteration, and what of them stays alive.

The analysis behind the rules on running totals and on containers (catalogue, section 7c, items 2 and 3).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

import libcst as cst

from memlint.semantics.events import Call, Loop, Store
from memlint.semantics.knowledge import torch as known
from memlint.semantics.module import Module
from memlint.semantics.questions import Question, ResultNotDifferentiated
from memlint.semantics.scopes import Scope, assignments_in, nodes_within, parameters, path_of
from memlint.semantics.values import NOTHING, Kind, Value

# Code that mentions one of these may see that a value has lost its graph, or reach it by another way.
_NOTICING_WORDS = frozenset(
    """grad retain_grad register_hook requires_grad grad_fn is_leaf deepcopy exec locals vars globals""".split()
)
_EMPTYING = frozenset({"clear", "pop", "popleft", "reset"})


class Kept(Enum):
    """What of the graph stays alive."""

    NODES = "nodes"
    """A backward pass has freed the saved tensors: only graph nodes, in host memory."""
    NO_BACKWARD = "no backward"
    """Nothing is differentiated in the loop: every activation stays on the device."""
    OTHER_BRANCH = "other branch"
    """The loop differentiates something else: this branch's activations stay."""
    RETAINED = "retained"
    """`retain_graph=True` (or `create_graph=True`) keeps the activations that backward would free."""
    SKIPPED = "skipped"
    """On the iterations that skip backward, every activation stays."""


@dataclass(frozen=True, eq=False)
class Retention:
    """A store that keeps a graph from one iteration of `loop` to the next."""

    store: Store
    loop: Loop | None
    """None: it keeps one from call to call of a function that is a training step."""
    kept: Kept
    questions: frozenset[Question]
    weak: bool
    """A name was part of the evidence."""
    proven_tensor: bool
    """Whatever reaches the store is a tensor: `.detach()` cannot fail."""
    copied_by: str | None
    """The method (`cpu`, `clone`, ...) that made a copy of the value for the store."""
    escapes: bool
    """The target leaves the function: by a return, an attribute or a call out of view."""


def retentions(module: Module) -> list[Retention]:
    """All of a file, worked out once however many rules ask."""
    return module.once(_all_retentions)


def _all_retentions(module: Module) -> list[Retention]:
    found = (retention_of(module, store) for store in module.stores)
    return [retention for retention in found if retention is not None]


def retention_of(module: Module, store: Store) -> Retention | None:
    """What the store keeps from iteration to iteration of the innermost loop over batches that carries its target."""
    value, analysis = store.value, module.analysis
    if not value.carries_graph or all(_is_leaf(module, part) for part in _parts(store)):
        return None
    loop = next((loop for loop in store.carried_by if loop.is_batch_loop and not loop.is_comprehension), None)
    if loop is None:
        return _by_call(module, store)
    boxes = [module.box(index) for index in store.boxes]
    if any(box.bounded or loop.node in box.emptied_in for box in boxes):
        return None
    if store.root in analysis.differentiated or _overwrites(store, loop):
        return None  # REINFORCE, sums of losses: the graph is needed
    if _only_where_not_differentiated(module, store) or _would_raise(module, store):
        return None
    questions = module.questions(value.conditions)
    if questions is None:
        return None
    kept = _kept(module, store, loop)
    escapes = _escapes(module, store) or bool(store.scope.words & _NOTICING_WORDS)
    if kept is not Kept.NODES and not _is_broken(module, store, loop) and not _is_out_of_date(module, store, loop):
        needed = _nobody_differentiates(module, store, loop)
        if needed is None:
            return None
        questions |= needed
    return Retention(
        store,
        loop,
        kept,
        questions,
        _is_weak(module, store),
        _proven_tensors(module, store, loop),
        _copied_by(module, store),
        escapes,
    )


def _parts(store: Store) -> list[Value]:
    return [value for _, value in store.carriers] or [store.value]


def _is_leaf(module: Module, value: Value) -> bool:
    """A tensor that was told to require grad: others' graphs end at it, it keeps none."""
    made = module.definitions(value)
    return bool(made) and all(makes_leaf(module.call_at(node)) for node in made)


def makes_leaf(call: Call | None) -> bool:
    """Whether the call makes a tensor that is told to require grad."""
    if call is None:
        return False
    if call.method == "requires_grad_":
        return True  # what has a graph requires grad already: nobody tells it to
    required = call.keywords.get("requires_grad")
    return required is not None and required.value.literal is True and call.names(known.LEAF_MAKERS)


def _only_where_not_differentiated(module: Module, store: Store) -> bool:
    """`with set_grad_enabled(train): ...`, `if train: loss.backward()`, `else: total += loss`: there grad was off."""
    by_flag = {root for root in store.value.roots if module.analysis.roots[root].by_flag}
    backwards = module.backwards_over(by_flag)
    return bool(backwards) and all(store.excludes(backward) for backward in backwards)


def _would_raise(module: Module, store: Store) -> bool:
    """`torch.cat(outputs).numpy()` raises where there is a graph: the model needs no gradient, or grad is off here."""
    return store.root in module.once(_made_arrays).get(store.scope, NOTHING)


def _made_arrays(module: Module) -> dict[Scope, set[int]]:
    """What each function calls `.numpy()` on although it seems to carry a graph."""
    found: dict[Scope, set[int]] = {}
    for call in module.calls:
        if call.method != "numpy" or call.callee.quals or call.in_try or call.receiver is None:
            continue
        if call.receiver.carries_graph:
            found.setdefault(call.scope, set()).update(call.receiver.roots)
    return found


def _overwrites(store: Store, loop: Loop) -> bool:
    """`best[i] = outputs[i]` for all `i` of a range: each iteration of the loop around it fills the same places."""
    if store.how != "setitem" or not isinstance(store.node, cst.Subscript) or len(store.node.slice) != 1:
        return False
    key = store.node.slice[0].slice
    if not isinstance(key, cst.Index) or not isinstance(key.value, cst.Name):
        return False
    inner = [item for item in (store.loop.outer() if store.loop is not None else ()) if loop in item.outer()[1:]]
    counting = [item.node for item in inner if item.iterates.kind is Kind.NUMBER and isinstance(item.node, cst.For)]
    return any(path_of(node.target) == key.value.value for node in counting)


def _is_weak(module: Module, store: Store) -> bool:
    """Whether a name was part of the evidence; a backward pass on the very value is better evidence."""
    value = store.value
    return value.weak and not (value.idents and value.idents <= module.analysis.proven)


def _by_call(module: Module, store: Store) -> Retention | None:
    """A training step, called for each batch from elsewhere, that stores the loss it has differentiated."""
    flow = module.flow_of(store.scope)
    is_closure = store.scope.qualname in module.analysis.step_closures
    if flow is None or not (flow.has_step or is_closure) or store.scope.parent is None:
        return None
    if store.loop is not None and any(loop.has_forward for loop in store.loop.outer()):
        return None  # not over the losses of one batch: `for name, loss in losses.items()`
    if any(loop.has_backward or loop.has_step for loop in flow.loops):
        return None  # it trains for many batches, and stores the last one's
    is_handed_round = _is_handed_round(module, store)
    if store.root in module.analysis.differentiated or not (is_handed_round or _outlives_call(module, store)):
        return None
    roots, questions = _graph_roots(module, store), module.questions(store.value.conditions)
    freed = store.backed | (flow.backed_at_end or NOTHING)
    is_handed_out = store.root in flow.return_roots and not is_closure  # of which the optimizer reads the number
    if questions is None or not roots or not roots <= freed or (is_handed_out and not is_handed_round):
        return None
    weak, copied_by = _is_weak(module, store), _copied_by(module, store)
    return Retention(store, None, Kept.NODES, questions, weak, False, copied_by, True)


def _is_handed_round(module: Module, store: Store) -> bool:
    """`loss, mean = step(batch, mean)` in a loop, where the function adds to what it is given."""
    calls = module.calls_of(frozenset({store.scope.qualname}))
    if store.how != "accumulate" or not calls or not isinstance(store.scope.node, cst.FunctionDef):
        return False
    names = [param.name.value for param in parameters(store.scope.node.params)]
    if store.path not in names:
        return False
    is_method = store.scope.parent is not None and store.scope.parent.is_class
    place = names.index(store.path) - is_method
    return all(_takes_back(module, store, call, place) for call in calls)


def _takes_back(module: Module, store: Store, call: Call, place: int) -> bool:
    """Whether the call's loop binds the variable that it gives to what the function returns of it."""
    given = call.keywords.get(store.path or "") or (call.positional[place] if place < len(call.positional) else None)
    path = path_of(given.expression) if given is not None else None
    statement, flow = call.statement, module.flow_of(store.scope)
    if path is None or flow is None or call.loop is None or call.loop.scope is not call.scope:
        return False
    if not isinstance(statement, cst.Assign) or statement.value is not call.node:
        return False
    target = statement.targets[0].target
    if path_of(target) == path:
        return all(store.root in value.roots for value in flow.returned)
    targets = [path_of(element.value) for element in target.elements] if isinstance(target, cst.Tuple) else []
    return path in targets and all(
        value.elements is not None
        and len(value.elements) == len(targets)
        and store.root in value.elements[targets.index(path)].roots
        for value in flow.returned
    )


def _outlives_call(module: Module, store: Store) -> bool:
    """Whether the target is there before the call, grows in it, and is not emptied in it."""
    boxes = [module.box(index) for index in store.boxes]
    if not store.in_object and not any(box.in_object for box in boxes):
        return False
    inside = nodes_within(store.scope.node)
    kept = [box for box in boxes if box.in_object]
    if any(box.bounded or id(box.node) in inside for box in kept or boxes) or _is_local(store):
        return False
    if any(call.method in _EMPTYING and _path(call) == store.path for call in module.calls_in(store.scope)):
        return False
    if any(node is not store.statement for node in assignments_in(store.scope.node).get(store.path, ())):
        return False  # set anew in each call
    # A decayed mean is no total (MEM106).
    return not isinstance(store.statement, cst.Assign) or store.how != "accumulate" or _is_plain_sum(store)


def _is_local(store: Store) -> bool:
    """Whether the target is a name of the function. A meter that the caller gave is not: `store.how` is `call`."""
    head, node = (store.path or "").partition(".")[0], store.scope.node
    if head == "self" or head not in store.scope.bound or head in store.scope.nonlocal_names:
        return False
    given = {param.name.value for param in parameters(node.params)} if isinstance(node, cst.FunctionDef) else set()
    return store.how != "call" or head not in given


def _path(call: Call) -> str | None:
    return path_of(call.receiver_node) if call.receiver_node is not None else None


def _is_plain_sum(store: Store) -> bool:
    value = store.statement.value if isinstance(store.statement, cst.Assign) else None
    return isinstance(value, cst.BinaryOperation) and store.path in (path_of(value.left), path_of(value.right))


def _proven_tensors(module: Module, store: Store, loop: Loop) -> bool:
    """`.backward()` on a value in every iteration proves a tensor too: nothing else has the method."""
    freed = (store.backed, loop.backed_at_end or NOTHING)

    def is_proven(root: int) -> bool:
        is_freed = any(root in roots for roots in freed)
        return is_freed and root in module.analysis.proven and not module.is_built_elsewhere(root)

    return bool(store.carriers) and all(
        value.kind is Kind.TENSOR or (bool(value.idents) and all(map(is_proven, value.idents)))
        for _, value in store.carriers
    )


def _copied_by(module: Module, store: Store) -> str | None:
    """The outermost copying method in the stored expression, or in the one that made the stored variable."""
    made = module.definitions(store.value)
    for start in (store.value_node, *made[:1]):
        node: cst.CSTNode = start
        while isinstance(node, cst.Call) and isinstance(node.func, cst.Attribute):
            if node.func.attr.value in known.COPYING_METHODS:
                return node.func.attr.value
            node = node.func.value
    return None


def _graph_roots(module: Module, store: Store) -> frozenset[int]:
    """The operations whose saved tensors the stored value keeps."""
    roots = module.analysis.roots
    saving = frozenset(
        root for root in store.value.roots if roots[root].saves and not _saves_nothing(module, roots[root].node)
    )
    return (saving - _of_losses(module, saving)) or store.value.proves


def _saves_nothing(module: Module, node: cst.CSTNode) -> bool:
    """`torch.mean(x)`: its backward needs no more than sizes."""
    call = module.call_at(node)
    return call is not None and call.names(known.SAVING_NOTHING)


def _of_losses(module: Module, saving: frozenset[int]) -> frozenset[int]:
    """`reduce_loss(loss)`: what a call made of a loss that was differentiated saves no more than a few numbers."""
    analysis = module.analysis
    differentiated = module.once(differentiated_losses)
    found = set()
    for root in saving:
        made = analysis.roots[root]
        losses = made.ancestors & differentiated - {root}
        behind = losses.union(*(analysis.roots[loss].ancestors for loss in losses))
        others = (item for item in made.ancestors if analysis.roots[item].saves)
        if losses and all(item in behind or analysis.roots[item].node is made.node for item in others):
            found.add(root)
    return frozenset(found)


def differentiated_losses(module: Module) -> frozenset[int]:
    """The definitions on which a backward pass begins."""
    return frozenset().union(*(backward.differentiated.idents for backward in module.backwards))


def _kept(module: Module, store: Store, loop: Loop) -> Kept:
    analysis = module.analysis
    roots = _graph_roots(module, store)
    at_end = loop.backed_at_end or frozenset()
    if roots and (roots <= store.backed or roots <= at_end):
        return Kept.NODES
    if not any(item.has_backward for item in loop.outer()):
        return Kept.NO_BACKWARD
    if not roots & analysis.differentiated:
        return Kept.OTHER_BRANCH
    if any(not backward.frees for backward in module.backwards_over(roots)):
        return Kept.RETAINED
    if not roots <= analysis.differentiated:
        return Kept.OTHER_BRANCH
    if any(analysis.roots[root].by_flag for root in roots):
        return Kept.NODES  # `with set_grad_enabled(train)`: there is a graph only where there is a backward
    return Kept.SKIPPED


def _is_broken(module: Module, store: Store, loop: Loop) -> bool:
    """Whether a backward pass has freed the output of a model that the value was computed from.

    Whoever differentiated the value later would get an error.
    """
    roots = module.analysis.roots
    freed = store.value.roots & (store.backed | (loop.backed_at_end or NOTHING))
    return any(roots[root].is_forward for root in freed) or _is_broken_in_training(module, store, loop)


def _is_broken_in_training(module: Module, store: Store, loop: Loop) -> bool:
    """`if optimizer is not None: loss.backward()`, of a loop that also evaluates: nobody tells the two apart later."""
    if not loop.has_backward or not all(backward.frees for backward in module.backwards):
        return False
    inside, roots = nodes_within(loop.node), module.analysis.roots
    differentiated = store.value.roots & module.analysis.differentiated
    return any(roots[root].is_forward and id(roots[root].node) in inside for root in differentiated)


def _is_out_of_date(module: Module, store: Store, loop: Loop) -> bool:
    """`model(valid)` in each epoch of a training: the next step changes the parameters in place.

    Whoever differentiated the value after that would get an error.
    """
    if not loop.has_step or _reaches_unseen_code(module, store):
        return False
    inside = (item for item in module.backwards if item.loop is not None and loop in item.loop.outer())
    trained = {path for item in inside for path in _models_of(module, item.differentiated, store.scope)}
    return not trained.isdisjoint(_models_of(module, store.value, store.scope))


def _reaches_unseen_code(module: Module, store: Store) -> bool:
    """Whether code out of view is given what is stored, or what holds it."""
    escaped = module.analysis.escaped
    if store.root in escaped or store.value.idents & escaped:
        return True
    return any(module.box(index).escaped for index in store.boxes)


def _models_of(module: Module, value: Value, scope: Scope) -> Iterator[str]:
    """The paths of the modules that the function calls for the value."""
    inside = nodes_within(scope.node)
    for node in module.graph_sources(value):
        path = path_of(node.func) if id(node) in inside else None
        if path is not None:
            yield path


def _escapes(module: Module, store: Store) -> bool:
    analysis = module.analysis
    if store.in_object or store.root in analysis.escaped or store.root in analysis.shared:
        return True
    boxes = [module.box(index) for index in store.boxes]
    if any(box.escaped or box.in_object for box in boxes):
        return True
    returning = _returning(module, store)
    if returning and module.words & _NOTICING_WORDS:
        return True  # a caller may ask
    return not all(_only_called_here(module, name) for name in returning)


def _only_called_here(module: Module, function: str) -> bool:
    """Whether all callers are in this file, and none of them differentiates the result."""
    view = module.analysis.view
    sites = view.sites(function) if view is not None and "<" not in function else ()
    return sites is not None and not sites and module.answer(ResultNotDifferentiated(function))


def _returning(module: Module, store: Store) -> frozenset[str]:
    """The functions whose result holds what is stored."""
    return module.returning.get(store.root, frozenset()).union(
        *(module.returning_boxes.get(box, frozenset()) for box in store.boxes)
    )


def _was_differentiated(module: Module, root: int) -> bool:
    """The loss of a backward pass, or a sum of nothing else."""
    proven, terms = module.analysis.proven, module.analysis.roots[root].terms
    return root in proven or (bool(terms) and terms <= proven)


def _nobody_differentiates(module: Module, store: Store, loop: Loop) -> frozenset[Question] | None:
    """The graph is alive when the loop ends: is it certain that nobody wants it? None: it is not."""
    analysis = module.analysis
    if module.evaluation_evidence(store.scope, loop) is not None:
        return frozenset()
    if store.value.idents and all(_was_differentiated(module, ident) for ident in store.value.idents):
        return frozenset()  # the very loss that was differentiated, if with `retain_graph=True`
    if store.in_object or store.root in analysis.shared or _reaches_unseen_code(module, store):
        return None
    if any(module.box(index).in_object for index in store.boxes):
        return None
    if loop.escaping_calls and loop.has_step and not loop.has_backward:
        return None  # `loss_scaler(loss, optimizer)` may run the backward pass
    if store.scope.name == "forward":
        return None
    return frozenset(ResultNotDifferentiated(name) for name in _returning(module, store))
