"""States that a module gets back from one iteration to the next with the graph of all earlier ones.

`out, h = rnn(x, h)` in a loop over batches (catalogue, item 10): truncated backpropagation without the truncation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import libcst as cst

from memlint.semantics.evaluation import evaluation_regions
from memlint.semantics.events import Argument, Backward, Call, Loop
from memlint.semantics.flow import Flow
from memlint.semantics.loaders import is_named_loader
from memlint.semantics.module import Module
from memlint.semantics.naming import words_of
from memlint.semantics.questions import GradOnEntry, Question
from memlint.semantics.scopes import NODES_REMEMBERED, Scope, nodes_within, path_of, walk
from memlint.semantics.values import Grad, Kind, Mode, Value

_CUTTING_WORDS = ("detach", "repackage", "truncate")
# What is called so, goes into a call and comes out of it: the callee is taken for a recurrent module.
_STATE_WORDS = frozenset("h c hx cx hidden hiddens hid state states hc memory mem mems carry".split())


@dataclass(frozen=True, eq=False)
class CarriedState:
    """The call of a module that gets back what an earlier iteration computed, graph and all."""

    call: Call
    argument: Argument
    path: str
    """The variable or attribute that carries the state."""
    backward: Backward | None
    """The backward pass with `retain_graph=True` that walks through all earlier iterations; None: there is none."""
    questions: frozenset[Question]
    certain: bool


def carried_states(module: Module) -> list[CarriedState]:
    """All of a file, worked out once however many rules ask."""
    return module.once(_all_carried)


def retains_for_state(module: Module, backward: Backward) -> bool:
    """Whether `retain_graph=True` is there because a state carries the graph of earlier iterations."""
    return any(state.backward is backward for state in carried_states(module))


def _all_carried(module: Module) -> list[CarriedState]:
    found: list[CarriedState] = []
    for flow in module.flows:
        retaining = [backward for backward in flow.backwards if _retains(backward)]
        for call in flow.calls:
            is_model = call.is_forward or (bool(retaining) and call.root in module.analysis.unseen)
            if is_model and call.loop is not None and _carries(call.result):
                state = _in_loop(module, flow, call, retaining)
                if state is not None:
                    found.append(state)
        for backward in retaining:
            found += _in_object(module, flow, backward)
    return found


def _retains(backward: Backward) -> bool:
    argument = backward.call.keywords.get("retain_graph")
    return argument is not None and argument.value.literal is True and backward.loop is not None


def _carries(value: Value) -> bool:
    return value.carries_graph or any(_carries(element) for element in value.elements or ())


def _may_carry(flow: Flow, value: Value) -> bool:
    if value.grad is not Grad.NO:
        return True
    boxes = (flow.analysis.boxes[box].content for box in value.boxes)
    return any(_may_carry(flow, element) for element in value.elements or ()) or any(
        content.grad is not Grad.NO for content in boxes
    )


# --- a variable ---


def _in_loop(module: Module, flow: Flow, call: Call, retaining: list[Backward]) -> CarriedState | None:
    for argument in (*call.positional, *call.keywords.values()):
        roots = flow.all_roots(argument.value)
        path = _paths(argument.expression)
        if path is None or call.root not in roots or not _may_carry(flow, argument.value):
            continue
        if not call.is_forward and words_of(path).isdisjoint(_STATE_WORDS):
            continue
        for loop in _loops(call):
            if loop.is_comprehension or not loop.carried & roots or _is_cut(call.scope, loop, path):
                continue
            if _unseen_between(module, call, loop, roots):
                continue
            over = [item for item in retaining if loop in _loops(item) and _walks_back(item, loop, call)]
            if over and _counts_steps(loop, roots) and not loop.has_step:
                return None  # the gradients of one sequence, through time, for one step after it
            if over:
                return CarriedState(call, argument, path, over[0], frozenset(), _is_certain(call, loop, roots))
            if call.is_forward and not loop.has_backward and not loop.has_step:
                questions = _nobody_needs(module, flow, call, loop)
                if questions is not None:
                    return CarriedState(call, argument, path, None, questions, False)
    return None


def _is_certain(call: Call, loop: Loop, roots: frozenset[int]) -> bool:
    """A module is called, and the loop is not a count of steps through one batch: there the state may be wanted."""
    return call.is_forward and not _counts_steps(loop, roots)


def _counts_steps(loop: Loop, roots: frozenset[int]) -> bool:
    """`for t in range(x.size(0))`, where a loop around it makes the state anew for each sequence `x`."""
    return loop.source_value.kind is Kind.NUMBER and any(not outer.carried & roots for outer in loop.outer()[1:])


def _walks_back(backward: Backward, loop: Loop, call: Call) -> bool:
    return call.root in backward.differentiated.roots and bool(loop.carried & backward.differentiated.roots)


def _loops(event: Call | Backward) -> list[Loop]:
    return list(event.loop.outer()) if event.loop is not None else []


def _paths(node: cst.BaseExpression) -> str | None:
    """`h`, also of `(h, c)`, `h[0]` and `[h]`."""
    if isinstance(node, (cst.Tuple, cst.List)):
        return next((path for path in (_paths(element.value) for element in node.elements) if path is not None), None)
    while isinstance(node, cst.Subscript):
        node = node.value
    return path_of(node)


def _unseen_between(module: Module, call: Call, loop: Loop, roots: frozenset[int]) -> bool:
    """Whether code out of view handles the state on its way to the next iteration: it may detach it."""
    analysis = module.analysis
    for root in roots & analysis.unseen:
        made = analysis.roots[root]
        if root == call.root or made.is_forward:
            continue
        if call.root in made.ancestors:
            return True
        if id(made.node) not in nodes_within(call.scope.node) and id(made.node) not in nodes_within(loop.node):
            return True
    return False


def _is_cut(scope: Scope, loop: Loop, path: str) -> bool:
    return _cuts_something(scope) and path.partition(".")[0] in _cut_in(loop.node)


@lru_cache(maxsize=NODES_REMEMBERED)
def _cuts_something(scope: Scope) -> bool:
    return any(map(_may_cut, scope.words_within))


@lru_cache(maxsize=NODES_REMEMBERED)
def _cut_in(loop: cst.CSTNode) -> frozenset[str]:
    """The names that a statement of the loop takes out of their graph, be it under a condition."""
    found: set[str] = set()
    for node in walk(loop):
        if node is loop or not isinstance(node, (cst.Assign, cst.AnnAssign, cst.Expr, cst.For)):
            continue
        if any(_takes_out_of_graph(inner) for inner in walk(node)):
            found |= _names_in(node.iter if isinstance(node, cst.For) else node)
    return frozenset(found)


def _takes_out_of_graph(node: cst.CSTNode) -> bool:
    """`h.data`, `repackage(h)`; a variable `data` is none."""
    if isinstance(node, cst.Attribute):
        return _may_cut(node.attr.value)
    return isinstance(node, cst.Name) and node.value != "data" and _may_cut(node.value)


def _names_in(node: cst.CSTNode) -> set[str]:
    return {item.value for item in walk(node) if isinstance(item, cst.Name)}


def _may_cut(name: str) -> bool:
    return name == "data" or any(word in name.lower() for word in _CUTTING_WORDS)


def _nobody_needs(module: Module, flow: Flow, call: Call, loop: Loop) -> frozenset[Question] | None:
    """Without a backward pass: does the graph grow although nobody wants it? None: not for certain."""
    analysis = module.analysis
    if loop.iterates.kind is not Kind.LOADER and (
        loop.iterable is None or not is_named_loader(module, loop.iterable, loop.iterates)
    ):
        return None  # over the steps of one sequence
    if call.mode in (Mode.OFF, Mode.UNKNOWN) or call.scope.name == "forward":
        return None
    needed = analysis.differentiated | analysis.escaped | analysis.shared | flow.return_roots
    if call.root in needed:
        return None
    if any(region.loop is not None and region.loop in _loops(call) for region in evaluation_regions(module)):
        return None  # MEM201 says it
    questions = module.questions(call.result.conditions)
    if questions is None:
        return None
    return questions | ({GradOnEntry(call.scope.qualname)} if call.mode is Mode.ENTRY else frozenset())


# --- an attribute of the module ---


def _in_object(module: Module, flow: Flow, backward: Backward) -> Iterator[CarriedState]:
    """`out, self.h = self.rnn(x, self.h)` in the forward of a model that the loop trains with `retain_graph=True`."""
    analysis = module.analysis
    loop = backward.loop
    assert loop is not None
    calls = [
        call
        for call in flow.calls
        if call.is_forward and call.root in backward.differentiated.roots and call.loop is not None
    ]
    for cls in sorted({call.callee.cls for call in calls if call.callee.cls is not None and loop in _loops(call)}):
        scope = analysis.method(cls, "forward")
        forward = module.flow_of(scope) if scope is not None else None
        if scope is None or forward is None:
            continue
        for call in forward.calls:
            found = _kept_on_self(forward, scope, call) if call.is_forward else None
            if found is None:
                continue
            argument, path = found
            if not _is_set_back(module, flow, loop, path.removeprefix("self.")):
                yield CarriedState(call, argument, path, backward, frozenset(), True)


def classes_with_state(module: Module) -> frozenset[str]:
    """The module classes of the file whose forward goes on from what the one before it left, graph and all."""
    return frozenset(
        scope.parent.qualname
        for scope in module.scopes
        if scope.name == "forward" and scope.parent is not None and scope.parent.is_class
        for flow in (module.flow_of(scope),)
        if flow is not None and any(call.is_forward and _kept_on_self(flow, scope, call) for call in flow.calls)
    )


def _kept_on_self(flow: Flow, scope: Scope, call: Call) -> tuple[Argument, str] | None:
    for argument in (*call.positional, *call.keywords.values()):
        path = _paths(argument.expression)
        if path is None or not path.startswith("self."):
            continue
        kept = flow.final.get(path)
        if kept is None or call.root not in flow.all_roots(kept) or not _may_carry(flow, kept):
            continue
        if not _is_mentioned(scope, path, call):
            return argument, path
    return None


def _is_mentioned(scope: Scope, path: str, call: Call) -> bool:
    """Whether the function sets the state, or takes it out of its graph, other than by the call."""
    first = {id(inner) for node in walk(scope.node) if _makes_the_first(node, path) for inner in walk(node)}
    for node in walk(scope.node):
        if isinstance(node, cst.Assign) and node is not call.statement and id(node) not in first:
            targets = [item for target in node.targets for item in walk(target.target)]
            if any(path_of(item) == path for item in targets) and path_of(node.value) is None:
                return True
        if _takes_out_of_graph(node):
            return True
    return False


def _makes_the_first(node: cst.CSTNode, path: str) -> bool:
    """`if self.h is None: self.h = ...`."""
    if not isinstance(node, cst.If) or not isinstance(node.test, cst.Comparison) or node.orelse is not None:
        return False
    test = node.test
    is_none = len(test.comparisons) == 1 and isinstance(test.comparisons[0].operator, (cst.Is, cst.Equal))
    return is_none and path_of(test.left) == path and path_of(test.comparisons[0].comparator) == "None"


def _is_set_back(module: Module, flow: Flow, loop: Loop, attribute: str) -> bool:
    """Whether the loop gives the model a new state: `model.hidden = ...`, `model.init_hidden()`."""
    for other in flow.calls:
        if other.loop is None or loop not in _loops(other) or other.is_forward:
            continue
        scopes = [module.analysis.scope_named(name) for name in other.callee.quals if name.startswith(":")]
        if any(scope is not None and attribute in scope.attributes_stored for scope in scopes):
            return True
    for node in walk(loop.node):
        if isinstance(node, cst.AssignTarget):
            for item in walk(node.target):
                if isinstance(item, cst.Attribute) and item.attr.value == attribute:
                    return True
        if isinstance(node, cst.Attribute) and (_may_cut(node.attr.value) or "hidden" in node.attr.value.lower()):
            return True
    return False
