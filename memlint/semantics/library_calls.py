"""What a call of a function or class returns that torch, Python or another library has given its name."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import libcst as cst

from memlint.semantics.knowledge import frameworks, libraries
from memlint.semantics.knowledge import torch as known
from memlint.semantics.library_objects import built, result_of
from memlint.semantics.reading import Reading, escape_arguments, reduced_pair
from memlint.semantics.values import (
    NO_GRAD_TENSOR,
    NONE,
    NOTHING,
    NUMBER,
    PLAIN,
    Grad,
    Kind,
    Mode,
    Value,
    join,
)

if TYPE_CHECKING:
    from memlint.semantics.flow import Flow

Handler = Callable[["Flow", Reading, str], "Value | None"]


def library_call(flow: Flow, reading: Reading, qual: str) -> Value | None:
    """The result of calling what has this qualified name; None where memlint knows nothing of it."""
    handler = _BY_NAME.get(qual)
    if handler is not None:
        return handler(flow, reading, qual)
    for prefix, by_prefix in _BY_PREFIX:
        if qual.startswith(prefix):
            value = by_prefix(flow, reading, qual)
            if value is not None:
                return value
    return _of_library(flow, reading, qual) or _standard_library(flow, reading, qual)


# --- torch ---


def _grad_context(flow: Flow, reading: Reading, qual: str) -> Value:
    mode = Mode.OFF if qual in known.GRAD_OFF_CONTEXTS else Mode.ON
    if not reading.arguments:
        return Value(Kind.CONTEXT, mode=mode)
    argument = reading.first() or reading.values[0]
    if argument.literal is True:
        return Value(Kind.CONTEXT, mode=mode)
    # `torch.no_grad()(function)`, `inference_mode(flag)`
    escape_arguments(flow, reading)
    return Value(Kind.CONTEXT, mode=Mode.UNKNOWN)


def _set_grad_enabled(flow: Flow, reading: Reading, qual: str) -> Value:
    argument = reading.first() or (reading.values[0] if reading.values else PLAIN)
    mode = Mode.UNKNOWN
    if isinstance(argument.literal, bool):
        mode = Mode.ON if argument.literal else Mode.OFF
    statement = flow.statement
    if isinstance(statement, cst.Expr) and statement.value is reading.node:
        flow.state.mode = mode
        flow.state.region = flow.analysis.region_for(reading.node) if mode is Mode.UNKNOWN else None
        if mode is not Mode.ON:
            flow.analysis.switches_grad_off = True
    return Value(Kind.CONTEXT, mode=mode)


def _device(flow: Flow, reading: Reading, qual: str) -> Value:
    first = reading.first()
    return Value(Kind.CONTEXT, mode=Mode.KEEP, cls=qual, literal=None if first is None else first.literal)


def _neutral_context(flow: Flow, reading: Reading, qual: str) -> Value:
    return Value(Kind.CONTEXT, mode=Mode.KEEP)


def _loader(flow: Flow, reading: Reading, qual: str) -> Value:
    reading.root = flow.root(reading.node)
    return Value(Kind.LOADER, idents=frozenset({reading.root}))


def _scaler(flow: Flow, reading: Reading, qual: str) -> Value:
    return Value(Kind.SCALER)


def _dataset(flow: Flow, reading: Reading, qual: str) -> Value:
    return Value(Kind.DATASET, cls=qual)


def _frozen_module(flow: Flow, reading: Reading, qual: str) -> Value:
    return Value(Kind.MODULE, mode=Mode.OFF)


def _its_module(flow: Flow, reading: Reading, qual: str) -> Value | None:
    return reading.first()


def _copy(flow: Flow, reading: Reading, qual: str) -> Value:
    first = reading.first()
    if first is not None and first.kind in (Kind.MODULE, Kind.INSTANCE, Kind.STATE):
        return first
    return Value(Kind.UNKNOWN, Grad.MIXED)


def _factory(flow: Flow, reading: Reading, qual: str) -> Value:
    reading.root = flow.root(reading.node)
    requires_grad = reading.keywords.get("requires_grad")
    if requires_grad is not None and requires_grad.value.literal is not False:
        return flow.graph(Kind.TENSOR, reading.node, roots=NOTHING, ident=reading.root)
    return Value(Kind.TENSOR, idents=frozenset({reading.root}), roots=frozenset({reading.root}))


def _loaded(flow: Flow, reading: Reading, qual: str) -> Value:
    reading.root = flow.root(reading.node)
    return Value(Kind.STATE, idents=frozenset({reading.root}), roots=frozenset({reading.root}))


def _variable(flow: Flow, reading: Reading, qual: str) -> Value | None:
    """`Variable(x)` is `x` since 0.4; `Variable(x, requires_grad=True)` is a leaf."""
    first = reading.first()
    if first is None or len(reading.positional) > 1:
        return None
    reading.root = flow.root(reading.node)
    requires_grad = reading.keywords.get("requires_grad")
    if requires_grad is not None and requires_grad.value.literal is not False:
        return flow.graph(Kind.TENSOR, reading.node, roots=first.roots, ident=reading.root)
    return Value(
        Kind.TENSOR,
        first.grad,
        conditions=first.conditions,
        roots=first.roots | {reading.root},
        idents=frozenset({reading.root}),
        weak=first.weak,
        proves=first.proves,
    )


def _pretrained_embedding(flow: Flow, reading: Reading, qual: str) -> Value:
    """Frozen unless it is told not to be (torch.nn.Embedding.from_pretrained, parameter `freeze`)."""
    freeze = reading.keywords.get("freeze")
    given = freeze.value if freeze is not None else reading.positional[1].value if len(reading.positional) > 1 else None
    is_frozen = given is None or given.literal is True
    return Value(Kind.MODULE, cls=qual.removesuffix(".from_pretrained"), mode=Mode.OFF if is_frozen else None)


def _parameter(flow: Flow, reading: Reading, qual: str) -> Value:
    return flow.graph(Kind.TENSOR, reading.node, roots=NOTHING)


def _optimizer(flow: Flow, reading: Reading, qual: str) -> Value | None:
    name = qual.removeprefix("torch.optim.")
    return Value(Kind.OPTIMIZER, cls=qual) if name.isidentifier() and name[0].isupper() else None


def _nn_class(flow: Flow, reading: Reading, qual: str) -> Value | None:
    name = qual.rpartition(".")[2]
    if not name[:1].isupper() or name in known.NN_NOT_MODULES or ".utils." in qual:
        return None
    escape_arguments(flow, reading)  # `nn.ModuleList(layers)`
    items = _same_items(flow, reading) if name == "ModuleList" else None
    return Value(Kind.MODULE, cls=f"torch.nn.{name}", elements=items)


def _same_items(flow: Flow, reading: Reading) -> tuple[Value, ...] | None:
    """The one item that stands for all of `nn.ModuleList([nn.Linear(8, 8) for _ in range(n)])`."""
    first = reading.first()
    if first is None and not reading.arguments:
        return ()
    if first is None or len(first.boxes) != 1:
        return None
    (box,) = first.boxes
    item = flow.analysis.boxes[box].content
    return (item,) if is_layer(item) else None


def is_layer(value: Value) -> bool:
    """A module of torch."""
    return value.kind is Kind.MODULE and (value.cls or "").startswith("torch.nn.")


def _functional_autograd(flow: Flow, reading: Reading, qual: str) -> Value:
    flow.has_backward = True
    escape_arguments(flow, reading)
    return flow.unknown(reading.node, NOTHING)


def _plain(flow: Flow, reading: Reading, qual: str) -> Value:
    return PLAIN


def _differentiable(flow: Flow, reading: Reading, qual: str) -> Value:
    reading.root = flow.root(reading.node, saves=True)
    return flow.derived(Kind.TENSOR, reading.node, _operands(flow, reading), reading.root)


def _distribution(flow: Flow, reading: Reading, qual: str) -> Value:
    """`Categorical(logits=policy(x))` has the graph of its parameters; `kl_divergence(p, q)` is computed from them."""
    made = _differentiable(flow, reading, qual)
    if not qual.rpartition(".")[2][:1].isupper():
        return made
    return Value(
        Kind.UNKNOWN,
        made.grad,
        conditions=made.conditions,
        roots=made.roots,
        idents=made.idents,
        cls=qual,
        weak=made.weak,
        proves=made.proves,
        partly=made.partly,
    )


def _operands(flow: Flow, reading: Reading) -> list[Value]:
    """The arguments; of `torch.cat([a, b])` what stands in the list."""
    operands: list[Value] = []
    for argument in reading.arguments:
        expression, value = argument.expression, argument.value
        if isinstance(expression, (cst.List, cst.Tuple)):
            operands += [flow.reread(element.value) for element in expression.elements]
        elif value.boxes or value.elements:
            operands.append(flow.element_of(value, reading.node))
        else:
            operands.append(value)
    return operands


def _functional(flow: Flow, reading: Reading, qual: str) -> Value | None:
    if qual.startswith("torch.nn.functional.multi_head"):
        return None
    return _torch_function(flow, reading, qual) or _differentiable(flow, reading, qual)


def _torch_function(flow: Flow, reading: Reading, qual: str) -> Value | None:
    """`torch.<name>` and the like."""
    name = qual.rpartition(".")[2]
    if name in known.NUMBER_FUNCTIONS:
        return NUMBER
    if name in known.NEVER_GRAD_FUNCTIONS:
        returns_tuple = not known.TUPLE_KEYWORDS.isdisjoint(reading.keywords)
        return Value(Kind.UNKNOWN) if returns_tuple else NO_GRAD_TENSOR
    if name == "where" and len(reading.arguments) == 1:
        return Value(Kind.CONTAINER)  # as nonzero(as_tuple=True)
    if name in known.DIFFERENTIABLE_FUNCTIONS:
        return _differentiable(flow, reading, qual)
    if name in known.MULTI_RESULT_METHODS or name in known.REDUCTIONS_WITH_INDICES:
        reading.root = flow.root(reading.node)
        return reduced_pair(flow, reading, name, reading.first() or PLAIN, reading.positional[1:])
    if name in known.PLAIN_FUNCTIONS:
        return PLAIN
    if name == "from_numpy":
        return NO_GRAD_TENSOR
    if name in ("as_tensor", "asarray"):
        first = reading.first()
        return first if first is not None and first.is_tensor else Value(Kind.TENSOR)
    return None


# --- Python ---


def _number(flow: Flow, reading: Reading, qual: str) -> Value:
    return NUMBER


def _object(flow: Flow, reading: Reading, qual: str) -> Value:
    return Value(Kind.UNKNOWN)


def _empty_container(flow: Flow, reading: Reading, qual: str) -> Value:
    first = reading.first()
    counts = qual == "collections.Counter" or (first is not None and bool(first.quals & {"float", "int"}))
    value = flow.box(reading.node, [])
    for box in value.boxes:
        flow.analysis.boxes[box].counts |= counts
    return value


def _combined(flow: Flow, reading: Reading, qual: str) -> Value:
    """`max(a, b)`"""
    return flow.derived(Kind.UNKNOWN, reading.node, _operands(flow, reading))


def _record_class(flow: Flow, reading: Reading, qual: str) -> Value:
    return Value(Kind.CALLABLE, quals=_RECORDS)


def _record(flow: Flow, reading: Reading, qual: str) -> Value | None:
    """`Stat(step, loss)` of `Stat = namedtuple("Stat", ["step", "loss"])` carries a graph if something in it does."""
    carrying = [value for value in reading.values if value.carries_graph]
    if reading.unpacks or not carrying:
        return None
    reading.root = flow.root(reading.node)
    made = flow.unknown(
        reading.node, frozenset().union(*(flow.all_roots(value) for value in reading.values)), reading.root
    )
    flow.analysis.claim(reading.root, min(carrying, key=flow.analysis.unproven).conditions)
    flow.analysis.records.add(reading.root)
    return made


def _summed(flow: Flow, reading: Reading, qual: str) -> Value:
    """`sum(losses)`: whoever differentiates it differentiates each of them."""
    operands = _operands(flow, reading)
    if not any(operand.carries_graph for operand in operands):
        return flow.derived(Kind.UNKNOWN, reading.node, operands)
    reading.root = flow.root(reading.node)
    total = flow.derived(Kind.UNKNOWN, reading.node, operands, reading.root)
    boxes = [flow.analysis.boxes[box] for value in reading.values for box in value.boxes]
    parts = (*operands, *(value for box in boxes for value in box.carrying))
    flow.note_summands(total, parts)
    if not _chooses(reading.positional[0].expression):
        each = {flow.analysis.each_of[ident] for part in parts for ident in part.idents & flow.analysis.each_of.keys()}
        for ident in total.idents:
            flow.analysis.roots[ident].summands |= each
    return total


def _chooses(summed: cst.BaseExpression) -> bool:
    """`loss for name, loss in losses.items() if "loss" in name`: not each of them."""
    return isinstance(summed, (cst.GeneratorExp, cst.ListComp)) and bool(summed.for_in.ifs)


def _consumed(flow: Flow, reading: Reading, qual: str) -> Value:
    return PLAIN


def _heappush(flow: Flow, reading: Reading, qual: str) -> Value | None:
    if len(reading.positional) != 2:
        return None
    heap, item = reading.positional
    flow.store("append", reading.node, heap.expression, heap.value, item.value, item.expression)
    return NONE


def _anything(flow: Flow, reading: Reading, qual: str) -> Value:
    return flow.unknown(reading.node, NOTHING)


def _standard_library(flow: Flow, reading: Reading, qual: str) -> Value | None:
    """Of the standard library nothing differentiates, but much of it keeps what it is given."""
    if "." not in qual or qual.split(".", maxsplit=1)[0] not in sys.stdlib_module_names:
        return None
    escape_arguments(flow, reading)
    if qual.startswith("contextlib."):
        return flow.unknown(reading.node, NOTHING)
    return Value(Kind.CONTEXT, mode=Mode.KEEP)


# --- other libraries ---


def _looked_at(flow: Flow, reading: Reading, qual: str) -> Value | None:
    return NO_GRAD_TENSOR if qual.rpartition(".")[2] in known.PICTURES else None


def _built_module(flow: Flow, reading: Reading, qual: str) -> Value:
    return Value(Kind.MODULE)


def _of_library(flow: Flow, reading: Reading, qual: str) -> Value | None:
    """A function or class of a library whose tables memlint has."""
    effect = libraries.function_effect(qual)
    if effect is not None:
        return result_of(flow, reading, effect)
    value = built(flow, reading, qual)
    if value is not None:
        return value
    return _from_pretrained(flow, reading, qual) if qual.startswith("transformers.") else None


def _from_pretrained(flow: Flow, reading: Reading, qual: str) -> Value | None:
    if not qual.endswith(".from_pretrained"):
        return None
    name = qual.split(".")[-2]
    return Value(Kind.MODULE) if "Model" in name or "For" in name else PLAIN


def _rearranged(flow: Flow, reading: Reading, qual: str) -> Value:
    return flow.derived(Kind.UNKNOWN, reading.node, reading.values)


def _container(flow: Flow, reading: Reading, qual: str) -> Value:
    first = reading.first()
    contents = [] if first is None else [flow.element_of(first, reading.node)]
    if first is not None and first.kind is Kind.LOADER:
        contents = [Value(Kind.UNKNOWN)]
    if first is not None and qual in _DICTIONARIES:
        contents = _values_of_pairs(flow, first) or contents
    contents += [
        argument.value for name, argument in reading.keywords.items() if name not in ("key", "reverse", "maxlen")
    ]
    value = flow.box(reading.node, contents)
    if qual == "dict" and first is None and not reading.unpacks:  # `dict(loss=loss, step=step)`
        for box in value.boxes:
            flow.analysis.boxes[box].items = {name: item.value for name, item in reading.keywords.items()}
    if "maxlen" in reading.keywords or (qual == "collections.deque" and len(reading.positional) > 1):
        for box in value.boxes:
            flow.analysis.boxes[box].bounded = True
    return value


def _values_of_pairs(flow: Flow, pairs: Value) -> list[Value]:
    """`Meter()` of `dict([(name, Meter()) for name in names])`."""
    made = [flow.analysis.boxes[box].content.elements for box in pairs.boxes]
    return [elements[1] for elements in made if elements is not None and len(elements) == 2]


def _wrapped_iteration(flow: Flow, reading: Reading, qual: str) -> Value:
    """`enumerate(loader)`: one element of it stands for all, kept as the value's only element."""
    iterables = [argument.value for argument in reading.positional]
    if qual != "zip" and qual != "itertools.chain":
        iterables = (
            iterables[:1] or [reading.keywords["iterable"].value] if iterables or "iterable" in reading.keywords else []
        )
    if not iterables:
        return Value(Kind.CONTEXT, mode=Mode.KEEP)  # `with tqdm(total=n) as bar:`
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


def _next(flow: Flow, reading: Reading, qual: str) -> Value:
    first = reading.first()
    if first is None:
        return PLAIN
    if first.kind is Kind.LOADER:
        loop = flow.loop
        while loop is not None:
            loop.draws_from_loader = True
            loop = loop.parent
        return first.elements[0] if first.elements else Value(Kind.UNKNOWN, roots=first.roots)
    drawn = flow.element_of(first, reading.node)
    if flow.loop is None:
        return drawn
    flow.loop.drawn_from |= first.roots | first.idents
    return drawn.with_roots(frozenset({flow.loop.element}))


_RECORDS = frozenset({"collections.namedtuple()"})


def _table() -> dict[str, Handler]:
    rows: list[tuple[Iterable[str], Handler]] = [
        (_CONSUMING, _consumed),
        (known.NEUTRAL_CONTEXTS | {"contextlib.nullcontext", "contextlib.suppress"}, _neutral_context),
        (known.GRAD_OFF_CONTEXTS | known.GRAD_ON_CONTEXTS, _grad_context),
        (known.SET_GRAD_ENABLED, _set_grad_enabled),
        (known.LOADERS, _loader),
        (known.SCALERS, _scaler),
        (known.DATASET_BASES, _dataset),
        (known.RETURNS_ITS_MODULE, _its_module),
        (known.RETURNS_FROZEN_MODULE, _frozen_module),
        (known.FACTORIES | known.TENSOR_TYPES, _factory),
        (known.ITERATION_WRAPPERS, _wrapped_iteration),
        (known.MODULE_BUILDERS, _built_module),
        (("torch.device",), _device),
        (("torch.load", "torch.hub.load_state_dict_from_url"), _loaded),
        (("torch.nn.Parameter", "torch.nn.parameter.Parameter"), _parameter),
        (("torch.nn.Embedding.from_pretrained", "torch.nn.EmbeddingBag.from_pretrained"), _pretrained_embedding),
        (("torch.autograd.Variable", "torch.autograd.variable.Variable"), _variable),
        (("copy.deepcopy", "copy.copy"), _copy),
        (("len", "int", "float", "bool", "round", "hash", "id", "ord", "range"), _number),
        (("super",), _object),
        (_CONTAINERS, _container),
        (("collections.defaultdict", "collections.Counter", "queue.Queue"), _empty_container),
        (("next",), _next),
        (("sum",), _summed),
        (("collections.namedtuple", "typing.NamedTuple"), _record_class),
        (_RECORDS, _record),
        (("max", "min", "abs", "functools.reduce"), _combined),
        (("heapq.heappush",), _heappush),
        (("getattr",), _anything),
    ]
    return {name: handler for names, handler in rows for name in names}


_DICTIONARIES = frozenset({"dict", "collections.OrderedDict"})
_CONTAINERS = (
    "list", "tuple", "dict", "set", "sorted", "frozenset", "collections.deque", "collections.OrderedDict",
)  # fmt: skip
_CONSUMING = frameworks.CONSUMING_FUNCTIONS
_BY_NAME = _table()
_BY_PREFIX: tuple[tuple[str | tuple[str, ...], Handler], ...] = (
    ("torch.optim.", _optimizer),
    ("torch.nn.functional.", _functional),
    ("torch.nn.", _nn_class),
    (known.FUNCTIONAL_AUTOGRAD_PREFIXES, _functional_autograd),
    (known.DISTRIBUTIONS, _distribution),
    (("torch.special.", "torch.linalg.", "torch.Tensor."), _torch_function),
    (("torch.cuda.", "torch.distributed.", "torch.backends."), _plain),
    ("torch.", _torch_function),
    ("torchvision.models.", _built_module),
    ("torchvision.utils.", _looked_at),
    ("einops.", _rearranged),
    (frameworks.CONSUMING_MODULES, _consumed),
)
