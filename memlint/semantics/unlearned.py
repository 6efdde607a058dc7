"""Forward passes of a training step from which nothing is learned, and whose graph a name holds while backward runs.

Of pseudo-labels only the `argmax` is used, of generated images a detached copy. A graph that nobody holds is freed at
once and costs nothing at the step's peak: `labels = model(x).argmax(1)`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import libcst as cst

from memlint.semantics.detached_outputs import may_be_frozen
from memlint.semantics.events import Backward, Call
from memlint.semantics.flow import Flow
from memlint.semantics.forwards import builds_a_graph, carrying
from memlint.semantics.graph_ends import ends_of
from memlint.semantics.module import Module
from memlint.semantics.ownership import Home, home_of
from memlint.semantics.questions import GradOnEntry
from memlint.semantics.scopes import NODES_REMEMBERED, Scope, path_of, walk
from memlint.semantics.values import Mode

# Who mentions one of these may take something of a forward pass by another way than its output.
_OTHER_WAYS = frozenset({"register_forward_hook", "register_hook", "retain_grad", "exec", "locals"})


@dataclass(frozen=True, eq=False)
class UnlearnedForward:
    """`probs = softmax(model(weak))`, of which `backward` reaches nothing while `name` holds the graph."""

    call: Call
    name: str
    backward: Backward


def unlearned_forwards(module: Module) -> Iterator[UnlearnedForward]:
    if not module.words.isdisjoint(_OTHER_WAYS) or may_be_frozen(module.words):
        return
    for flow in module.flows:
        if not flow.backwards or not flow.scope.is_function:
            continue
        for call in flow.calls:
            found = _unlearned(module, flow, call) if builds_a_graph(call) else None
            if found is not None:
                yield found


def _unlearned(module: Module, flow: Flow, call: Call) -> UnlearnedForward | None:
    path = _model(call)
    if path is None or call.handler or _reaches_somebody(module, flow, call):
        return None
    if _home(call, path) not in module.once(_learning) or _is_read_besides(flow.scope, path):
        return None
    first = bisect_right(flow.backwards, call.order, key=lambda item: item.order)
    backward = next((item for item in flow.backwards[first:] if _runs_beside(item, call)), None)
    name = _holder(module, call)
    if backward is None or name is None or _is_let_go(flow, call, backward, name):
        return None
    ends = ends_of(module, flow, call.root)
    if not ends.takes_something or ends.raises or not _is_of_forwards(module, backward, path):
        return None
    questions = module.questions(carrying(call.result).conditions)
    if questions is None:
        return None
    if call.mode is Mode.ENTRY:
        questions |= {GradOnEntry(flow.scope.qualname)}
    return UnlearnedForward(call, name, backward) if all(module.answer(question) for question in questions) else None


def _model(call: Call) -> str | None:
    path = path_of(call.call.func)
    return path.removesuffix(".forward") if path is not None else None


def _learning(module: Module) -> set[Home | tuple[Scope, str]]:
    """The models of which another pass is differentiated: nobody has frozen them."""
    learning: set[Home | tuple[Scope, str]] = set()
    for call in module.calls:
        path = _model(call) if call.is_forward and call.root in module.analysis.differentiated else None
        if path is not None:
            learning.add(_home(call, path))
    return learning


def _home(call: Call, path: str) -> Home | tuple[Scope, str]:
    return home_of(call.scope, path) or (call.scope, path)


def _reaches_somebody(module: Module, flow: Flow, call: Call) -> bool:
    analysis = module.analysis
    gone = analysis.differentiated, analysis.escaped, analysis.shared, flow.return_roots
    return any(call.root in roots for roots in gone)


def _is_read_besides(scope: Scope, model: str) -> bool:
    """`model.aux_loss`: what a forward pass leaves on the model may be learned from."""
    return not _code_of(scope.node).attributes.get(model, set()) <= set(scope.methods_called.get(model, ()))


def _runs_beside(backward: Backward, call: Call) -> bool:
    """In the same round of the same loop."""
    return not backward.handler and backward.loop is call.loop and not backward.excludes(call)


def _holder(module: Module, call: Call) -> str | None:
    """The name that gets the output, or what the statement computes from it, with its graph."""
    statement = call.statement
    if not isinstance(statement, cst.Assign) or len(statement.targets) != 1:
        return None
    target, made = statement.targets[0].target, module.call_at(statement.value)
    if not isinstance(target, cst.Name) or made is None or not made.result.carries_graph:
        return None
    return target.value if call.root in made.result.roots else None


def _is_let_go(flow: Flow, call: Call, backward: Backward, name: str) -> bool:
    """Whether the name gets something else, or is deleted, before the backward pass."""
    code = _code_of(flow.scope.node)
    bound = code.bound.get(name, [])
    after = bisect_right(bound, code.places[id(call.node)])
    return after < len(bound) and bound[after] < code.places[id(backward.node)]


class _Code:
    """A function's code in the order of the text, whose places are numbers."""

    def __init__(self, function: cst.CSTNode) -> None:
        self.places: dict[int, int] = {}
        self.bound: dict[str, list[int]] = {}
        """By name: the places at which it is bound or deleted."""
        self.attributes: dict[str | None, set[str]] = {}
        """By path: the attributes of it that are mentioned."""
        for place, node in enumerate(walk(function)):
            self.places[id(node)] = place
            if isinstance(node, cst.Attribute):
                self.attributes.setdefault(path_of(node.value), set()).add(node.attr.value)
            elif isinstance(node, (cst.AssignTarget, cst.Del, cst.NamedExpr)):
                self._note_bound(place, node if isinstance(node, cst.Del) else node.target)

    def _note_bound(self, place: int, target: cst.CSTNode) -> None:
        for part in walk(target):
            if isinstance(part, cst.Name):
                self.bound.setdefault(part.value, []).append(place)


@lru_cache(maxsize=NODES_REMEMBERED)
def _code_of(function: cst.CSTNode) -> _Code:
    return _Code(function)


def _is_of_forwards(module: Module, backward: Backward, path: str) -> bool:
    """Whether forward passes in view made what is differentiated, and no method that may know of this one."""
    sources = module.graph_sources(backward.differentiated)
    return bool(sources) and not any((path_of(source.func) or "").startswith(path + ".") for source in sources)
