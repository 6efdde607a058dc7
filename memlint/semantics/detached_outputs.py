"""Forward passes of a teacher whose every output is detached later: their graph is kept, and serves nobody."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import libcst as cst

from memlint.semantics.events import Call
from memlint.semantics.flow import Flow
from memlint.semantics.knowledge import torch as torch_known
from memlint.semantics.knowledge import training as known
from memlint.semantics.knowledge.predictions import MODEL_WORDS
from memlint.semantics.module import Module
from memlint.semantics.naming import words_of
from memlint.semantics.ownership import Home, home_of
from memlint.semantics.questions import GradOnEntry
from memlint.semantics.scopes import Scope, parts_of, path_of, walk
from memlint.semantics.values import Mode

_DEPTH = 4
_PAIRED = re.compile(r"t_(?P<after>\w+)|(?P<before>\w+)_t")
# What is read of an output without its graph.
_PLAIN = frozenset({"shape", "dtype", "device", "data"})
_COUNTS = frozenset({"size", "dim", "numel", "item", "tolist", "element_size"})
_OF_TENSORS = (
    torch_known.DETACHING_METHODS
    | torch_known.DIFFERENTIABLE_METHODS
    | torch_known.MULTI_RESULT_METHODS
    | torch_known.NEVER_GRAD_METHODS
)
_SAME_ORDER = frozenset({"enumerate", "reversed", "list", "tuple", "tqdm"})


@dataclass(frozen=True, eq=False)
class DetachedForward:
    """`t = teacher(x)`, of which only `t.detach()`, or what is computed from it and then detached, is used."""

    call: Call
    path: str
    detached: cst.CSTNode


def detached_forwards(module: Module) -> Iterator[DetachedForward]:
    """The first of each model."""
    if module.words.isdisjoint({"detach", "data"}) or may_be_frozen(module.words):
        return
    seen: set[Home | str] = set()
    for call in module.calls:
        path = _model(module, call)
        if path is None or call.mode not in (Mode.ON, Mode.ENTRY) or call.handler or not call.scope.is_function:
            continue
        model = home_of(call.scope, path) or path
        if model in seen:
            continue
        found = _detached_by_name(module, call, path) or _detached_by_flow(module, call, path)
        if not found or any(_goes_to_the_host(item, call.scope.node) for item in found):
            continue
        if is_frozen_elsewhere(module, call) or not _runs_with_grad(module, call):
            continue
        seen.add(model)
        yield DetachedForward(call, path, found[0])


def _detached_by_name(module: Module, call: Call, path: str) -> list[cst.Call]:
    """The calls of `detach` on the names that the outputs get, where these are read in no other way."""
    names = _kept_as(call)
    if names is None or not _is_kept_for_long(module, call, path):
        return []
    return _Reads(call.scope.node).only_detached(names, call.scope.node, _DEPTH)


def _detached_by_flow(module: Module, call: Call, path: str) -> list[cst.CSTNode]:
    """Where what is computed from the output is detached, later, and no graph of it goes anywhere else.

    The graph is there while the backward pass runs here, or until what another model is trained by is returned.
    """
    flow, analysis = module.flow_of(call.scope), module.analysis
    if flow is None or not _stays(module, flow, call) or call.root in analysis.differentiated:
        return []
    learned = flow.return_roots | analysis.differentiated
    is_learned_from = (call.is_forward and flow.has_backward) or any(
        other.root in learned and _learns(other, call, path) for other in flow.calls
    )
    view, name = analysis.view, path.rpartition(".")[2]
    if not is_learned_from or (view is not None and view.some_file_has(known.FREEZING_TEXTS, name) is not False):
        return []
    cuts: list[cst.CSTNode] = [
        other.call
        for other in flow.calls
        if other.method == "detach" and other.receiver is not None and call.root in flow.all_roots(other.receiver)
    ]
    cuts += (node for node in walk(call.scope.node) if call.root in flow.read_as_data.get(id(node), ()))
    at_once = {id(node) for node in walk(call.statement)}
    return cuts if all(id(cut) not in at_once for cut in cuts) else []


def _learns(other: Call, teacher: Call, path: str) -> bool:
    """Whether the other call runs a model that learns: `critic` beside `target_critic`, any where both are models."""
    called = path_of(other.call.func)
    if called is None or other.callee.mode is not None:
        return False
    names = [name for name in called.split(".")[-2:] if name != "self"]
    words = [words_of(name) for name in names]
    if any(not found.isdisjoint(known.TEACHER_WORDS) for found in words):
        return False
    own = words_of(path.rpartition(".")[2]) - known.TEACHER_WORDS
    return (other.is_forward and teacher.is_forward) or (bool(own) and own in words)


def _runs_with_grad(module: Module, call: Call) -> bool:
    scope = call.scope
    return call.mode is Mode.ON or module.answer(GradOnEntry(scope.qualname)) or _computes_a_loss(module, scope)


def _computes_a_loss(module: Module, scope: Scope) -> bool:
    """A class that is a loss by its name, and by that of its base out of view: no framework runs it with grad off."""
    owner, node, view = scope.parent, scope.node, module.analysis.view
    if owner is None or not owner.is_class or not isinstance(node, cst.FunctionDef) or node.decorators:
        return False
    names = {owner.name, *(base.rpartition(".")[2] for base in module.analysis.base_names(owner.qualname))}
    if scope.name not in ("__call__", "forward") or any("loss" not in words_of(name) for name in names):
        return False
    sites = view.sites(scope.qualname) if view is not None else ()
    return sites is not None and not any(sites) and not any(True for _ in module.calls_of(frozenset({scope.qualname})))


def _stays(module: Module, flow: Flow, call: Call) -> bool:
    analysis = module.analysis
    return call.root not in analysis.escaped | analysis.shared | flow.return_roots


def may_be_frozen(words: frozenset[str]) -> bool:
    """Whether code with these words may freeze parameters."""
    return "detach_" in words or any("requires_grad" in word or words_of(word) & {"freeze", "frozen"} for word in words)


def _model(module: Module, call: Call) -> str | None:
    """The path of a teacher that is called, or one of whose methods is."""
    path = path_of(call.call.func)
    if path is None or call.callee.mode is not None or call.callee.quals:
        return None
    if _has_role(module, path):
        return path
    owner = path.rpartition(".")[0].removesuffix(".module")
    if call.method in _OF_TENSORS:
        return None  # `t_similarities.detach()`: the teacher's tensor, not the teacher
    unknown = call.receiver is None or not call.receiver.quals
    is_method = owner.rpartition(".")[2] != "self" and unknown and path.rpartition(".")[2] not in known.LOOKING_WORDS
    return owner if is_method and _has_role(module, owner) else None


def _has_role(module: Module, path: str) -> bool:
    """`teacher`; `t_net` where there is an `s_net`."""
    name = path.rpartition(".")[2]
    if not words_of(name).isdisjoint(known.TEACHER_WORDS):
        return True
    paired = _PAIRED.fullmatch(name)
    if paired is None:
        return False
    student = f"s_{paired['after']}" if paired["after"] else f"{paired['before']}_s"
    return student in module.words


def _kept_as(call: Call) -> list[str] | None:
    """The names that the outputs get."""
    statement = call.statement
    if not isinstance(statement, cst.Assign) or len(statement.targets) != 1 or statement.value is not call.node:
        return None
    target = statement.targets[0].target
    parts = [element.value for element in target.elements] if isinstance(target, (cst.Tuple, cst.List)) else [target]
    names = [part.value for part in parts if isinstance(part, cst.Name)]
    return names if len(names) == len(parts) else None


def is_frozen_elsewhere(module: Module, call: Call) -> bool:
    """Whether a file of the project that mentions the class, or the function, may freeze models."""
    view, owner = module.analysis.view, call.scope.enclosing_class() or call.scope
    if view is None:
        return False
    return view.some_file_has(known.FREEZING_TEXTS, owner.name) is not False


def _is_kept_for_long(module: Module, call: Call, path: str) -> bool:
    """Another model runs in the function, or a backward pass does: `return t.detach()` at once keeps nothing."""
    flow = module.flow_of(call.scope)
    if flow is None or flow.has_backward:
        return flow is not None
    return any(_is_another_model(other, path) for other in flow.calls)


def _is_another_model(call: Call, path: str) -> bool:
    called = path_of(call.call.func)
    if called is None or called.startswith(path):
        return False
    words = frozenset().union(*(words_of(name) for name in called.split(".")[-2:]))
    return call.is_forward or not words.isdisjoint(MODEL_WORDS)


def _goes_to_the_host(node: cst.CSTNode, inside: cst.CSTNode) -> bool:
    """`t.detach().cpu()`: it is looked at, not learned from."""
    return any(
        isinstance(other, cst.Attribute) and other.value is node and other.attr.value in ("cpu", "numpy", "tolist")
        for other in walk(inside)
    )


class _Reads:
    """How the names of a function are read."""

    def __init__(self, function: cst.CSTNode) -> None:
        self._parents = {id(part): node for node in walk(function) for part in parts_of(node)}

    def only_detached(self, names: list[str], inside: cst.CSTNode, depth: int) -> list[cst.Call]:
        """The calls of `detach` on what the names hold; none where one of them is read in another way."""
        found: list[cst.Call] = []
        bound: dict[str, int] = dict.fromkeys(names, 0)
        settled: dict[str, set[int]] = {}
        for node in walk(inside):
            if not isinstance(node, cst.Name) or node.value not in bound or self._is_label(node):
                continue
            is_last = node.value in settled and id(node) not in settled[node.value]
            if self._is_bound(node):
                anew = self._bound_anew(node) if bound[node.value] else None
                if anew is None or is_last:
                    bound[node.value] += 1
                else:
                    settled[node.value] = {id(part) for part in walk(anew)}
                continue
            read = [] if is_last else self._read(node, depth)
            if read is None:
                return []
            found += read
        return found if all(times == 1 or name == "_" for name, times in bound.items()) else []

    def _bound_anew(self, node: cst.Name) -> cst.BaseExpression | None:
        """`t = t.detach()`, `ts = [t.detach() for t in ts]`: from here on the name holds no graph."""
        target = self._parents.get(id(node))
        statement = self._parents.get(id(target)) if isinstance(target, cst.AssignTarget) else None
        if not isinstance(statement, cst.Assign) or len(statement.targets) != 1:
            return None
        value = statement.value
        made = value.elt if isinstance(value, (cst.ListComp, cst.GeneratorExp)) else value
        method = made.func if isinstance(made, cst.Call) else None
        return value if isinstance(method, cst.Attribute) and method.attr.value == "detach" else None

    def _is_label(self, node: cst.Name) -> bool:
        parent = self._parents.get(id(node))
        if isinstance(parent, cst.Attribute):
            return parent.attr is node
        return isinstance(parent, cst.Arg) and parent.keyword is node

    def _is_bound(self, node: cst.CSTNode) -> bool:
        parent = self._parents.get(id(node))
        while isinstance(parent, (cst.Element, cst.Tuple, cst.List)):
            node, parent = parent, self._parents.get(id(parent))
        if isinstance(parent, (cst.AssignTarget, cst.AnnAssign, cst.For, cst.CompFor)):
            return parent.target is node
        return isinstance(parent, (cst.Param, cst.Del))

    def _read(self, node: cst.CSTNode, depth: int) -> list[cst.Call] | None:
        """The calls of `detach` that this read ends in; None: it may keep the graph."""
        parent = self._parents.get(id(node))
        while isinstance(parent, cst.Subscript) and parent.value is node:
            node, parent = parent, self._parents.get(id(parent))
        if isinstance(parent, cst.Attribute) and parent.value is node:
            return self._attribute(parent)
        if isinstance(parent, (cst.For, cst.CompFor)) and parent.iter is node:
            return self._iterated(parent, parent.target, depth)
        if isinstance(parent, (cst.Del, cst.Assert, cst.Comparison, cst.ComparisonTarget)):
            return []
        call = self._parents.get(id(parent)) if isinstance(parent, cst.Arg) else None
        if not isinstance(call, cst.Call):
            return None
        name = path_of(call.func)
        if name in ("len", "range", "isinstance", "type"):
            return []
        if name not in _SAME_ORDER | {"zip"} or depth == 0:
            return None
        index = next(at for at, argument in enumerate(call.args) if argument is parent)
        return self._through(call, name, index, depth - 1)

    def _attribute(self, node: cst.Attribute) -> list[cst.Call] | None:
        if node.attr.value in _PLAIN:
            return []
        call = self._parents.get(id(node))
        if not isinstance(call, cst.Call) or call.func is not node:
            return None
        if node.attr.value == "detach":
            return [call]
        return [] if node.attr.value in _COUNTS else None

    def _through(self, call: cst.Call, name: str | None, index: int, depth: int) -> list[cst.Call] | None:
        """`for s, t in zip(ss, ts)`, `for i, (s, t) in enumerate(zip(ss, ts))`."""
        places = {"zip": [index], "enumerate": [1]}.get(name or "", [])
        node: cst.CSTNode = call
        parent = self._parents.get(id(node))
        while isinstance(parent, cst.Arg):
            around = self._parents.get(id(parent))
            if not isinstance(around, cst.Call) or path_of(around.func) not in _SAME_ORDER:
                return None
            places = [1, *places] if path_of(around.func) == "enumerate" else places
            node, parent = around, self._parents.get(id(around))
        if not isinstance(parent, (cst.For, cst.CompFor)) or parent.iter is not node:
            return None
        target: cst.BaseExpression = parent.target
        for place in places:
            if not isinstance(target, (cst.Tuple, cst.List)) or place >= len(target.elements):
                return None
            target = target.elements[place].value
        return self._iterated(parent, target, depth)

    def _iterated(self, loop: cst.For | cst.CompFor, target: cst.BaseExpression, depth: int) -> list[cst.Call] | None:
        if not isinstance(target, cst.Name) or depth == 0:
            return None
        inside = loop if isinstance(loop, cst.For) else self._parents.get(id(loop))
        return self.only_detached([target.value], inside, depth - 1) or None if inside is not None else None
