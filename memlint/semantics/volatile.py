"""`volatile`, by which torch before 0.4 switched autograd off: what was computed from such a variable had no graph."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import libcst as cst

from memlint.semantics.blocks import conditions_around, path_to
from memlint.semantics.events import Argument, Call
from memlint.semantics.flow import Flow
from memlint.semantics.knowledge import training as known
from memlint.semantics.module import Module
from memlint.semantics.naming import words_of
from memlint.semantics.questions import GradOnEntry, Question
from memlint.semantics.scopes import path_of
from memlint.semantics.values import Mode

_GRAD_OFF_WORDS = frozenset({"no_grad", "inference_mode", "set_grad_enabled"})


@dataclass(frozen=True, eq=False)
class Volatile:
    """A variable that is asked to be volatile, in code that builds a graph all the same."""

    node: cst.CSTNode
    """`Variable(x, volatile=True)`, or the target of `x.volatile = True`."""
    variable: Call
    keyword: cst.Arg | None
    always: bool
    """A literal `True`; otherwise a condition decides."""
    forwards: tuple[Call, ...]
    """The forward passes, with grad on, that it is given to; none where it leaves the function first."""
    questions: frozenset[Question]
    function: cst.FunctionDef | None
    """The function, where nothing in it is differentiated."""


def ignored_volatiles(module: Module) -> Iterator[Volatile]:
    """The variables whose `volatile` was to keep a graph from being built."""
    if "volatile" not in module.words or _is_older(module):
        return
    for flow in module.flows:
        for call in flow.calls:
            if not call.names(known.VARIABLES) or call.root < 0:
                continue
            asked = _asked_by_keyword(call)
            if asked is not None and not _depends_on_version(call):
                found = _volatile(module, flow, call, call.node, asked.node, asked.value.literal is True)
                if found is not None:
                    yield found
        yield from _attributes(module, flow)


def _is_older(module: Module) -> bool:
    return module.target_torch is not None and module.target_torch < known.VOLATILE_IGNORED_SINCE


def _asked_by_keyword(call: Call) -> Argument | None:
    asked = call.keywords.get("volatile")
    if asked is None or asked.value.literal is False or asked.value.literal == 0:
        return None
    return asked


def _depends_on_version(call: Call) -> bool:
    """`if torch.__version__ < "0.4":`, or whatever the condition on the version is called."""
    return any("version" in name.lower() for name in conditions_around(call.scope.node, call.node))


def _attributes(module: Module, flow: Flow) -> Iterator[Volatile]:
    """`x.volatile = True` on a variable that this function has made."""
    if "volatile" not in flow.scope.words:
        return
    made = {call.root: call for call in flow.calls if call.names(known.VARIABLES) and call.root >= 0}
    for root, call in made.items():
        for use in module.uses_of(root):
            if use.how != "written" or use.detail != "volatile":
                continue
            statement = next(
                (node for node in path_to(flow.scope.node, use.node) if isinstance(node, cst.Assign)), None
            )
            if statement is None or path_of(statement.value) != "True" or _depends_on_version(call):
                continue
            found = _volatile(module, flow, call, use.node, None, True)
            if found is not None:
                yield found


def _volatile(
    module: Module, flow: Flow, call: Call, node: cst.CSTNode, keyword: cst.Arg | None, always: bool
) -> Volatile | None:
    given = [item for item in flow.calls if any(call.root in roots for roots in _values(module, item))]
    models = [item for item in given if _runs_layers(item) and not _compares(module, item, call.root)]
    forwards = [item for item in models if _may_build_graph(module, item)]
    if models and not forwards:
        return None  # `with torch.no_grad(): out = model(data)`
    if not models and not _leaves(module, flow, call, given):
        return None  # a target, which is only compared with
    mode = module.grad_mode(forwards[0] if forwards else call)
    if mode is Mode.OFF or (mode is Mode.UNKNOWN and not _may_build_graph(module, call)):
        return None
    questions = frozenset({GradOnEntry(flow.scope.qualname)}) if mode is Mode.ENTRY else frozenset()
    function = flow.scope.node if isinstance(flow.scope.node, cst.FunctionDef) else None
    if function is not None and (
        flow.has_backward or flow.has_step or flow.scope.has_yield or function.asynchronous or not forwards
    ):
        function = None
    return Volatile(node, call, keyword, always, tuple(forwards), questions, function)


def _runs_layers(call: Call) -> bool:
    """A model's call, or `self.forward(x)` in a model's own method."""
    return call.is_forward or call.method == "forward"


def _may_build_graph(module: Module, call: Call) -> bool:
    """An unknown grad mode is that of an unknown base class: a file that knows no `no_grad` is older than that."""
    if module.grad_mode(call) is Mode.UNKNOWN:
        return module.words.isdisjoint(_GRAD_OFF_WORDS)
    return call.mode is not Mode.OFF


def _values(module: Module, call: Call) -> Iterator[frozenset[int]]:
    """The definitions in each argument."""
    for argument in (*call.positional, *call.keywords.values()):
        roots = argument.value.roots
        for box in argument.value.boxes:
            roots |= module.box(box).content.roots
        yield roots.union(*(element.roots for element in argument.value.elements or ()))


def _compares(module: Module, call: Call, root: int) -> bool:
    """`criterion(output, target)`: a loss by its class, or another argument is what a model computed."""
    if not words_of((call.callee.cls or "").rpartition(".")[2]).isdisjoint({"loss", "criterion"}):
        return True
    return any(
        root not in roots and any(module.analysis.roots[other].is_forward for other in roots)
        for roots in _values(module, call)
    )


def _leaves(module: Module, flow: Flow, call: Call, given: list[Call]) -> bool:
    """Whether code out of view, a caller or an object gets it, to run a model on it for all that is known."""
    if call.root in flow.return_roots or any(use.how == "yield" for use in module.uses_of(call.root)):
        return True
    if call.root in module.analysis.shared:
        return True
    unseen = [
        item
        for item in given
        if item.root in module.analysis.unseen and not item.names(known.VARIABLES) and not item.is_forward
    ]
    return any(
        next(_computed(module, item, call.root), None) is None and _may_build_graph(module, item) for item in unseen
    )


def _computed(module: Module, call: Call, root: int) -> Iterator[int]:
    """What calls, other than those that make variables, computed for the other arguments."""
    for roots in _values(module, call):
        if root in roots:
            continue
        for other in roots:
            maker = module.call_at(module.analysis.roots[other].node)
            if maker is not None and not maker.names(known.VARIABLES) and maker.root == other:
                yield other
