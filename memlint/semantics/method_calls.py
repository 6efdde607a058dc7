"""Methods of what is known by its kind: containers, modules, optimizers, distributions, tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memlint.semantics.differentiating_calls import backward_call
from memlint.semantics.forward_calls import forward_call
from memlint.semantics.knowledge import frameworks, training
from memlint.semantics.knowledge import torch as known
from memlint.semantics.library_calls import is_layer
from memlint.semantics.naming import words_of
from memlint.semantics.own_calls import own_call
from memlint.semantics.reading import Reading, reduced_pair
from memlint.semantics.scopes import path_of
from memlint.semantics.unknown_calls import shows_a_graph, unknown_call
from memlint.semantics.values import (
    NO_GRAD_TENSOR,
    NONE,
    NUMBER,
    PARAMETER,
    PLAIN,
    Grad,
    Kind,
    Mode,
    Value,
    join,
)

if TYPE_CHECKING:
    import libcst as cst

    from memlint.semantics.flow import Flow

_APPENDING = {
    "append": "append",
    "appendleft": "append",
    "extend": "extend",
    "insert": "insert",
    "extendleft": "extend",
}
_LIST_METHODS = frozenset({"get", "index", "count", "sort", "reverse", "remove", "insert", "append", "extend"})
_BOX_ADDING = frozenset({"add", "update", "setdefault", "put", "push"})


def method_call(flow: Flow, reading: Reading, receiver: Value, name: str) -> Value:
    kind = receiver.kind
    # `history[key].append(loss)`: what is in the inner list is taken for what is in the outer container.
    appends = bool(receiver.boxes) or kind in (Kind.CONTAINER, Kind.UNKNOWN, Kind.INSTANCE)
    if name in _APPENDING and reading.positional and appends:
        argument = reading.positional[-1]
        assert reading.receiver_node is not None
        flow.store(_APPENDING[name], reading.node, reading.receiver_node, receiver, argument.value, argument.expression)
        _note_last(flow, reading, name, argument.value)
        return NONE
    if receiver.boxes:
        return _container_method(flow, reading, receiver, name)
    if kind is Kind.MODULE:
        return _module_method(flow, reading, receiver, name)
    if kind is Kind.OPTIMIZER or kind is Kind.SCALER or name == "step":
        return _trainer_method(flow, reading, receiver, name)
    if name == "enter_context":
        entered = reading.first()
        if entered is not None:
            flow.enter(entered, reading.positional[0].expression)
        return PLAIN
    if kind is Kind.PLAIN or kind is Kind.NUMBER:
        return PLAIN
    if kind is Kind.LOADER and name == "__iter__":
        return receiver
    if kind is Kind.STATE:
        return (
            Value(Kind.STATE, idents=receiver.idents, roots=receiver.roots)
            if name in ("get", "pop", "items", "values", "copy")
            else Value(Kind.UNKNOWN)
        )
    if name in ("items", "values") and kind is Kind.UNKNOWN and not reading.arguments and len(receiver.idents) == 1:
        return _parts_of(flow, reading, receiver, name)
    value = _distribution_method(flow, reading, receiver, name) or _tensor_method(flow, reading, receiver, name)
    if value is not None:
        return value
    if name == "prepare":
        return _prepared(reading)
    if name in frameworks.CONSUMING_METHODS:
        return PLAIN
    return unknown_call(flow, reading)


def _distribution_method(flow: Flow, reading: Reading, receiver: Value, name: str) -> Value | None:
    """`dist.log_prob(action)` of a distribution of torch has the graph of its parameters, `dist.sample()` has none."""
    if receiver.cls is None or not receiver.cls.startswith(known.DISTRIBUTIONS):
        return None
    if name in known.SAMPLING_METHODS:
        reading.root = flow.root(reading.node)
        return Value(Kind.TENSOR, idents=frozenset({reading.root}))
    if name in known.DENSITY_METHODS:
        reading.root = flow.root(reading.node, saves=True)
        return flow.derived(Kind.TENSOR, reading.node, [receiver, *reading.values], reading.root)
    return None


def _note_last(flow: Flow, reading: Reading, name: str, value: Value) -> None:
    """`losses[-1]` is what was appended last."""
    path = path_of(reading.receiver_node) if reading.receiver_node is not None else None
    if path is None:
        return
    if name == "append":
        flow.state.bind(f"{path}[-1]", value)
    else:
        flow.state.vars.pop(f"{path}[-1]")


def _container_method(flow: Flow, reading: Reading, receiver: Value, name: str) -> Value:
    if name in known.HOST_VALUE_METHODS:
        return PLAIN
    if name in _BOX_ADDING and reading.arguments:
        argument = reading.arguments[-1]
        assert reading.receiver_node is not None
        if name == "setdefault":
            for box in receiver.boxes:
                flow.analysis.put(box, argument.value)
            return flow.element_of(receiver, reading.node)
        known_items = {box: flow.analysis.boxes[box].items for box in receiver.boxes}
        flow.store("append", reading.node, reading.receiver_node, receiver, argument.value, argument.expression)
        if name == "update" and not reading.unpacks:
            _note_updated(flow, reading, receiver, known_items)
        return NONE
    if name in ("clear", "pop", "popleft", "popitem"):
        flow.clear(receiver)
    if name not in ("index", "count", "copy"):
        _note_last(flow, reading, name, receiver)
    if name in ("values", "items", "copy", "keys"):
        return Value(Kind.CONTAINER, roots=receiver.roots, boxes=receiver.boxes)
    element = flow.element_of(receiver, reading.node)
    if name in _LIST_METHODS:
        return element
    # `[loss.detach() for loss in losses]`: what is taken out of a container is counted as part of it.
    alone = Value(
        Kind.UNKNOWN,
        element.grad,
        conditions=element.conditions,
        roots=element.roots,
        idents=element.idents,
        partly=element.partly,
    )
    value = _tensor_method(flow, reading, alone, name)
    return element if value is None else value


def _note_updated(
    flow: Flow, reading: Reading, receiver: Value, known_items: dict[int, dict[str, Value] | None]
) -> None:
    """`logs.update(losses)`, `logs.update(loss=loss)`: what stands under their keys from now on."""
    given = {key: argument.value for key, argument in reading.keywords.items()}
    for argument in reading.positional:
        items = flow.items_of(argument.value)
        if items is None:
            return
        given.update(items)
    for key, item in given.items():
        for box in receiver.boxes:
            flow.analysis.put(box, item)
        flow.note_item(key, known_items, item)
        known_items = {box: flow.analysis.boxes[box].items for box in receiver.boxes}


def _parts_of(flow: Flow, reading: Reading, receiver: Value, name: str) -> Value:
    """`losses.values()`, `losses.items()`: whichever way they are gone through, the same parts."""
    reading.root = flow.member(receiver, "[*]", reading.node)
    part = flow.unknown(reading.node, receiver.roots, reading.root)
    flow.analysis.each_of[reading.root] = flow.each_item(receiver, reading.node)
    assert reading.receiver_node is not None
    part = flow.one_of_items(part, receiver, reading.receiver_node)
    element = part if name == "values" else Value(Kind.CONTAINER, roots=part.roots, elements=(PLAIN, part))
    return Value(Kind.UNKNOWN, roots=part.roots, elements=(element,), mode=Mode.KEEP)


def _module_method(flow: Flow, reading: Reading, receiver: Value, name: str) -> Value:
    if name == "forward" or name == "__call__":
        reading.callee = receiver
        return forward_call(flow, reading)
    if name == "step" and not reading.arguments:
        return note_step(flow)  # a DeepSpeed engine that nobody has seen made
    if name == "generate":
        return NO_GRAD_TENSOR  # transformers.GenerationMixin.generate is decorated with torch.no_grad
    if name == "requires_grad_":
        first = reading.first()
        frozen = first is not None and first.literal is False
        return Value(Kind.MODULE, cls=receiver.cls, mode=Mode.OFF if frozen else None, weak=receiver.weak)
    if name == "append" and receiver.cls == "torch.nn.ModuleList":
        return _grown_list(flow, reading, receiver)
    if name in known.MODULE_SELF_METHODS:
        return receiver
    if name == "parameters":
        return Value(Kind.CONTAINER, elements=(PARAMETER,))
    if name == "named_parameters":
        return Value(Kind.CONTAINER, elements=(Value(Kind.CONTAINER, elements=(PLAIN, PARAMETER)),))
    if name in ("children", "modules", "named_modules", "buffers"):
        return Value(Kind.CONTAINER)
    if name == "state_dict":
        return Value(Kind.STATE)
    if (
        name == "register_buffer"
        and len(reading.positional) > 1
        and isinstance(reading.positional[0].value.literal, str)
    ):
        given = reading.positional[1].value
        flow.state.bind(
            f"self.{reading.positional[0].value.literal}", NONE if given.kind is Kind.NONE else NO_GRAD_TENSOR
        )
    if name in ("zero_grad", "load_state_dict", "register_buffer", "register_parameter"):
        return PLAIN
    return unknown_call(flow, reading)


def _grown_list(flow: Flow, reading: Reading, receiver: Value) -> Value:
    """`self.layers.append(nn.Linear(8, 8))`: one item stands for all."""
    item, path = reading.first(), path_of(reading.receiver_node) if reading.receiver_node is not None else None
    items: tuple[Value, ...] | None = None
    if receiver.elements is not None and item is not None and is_layer(item):
        items = (join(receiver.elements[0], item),) if receiver.elements else (item,)
    grown = Value(Kind.MODULE, cls=receiver.cls, elements=items)
    if path is not None:
        flow.state.bind(path, grown)
    return grown


def _trainer_method(flow: Flow, reading: Reading, receiver: Value, name: str) -> Value:
    if name == "scale" and reading.first() is not None:
        return flow.derived(reading.values[0].kind, reading.node, reading.values)
    if name == "step":
        if _is_profiler(reading):
            return PLAIN
        closure = reading.first()
        if closure is not None and (receiver.kind is Kind.OPTIMIZER or _differentiates(flow, closure)):
            return _step_with(flow, reading, closure) if len(closure.quals) == 1 else note_step(flow)
        if receiver.kind in (Kind.OPTIMIZER, Kind.SCALER) or not reading.arguments:
            return note_step(flow)
        if closure is not None and closure.grad is not Grad.NO and _takes_a_loss(reading, closure):
            note_step(flow)
            return backward_call(flow, reading, closure)
        return unknown_call(flow, reading)
    if name == "state_dict":
        return Value(Kind.STATE)
    return PLAIN


def _last_words(node: cst.BaseExpression | None) -> frozenset[str]:
    """{policy, optim} of `self.policy_optim`."""
    path = path_of(node) if node is not None else None
    return words_of(path.rpartition(".")[2]) if path is not None else frozenset()


def _takes_a_loss(reading: Reading, given: Value) -> bool:
    """`self.optim.step(loss)`: torch's optimizers are given a closure; one that is given a loss differentiates it."""
    words = _last_words(reading.receiver_node)
    is_optimizer = bool(words & training.OPTIMIZER_WORDS) and words.isdisjoint(training.SCHEDULER_WORDS)
    return is_optimizer and (given.is_tensor or "loss" in _last_words(reading.positional[0].expression))


def is_loss_scaler(reading: Reading) -> bool:
    """`loss_scaler(loss, optimizer, parameters=model.parameters())`: the backward pass and the step in one call."""
    called = (path_of(reading.node.func) or "").rpartition(".")[2]
    if called not in known.LOSS_SCALERS or len(reading.positional) < 2:
        return False
    loss, optimizer = reading.positional[:2]
    named = not _last_words(optimizer.expression).isdisjoint(training.OPTIMIZER_WORDS)
    return (named or optimizer.value.kind is Kind.OPTIMIZER) and (
        loss.value.is_tensor or "loss" in _last_words(loss.expression)
    )


def _is_profiler(reading: Reading) -> bool:
    """`prof.step()` of `torch.profiler` says that an iteration is over, in evaluations too."""
    return not _last_words(reading.receiver_node).isdisjoint(known.PROFILER_WORDS)


def _differentiates(flow: Flow, closure: Value) -> bool:
    """What is called `step` and given a function of this file that runs a backward pass is an optimizer."""
    scopes = [flow.analysis.scope_named(name) for name in closure.quals]
    flows = [flow.analysis.flow(scope) for scope in scopes if scope is not None]
    return len(scopes) == 1 and any(inner is not None and inner.has_backward for inner in flows)


def _step_with(flow: Flow, reading: Reading, closure: Value) -> Value:
    """`optimizer.step(closure)` calls the closure and returns what it returns."""
    note_step(flow)
    (name,) = closure.quals
    if flow.analysis.scope_named(name) is None:
        return PLAIN
    flow.analysis.step_closures.add(name)
    inner = Reading(reading.node)
    inner.callee = closure
    value = own_call(flow, inner, name)
    reading.root = inner.root
    return value


def note_step(flow: Flow) -> Value:
    """An optimizer's step is taken here."""
    flow.has_step = True
    loop = flow.loop
    while loop is not None:
        loop.has_step = True
        loop = loop.parent
    return PLAIN


def _prepared(reading: Reading) -> Value:
    """`model, optimizer, loader = accelerator.prepare(model, optimizer, loader)`."""
    values = reading.values
    if len(values) == 1:
        return values[0]
    return Value(Kind.CONTAINER, elements=tuple(values))


def _tensor_method(flow: Flow, reading: Reading, receiver: Value, name: str) -> Value | None:
    node = reading.node
    if name == "requires_grad_":
        first = reading.first()
        if first is not None and first.literal is False:
            return Value(receiver.kind, idents=receiver.idents, roots=receiver.roots)
        return flow.graph(
            Kind.TENSOR if receiver.is_tensor else Kind.UNKNOWN, node, roots=receiver.roots, ident=flow.root(node)
        )
    if name in known.NUMBER_METHODS:
        return NUMBER
    if name in known.HOST_VALUE_METHODS:
        return PLAIN
    if name in known.DETACHING_METHODS:
        reading.root = flow.root(node)
        detached = Value(Kind.TENSOR, idents=frozenset({reading.root}))
        path = path_of(reading.receiver_node) if name == "detach_" and reading.receiver_node is not None else None
        if path is not None and path in flow.state.vars:
            flow.state.bind(path, detached)
        return detached
    if name in known.NEVER_GRAD_METHODS and not known.TUPLE_KEYWORDS.isdisjoint(reading.keywords):
        return Value(Kind.CONTAINER)
    if name in known.NEVER_GRAD_METHODS:
        reading.root = flow.root(node)
        kind = Kind.TENSOR if receiver.is_tensor or shows_a_graph(flow, receiver) else Kind.UNKNOWN
        return Value(kind, idents=frozenset({reading.root}))
    if name == "scale" and reading.first() is not None and receiver.kind is Kind.UNKNOWN:
        return flow.derived(Kind.UNKNOWN, node, reading.values)
    if name in ("max", "min", "median") or name in known.MULTI_RESULT_METHODS:
        reading.root = flow.root(node)
        return reduced_pair(flow, reading, name, receiver, reading.positional)
    if name in known.DIFFERENTIABLE_METHODS:
        reading.root = flow.root(node)
        kind = Kind.TENSOR if receiver.is_tensor or name in known.TENSOR_ONLY_METHODS else Kind.UNKNOWN
        # Of a copying method the arguments are devices and dtypes, of a shaping method sizes and dimensions.
        operands = [] if name in known.COPYING_METHODS or name in known.SHAPING_METHODS else reading.values
        result = flow.derived(kind, node, [receiver, *operands], reading.root)
        return _added_in_place(flow, reading, receiver, result) if name in known.ADDING_METHODS else result
    return None


def _added_in_place(flow: Flow, reading: Reading, receiver: Value, result: Value) -> Value:
    """`total.add_(loss)` is `total += loss`."""
    target = reading.receiver_node
    path = path_of(target) if target is not None else None
    if target is None or path is None or len(reading.positional) != 1 or result.grad is Grad.NO:
        return result
    added = reading.positional[0]
    return flow.written_into(reading.node, target, path, receiver, added.value, added.expression, result)
