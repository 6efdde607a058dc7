"""Copies of tensors that nobody needs: what the rules of the copies family ask."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import libcst as cst

from memlint.semantics.blocks import mentions
from memlint.semantics.events import Argument, Call
from memlint.semantics.graph_signs import carries_by_signs, is_parameter
from memlint.semantics.keepers import bound_parameter
from memlint.semantics.knowledge import copies as known
from memlint.semantics.knowledge import torch as torch_known
from memlint.semantics.knowledge.training import VARIABLES
from memlint.semantics.module import Module
from memlint.semantics.naming import words_of
from memlint.semantics.purity import FunctionBody, is_factory, is_fresh_operation, is_fresh_operator
from memlint.semantics.questions import GradOnEntry, GradSometimesOn, Question
from memlint.semantics.reading import literal_key
from memlint.semantics.scopes import Scope, nodes_of, path_of, walk
from memlint.semantics.type_tests import is_for, types_asked
from memlint.semantics.values import Grad, Kind, Mode, Proof, Value

# What one does with a tensor, not with a list of numbers.
_TENSOR_USES = frozenset({"method", "attribute", "operand", "subscript", "written"})


def is_proven_tensor(module: Module, value: Value, at: Call) -> bool:
    """The value is a tensor whatever path led here, or a backward pass was started on it before."""
    if value.kind is Kind.TENSOR:
        return True
    if not value.carries_graph or not value.idents:
        return False
    outer = at.loop.outer() if at.loop is not None else ()
    return any(
        backward.scope is at.scope
        and backward.order < at.order
        and not backward.guarded
        and (backward.loop is None or backward.loop in outer)
        and value.idents <= backward.differentiated.idents
        for backward in module.backwards
    )


# --- x.clone().detach() ---


@dataclass(frozen=True, eq=False)
class DetachedClone:
    """`source.clone().detach()` where the clone is recorded in the graph."""

    source: cst.BaseExpression
    clone: Call
    detach: Call
    proven: bool
    """The source is surely a tensor."""
    carries_graph: bool
    """The source surely carries a graph; otherwise nothing says that it does not."""
    by_signs: bool
    """The code around takes it for part of a graph."""
    questions: frozenset[Question]

    @property
    def clone_name(self) -> cst.Name:
        func = self.clone.call.func
        assert isinstance(func, cst.Attribute)
        return func.attr

    @property
    def is_method(self) -> bool:
        """Not `torch.clone(x).detach()`."""
        return self.clone.receiver_node is self.source


def detached_clones(module: Module) -> Iterator[DetachedClone]:
    if "torch" not in module.words:
        return
    for detach in module.calls:
        if detach.method not in torch_known.DETACHING_METHODS or detach.call.args or detach.receiver_node is None:
            continue
        clone = module.call_at(detach.receiver_node)
        cloned = _cloned(clone) if clone is not None else None
        if clone is None or cloned is None:
            continue
        source, value = cloned
        if not _may_carry_graph(module, value) or not _may_be_tensor(module, value):
            continue
        questions = _grad_is_on(module, clone)
        if questions is None:
            continue
        carries = _surely_carries_graph(module, value)
        proven = is_proven_tensor(module, value, clone)
        by_signs = carries is None and carries_by_signs(module, source, value, clone)
        yield DetachedClone(
            source, clone, detach, proven, carries is not None, by_signs, questions | (carries or frozenset())
        )


def _cloned(clone: Call) -> tuple[cst.BaseExpression, Value] | None:
    """`x` of `x.clone()` or `torch.clone(x)`."""
    if _is_clone_method(clone) and clone.receiver is not None and clone.receiver_node is not None:
        return clone.receiver_node, clone.receiver
    if clone.names(known.CLONE_FUNCTIONS) and len(clone.positional) == 1 and len(clone.call.args) == 1:
        return clone.positional[0].expression, clone.positional[0].value
    return None


def _is_clone_method(call: Call) -> bool:
    if call.method != "clone" or call.receiver is None or call.receiver.quals:
        return False
    return not call.positional and not call.unpacks and call.keywords.keys() <= {"memory_format"}


def _surely_carries_graph(module: Module, value: Value) -> frozenset[Question] | None:
    """What must be asked to know it; None where nothing proves it."""
    if value.cls == "torch.nn.Parameter":
        return frozenset()
    questions = module.questions(value.conditions) if value.carries_graph else None
    if questions is None:
        return None
    # One caller with grad mode on is enough: the other order costs nobody anything.
    return frozenset(GradSometimesOn(item.function) if isinstance(item, GradOnEntry) else item for item in questions)


def _may_carry_graph(module: Module, value: Value) -> bool:
    """Not `head_dim ** -0.5 * torch.ones(3)`: an attribute of unknown kind beside a tensor is a number as a rule."""
    if value.grad is not Grad.YES or not value.is_tensor:
        return value.grad is not Grad.NO
    proofs = {item.root for item in module.analysis.basis(value.conditions) if isinstance(item, Proof)}
    if not proofs or not value.idents.isdisjoint(proofs):
        return True
    nodes = [module.analysis.roots[root].node for root in proofs]
    return any(isinstance(node, (cst.Call, cst.Param)) or is_parameter(node) for node in nodes)


def _grad_is_on(module: Module, call: Call) -> frozenset[Question] | None:
    """What must be asked to know that grad mode is on, at times; None where it is off or unknown."""
    differentiates = call.mode is Mode.ENTRY and call.scope.qualname in module.analysis.grad_on
    if call.mode is Mode.ON or differentiates:
        return frozenset()
    return frozenset({GradSometimesOn(call.scope.qualname)}) if call.mode is Mode.ENTRY else None


def _may_be_tensor(module: Module, value: Value) -> bool:
    """Nothing says that the value is something else: a class of this file, another library's object."""
    if value.kind is Kind.TENSOR:
        return True
    if value.kind is not Kind.UNKNOWN or _has_lookalike(module):
        return False
    return not any(_is_foreign(module, root) for root in value.idents)


def _has_lookalike(module: Module) -> bool:
    """A class of the file has methods that are called like a tensor's."""
    return any(
        scope.is_function and scope.name in ("clone", "detach") and scope.parent is not None and scope.parent.is_class
        for scope in module.scopes
    )


def _is_foreign(module: Module, root: int) -> bool:
    imported = module.analysis.imported.get(root)
    if imported is not None:
        return not imported.startswith(("torch.", ".", "@"))
    node = module.analysis.roots[root].node
    if not isinstance(node, cst.Param) or node.annotation is None:
        return False
    words = {part.value for part in walk(node.annotation) if isinstance(part, cst.Name)}
    return not any(qual.rpartition(".")[2] in words for qual in torch_known.TENSOR_ANNOTATIONS)


# --- torch.tensor(t) ---


@dataclass(frozen=True, eq=False)
class ConstructedCopy:
    """`torch.tensor(source)` of a tensor."""

    call: Call
    source: cst.BaseExpression
    is_plain: bool
    """No dtype, device or other keyword: it only copies."""
    default_device: bool
    """A default device may be in force: then it also moves."""
    is_written: bool
    """The copy is written to: it is needed, whatever it is spelled like."""
    given_by: Call | None
    """The call of the function around that gives it a tensor, where others may give it something else."""


def constructed_copies(module: Module) -> Iterator[ConstructedCopy]:
    for call in module.calls_of(known.TENSOR_CONSTRUCTORS):
        argument = _data(call)
        if argument is None:
            continue
        given_by = None
        if not is_proven_tensor(module, argument.value, call):
            given_by = _gives_a_tensor(module, call, argument)
            if given_by is None:
                continue
        if _type_is_in_doubt(module, argument, call):
            continue
        inner = module.call_at(argument.expression)
        is_plain = len(call.call.args) == 1
        if is_plain and inner is not None and is_factory(inner):
            continue  # the whole call is a copy of a fresh tensor: see `fresh_copies`
        is_written = _is_written(module, call)
        yield ConstructedCopy(call, argument.expression, is_plain, _default_device(module), is_written, given_by)


def _gives_a_tensor(module: Module, copy: Call, argument: Argument) -> Call | None:
    """A call in this file that gives the function around a tensor for the parameter that is copied as it is."""
    nodes = module.definitions(argument.value)
    if len(nodes) != 1 or not isinstance(nodes[0], cst.Param) or path_of(argument.expression) != nodes[0].name.value:
        return None
    if copy.guarded:
        return None  # `if as_array:`: what is copied there need not be what that call gives
    name = nodes[0].name.value
    calls = module.once(_calls_by_function).get(copy.scope.qualname, ())
    giving = next((call for call in calls if _gives_tensor_for(module, copy.scope, call, name)), None)
    if giving is None or any(mentions(test, name) for test in _conditions(copy.scope.node)):
        return None  # where the function asks something of it, not all that it is given is copied
    return giving


def _gives_tensor_for(module: Module, function: Scope, call: Call, name: str) -> bool:
    """A tensor that is computed: a parameter that is only annotated so may hold something else."""
    given = () if call.unpacks else (*call.positional, *call.keywords.values())
    return any(
        bound_parameter(function, call, argument) == name
        for argument in given
        if argument.value.kind is Kind.TENSOR
        and not any(isinstance(node, cst.Param) for node in module.definitions(argument.value))
    )


def _conditions(inside: cst.CSTNode) -> Iterator[cst.BaseExpression]:
    for node in walk(inside):
        if isinstance(node, (cst.If, cst.IfExp, cst.Assert)):
            yield node.test
        elif isinstance(node, cst.Match):
            yield node.subject


def _calls_by_function(module: Module) -> dict[str, list[Call]]:
    """The calls of each function of this file, by its qualified name."""
    calls: dict[str, list[Call]] = {}
    for call in module.calls:
        if len(call.callee.quals) == 1:
            calls.setdefault(next(iter(call.callee.quals)), []).append(call)
    return calls


def _is_written(module: Module, call: Call) -> bool:
    uses = [use for ident in call.result.idents for use in module.uses_of(ident)]
    if any(use.how == "written" or (use.how == "method" and use.detail.endswith("_")) for use in uses):
        return True
    # `copy[0][mask] = 1`: what is written is a part of a part.
    name = _assigned_name(call)
    return name is not None and any(
        isinstance(target, cst.Subscript) and path_of(_whole(target)) == name for target in _targets(call.scope.node)
    )


def _targets(function: cst.CSTNode) -> Iterator[cst.BaseExpression]:
    yield from (target.target for target in nodes_of(function, cst.AssignTarget))
    yield from (node.target for node in nodes_of(function, cst.AugAssign))


def _whole(part: cst.BaseExpression) -> cst.BaseExpression:
    while isinstance(part, cst.Subscript):
        part = part.value
    return part


def _type_is_in_doubt(module: Module, argument: Argument, call: Call) -> bool:
    """The annotation is not believed: the code asks for the type, or just converts a parameter, whatever it is."""
    uses = [use for root in argument.value.idents for use in module.uses_of(root)]
    if any(use.detail in known.TYPE_TESTS for use in uses) or any(types_asked(module, call, argument.expression)):
        return True
    nodes = [module.analysis.roots[root].node for root in argument.value.idents]
    is_used = any(use.how in _TENSOR_USES for use in uses)
    if not is_used and any(isinstance(node, cst.Param) and _may_be_none(node) for node in nodes):
        return True  # of None it raises: the annotation is not what the function is given
    if not any(isinstance(node, cst.Param) and path_of(argument.expression) == node.name.value for node in nodes):
        return False
    return _is_rebound_by(call, argument.expression) and not is_used


def _may_be_none(param: cst.Param) -> bool:
    """`x: Optional[Tensor]`, `x: Tensor | None`"""
    if param.annotation is None:
        return False
    names = (node.value for node in walk(param.annotation) if isinstance(node, cst.Name))
    return not {"Optional", "None"}.isdisjoint(names)


def _is_rebound_by(call: Call, source: cst.BaseExpression) -> bool:
    """`x = torch.tensor(x)`, whatever follows the call."""
    statement = call.statement
    if not isinstance(statement, cst.Assign) or len(statement.targets) != 1:
        return False
    return path_of(statement.targets[0].target) == path_of(source)


def _data(call: Call) -> Argument | None:
    if call.unpacks:
        return None
    return call.positional[0] if call.positional else call.keywords.get("data")


def _default_device(module: Module) -> bool:
    """The file sets torch's default device, or enters a device as a context."""
    if not known.DEFAULT_DEVICE_WORDS.isdisjoint(module.words):
        return True
    return any(value.cls == "torch.device" for _, _, value in module.withs)


# --- copies of what was allocated on the spot ---


@dataclass(frozen=True, eq=False)
class FreshCopy:
    """A tensor allocated by an expression and copied by the same expression."""

    call: Call
    """The copying call."""
    source: cst.BaseExpression
    """What allocates."""
    safe: bool
    device: str | None = None
    """Moved from the host: the code of the device. None: copied where it is."""
    made: cst.Call | None = None
    """The call that allocates, where others stand between it and the copy: `torch.arange(n).unsqueeze(0).to(d)`."""
    is_array: bool = False
    """A NumPy array is copied on the host before it is copied to the device."""
    fixable: bool = True
    is_negligible: bool = False
    """A vector that is moved once, where an object is set up, or as many numbers as there are classes: a few kB."""
    legacy_type: str | None = None
    """Of a constructor that takes no device, the type that `torch.empty` needs for it; empty: torch's default."""

    @property
    def factory(self) -> cst.Call:
        made = self.made or self.source
        assert isinstance(made, cst.Call)
        return made


def fresh_copies(module: Module) -> Iterator[FreshCopy]:
    for call in module.calls:
        if call.receiver_node is not None and call.method == "clone":
            found = _fresh_clone(module, call, call.receiver_node)
        elif call.receiver_node is not None and call.method in ("to", "cuda"):
            found = _moved_factory(module, call, call.receiver_node)
        elif call.names(known.TENSOR_CONSTRUCTORS):
            found = _constructed_from_factory(module, call)
        else:
            continue
        if found is not None:
            yield found


def _fresh_clone(module: Module, call: Call, source: cst.BaseExpression) -> FreshCopy | None:
    if call.call.args:
        return None  # another memory format
    made = module.call_at(source)
    if made is not None and is_factory(made):
        return FreshCopy(call, source, safe=True)
    if call.receiver is None or call.receiver.kind is not Kind.TENSOR:
        return None
    if is_fresh_operator(source) or (made is not None and is_fresh_operation(made)):
        return FreshCopy(call, source, safe=_result_is_only_read(module, call))
    return None


def _result_is_only_read(module: Module, call: Call) -> bool:
    name, body = _assigned_name(call), _body_around(module, call)
    return name is not None and body is not None and body.only_read([name])


def _constructed_from_factory(module: Module, call: Call) -> FreshCopy | None:
    argument = _data(call)
    if argument is None or len(call.call.args) != 1:
        return None
    made = module.call_at(argument.expression)
    if made is None or not is_factory(made):
        return None
    return FreshCopy(call, argument.expression, safe=not _default_device(module))


def _moved_factory(module: Module, call: Call, source: cst.BaseExpression) -> FreshCopy | None:
    chain = _chain_to_factory(module, source)
    if chain is None:
        return None
    made, steps = chain
    is_array = made.names(known.TENSOR_CONSTRUCTORS)
    is_legacy = made.names(known.LEGACY_CONSTRUCTORS)
    if not known.FACTORY_KEYWORDS_WITH_A_MEANING.isdisjoint(made.keywords) or _default_device(module):
        return None
    # With another type the array is converted on the host first, in either spelling.
    if is_array and (steps or len(made.call.args) > 1 or not _is_big_array(module, made)):
        return None
    if _is_tiny(made) and not any(step.method in known.REPEATING_METHODS for step in steps):
        return None
    is_random = made.names(known.RANDOM_HOST_FACTORIES) or any(
        step.method in known.RANDOM_FILLING_METHODS for step in steps
    )
    if is_random and not known.SEEDING_WORDS.isdisjoint(module.words):
        return None
    device = _device(module, call)
    if device is None:
        return None
    code, proven = device
    safe = proven and not is_random and not steps and not is_array and not is_legacy and _same_everywhere(made)
    changes_type = len(call.call.args) - ("non_blocking" in call.keywords) > 1
    if changes_type and "dtype" in made.keywords:
        return None  # whole numbers first, then another type: `torch.arange(n, dtype=torch.int64).to(device, dtype)`
    set_up_once = call.scope.name in known.SET_UP_METHODS and _is_vector(made, steps)
    is_negligible = set_up_once or _counts_few(made, steps)
    # `FloatTensor(n, m)`: the file may have no name for torch.
    fixable = not changes_type and (not is_legacy or isinstance(made.call.func, cst.Attribute))
    inner = made.call if steps else None
    return FreshCopy(call, source, safe, code, inner, is_array, fixable, is_negligible, _legacy_type(made))


def _chain_to_factory(module: Module, source: cst.BaseExpression) -> tuple[Call, list[Call]] | None:
    """What allocates on the host, and the calls after it that work there too: shapes, types, fillings."""
    steps: list[Call] = []
    call = module.call_at(source)
    while call is not None and not _unpacks_keywords(call):
        if call.names(known.HOST_FACTORIES | known.TENSOR_CONSTRUCTORS) or _is_legacy_factory(call):
            return call, steps
        inner = _on_host(module, call)
        if inner is None:
            return None
        steps.append(call)
        call = module.call_at(inner)
    return None


def _unpacks_keywords(call: Call) -> bool:
    """`torch.zeros(n, **options)`: the device may be among them. `torch.zeros(*shape)` unpacks sizes."""
    return any(argument.star == "**" for argument in call.call.args)


def _is_legacy_factory(call: Call) -> bool:
    """`torch.FloatTensor(rows, columns)`: it is given sizes, not the values."""
    if not call.names(known.LEGACY_CONSTRUCTORS) or any(argument.keyword is not None for argument in call.call.args):
        return False
    if len(call.call.args) > 1 or call.unpacks:
        return True
    return any(argument.value.kind is Kind.NUMBER for argument in call.positional)


def _legacy_type(made: Call) -> str | None:
    """The type that `torch.empty` must be told to give what this constructor gives; empty: torch's default."""
    return next((known.LEGACY_TYPES.get(qual) for qual in made.callee.quals), None)


def _on_host(module: Module, call: Call) -> cst.BaseExpression | None:
    """The tensor that the call reshapes, converts or fills, whichever device it is on."""
    if call.names(known.MASKING_FUNCTIONS) and call.positional:
        return call.positional[0].expression
    if call.names(VARIABLES) and len(call.call.args) == 1 and call.positional:
        return call.positional[0].expression
    if call.method in known.HOST_CHAIN_METHODS:
        return call.receiver_node
    if call.method == "to" and len(call.call.args) == 1 and not call.unpacks:
        argument = next(iter((*call.positional, *call.keywords.values())))
        return call.receiver_node if _is_dtype(argument) else None
    return None


def _is_dtype(argument: Argument) -> bool:
    """`x.dtype`, `torch.float16`, `dtype=...`"""
    keyword = argument.node.keyword
    name = keyword.value if keyword is not None else (path_of(argument.expression) or "").rpartition(".")[2]
    return name.strip("_").endswith("dtype") or name in torch_known.DTYPES


def _is_big_array(module: Module, made: Call) -> bool:
    """`torch.tensor(array)`: NumPy's, and not a handful of numbers."""
    argument = _data(made)
    if argument is None:
        return False
    call = module.call_at(argument.expression)
    if call is not None and _makes_array(call):
        return not _is_written_out(call)
    if is_for(module, made, argument.expression, known.ARRAY_ANNOTATIONS):
        return True
    nodes = module.definitions(argument.value)
    return bool(nodes) and all(_is_array(module, node) for node in nodes)


def _is_array_type(module: Module, node: cst.CSTNode) -> bool:
    return isinstance(node, (cst.Name, cst.Attribute)) and module.analysis.qualify(node) in known.ARRAY_ANNOTATIONS


def _is_array(module: Module, node: cst.CSTNode) -> bool:
    if isinstance(node, cst.Param):
        return node.annotation is not None and any(_is_array_type(module, part) for part in walk(node.annotation))
    call = module.call_at(node)
    return call is not None and _makes_array(call) and not _is_written_out(call)


def _makes_array(call: Call) -> bool:
    return call.names(known.ARRAY_FUNCTIONS) or (not call.callee.quals and call.method in known.ARRAY_METHODS)


def _is_written_out(call: Call) -> bool:
    """`np.array([0.5, 0.5])`"""
    return bool(call.positional) and isinstance(call.positional[0].expression, (cst.List, cst.Tuple))


# `torch.zeros(1)`: a block of device memory holds 512 bytes, so below that nothing is to be had.
_TINY_ELEMENTS = 16
_IDENTITY = frozenset({"torch.eye"})
_RANDINT = frozenset({"torch.randint"})


def _is_tiny(made: Call) -> bool:
    """A shape of literal numbers with a handful of elements, also of an identity matrix."""
    if not made.names(known.SHAPED_FACTORIES | _IDENTITY | _RANDINT) or not made.positional or made.unpacks:
        return False
    is_square = made.names(_IDENTITY)
    shape = _shape_of_randint(made) if made.names(_RANDINT) else _shape(made)
    if shape is None:
        return False
    if is_square and len(shape) == 1:
        shape *= 2
    sizes = [int(size.literal) for size in shape if isinstance(size.literal, str) and size.literal.isdigit()]
    return len(sizes) == len(shape) and math.prod(sizes) <= _TINY_ELEMENTS


def _counts_few(made: Call, steps: list[Call]) -> bool:
    """`torch.zeros(num_labels, self.num_groups)`: as many numbers as there are classes, heads or tasks."""
    if made.unpacks or not made.names(known.SHAPED_FACTORIES):
        return False
    if any(step.method in known.REPEATING_METHODS for step in steps):
        return False
    given = [argument.expression for argument in made.positional]
    if len(given) == 1 and isinstance(given[0], (cst.Tuple, cst.List)):
        given = [element.value for element in given[0].elements]
    names = [(path_of(size) or "").rpartition(".")[2] for size in given]
    # Two of them may be a square, as large as it gets.
    return 0 < len(names) == len(set(names)) and all(_is_few(words_of(name)) for name in names)


def _is_few(words: frozenset[str]) -> bool:
    return bool(words & known.COUNTING_WORDS and words & known.FEW_WORDS)


def _shape(made: Call) -> tuple[Value, ...]:
    """The sizes that a factory is given, written out as arguments, as a tuple or as a list."""
    first = made.positional[0]
    if isinstance(first.expression, cst.List):
        return tuple(_size(element.value) for element in first.expression.elements)
    elements = first.value.elements
    return tuple(argument.value for argument in made.positional) if elements is None else elements


def _shape_of_randint(made: Call) -> tuple[Value, ...] | None:
    """`torch.randint(low, high, size)`: the size comes last, or by its name. None where it is not written out."""
    size = made.keywords.get("size", made.positional[-1])
    if isinstance(size.expression, cst.List):
        return tuple(_size(element.value) for element in size.expression.elements)
    return size.value.elements


def _size(node: cst.BaseExpression) -> Value:
    return Value(Kind.NUMBER, literal=node.value) if isinstance(node, cst.Integer) else Value()


def _is_vector(made: Call, steps: list[Call]) -> bool:
    """One size is given, or a range, and no step in between makes more of it."""
    if any(step.names(known.MASKING_FUNCTIONS) or step.method in known.REPEATING_METHODS for step in steps):
        return False
    if made.names(known.RANGES):
        return True
    if not made.names(known.SHAPED_FACTORIES) or not made.positional or made.unpacks:
        return False
    first, shape = made.positional[0], _shape(made)
    # `torch.zeros(shape)` may have any number of sizes.
    is_written_out = first.value.elements is not None or isinstance(first.expression, cst.List)
    return len(shape) == 1 and (is_written_out or first.value.kind is Kind.NUMBER)


def _device(module: Module, call: Call) -> tuple[str, bool] | None:
    """Where a call moves its receiver, as code, and whether that surely is a device; None where it may be the host."""
    given = [*call.positional, *(value for name, value in call.keywords.items() if name != "non_blocking")]
    arguments = [argument for argument in given if len(given) == 1 or not _is_dtype(argument)]
    if call.unpacks or len(arguments) > 1 or not call.keywords.keys() <= {"device", "dtype", "non_blocking"}:
        return None
    if given and not arguments:
        return None
    if not arguments:
        return ('"cuda"', True) if call.method == "cuda" else None
    value, code = arguments[0].value, module.text(arguments[0].expression, 200)
    if isinstance(value.literal, str) and value.literal.startswith("cpu"):
        return None
    if call.method == "cuda":
        return code, False  # None and -1 mean the current device here
    if value.cls in ("torch.device", "str") or _is_integer(value):
        return code, True
    return (code, False) if _is_named_device(arguments[0]) else None


def _is_named_device(argument: Argument) -> bool:
    """`device`, `self.device`, `args.device`; the keyword says the same."""
    if argument.value.kind is not Kind.UNKNOWN and argument.value.kind is not Kind.PLAIN:
        return False
    keyword = argument.node.keyword
    path = keyword.value if keyword is not None else _name_or_key(argument.expression)
    return path is not None and path.rpartition(".")[2].strip("_") == "device"


def _name_or_key(node: cst.BaseExpression) -> str | None:
    """`self.device`, and the key of `settings["device"]`."""
    return literal_key(node) if isinstance(node, cst.Subscript) else path_of(node)


def _is_integer(value: Value) -> bool:
    return value.kind is Kind.NUMBER and (value.cls == "int" or isinstance(value.literal, str))


def _same_everywhere(made: Call) -> bool:
    """Every device gives the same values: they are filled in, or whole numbers."""
    if not made.names(known.COMPUTED_FACTORIES):
        return True
    arguments = [*made.positional, *(value for name, value in made.keywords.items() if name != "dtype")]
    return (
        made.names({"torch.arange"})
        and "dtype" not in made.keywords
        and all(_is_integer(item.value) for item in arguments)
    )


# --- clones that nobody writes to ---


@dataclass(frozen=True, eq=False)
class UnwrittenClone:
    """`copy = source.clone()` where source and copy are only read."""

    call: Call
    source: cst.Name
    copy: str
    safe: bool


def unwritten_clones(module: Module) -> Iterator[UnwrittenClone]:
    for call in module.calls:
        source = _cloned_name(call)
        copy = _assigned_name(call)
        if source is None or copy is None or copy == source[0].value or source[1].kind is not Kind.TENSOR:
            continue
        body = _body_around(module, call)
        if body is None or not body.only_read([source[0].value, copy]):
            continue
        name, value = source
        if body.only_fresh(name.value):
            yield UnwrittenClone(call, name, copy, value.grad is Grad.NO)
        elif _is_callers(module, value, call) and body.runs_only_known_code():
            yield UnwrittenClone(call, name, copy, False)


def _cloned_name(call: Call) -> tuple[cst.Name, Value] | None:
    """The variable of `x.clone()` or `torch.clone(x)`."""
    if call.names(known.CLONE_FUNCTIONS) and len(call.positional) == 1 and len(call.call.args) == 1:
        node: cst.BaseExpression | None = call.positional[0].expression
        value = call.positional[0].value
    elif call.method == "clone" and not call.call.args and call.receiver is not None:
        node, value = call.receiver_node, call.receiver
    else:
        return None
    return (node, value) if isinstance(node, cst.Name) else None


def _assigned_name(call: Call) -> str | None:
    """The one variable to which the call's result is assigned as it is."""
    statement = call.statement
    if not isinstance(statement, cst.Assign) or statement.value is not call.node or len(statement.targets) != 1:
        return None
    target = statement.targets[0].target
    return target.value if isinstance(target, cst.Name) else None


def _body_around(module: Module, call: Call) -> FunctionBody | None:
    """The function in which the call stands, where its code tells what happens to its variables."""
    scope = call.scope
    if not isinstance(scope.node, cst.FunctionDef) or scope.has_yield or scope.node.asynchronous is not None:
        return None
    if not known.REFLECTION_WORDS.isdisjoint(scope.words) or not known.GRAD_MODE_WORDS.isdisjoint(scope.words):
        return None
    return FunctionBody(scope, module.call_at)


def _is_callers(module: Module, value: Value, call: Call) -> bool:
    """Every value that it may be is a parameter of the function, or was computed from one on the way."""
    nodes = [module.analysis.roots[root].node for root in value.idents]
    return bool(nodes) and all(isinstance(node, cst.Param) for node in nodes)
