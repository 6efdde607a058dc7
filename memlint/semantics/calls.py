"""Reading calls: what a call returns, what it does to its arguments, which events it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import libcst as cst

from memlint.semantics.events import Argument, Backward, Call
from memlint.semantics.knowledge import frameworks
from memlint.semantics.knowledge import torch as known
from memlint.semantics.questions import GradOnEntry, ImportCarriesGraph
from memlint.semantics.scopes import path_of
from memlint.semantics.values import (
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
_BOX_ADDING = frozenset({"add", "update", "setdefault", "put", "push"})
_CLEARING = frozenset({"clear", "pop", "popleft", "popitem", "get"})


class Reading:
    """One call while it is read: its parts, evaluated."""

    __slots__ = (
        "callee",
        "forward",
        "keywords",
        "method",
        "node",
        "positional",
        "receiver",
        "receiver_node",
        "root",
        "unpacks",
    )

    def __init__(self, node: cst.Call) -> None:
        self.node = node
        self.callee = PLAIN
        self.receiver: Value | None = None
        self.receiver_node: cst.BaseExpression | None = None
        self.method: str | None = None
        self.positional: list[Argument] = []
        self.keywords: dict[str, Argument] = {}
        self.unpacks = False
        self.root = -1
        self.forward = False

    @property
    def arguments(self) -> list[Argument]:
        return [*self.positional, *self.keywords.values()]

    @property
    def values(self) -> list[Value]:
        return [argument.value for argument in self.arguments]

    def first(self) -> Value | None:
        return self.positional[0].value if self.positional else None


def integer(node: cst.Subscript) -> int | None:
    """The literal integer of `x[0]` or `x[-1]`."""
    if len(node.slice) != 1 or not isinstance(node.slice[0].slice, cst.Index):
        return None
    index = node.slice[0].slice.value
    sign = 1
    if isinstance(index, cst.UnaryOperation) and isinstance(index.operator, cst.Minus):
        sign, index = -1, index.expression
    return sign * int(index.value, 0) if isinstance(index, cst.Integer) else None


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
        return Value(Kind.CALLABLE, quals=frozenset(f"{qual}.{name}" for qual in receiver.quals))
    if receiver.cls is not None:
        method = flow.analysis.method(receiver.cls, name)
        if method is not None:
            return Value(Kind.CALLABLE, quals=frozenset({method.qualname}))
        member = flow.analysis.member(receiver.cls, name, flow.scope)
        if member is not None and member.kind is not Kind.UNKNOWN:
            return member
    path = path_of(func)
    if path is not None and path in flow.state.vars:
        return flow.state.vars[path]
    if path is not None:
        shown = flow.analysis.kind_from_use(flow.scope, path)
        if shown is not None:
            return shown
    return Value(Kind.UNKNOWN)


def _event(flow: Flow, reading: Reading, result: Value) -> Call:
    statement = flow.statement
    return Call(
        node=reading.node,
        statement=statement,
        scope=flow.scope,
        loop=flow.loop,
        mode=flow.state.mode,
        guarded=flow.guarded(),
        handler=flow.handlers > 0,
        order=flow._tick(),
        callee=reading.callee,
        receiver=reading.receiver,
        receiver_node=reading.receiver_node,
        method=reading.method,
        positional=tuple(reading.positional),
        keywords=reading.keywords,
        unpacks=reading.unpacks,
        result=result,
        root=reading.root,
        is_statement=isinstance(statement, cst.Expr) and statement.value is reading.node,
        is_forward=reading.forward,
    )


# --- what a call returns ---


def _result(flow: Flow, reading: Reading) -> Value:
    if _differentiates(reading):
        return _backward(flow, reading)
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
    if first is not None and (target is None or (first.grad is not Grad.NO and not _is_computed(flow, target))):
        target = first  # `accelerator.backward(loss)`, not `y.backward(weights)`
    if target is None:
        keyword = reading.keywords.get("tensors") or reading.keywords.get("outputs") or reading.keywords.get("loss")
        target = keyword.value if keyword is not None else PLAIN
    differentiated = flow.all_roots(target)
    analysis.differentiated |= differentiated
    analysis.prove(target)
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
                node=reading.node,
                statement=flow.statement,
                scope=flow.scope,
                loop=flow.loop,
                mode=flow.state.mode,
                guarded=flow.guarded(),
                handler=flow.handlers > 0,
                order=flow._tick(),
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


def _is_computed(flow: Flow, value: Value) -> bool:
    """Whether the value was computed from others: a tensor, rather than an engine that was built or passed in."""
    return value.is_tensor or any(flow.analysis.roots[root].ancestors - value.idents for root in value.idents)


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
        if name.endswith("Loss"):
            return flow.derived(Kind.TENSOR, reading.node, reading.values, root)
        kind = Kind.TENSOR if name in known.TENSOR_MODULES else Kind.UNKNOWN
        out = flow.graph(kind, reading.node, roots=roots, ident=root)
        if cls in known.RECURRENT_MODULES:
            return Value(Kind.CONTAINER, out.grad, conditions=out.conditions, roots=out.roots, elements=(out, out))
        return out
    if cls is not None:
        method = flow.analysis.method(cls, "forward")
        if method is not None:
            return _forward_in_view(flow, reading, flow.analysis.callee(method, reading, flow), roots)
    return flow.graph(
        Kind.UNKNOWN, reading.node, roots=roots, ident=root, conditions=callee.conditions, weak=callee.weak
    )


def _forward_in_view(flow: Flow, reading: Reading, callee: Callee | None, roots: frozenset[int]) -> Value:
    node, root = reading.node, reading.root
    if callee is None:
        return flow.graph(Kind.UNKNOWN, node, roots=roots, ident=root)
    returned = callee.result
    if returned.elements is not None:
        elements = tuple(_forward_element(flow, node, element, roots | {root}) for element in returned.elements)
        return Value(Kind.CONTAINER, roots=roots | {root}, elements=elements, idents=frozenset({root}))
    return _forward_element(flow, node, returned, roots | {root}, root)


def _forward_element(
    flow: Flow, node: cst.Call, returned: Value, roots: frozenset[int], root: int | None = None
) -> Value:
    if returned.grad is Grad.YES:
        return flow.graph(returned.kind, node, roots=roots, ident=root)
    return Value(returned.kind, returned.grad, roots=roots, boxes=returned.boxes)


def _note_forward(flow: Flow, reading: Reading) -> None:
    flow.has_forward = True
    given = frozenset().union(*(flow.all_roots(value) for value in reading.values)) if reading.arguments else NOTHING
    loop = flow.loop
    while loop is not None:
        loop.has_forward = True
        if loop.element in given:
            loop.feeds_forward = True
        loop = loop.parent


def _named(flow: Flow, reading: Reading, qual: str) -> Value:
    """The call of something whose qualified name is known."""
    if qual.startswith(":"):
        return _own(flow, reading, qual)
    if qual.startswith("torch."):
        value = _torch(flow, reading, qual)
        if value is not None:
            return value
    value = _library(flow, reading, qual)
    if value is not None:
        return value
    return _unknown_call(flow, reading, qual)


def _torch(flow: Flow, reading: Reading, qual: str) -> Value | None:
    if qual in known.GRAD_OFF_CONTEXTS or qual in known.GRAD_ON_CONTEXTS:
        first = reading.first()
        off = qual in known.GRAD_OFF_CONTEXTS
        if first is not None or reading.keywords:
            # `torch.no_grad()(function)`, `inference_mode(flag)`
            literal = (
                first.literal
                if first is not None
                else reading.keywords.get("mode", Argument(cst.Arg(cst.Name("x")), PLAIN)).value.literal
            )
            if literal is not True:
                _escape_arguments(flow, reading)
                return Value(Kind.CONTEXT, mode=Mode.UNKNOWN)
        return Value(Kind.CONTEXT, mode=Mode.OFF if off else Mode.ON)
    if qual in known.SET_GRAD_ENABLED:
        return _set_grad_enabled(flow, reading)
    if qual == "torch.device":
        first = reading.first()
        return Value(Kind.CONTEXT, mode=Mode.KEEP, cls=qual, literal=None if first is None else first.literal)
    if qual in known.NEUTRAL_CONTEXTS:
        return Value(Kind.CONTEXT, mode=Mode.KEEP)
    if qual in known.LOADERS:
        return Value(Kind.LOADER, elements=_loader_elements(flow, reading))
    if qual in known.SCALERS:
        return Value(Kind.SCALER)
    if qual in known.RETURNS_ITS_MODULE and reading.first() is not None:
        return reading.first()
    if qual in known.FACTORIES:
        return _factory(flow, reading, qual)
    if qual in known.LOSS_FUNCTIONS:
        reading.root = flow.root(reading.node, saves=True)
        return flow.derived(Kind.TENSOR, reading.node, reading.values, reading.root)
    if qual == "torch.load" or qual == "torch.hub.load_state_dict_from_url":
        reading.root = flow.root(reading.node)
        return Value(Kind.STATE, idents=frozenset({reading.root}), roots=frozenset({reading.root}))
    if qual.startswith(("torch.optim.",)) and "." not in qual.removeprefix("torch.optim.") and qual[12:13].isupper():
        return Value(Kind.OPTIMIZER, cls=qual)
    if qual == "torch.nn.Parameter" or qual == "torch.nn.parameter.Parameter":
        return flow.graph(Kind.TENSOR, reading.node, roots=NOTHING)
    if qual.startswith(("torch.nn.modules.", "torch.nn.")) and qual.rpartition(".")[2][:1].isupper():
        if qual.rpartition(".")[2] not in known.NN_NOT_MODULES and ".utils." not in qual:
            return Value(Kind.MODULE, cls="torch.nn." + qual.rpartition(".")[2])
    return _torch_function(flow, reading, qual)


def _torch_function(flow: Flow, reading: Reading, qual: str) -> Value | None:
    prefix, _, name = qual.rpartition(".")
    if prefix not in ("torch", "torch.nn.functional", "torch.special", "torch.linalg", "torch.Tensor"):
        if qual.startswith(known.FUNCTIONAL_AUTOGRAD_PREFIXES):
            flow.has_backward = True
            _escape_arguments(flow, reading)
            return flow.unknown(reading.node, NOTHING)
        if qual.startswith(
            ("torch.cuda.", "torch.distributed.", "torch.backends.", "torch.utils.data.", "torch.manual_seed")
        ):
            return PLAIN if not qual.startswith("torch.utils.data.") else _dataset(reading, qual)
        return None
    if name in known.NUMBER_FUNCTIONS:
        return NUMBER
    if name in known.NEVER_GRAD_FUNCTIONS and not known.TUPLE_KEYWORDS.isdisjoint(reading.keywords):
        return Value(Kind.UNKNOWN)
    if name in known.NEVER_GRAD_FUNCTIONS:
        return NO_GRAD_TENSOR
    if name in known.DIFFERENTIABLE_FUNCTIONS or (
        prefix == "torch.nn.functional" and not name.startswith("multi_head")
    ):
        reading.root = flow.root(reading.node, saves=True)
        return flow.derived(Kind.TENSOR, reading.node, reading.values, reading.root)
    if name in known.MULTI_RESULT_METHODS or name in ("max", "min", "median", "mode"):
        reading.root = flow.root(reading.node)
        return _reduced_pair(flow, reading, name, reading.first() or PLAIN, reading.positional[1:])
    if name in (
        "is_grad_enabled",
        "is_tensor",
        "device",
        "Size",
        "dtype",
        "Generator",
        "get_rng_state",
        "manual_seed",
        "from_numpy",
    ):
        return NO_GRAD_TENSOR if name == "from_numpy" else PLAIN
    if name in ("as_tensor", "asarray"):
        first = reading.first()
        return first if first is not None and first.is_tensor else Value(Kind.TENSOR)
    return None


def _dataset(reading: Reading, qual: str) -> Value | None:
    return Value(Kind.DATASET) if qual in known.DATASET_BASES else None


def _loader_elements(flow: Flow, reading: Reading) -> tuple[Value, ...] | None:
    """`TensorDataset` and other datasets: each element is data, whatever its structure."""
    return None


def _factory(flow: Flow, reading: Reading, qual: str) -> Value:
    reading.root = flow.root(reading.node)
    requires_grad = reading.keywords.get("requires_grad")
    if requires_grad is not None and requires_grad.value.literal is not False:
        return flow.graph(Kind.TENSOR, reading.node, roots=NOTHING, ident=reading.root)
    return Value(Kind.TENSOR, idents=frozenset({reading.root}), roots=frozenset({reading.root}))


def _set_grad_enabled(flow: Flow, reading: Reading) -> Value:
    argument = reading.first() or (reading.keywords["mode"].value if "mode" in reading.keywords else PLAIN)
    mode = (
        {True: Mode.ON, False: Mode.OFF}.get(argument.literal, Mode.UNKNOWN)
        if isinstance(argument.literal, bool)
        else Mode.UNKNOWN
    )
    statement = flow.statement
    if isinstance(statement, cst.Expr) and statement.value is reading.node:
        flow.state.mode = mode
        if mode is not Mode.ON:
            flow.analysis.switches_grad_off = True
    return Value(Kind.CONTEXT, mode=mode)


def _library(flow: Flow, reading: Reading, qual: str) -> Value | None:
    """Calls into Python itself and libraries other than torch."""
    if qual in _NUMBER_FUNCTIONS:
        return NUMBER
    if qual == "super":
        return Value(Kind.UNKNOWN)
    if qual == "range":
        return NUMBER
    if qual in _CONTAINER_FUNCTIONS:
        return _container(flow, reading, qual)
    if qual in _EMPTY_CONTAINERS:
        return flow._box(reading.node, [])
    if qual in known.ITERATION_WRAPPERS:
        return _wrapped_iteration(flow, reading, qual)
    if qual == "next":
        return _next(flow, reading)
    if qual in ("sum", "max", "min", "abs", "functools.reduce", "reduce"):
        contents = [
            flow.element_of(value, reading.node) if value.boxes or value.elements else value for value in reading.values
        ]
        return flow.derived(Kind.UNKNOWN, reading.node, contents)
    if qual in ("copy.deepcopy", "copy.copy"):
        first = reading.first()
        if first is not None and first.kind in (Kind.MODULE, Kind.INSTANCE, Kind.STATE):
            return first
        return Value(Kind.UNKNOWN, Grad.MIXED)
    if qual in known.NEUTRAL_CONTEXTS or qual == "contextlib.nullcontext" or qual == "contextlib.suppress":
        return Value(Kind.CONTEXT, mode=Mode.KEEP)
    if qual in ("timm.create_model", "timm.models.create_model", "torch.hub.load") or qual.startswith(
        "torchvision.models."
    ):
        return Value(Kind.MODULE)
    if qual.startswith("transformers.") and qual.endswith(".from_pretrained"):
        name = qual.split(".")[-2]
        return Value(Kind.MODULE) if "Model" in name or "For" in name else PLAIN
    if qual in known.LOADERS:
        return Value(Kind.LOADER)
    if qual.startswith("einops."):
        return flow.derived(Kind.UNKNOWN, reading.node, reading.values)
    if qual in frameworks.CONSUMING_FUNCTIONS or qual.startswith(frameworks.CONSUMING_MODULES):
        return Value(Kind.PLAIN)
    if qual == "heapq.heappush" and len(reading.positional) == 2:
        heap, item = reading.positional
        flow.store("append", reading.node, heap.expression, heap.value, item.value, item.expression)
        return NONE
    if qual == "getattr" or qual == "isinstance":
        return flow.unknown(reading.node, NOTHING)
    if _is_standard_library(qual):
        # Of the standard library nothing differentiates, but much of it keeps what it is given.
        _escape_arguments(flow, reading)
        return (
            Value(Kind.CONTEXT, mode=Mode.KEEP)
            if not qual.startswith("contextlib.")
            else flow.unknown(reading.node, NOTHING)
        )
    return None


def _is_standard_library(qual: str) -> bool:
    import sys

    return "." in qual and qual.split(".", maxsplit=1)[0] in sys.stdlib_module_names


def _container(flow: Flow, reading: Reading, qual: str) -> Value:
    first = reading.first()
    contents = [] if first is None else [flow.element_of(first, reading.node)]
    if first is not None and first.kind is Kind.LOADER:
        contents = [Value(Kind.UNKNOWN)]
    contents += [
        argument.value for name, argument in reading.keywords.items() if name not in ("key", "reverse", "maxlen")
    ]
    value = flow._box(reading.node, contents)
    if "maxlen" in reading.keywords or (qual == "collections.deque" and len(reading.positional) > 1):
        for box in value.boxes:
            flow.analysis.boxes[box].bounded = True
    return value


def _wrapped_iteration(flow: Flow, reading: Reading, qual: str) -> Value:
    """`enumerate(loader)`: one element of it stands for all, kept as the value's only element."""
    iterables = [argument.value for argument in reading.positional]
    if qual != "zip" and qual != "itertools.chain":
        iterables = (
            iterables[:1] or [reading.keywords["iterable"].value] if iterables or "iterable" in reading.keywords else []
        )
    if not iterables:
        return flow.unknown(reading.node, NOTHING)
    elements = [
        value.elements[0] if value.mode is Mode.KEEP and value.elements else _plain_element(flow, value, reading.node)
        for value in iterables
    ]
    roots = frozenset().union(*(flow.all_roots(value) for value in iterables))
    kind = Kind.LOADER if any(value.kind is Kind.LOADER for value in iterables) else iterables[0].kind
    if qual == "enumerate" or qual == "tqdm.contrib.tenumerate":
        element = Value(Kind.CONTAINER, roots=elements[0].roots, elements=(NUMBER, elements[0]))
    elif qual == "zip":
        element = Value(Kind.CONTAINER, roots=roots, elements=tuple(elements))
    else:
        element = elements[0]
        if qual == "itertools.chain":
            for other in elements[1:]:
                element = join(element, other)
    if kind is Kind.NUMBER and qual not in ("enumerate", "zip"):
        return NUMBER
    reading.root = flow.root(reading.node)
    return Value(
        kind if kind is Kind.LOADER else Kind.UNKNOWN,
        roots=roots,
        elements=(element,),
        mode=Mode.KEEP,
        idents=frozenset({reading.root}),
        weak=any(value.weak for value in iterables),
    )


def _plain_element(flow: Flow, value: Value, node: cst.CSTNode) -> Value:
    if value.kind is Kind.LOADER:
        return Value(Kind.UNKNOWN, roots=value.roots)
    if value.kind is Kind.NUMBER:
        return NUMBER
    return flow.element_of(value, node)


def _next(flow: Flow, reading: Reading) -> Value:
    first = reading.first()
    if first is None:
        return PLAIN
    if first.kind is Kind.LOADER:
        loop = flow.loop
        while loop is not None:
            loop.draws_from_loader = True
            loop = loop.parent
        return first.elements[0] if first.elements else Value(Kind.UNKNOWN, roots=first.roots)
    return flow.element_of(first, reading.node)


# --- functions and classes of this file ---


def _own(flow: Flow, reading: Reading, qual: str) -> Value:
    analysis = flow.analysis
    if analysis.is_class(qual):
        for value in reading.values:
            # What a constructor is given it may keep.
            analysis.shared |= flow.all_roots(value)
        bases = analysis.base_names(qual)
        if analysis.is_module_class(qual):
            return Value(Kind.MODULE, cls=qual)
        if bases & known.DATASET_BASES:
            return Value(Kind.DATASET, cls=qual)
        if bases & known.LOADERS:
            return Value(Kind.LOADER, cls=qual)
        return Value(Kind.INSTANCE, cls=qual)
    scope = analysis.scope_named(qual)
    if scope is None:
        return _unknown_call(flow, reading, qual)
    callee = analysis.callee(scope, reading, flow)
    if callee is None:
        return _unknown_call(flow, reading, qual)
    return _apply(flow, reading, callee)


def _apply(flow: Flow, reading: Reading, callee: Callee) -> Value:
    """What a function of this file does to its arguments, and what it returns, in the caller's grad mode."""
    analysis = flow.analysis
    loop = flow.loop
    while loop is not None:
        loop.has_backward |= callee.has_backward
        loop.has_step |= callee.has_step
        loop.has_forward |= callee.has_forward
        if callee.has_forward and any(loop.element in flow.all_roots(value) for value in reading.values):
            loop.feeds_forward = True
        loop = loop.parent
    flow.has_backward |= callee.has_backward
    flow.has_step |= callee.has_step
    flow.has_forward |= callee.has_forward
    given: dict[int, Value] = {}
    for root, value in callee.parameters:
        given[root] = value
        roots = flow.all_roots(value)
        if root in analysis.differentiated:
            analysis.differentiated |= roots
        if root in analysis.proven:
            analysis.prove(value)
        if root in callee.backed:
            flow.state.backed |= roots
        if root in analysis.escaped:
            flow.escape(value)
        if root in analysis.shared:
            analysis.shared |= roots
    flow.state.backed |= callee.backed
    return _returned(flow, reading, callee.result, callee.name, given)


def _returned(flow: Flow, reading: Reading, value: Value, name: str, given: dict[int, Value]) -> Value:
    elements = None
    if value.elements is not None and value.mode is not Mode.KEEP:
        elements = tuple(_returned(flow, reading, element, name, given) for element in value.elements)
    roots = set(value.roots)
    for root in value.roots & given.keys():
        roots |= flow.all_roots(given[root])
    grad, conditions = _grad_for_caller(flow, value, name, given)
    idents = value.idents
    if grad is Grad.YES:
        # This call's own definition: a backward on the result proves it, whatever the callee's conditions.
        reading.root = flow.root(reading.node)
        if elements is None and value.idents:
            flow.analysis.claim(reading.root, conditions)
            if value.idents <= flow.state.backed:
                flow.state.backed = flow.state.backed | {reading.root}
            idents = idents | {reading.root}
            conditions = frozenset({Proof(reading.root)})
            roots.add(reading.root)
    return Value(
        value.kind,
        grad,
        conditions=conditions,
        roots=frozenset(roots) if grad is not Grad.NO or value.boxes or elements else NOTHING,
        idents=idents if grad is Grad.YES else NOTHING,
        quals=value.quals,
        cls=value.cls,
        elements=elements,
        boxes=value.boxes,
        mode=value.mode,
        weak=value.weak,
    )


def _grad_for_caller(flow: Flow, value: Value, name: str, given: dict[int, Value]) -> tuple[Grad, frozenset[Condition]]:
    """The callee's conditions, with its entry mode and its parameters replaced by what this call gives."""
    if value.grad is not Grad.YES:
        return value.grad, frozenset()
    conditions: set[Condition] = set()
    for condition in flow.analysis.basis(value.conditions):
        if isinstance(condition, GradOnEntry) and condition.function == name:
            if flow.state.mode is Mode.OFF:
                return Grad.NO, frozenset()
            if flow.state.mode is Mode.ENTRY:
                conditions.add(GradOnEntry(flow.scope.qualname))
            elif flow.state.mode is Mode.UNKNOWN:
                return Grad.MIXED, frozenset()
        elif isinstance(condition, Proof) and condition.root in given:
            argument = given[condition.root]
            if argument.grad is not Grad.YES:
                return argument.grad, frozenset()
            conditions |= argument.conditions
        else:
            conditions.add(condition)
    return Grad.YES, frozenset(conditions)


# --- methods and the unknown ---


def _method(flow: Flow, reading: Reading, receiver: Value, name: str) -> Value:
    kind = receiver.kind
    if name in _APPENDING and reading.positional and kind in (Kind.CONTAINER, Kind.UNKNOWN, Kind.INSTANCE):
        argument = reading.positional[-1]
        assert reading.receiver_node is not None
        flow.store(_APPENDING[name], reading.node, reading.receiver_node, receiver, argument.value, argument.expression)
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
            flow.state.mode = flow.entered(entered, reading.positional[0].expression, flow.state.mode)
        return PLAIN
    if kind is Kind.PLAIN or kind is Kind.NUMBER:
        return PLAIN
    if kind is Kind.LOADER and name in ("__iter__",):
        return receiver
    if kind is Kind.STATE:
        return (
            Value(Kind.STATE, idents=receiver.idents, roots=receiver.roots)
            if name in ("get", "pop")
            else Value(Kind.UNKNOWN)
        )
    value = _tensor_method(flow, reading, receiver, name)
    if value is not None:
        return value
    if name == "prepare":
        return _prepared(reading)
    if name in frameworks.CONSUMING_METHODS:
        return PLAIN
    return _unknown_call(flow, reading)


def _container_method(flow: Flow, reading: Reading, receiver: Value, name: str) -> Value:
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
    if name in ("values", "items", "copy", "keys"):
        return Value(Kind.CONTAINER, roots=receiver.roots, boxes=receiver.boxes)
    return flow.element_of(receiver, reading.node)


def _module_method(flow: Flow, reading: Reading, receiver: Value, name: str) -> Value:
    if name == "forward" or name == "__call__":
        reading.callee = receiver
        return _forward(flow, reading)
    if name == "generate":
        return NO_GRAD_TENSOR  # transformers.GenerationMixin.generate is decorated with torch.no_grad
    if name == "requires_grad_":
        first = reading.first()
        frozen = first is not None and first.literal is False
        return Value(Kind.MODULE, cls=receiver.cls, mode=Mode.OFF if frozen else None, weak=receiver.weak)
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
    if name == "register_buffer" and len(reading.positional) > 1 and isinstance(reading.positional[0].value.literal, str):
        given = reading.positional[1].value
        flow.state.bind(f"self.{reading.positional[0].value.literal}", NONE if given.kind is Kind.NONE else NO_GRAD_TENSOR)
    if name in ("zero_grad", "load_state_dict", "register_buffer", "register_parameter"):
        return PLAIN
    return _unknown_call(flow, reading)


def _trainer_method(flow: Flow, reading: Reading, receiver: Value, name: str) -> Value:
    if name == "scale" and reading.first() is not None:
        return flow.derived(reading.values[0].kind, reading.node, reading.values)
    if name == "step":
        if receiver.kind in (Kind.OPTIMIZER, Kind.SCALER) or not reading.arguments:
            flow.has_step = True
            loop = flow.loop
            while loop is not None:
                loop.has_step = True
                loop = loop.parent
            return PLAIN
        return _unknown_call(flow, reading)
    if name == "state_dict":
        return Value(Kind.STATE)
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
        return Value(Kind.TENSOR, idents=frozenset({reading.root}))
    if name in known.NEVER_GRAD_METHODS:
        reading.root = flow.root(node)
        kind = Kind.TENSOR if receiver.is_tensor or receiver.carries_graph else Kind.UNKNOWN
        return Value(kind, idents=frozenset({reading.root}))
    if name == "scale" and reading.first() is not None and receiver.kind is Kind.UNKNOWN:
        return flow.derived(Kind.UNKNOWN, node, reading.values)
    if name in ("max", "min", "median") or name in known.MULTI_RESULT_METHODS:
        reading.root = flow.root(node)
        return _reduced_pair(flow, reading, name, receiver, reading.positional)
    if name in known.DIFFERENTIABLE_METHODS:
        reading.root = flow.root(node)
        kind = Kind.TENSOR if receiver.is_tensor or name in known.TENSOR_ONLY_METHODS else Kind.UNKNOWN
        # Of a copying method the arguments are devices and dtypes, of a shaping method sizes and dimensions.
        operands = [] if name in known.COPYING_METHODS or name in known.SHAPING_METHODS else reading.values
        return flow.derived(kind, node, [receiver, *operands], reading.root)
    return None


def _reduced_pair(flow: Flow, reading: Reading, name: str, receiver: Value, arguments: list[Argument]) -> Value:
    """`values, indices = t.topk(k)`: the indices never require grad; `t.max()` alone is one tensor."""
    operands = [receiver, *(argument.value for argument in arguments)]
    values = flow.derived(receiver.kind, reading.node, operands, reading.root)
    has_dim = bool(arguments) or "dim" in reading.keywords
    if name in ("topk", "kthvalue", "sort") or (name in ("max", "min", "median", "mode") and has_dim):
        if len(arguments) == 1 and arguments[0].value.is_tensor:
            return values
        indices = Value(Kind.TENSOR if receiver.is_tensor else Kind.UNKNOWN)
        return Value(Kind.CONTAINER, roots=values.roots, elements=(values, indices))
    return values


def _escape_arguments(flow: Flow, reading: Reading) -> None:
    for value in reading.values:
        flow.escape(value)


def _unknown_call(flow: Flow, reading: Reading, qual: str = "") -> Value:
    """A call out of view: it may keep or differentiate its arguments; its result may carry their graphs."""
    _escape_arguments(flow, reading)
    if flow.loop is not None and any(value.grad is not Grad.NO for value in reading.values):
        for loop in flow.loop.outer():
            loop.escaping_calls = True
    roots = frozenset().union(*(flow.all_roots(value) for value in reading.values)) if reading.arguments else NOTHING
    if reading.receiver is not None:
        roots |= reading.receiver.roots
    reading.root = flow.root(reading.node, saves=True)
    flow.analysis.unseen.add(reading.root)
    result = flow.unknown(reading.node, roots, reading.root)
    if qual.startswith(".") or (qual and not qual.startswith(":") and "." in qual):
        flow.analysis.imported[reading.root] = ImportCarriesGraph(qual)
    if _is_loss_by_name(reading):
        carrying = [value for value in reading.values if value.grad is Grad.YES and not flow.analysis.unproven(value)]
        if carrying:
            known_result = flow.graph(
                Kind.UNKNOWN,
                reading.node,
                roots=result.roots,
                conditions=carrying[0].conditions,
                ident=reading.root,
                weak=True,
            )
            return known_result
    return result


def _is_loss_by_name(reading: Reading) -> bool:
    """`criterion(output, target)`: the name alone proves nothing, together with an argument that carries a graph it does."""
    func = reading.node.func
    name = func.attr.value if isinstance(func, cst.Attribute) else func.value if isinstance(func, cst.Name) else ""
    return name in _LOSS_NAMES
