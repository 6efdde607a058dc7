"""What a model gives for a batch: which expressions are outputs, as large as they came."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache

import libcst as cst

from memlint.semantics.devices import Place, moved_to
from memlint.semantics.events import Call
from memlint.semantics.knowledge import predictions as known
from memlint.semantics.module import Module
from memlint.semantics.naming import words_of
from memlint.semantics.reading import literal_index, literal_key
from memlint.semantics.scopes import NODES_REMEMBERED, Scope, chain_of, parameters, path_of, target_names, walk
from memlint.semantics.values import Kind

_ARITHMETIC = (cst.Add, cst.Subtract, cst.Multiply, cst.Divide, cst.Power, cst.MatrixMultiply)
_EMPTY = frozenset({"list", "dict", "collections.defaultdict", "collections.OrderedDict"})

Key = str | int | None
"""Which part of a tuple or dictionary is meant; None: all of it."""
Source = Call | cst.Name
_NO_OUTPUT = cst.Name("None")
_Asked = tuple[int, frozenset[str], int | str, Key]


def _known_sources(module: Module) -> dict[_Asked, Source | None]:
    """What has been found for the names and expressions of a file."""
    return {}


class Outputs:
    """The outputs of models in a piece of code: not reduced to numbers or classes, not on the host."""

    def __init__(self, module: Module, inside: cst.CSTNode, given: frozenset[str] = frozenset()) -> None:
        """`inside` is the loop, or the function, whose assignments say what a name is.

        `given` are the parameters that hold outputs: what a framework hands over.
        """
        self.module = module
        self.inside = inside
        self.given = given
        self._known = module.once(_known_sources)

    def source(self, node: cst.BaseExpression, key: Key = None) -> Source | None:
        """The call of a model that the expression is the output of (or the parameter that is it); None: it is none."""
        reader = _READERS.get(type(node))
        if reader is None:
            return None
        what = node.value if isinstance(node, cst.Name) else id(node)
        asked = (id(self.inside), self.given, what, key)
        if asked not in self._known:
            self._known[asked] = None  # while it is looked for: what only rests on itself is no output
            self._known[asked] = reader(self, node, key)
        return self._known[asked]

    def _all(self, nodes: Iterator[tuple[cst.BaseExpression, Key]]) -> Source | None:
        """The source of the first, if all of them are outputs."""
        sources = [self.source(node, key) for node, key in nodes]
        return sources[0] if sources and None not in sources else None

    def _name(self, node: cst.Name, key: Key) -> Source | None:
        made = list(_assigned(self.inside, node.value))
        if not made and node.value in self.given:
            return node
        if made and all(_is_empty(self.module, value) for value, _ in made):
            return self._all((value, None) for value in _put_into(self.inside, node.value))
        return self._all((value, place if place is not None else key) for value, place in made)

    def _list(self, node: cst.List, key: Key) -> Source | None:
        return self.source(node.elements[0].value) if len(node.elements) == 1 else None

    def _attribute(self, node: cst.Attribute, key: Key) -> Source | None:
        return self.source(node.value) if words_of(node.attr.value).isdisjoint(known.LOSS_WORDS) else None

    def _subscript(self, node: cst.Subscript, key: Key) -> Source | None:
        if not _words_in(node).isdisjoint(known.LOSS_WORDS):
            return None
        index = literal_index(node)
        return self.source(node.value, index if index is not None else literal_key(node))

    def _binary(self, node: cst.BinaryOperation, key: Key) -> Source | None:
        """`embeddings * mask`, `features / features.norm()`: as large as the output in it."""
        if not isinstance(node.operator, _ARITHMETIC):
            return None
        return self.source(node.left) or self.source(node.right)

    def _conditional(self, node: cst.IfExp, key: Key) -> Source | None:
        return self._all(iter([(node.body, key), (node.orelse, key)]))

    def _dict_comprehension(self, node: cst.DictComp, key: Key) -> Source | None:
        iterated = self.source(node.for_in.iter) if isinstance(node.value, cst.Name) else None
        return iterated or self.source(node.value)

    def _call(self, node: cst.Call, key: Key) -> Source | None:
        module = self.module
        call = module.call_at(node)
        if call is None or moved_to(module, call) is Place.HOST:
            return None
        if runs_a_model(call) or self._is_method_of_given(call):
            return None if _is_criterion(call) else call
        if call.method in known.GATHERING:
            return next((call for item in call.positional if self.source(item.expression) is not None), None)
        own = next(iter(call.callee.quals), "") if len(call.callee.quals) == 1 else ""
        name = call.method or own.rpartition(".")[2].removeprefix(":")
        if not words_of(name).isdisjoint(known.POOLING_WORDS) and name not in known.SAME_SIZE:
            return next((call for item in call.positional if self.source(item.expression) is not None), None)
        if own.startswith(":"):
            return call if not _is_criterion(call) and self._returned_by(own, call, key) else None
        on_it = call.receiver_node is not None and not call.callee.quals
        first = call.receiver_node if on_it else call.positional[0].expression if call.positional else None
        if first is None or not (name in known.SAME_SIZE or (name in known.REDUCING and _is_of_tokens(first))):
            return None
        return self.source(first)

    def _is_method_of_given(self, call: Call) -> bool:
        """`pl_module.to_prediction(outputs)`"""
        is_module = call.receiver is not None and call.receiver.kind is Kind.MODULE and not call.callee.quals
        return is_module and any(path_of(item.expression) in self.given for item in call.positional)

    def _returned_by(self, function: str, call: Call, key: Key) -> bool:
        """A function of this file whose every return is the output of a model, or computed from one given to it."""
        scope = self.module.analysis.scope_named(function)
        if scope is None or not isinstance(scope.node, cst.FunctionDef) or scope.has_yield:
            return False
        names = [param.name.value for param in parameters(scope.node.params)]
        names = names[1:] if scope.parent is not None and scope.parent.is_class and call.method is not None else names
        arguments = [*zip(names, call.positional, strict=False), *call.keywords.items()]
        given = frozenset(name for name, item in arguments if self.source(item.expression) is not None)
        inner = Outputs(self.module, scope.node, given)
        returned = [value for value in _returns(scope) if path_of(value) != "None"]
        return bool(returned) and all(inner._returns_one(value, key) for value in returned)

    def _returns_one(self, node: cst.BaseExpression, key: Key) -> bool:
        parts = list(display_parts(node))
        if not parts:
            return self.source(node, key) is not None
        chosen = [value for place, value in parts if place == key or key is None]
        return any(self.source(value) is not None for value in chosen)


_READERS: dict[type, Callable[..., Source | None]] = {
    cst.Name: Outputs._name,
    cst.List: Outputs._list,
    cst.Attribute: Outputs._attribute,
    cst.Subscript: Outputs._subscript,
    cst.BinaryOperation: Outputs._binary,
    cst.IfExp: Outputs._conditional,
    cst.DictComp: Outputs._dict_comprehension,
    cst.Call: Outputs._call,
}


def display_parts(node: cst.BaseExpression) -> Iterator[tuple[Key, cst.BaseExpression]]:
    """The parts of a tuple or of a dictionary with literal keys: `"logits", out` of `{"logits": out}`."""
    if isinstance(node, cst.Tuple):
        yield from ((place, element.value) for place, element in enumerate(node.elements))
    elif isinstance(node, cst.Dict):
        for element in node.elements:
            if isinstance(element, cst.DictElement) and isinstance(element.key, cst.SimpleString):
                yield str(element.key.evaluated_value), element.value
    elif isinstance(node, cst.Call) and path_of(node.func) == "dict":
        yield from ((argument.keyword.value, argument.value) for argument in node.args if argument.keyword is not None)


def runs_a_model(call: Call) -> bool:
    """The call of a module, `model.encode(x)`, or of something unknown that is called a model."""
    if call.is_forward:
        return True
    if call.receiver is not None and call.receiver.kind is Kind.MODULE and not call.callee.quals:
        return call.method is not None and call.method not in known.NO_OUTPUT_METHODS
    path = path_of(call.call.func)
    if path is None or call.callee.kind is not Kind.UNKNOWN or call.callee.quals:
        return False
    owner, _, name = path.rpartition(".")
    if not words_of(name).isdisjoint(known.MODEL_WORDS):
        return True
    is_model = not words_of(owner.rpartition(".")[2]).isdisjoint(known.MODEL_WORDS)
    return is_model and not words_of(name).isdisjoint(known.OUTPUT_METHOD_WORDS)


def targets_of(target: cst.BaseExpression, value: cst.BaseExpression) -> Iterator[tuple[cst.Name, cst.BaseExpression]]:
    """What each name of a loop's target goes through: `a, x` and `b, y` of `for x, y in zip(a, b)`."""
    if isinstance(target, cst.Name):
        yield target, value
    if not isinstance(target, cst.Tuple) or not isinstance(value, cst.Call):
        return
    names = [element.value for element in target.elements]
    given = [argument.value for argument in value.args if argument.keyword is None]
    function = value.func.attr.value if isinstance(value.func, cst.Attribute) else path_of(value.func)
    if function == "zip":
        for name, argument in zip(names, given, strict=False):
            yield from targets_of(name, argument)
    elif function == "enumerate" and len(names) == 2 and given:
        yield from targets_of(names[1], given[0])
    elif function == "items" and len(names) == 2 and isinstance(value.func, cst.Attribute):
        yield from targets_of(names[1], value.func.value)
    elif function in ("tqdm", "list", "reversed", "sorted") and given:
        yield from targets_of(target, given[0])


@lru_cache(maxsize=NODES_REMEMBERED)
def _binding(inside: cst.CSTNode) -> list[cst.For | cst.CompFor | cst.Assign]:
    """What binds names in the code."""
    return [node for node in walk(inside) if isinstance(node, (cst.For, cst.CompFor, cst.Assign))]


def _assigned(inside: cst.CSTNode, name: str) -> Iterator[tuple[cst.BaseExpression, Key]]:
    """What the code assigns to a name; of what is unpacked the whole, and the place in it."""
    for node in _binding(inside):
        if not isinstance(node, cst.Assign):
            if node is not inside:
                named = targets_of(node.target, node.iter)
                yield from ((value, None) for target, value in named if target.value == name)
            continue
        for item in node.targets:
            # `out = out.squeeze()`: what it was before decides.
            if name not in target_names(item.target) or (_is_about(node.value, name) and not _moves(node.value)):
                continue
            if not isinstance(item.target, cst.Tuple):
                yield node.value, None
                continue
            place = next(
                (i for i, element in enumerate(item.target.elements) if name in target_names(element.value)), None
            )
            parts = dict(display_parts(node.value))
            if place in parts:
                yield parts[place], None
            elif words_of(name).isdisjoint(known.LOSS_WORDS):
                yield node.value, place
            else:
                yield _NO_OUTPUT, None  # `loss, logits = model(x, y)`


def _put_into(inside: cst.CSTNode, name: str) -> Iterator[cst.BaseExpression]:
    """What the code puts into a list or dictionary, by key or by `append`."""
    for node in walk(inside):
        if isinstance(node, cst.Assign):
            for item in node.targets:
                if isinstance(item.target, cst.Subscript) and path_of(item.target.value) == name:
                    yield node.value
        elif isinstance(node, cst.Call) and node.args and path_of(node.func) in (f"{name}.append", f"{name}.extend"):
            yield node.args[0].value


def _is_empty(module: Module, node: cst.BaseExpression) -> bool:
    if isinstance(node, (cst.List, cst.Dict)):
        return not node.elements
    call = module.call_at(node)
    return call is not None and call.names(_EMPTY) and not any(item.value.elements for item in call.positional)


def _returns(scope: Scope) -> list[cst.BaseExpression]:
    nodes = (node for node in walk(scope.node) if isinstance(node, cst.Return))
    return [node.value for node in nodes if node.value is not None]


def _moves(node: cst.BaseExpression) -> bool:
    """`out[:n].to("cpu", non_blocking=True)`: where it is from now on, this decides."""
    return any(call.func.attr.value in ("to", "cpu") for call in chain_of(node))  # type: ignore[attr-defined]


def _is_about(node: cst.BaseExpression, name: str) -> bool:
    """A method chain, or a function of the same size, on the name itself; what was computed from it alike."""
    while True:
        if isinstance(node, cst.Call):
            function = node.func.attr if isinstance(node.func, cst.Attribute) else node.func
            if not isinstance(function, cst.Name) or function.value not in known.SAME_SIZE:
                return False
            if node.args and is_name(node.args[0].value, name):
                return True  # `torch.softmax(out, 1)`
            if not isinstance(node.func, cst.Attribute):
                return False
            node = node.func.value
        elif isinstance(node, (cst.Subscript, cst.Attribute)):
            node = node.value
        elif isinstance(node, cst.BinaryOperation) and isinstance(node.operator, _ARITHMETIC):
            return _is_about(node.left, name) or _is_about(node.right, name)
        else:
            return is_name(node, name)


def is_name(node: cst.CSTNode, name: str) -> bool:
    return isinstance(node, cst.Name) and node.value == name


def _is_of_tokens(node: cst.BaseExpression) -> bool:
    """`out.last_hidden_state * mask`: a vector is left of it for each text, whatever is summed up."""
    return any(isinstance(part, cst.Name) and part.value in known.TOKEN_STATES for part in walk(node))


def _is_criterion(call: Call) -> bool:
    cls, path = call.callee.cls, path_of(call.call.func)
    if cls is not None and cls.rpartition(".")[2].endswith("Loss"):
        return True
    return path is not None and not words_of(path.rpartition(".")[2]).isdisjoint(known.LOSS_WORDS)


def _words_in(node: cst.Subscript) -> frozenset[str]:
    keys = (item.raw_value for element in node.slice for item in walk(element) if isinstance(item, cst.SimpleString))
    return frozenset(word for key in keys for word in words_of(key))
