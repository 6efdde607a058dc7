"""Reading calls: what a call returns, what it does to its arguments, which events it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import libcst as cst

from memlint.semantics.entry_modes import context_mode
from memlint.semantics.events import Argument, Backward, Call, Handed
from memlint.semantics.grad_effects import GRAD_MODE_WORDS
from memlint.semantics.held_models import shows_module
from memlint.semantics.imports import imported_call, keeps_graph, note_effects, note_work
from memlint.semantics.knowledge import frameworks, libraries
from memlint.semantics.knowledge import torch as known
from memlint.semantics.knowledge.libraries.rows import Effect
from memlint.semantics.library_calls import is_layer, library_call
from memlint.semantics.library_objects import effect_of, result_of
from memlint.semantics.naming import words_of
from memlint.semantics.questions import GradOnEntry
from memlint.semantics.reading import Reading, escape_arguments, reduced_pair
from memlint.semantics.scopes import is_property, path_of
from memlint.semantics.values import (
    MAX_HELD,
    NO_GRAD_TENSOR,
    NONE,
    NOTHING,
    NUMBER,
    PARAMETER,
    PLAIN,
    Condition,
    Grad,
    Kind,
    Mode,
    Proof,
    Value,
    join,
)

if TYPE_CHECKING:
    from memlint.semantics.analysis import Callee
    from memlint.semantics.flow import Flow

_LOSS_NAMES = frozenset(
    {"criterion", "criterions", "loss_fn", "loss_func", "loss_function", "crit", "loss_fct", "criterion_"}
)
_LOSS_CONTAINERS = _LOSS_NAMES | {"losses", "criteria", "loss_fns", "loss_functions"}
_NUMBER_FUNCTIONS = frozenset({"len", "int", "float", "bool", "round", "hash", "id", "ord"})
_CONTAINER_FUNCTIONS = frozenset(
    {"list", "tuple", "dict", "set", "sorted", "frozenset", "collections.deque", "collections.OrderedDict"}
)
_EMPTY_CONTAINERS = frozenset({"collections.defaultdict", "collections.Counter", "queue.Queue"})
_APPENDING = {
    "append": "append",
    "appendleft": "append",
    "extend": "extend",
    "insert": "insert",
    "extendleft": "extend",
}
_LIST_METHODS = frozenset({"get", "index", "count", "sort", "reverse", "remove", "insert", "append", "extend"})
_BOX_ADDING = frozenset({"add", "update", "setdefault", "put", "push"})


def read_call(flow: Flow, node: cst.Call) -> Value:
    reading = _parts(flow, node)
    result = _result(flow, reading)
    if reading.forward:
        _note_forward(flow, reading)
    if not flow.quiet:
        flow.calls.append(_event(flow, reading, result))
    return result


def _parts(flow: Flow, node: cst.Call) -> Reading:
    reading = Reading(node)
    func = node.func
    if isinstance(func, cst.Attribute):
        reading.receiver_node = func.value
        reading.method = func.attr.value
        reading.receiver = flow.eval(func.value)
        reading.callee = _method_callee(flow, func, reading.receiver)
        if not reading.receiver.quals:
            flow.use(reading.receiver, "method", reading.method, node)
    else:
        reading.callee = flow.eval(func)
        if isinstance(func, cst.Subscript) and reading.callee.kind is Kind.UNKNOWN and shows_module(flow.scope, func):
            reading.callee = Value(Kind.MODULE)
    if reading.callee.kind is Kind.UNKNOWN and node.args and not reading.callee.quals:
        shown = flow.analysis.kind_from_call(flow.scope, path_of(func))
        reading.callee = shown if shown is not None else reading.callee
    for argument in node.args:
        value = flow.eval(argument.value)
        if argument.star:
            reading.unpacks = True
            if argument.star == "*":
                value = flow.element_of(value, argument)
            reading.keywords[f"*{len(reading.keywords)}"] = Argument(argument, value)
        elif argument.keyword is not None:
            reading.keywords[argument.keyword.value] = Argument(argument, value)
        else:
            reading.positional.append(Argument(argument, value))
    path = path_of(func)
    if path is not None and reading.callee.kind is Kind.MODULE and flow.analysis.is_frozen(flow.scope, path):
        reading.callee = Value(Kind.MODULE, cls=reading.callee.cls, mode=Mode.OFF)
    _use_arguments(flow, reading)
    return reading


def _use_arguments(flow: Flow, reading: Reading) -> None:
    for value in reading.values:
        flow.hand_over(value)
    if flow.quiet:
        return
    names = sorted(reading.callee.quals)
    detail = names[0] if len(names) == 1 else ""
    if not detail and reading.method is not None:
        detail = "." + reading.method
    for argument in reading.arguments:
        flow.use(argument.value, "argument", detail, reading.node)


def _method_callee(flow: Flow, func: cst.Attribute, receiver: Value) -> Value:
    name = func.attr.value
    if receiver.quals:
        quals = frozenset(flow.analysis.attribute_name(qual, name) for qual in receiver.quals)
        return Value(Kind.CALLABLE, quals=quals)
    if receiver.cls is not None:
        method = flow.analysis.method(receiver.cls, name)
        if method is not None and not is_property(method):
            return Value(Kind.CALLABLE, quals=frozenset({method.qualname}))
        imported = flow.analysis.imported_method(receiver.cls, name) if method is None else None
        if imported is not None:
            return Value(Kind.CALLABLE, quals=frozenset({imported}))
        member = flow.analysis.member(receiver.cls, name)
        if member is not None and member.kind is not Kind.UNKNOWN:
            return member
    path = path_of(func)
    if path is not None:
        set_here = flow.state.vars.get(path)
        if set_here is not None and set_here.kind is not Kind.UNKNOWN:
            return set_here
        shown = flow.analysis.kind_from_use(flow.scope, path)
        if shown is not None:
            return shown
        if set_here is not None:
            return set_here
    is_part = name.rstrip("0123456789").rstrip("_") in known.PARTS_OF_MODELS  # `decoder1`, `head_2`
    if receiver.kind is Kind.MODULE and receiver.cls is None and is_part:
        return Value(Kind.MODULE, mode=receiver.mode, weak=True)
    return Value(Kind.UNKNOWN)


def _event(flow: Flow, reading: Reading, result: Value) -> Call:
    statement = flow.statement
    is_statement = isinstance(statement, cst.Expr) and statement.value is reading.node
    return Call(
        **flow.here(reading.node),
        callee=reading.callee,
        receiver=reading.receiver,
        receiver_node=reading.receiver_node,
        method=reading.method,
        positional=tuple(reading.positional),
        keywords=reading.keywords,
        unpacks=reading.unpacks,
        result=result,
        root=reading.root,
        is_statement=is_statement,
        is_forward=reading.forward,
        backed=flow.state.backed,
        summary=reading.summary,
        handed=_handed(flow, reading) if is_statement and (flow.loop is not None or flow.has_step) else (),
    )


def _handed(flow: Flow, reading: Reading) -> tuple[Handed, ...]:
    """What a call that is a statement of its own is given to keep: functions of this file and methods may."""
    if (
        reading.method is None
        and reading.callee.quals
        and not any(q.startswith((":", "@")) for q in reading.callee.quals)
    ):
        return ()
    found = (
        Handed(argument, tuple(flow.carriers(argument.expression)) or _contents(flow, argument))
        for argument in reading.arguments
        if argument.value.grad is not Grad.NO or argument.value.boxes or argument.value.elements
    )
    return tuple(handed for handed in found if handed.carriers)


def _contents(flow: Flow, argument: Argument) -> tuple[tuple[cst.BaseExpression, Value], ...]:
    """What a container of this function holds that carries a graph: `losses` in `meter.update(losses)`."""
    boxes = [flow.analysis.boxes[index] for index in sorted(argument.value.boxes)]
    return tuple((argument.expression, value) for box in boxes if not box.escaped for value in box.carrying)


# --- what a call returns ---


def _result(flow: Flow, reading: Reading) -> Value:
    if _differentiates(reading):
        return _backward(flow, reading)
    effect = effect_of(flow, reading)
    if effect is not None:
        value = _note_step(flow) if effect is Effect.STEPS else result_of(flow, reading, effect)
        if value is not None:
            return value
    callee = reading.callee
    if callee.kind is Kind.MODULE:
        return _forward(flow, reading)
    if callee.quals:
        # Several names (`try: import a except: import b`): what they agree on.
        results = [_named(flow, reading, qual) for qual in sorted(callee.quals)]
        value = results[0]
        for other in results[1:]:
            value = join(value, other)
        return value
    if reading.method is not None and reading.receiver is not None:
        return _method(flow, reading, reading.receiver, reading.method)
    return _unknown_call(flow, reading)


def _differentiates(reading: Reading) -> bool:
    if reading.callee.quals & known.DIFFERENTIATING_FUNCTIONS:
        return True
    if reading.method not in known.BACKWARD_METHODS or reading.callee.quals:
        return False
    return reading.method != "backward" or not _is_super(reading)


def _is_super(reading: Reading) -> bool:
    node = reading.receiver_node
    return isinstance(node, cst.Call) and isinstance(node.func, cst.Name) and node.func.value == "super"


def _backward(flow: Flow, reading: Reading) -> Value:
    analysis = flow.analysis
    target = reading.receiver if reading.receiver is not None and not reading.receiver.quals else None
    first = reading.first()
    if first is not None and (
        target is None
        or effect_of(flow, reading) is Effect.DIFFERENTIATES
        or (first.grad is not Grad.NO and not _is_computed(flow, target))
    ):
        target = first  # `accelerator.backward(loss)`, not `y.backward(weights)`
    if target is None:
        keyword = reading.keywords.get("tensors") or reading.keywords.get("outputs") or reading.keywords.get("loss")
        target = keyword.value if keyword is not None else PLAIN
    differentiated = flow.all_roots(target)
    analysis.differentiated |= differentiated
    _note_grad_on(flow, target)
    analysis.prove(target)
    _note_carries(flow, reading, target)
    flow.has_backward = True
    retain = reading.keywords.get("retain_graph")
    create = reading.keywords.get("create_graph")
    frees = (
        all(argument is None or argument.value.literal is False for argument in (retain, create))
        and not reading.unpacks
    )
    if frees:
        flow.state.backed = flow.state.backed | differentiated
    loop = flow.loop
    while loop is not None:
        loop.has_backward = True
        loop = loop.parent
    if not flow.quiet:
        flow.backwards.append(
            Backward(
                **flow.here(reading.node),
                call=_event(flow, reading, PLAIN),
                differentiated=target,
                frees=frees,
            )
        )
    if reading.method is None or reading.callee.quals & {"torch.autograd.grad"}:
        return (
            flow.derived(Kind.UNKNOWN, reading.node, [target], flow.root(reading.node))
            if create is not None
            else Value()
        )
    return PLAIN


def _note_carries(flow: Flow, reading: Reading, target: Value) -> None:
    """`loss = 0`, `loss += part` for each part, `loss.backward()`: from then on it carries a graph, or it raises."""
    nodes = (reading.receiver_node, *(argument.expression for argument in reading.positional[:1]))
    for node in nodes:
        path = _differentiated_path(node) if node is not None else None
        value = flow.state.vars.get(path) if path is not None else None
        if path is None or value is None or value.grad is not Grad.MIXED or not value.roots <= target.roots:
            continue
        if value.kind in (Kind.UNKNOWN, Kind.TENSOR) and not value.boxes and value.elements is None:
            flow.state.vars[path] = Value(
                value.kind, Grad.YES, roots=value.roots, idents=value.idents, weak=value.weak, proves=value.proves
            )


def _differentiated_path(node: cst.BaseExpression) -> str | None:
    """`loss` of `scaler.scale(loss / steps)`."""
    while True:
        if isinstance(node, cst.BinaryOperation) and isinstance(node.operator, (cst.Divide, cst.Multiply)):
            node = node.left
        elif isinstance(node, cst.Call) and isinstance(node.func, cst.Attribute) and node.func.attr.value == "scale":
            if not node.args:
                return None
            node = node.args[0].value
        else:
            return path_of(node)


def _note_grad_on(flow: Flow, target: Value) -> None:
    """Where each call of the function differentiates what it has computed, grad mode is on when it is called."""
    function = flow.scope.qualname
    if GradOnEntry(function) not in flow.analysis.basis(target.conditions) and not _is_of_entry_mode(flow, target):
        return
    flow.differentiating.add(flow.branches)
    if any(_in_each_branch(branches, flow.differentiating) for branches in flow.differentiating):
        flow.analysis.grad_on.add(function)


def _is_of_entry_mode(flow: Flow, target: Value) -> bool:
    """Code out of view has computed it here, in the mode in which the function was called: a loss function, a step."""
    made_here = bool(target.idents) and target.idents <= flow.state.made & flow.analysis.unseen
    return made_here and flow.state.mode is Mode.ENTRY and flow.scope.words_within.isdisjoint(GRAD_MODE_WORDS)


def _in_each_branch(branches: tuple[tuple[int, int], ...], others: set[tuple[tuple[int, int], ...]]) -> bool:
    """Unconditionally, or in both branches of each `if` (with and without a gradient scaler)."""
    while branches:
        *around, (statement, branch) = branches
        if (*around, (statement, 1 - branch)) not in others:
            return False
        branches = tuple(around)
    return True


def _is_computed(flow: Flow, value: Value) -> bool:
    """Whether the value was computed from others: a tensor, rather than an engine that was built or passed in."""
    roots = [flow.analysis.roots[ident] for ident in value.idents]
    if any(isinstance(root.node, cst.Attribute) and not _holds_graph(root.node) for root in roots):
        return value.is_tensor  # `trainer.accelerator.backward(loss)`
    return value.is_tensor or any(root.ancestors - value.idents for root in roots)


def _holds_graph(node: cst.Attribute) -> bool:
    """`outputs.loss`"""
    return node.attr.value in known.GRAPH_OUTPUT_ATTRIBUTES or node.attr.value.endswith("loss")


def _forward(flow: Flow, reading: Reading) -> Value:
    """The call of a module."""
    reading.forward = True
    root = reading.root = flow.root(reading.node, saves=True, is_forward=True)
    callee = reading.callee
    roots = frozenset().union(*(flow.all_roots(value) for value in reading.values)) if reading.arguments else NOTHING
    for value in reading.values:
        for box in value.boxes:
            flow.analysis.boxes[box].escaped = True
    cls = callee.cls
    if callee.mode is Mode.OFF:
        return flow.derived(Kind.UNKNOWN, reading.node, reading.values, root)  # frozen: the graph only passes through
    if cls is not None and cls.startswith("torch.nn."):
        name = cls.rpartition(".")[2]
        if name.endswith("Loss") or name in known.MODULES_WITHOUT_PARAMETERS:
            return flow.derived(Kind.TENSOR, reading.node, reading.values, root)
        kind = Kind.TENSOR if name in known.TENSOR_MODULES else Kind.UNKNOWN
        out = flow.graph(kind, reading.node, roots=roots, ident=root)
        if cls in known.RECURRENT_MODULES:
            return Value(Kind.CONTAINER, out.grad, conditions=out.conditions, roots=out.roots, elements=(out, out))
        return out
    if cls is not None:
        method = flow.analysis.method(cls, "forward")
        if method is not None and "set_grad_enabled" in method.words:
            # `with torch.set_grad_enabled(self.training):` - whether it does depends on the model's mode.
            return Value(Kind.UNKNOWN, Grad.MIXED, roots=roots | {root})
        if method is not None:
            return _forward_in_view(flow, reading, flow.analysis.callee(method, reading, flow), roots)
        if cls.startswith("@") and not keeps_graph(flow, cls):
            return Value(Kind.UNKNOWN, Grad.MIXED, roots=roots | {root})
    return flow.graph(
        Kind.UNKNOWN, reading.node, roots=roots, ident=root, conditions=callee.conditions, weak=callee.weak
    )


def _forward_in_view(flow: Flow, reading: Reading, callee: Callee | None, roots: frozenset[int]) -> Value:
    node, root = reading.node, reading.root
    if callee is not None and callee.result.boxes and callee.result.cls is not None:
        return Value(Kind.INSTANCE, roots=roots | {root})  # a dataclass: its fields are made in the forward pass
    if callee is None or callee.result.kind is Kind.NONE:
        return flow.graph(Kind.UNKNOWN, node, roots=roots, ident=root)  # no forward of a real module gives nothing back
    returned = callee.result
    if returned.elements is not None:
        elements = _forward_elements(flow, node, returned.elements, roots | {root})
        return Value(Kind.CONTAINER, roots=roots | {root}, elements=elements, idents=frozenset({root}))
    return _forward_element(flow, node, returned, roots | {root}, root)


def _forward_elements(
    flow: Flow, node: cst.Call, returned: tuple[Value, ...], roots: frozenset[int]
) -> tuple[Value, ...]:
    return tuple(_forward_element(flow, node, element, roots) for element in returned)


def _forward_element(
    flow: Flow, node: cst.Call, returned: Value, roots: frozenset[int], root: int | None = None
) -> Value:
    if returned.grad is Grad.YES:
        return flow.graph(returned.kind, node, roots=roots, ident=root)
    if returned.elements is not None:  # `return out, (h, c)`
        elements = _forward_elements(flow, node, returned.elements, roots)
        return Value(returned.kind, returned.grad, roots=roots, elements=elements)
    return Value(returned.kind, returned.grad, roots=roots, boxes=returned.boxes)


def _note_forward(flow: Flow, reading: Reading) -> None:
    flow.has_forward = True
    given = frozenset().union(*(flow.all_roots(value) for value in reading.values)) if reading.arguments else NOTHING
    # `for f in features: model.decoder(f)` goes through the parts of one input.
    is_part = reading.callee.weak and reading.receiver is not None and reading.receiver.kind is Kind.MODULE
    loop = flow.loop
    while loop is not None:
        loop.has_forward = True
        if loop.element in given and not (is_part and reading.method in known.PARTS_OF_MODELS):
            loop.feeds_forward = True
        if loop.element in reading.callee.roots:
            loop.runs_layers = True
        loop = loop.parent


def _named(flow: Flow, reading: Reading, qual: str) -> Value:
    """The call of something whose qualified name is known."""
    if qual.startswith(":"):
        return _own(flow, reading, qual)
    if qual.startswith("@"):
        value = imported_call(flow, reading, qual)
        return value if value is not None else _unknown_call(flow, reading, qual)
    value = _mapped(flow, reading) if qual == "map" else library_call(flow, reading, qual)
    if value is not None:
        return value
    return _unknown_call(flow, reading, qual)


def _mapped(flow: Flow, reading: Reading) -> Value | None:
    """`map(lambda x: x.detach(), outputs)` calls a function of this file with each part."""
    if len(reading.positional) != 2 or reading.unpacks:
        return None
    function, parts = reading.positional
    scope = flow.analysis.function_given(function)
    if scope is None:
        return None
    inner = Reading(reading.node)
    inner.callee = function.value
    inner.positional = [Argument(parts.node, flow.element_of(parts.value, reading.node))]
    callee = flow.analysis.callee(scope, inner, flow)
    return flow.box(reading.node, [_apply(flow, inner, callee)]) if callee is not None else None


# --- functions and classes of this file ---


def _own(flow: Flow, reading: Reading, qual: str) -> Value:
    analysis = flow.analysis
    if analysis.is_class(qual):
        record = _record(flow, reading, qual)
        if record is not None:
            return record
        for value in reading.values:
            # What a constructor is given it may keep.
            analysis.capture(flow.all_roots(value))
        return analysis.made_by(qual)
    mode = context_mode(analysis, qual)
    if mode is not None:
        escape_arguments(flow, reading)
        return Value(Kind.CONTEXT, mode=mode)
    scope = analysis.scope_named(qual)
    if scope is None:
        owner, _, method = qual.rpartition(".")
        if libraries.builds_its_class(method) and analysis.is_class(owner) and analysis.is_module_class(owner):
            return Value(Kind.MODULE, cls=owner)  # `LitModel.load_from_checkpoint(path)`
        return _unknown_call(flow, reading, qual)
    callee = analysis.callee(scope, reading, flow)
    if callee is None:
        return _unknown_call(flow, reading, qual)
    if len(flow.all_roots(callee.result)) > MAX_HELD:
        note_work(flow, reading, callee)
        flow.escape(callee.result)
        analysis.lose(flow.all_roots(callee.result))
        return _unknown_call(flow, reading, qual)
    return _apply(flow, reading, callee)


def _record(flow: Flow, reading: Reading, cls: str) -> Value | None:
    """`Result(loss, logits=logits)` of a dataclass: a container of its fields."""
    fields = flow.analysis.record_fields(cls)
    if fields is None or reading.unpacks:
        return None
    given = [*zip(fields, reading.positional, strict=False), *reading.keywords.items()]
    items = {name: argument.value for name, argument in given}
    made = flow.box(reading.node, items.values())
    for box in made.boxes:
        flow.analysis.boxes[box].items = items
    return Value(Kind.CONTAINER, cls=cls, boxes=made.boxes)


def _apply(flow: Flow, reading: Reading, callee: Callee) -> Value:
    """What a function of this file does to its arguments, and what it returns, in the caller's grad mode."""
    note_work(flow, reading, callee)
    given = dict(callee.parameters)
    for root, value in callee.parameters:
        note_effects(flow, value, callee.done[root])
    flow.state.backed |= callee.backed
    return _returned(flow, reading, callee.result, callee, given)


def _returned(
    flow: Flow, reading: Reading, value: Value, callee: Callee, given: dict[int, Value], part: int | None = None
) -> Value:
    """`part`: which element of the result it is; each has a definition of its own."""
    elements = None
    if value.elements is not None and value.mode is not Mode.KEEP:
        if part is None:
            reading.root = flow.root(reading.node)
        parts = enumerate(value.elements)
        elements = tuple(_returned(flow, reading, element, callee, given, index) for index, element in parts)
        _note_summands_returned(flow, value.elements, elements)
    roots = set(value.roots)
    for root in value.roots & given.keys():
        roots |= flow.all_roots(given[root])
    grad, conditions = _grad_for_caller(flow, value, callee, given)
    idents = value.idents
    if grad is Grad.YES:
        # This call's own definition: a backward on the result proves it, whatever the callee's conditions.
        if part is None:
            reading.root = flow.root(reading.node)
        own = reading.root if part is None else flow.part(reading.root, f"[{part}", reading.node)
        if elements is None and value.idents:
            flow.analysis.claim(own, conditions)
            if value.idents <= flow.state.backed:
                flow.state.backed = flow.state.backed | {own}
            idents = idents | {own}
            conditions = frozenset({Proof(own)})
            roots |= {reading.root, own}
    return Value(
        value.kind,
        grad,
        conditions=conditions,
        roots=frozenset(roots)
        if grad is not Grad.NO or value.boxes or elements or value.kind is Kind.STATE
        else NOTHING,
        idents=idents if grad is Grad.YES else NOTHING,
        quals=value.quals,
        cls=value.cls,
        elements=elements,
        boxes=value.boxes,
        mode=value.mode,
        weak=value.weak,
        partly=_partly_for_caller(flow, value, callee, given),
    )


def _note_summands_returned(flow: Flow, inside: tuple[Value, ...], returned: tuple[Value, ...]) -> None:
    """`return rec + kl, rec, kl`: here as there, whoever differentiates the first differentiates its parts."""
    roots = flow.analysis.roots
    for total, here in zip(inside, returned, strict=True):
        summands = frozenset().union(*(roots[ident].summands for ident in total.idents))
        for part, value in zip(inside, returned, strict=True) if summands and here.grad is Grad.YES else ():
            if not part.idents or not part.idents <= summands:
                continue
            for ident in value.idents - part.idents:
                roots[ident].ancestors |= value.roots
                roots[ident].may_carry = True
            for ident in here.idents - total.idents:
                roots[ident].summands |= value.idents - part.idents


def _partly_for_caller(
    flow: Flow, value: Value, callee: Callee, given: dict[int, Value]
) -> frozenset[Condition] | None:
    if value.partly is None:
        return None
    grad, conditions = _grad_for_caller(flow, value.when_carrying(), callee, given)
    return conditions if grad is Grad.YES else None


def _grad_for_caller(
    flow: Flow, value: Value, callee: Callee, given: dict[int, Value]
) -> tuple[Grad, frozenset[Condition]]:
    """The callee's conditions, with its entry mode and its parameters replaced by what this call gives."""
    if value.grad is not Grad.YES:
        return value.grad, frozenset()
    mode = flow.state.mode
    # A backward pass in the callee shows that grad mode is on whenever it is called, one elsewhere does not.
    runs_backward = callee.has_backward and mode is not Mode.OFF
    rests_on = (flow.analysis.basis if runs_backward else flow.analysis.foundations)(value.conditions)
    entry = GradOnEntry(callee.name)
    region = flow.state.region if mode is Mode.UNKNOWN else None
    if entry in rests_on and (mode is Mode.OFF or (mode is Mode.UNKNOWN and region is None)):
        return (Grad.NO if mode is Mode.OFF else Grad.MIXED), frozenset()
    passed = {item: given[item.root] for item in rests_on if isinstance(item, Proof) and item.root in given}
    for grad in (Grad.NO, Grad.MIXED):
        if any(argument.grad is grad for argument in passed.values()):
            return grad, frozenset()
    others = rests_on - passed.keys() - {entry}
    if mode is Mode.OFF and others:
        return Grad.MIXED, frozenset()  # made in the callee by code out of view, by this call without a graph
    conditions = others.union(*(argument.conditions for argument in passed.values()))
    if entry in rests_on and mode is Mode.ENTRY and callee.name not in flow.analysis.grad_on:
        conditions |= {GradOnEntry(flow.scope.qualname)}
    if entry in rests_on and region is not None:
        conditions |= {Proof(region)}
    return Grad.YES, conditions


# --- methods and the unknown ---


def _method(flow: Flow, reading: Reading, receiver: Value, name: str) -> Value:
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
    return _unknown_call(flow, reading)


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
        flow.state.vars.pop(f"{path}[-1]", None)


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
        flow.store("append", reading.node, reading.receiver_node, receiver, argument.value, argument.expression)
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
    alone = Value(Kind.UNKNOWN, element.grad, conditions=element.conditions, roots=element.roots, idents=element.idents)
    value = _tensor_method(flow, reading, alone, name)
    return element if value is None else value


def _parts_of(flow: Flow, reading: Reading, receiver: Value, name: str) -> Value:
    """`losses.values()`, `losses.items()`: whichever way they are gone through, the same parts."""
    reading.root = flow.member(receiver, "[*]", reading.node)
    part = flow.unknown(reading.node, receiver.roots, reading.root)
    element = part if name == "values" else Value(Kind.CONTAINER, roots=part.roots, elements=(PLAIN, part))
    return Value(Kind.UNKNOWN, roots=part.roots, elements=(element,), mode=Mode.KEEP)


def _module_method(flow: Flow, reading: Reading, receiver: Value, name: str) -> Value:
    if name == "forward" or name == "__call__":
        reading.callee = receiver
        return _forward(flow, reading)
    if name == "step" and not reading.arguments:
        return _note_step(flow)  # a DeepSpeed engine that nobody has seen made
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
    return _unknown_call(flow, reading)


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
        if receiver.kind is Kind.OPTIMIZER and closure is not None and len(closure.quals) == 1:
            return _step_with(flow, reading, closure)
        if receiver.kind in (Kind.OPTIMIZER, Kind.SCALER) or not reading.arguments:
            return _note_step(flow)
        return _unknown_call(flow, reading)
    if name == "state_dict":
        return Value(Kind.STATE)
    return PLAIN


def _is_profiler(reading: Reading) -> bool:
    """`prof.step()` of `torch.profiler` says that an iteration is over, in evaluations too."""
    path = path_of(reading.receiver_node) if reading.receiver_node is not None else None
    return path is not None and not words_of(path.rpartition(".")[2]).isdisjoint(known.PROFILER_WORDS)


def _step_with(flow: Flow, reading: Reading, closure: Value) -> Value:
    """`optimizer.step(closure)` calls the closure and returns what it returns."""
    _note_step(flow)
    (name,) = closure.quals
    if flow.analysis.scope_named(name) is None:
        return PLAIN
    flow.analysis.step_closures.add(name)
    inner = Reading(reading.node)
    inner.callee = closure
    value = _own(flow, inner, name)
    reading.root = inner.root
    return value


def _note_step(flow: Flow) -> Value:
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


def _shows_a_graph(flow: Flow, value: Value) -> bool:
    """A model's output, or what a backward pass ran on: no array, which has `argmax` and `nonzero` as well."""
    shown = (ident in flow.state.backed or flow.analysis.roots[ident].is_forward for ident in value.idents)
    return value.carries_graph and bool(value.idents) and all(shown)


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
        kind = Kind.TENSOR if receiver.is_tensor or _shows_a_graph(flow, receiver) else Kind.UNKNOWN
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


def _unknown_call(flow: Flow, reading: Reading, qual: str = "") -> Value:
    """A call out of view: it may keep or differentiate its arguments; its result may carry their graphs."""
    is_loss = _is_loss_by_name(reading)
    if not is_loss:  # a loss function neither differentiates nor keeps what it is given
        escape_arguments(flow, reading)
    if not is_loss and flow.loop is not None and any(value.grad is not Grad.NO for value in reading.values):
        for loop in flow.loop.outer():
            loop.escaping_calls = True
    roots = frozenset().union(*(flow.all_roots(value) for value in reading.values)) if reading.arguments else NOTHING
    if reading.receiver is not None:
        roots |= reading.receiver.roots
    reading.root = flow.root(reading.node, saves=True)
    flow.analysis.unseen.add(reading.root)
    called = path_of(reading.node.func)
    if called is not None:
        flow.analysis.called[reading.root] = called
    flow.analysis.roots[reading.root].of_module |= reading.receiver is not None and reading.receiver.kind is Kind.MODULE
    result = flow.unknown(reading.node, roots, reading.root)
    if qual.startswith(".") or (qual and not qual.startswith(":") and "." in qual):
        flow.analysis.imported[reading.root] = qual
    if is_loss:
        flow.analysis.losses.add(reading.root)
        if flow.state.mode is Mode.OFF:
            return Value(roots=result.roots - {reading.root})
        carrying = [value for value in reading.values if value.grad is Grad.YES and not flow.analysis.unproven(value)]
        if carrying:
            return flow.graph(
                Kind.UNKNOWN,
                reading.node,
                roots=result.roots,
                conditions=carrying[0].conditions,
                ident=reading.root,
                weak=True,
            )
    return result


def _is_loss_by_name(reading: Reading) -> bool:
    """`criterion(output, target)`: the name counts only together with an argument that carries a graph."""
    func = reading.node.func
    if isinstance(func, cst.Subscript):  # `self.criteria["l1"](output, target)`
        return (path_of(func.value) or "").rpartition(".")[2] in _LOSS_CONTAINERS
    name = func.attr.value if isinstance(func, cst.Attribute) else func.value if isinstance(func, cst.Name) else ""
    return name in _LOSS_NAMES
