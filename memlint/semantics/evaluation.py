"""Evaluation that builds autograd graphs: forward passes with grad on that nobody differentiates.

Catalogue, section 7c, item 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import libcst as cst

from memlint.semantics.events import Call, Loop
from memlint.semantics.flow import Flow
from memlint.semantics.module import Module, words_of
from memlint.semantics.questions import GradOnEntry, Question
from memlint.semantics.scopes import Scope, path_of
from memlint.semantics.values import Grad, Kind, Mode

# A function that mentions one of these differentiates, or may (attacks, saliency, forces, test-time training).
_DIFFERENTIATING_WORDS = frozenset(
    {"requires_grad_", "requires_grad", "enable_grad", "autograd", "create_graph", "jacobian", "hessian", "vjp", "jvp"}
)
# In the whole project these make it doubtful that a model's own forward never differentiates (fix-safety.md).
PROJECT_DIFFERENTIATES = (
    "autograd.grad",
    "import grad",
    "torch.func",
    "create_graph",
    ".requires_grad_(",
    "enable_grad",
)
# With grad off and in eval mode these take another path, with other numbers (fix-safety.md).
_FAST_PATH_WORDS = frozenset(
    {"Transformer", "TransformerEncoder", "TransformerEncoderLayer", "TransformerDecoder", "TransformerDecoderLayer"}
    | {"MultiheadAttention", "LSTM"}
)
# Code that mentions one of these can tell whether grad mode is on, or needs it to be.
_NOTICING_WORDS = frozenset(
    """is_grad_enabled requires_grad set_grad_enabled retain_grad register_hook register_full_backward_hook grad_fn
    register_full_backward_pre_hook saved_tensors_hooks exec locals""".split()
)
_CONVERTING_WORDS = frozenset({"convert", "conversion", "export", "trace"})
# Functions that a trainer calls with grad on, whatever they are named like.
_TRAINING_NAMES = frozenset({"forward", "__call__", "training_step", "compute_loss", "loss", "__init__"})


@dataclass(frozen=True, eq=False)
class EvaluationRegion:
    """A loop, or a function without one, that runs a model forward with grad on and differentiates nothing."""

    scope: Scope
    loop: Loop | None
    first: Call
    evidence: str
    strong: bool
    """The model was put into eval mode; otherwise only names say evaluation."""
    questions: frozenset[Question]
    function: cst.FunctionDef | None
    """The function, where nothing in it needs a graph: a decorator will do."""
    statement: cst.For | cst.While | None
    """The loop, where it is a statement of its own."""
    is_one_off: bool
    """One forward pass of a script, or of a function that converts or exports a model: a check, run once."""
    provably_unused: bool
    """No value that may carry a graph leaves, and nothing else can notice that grad is off."""


def evaluation_regions(module: Module) -> Iterator[EvaluationRegion]:
    for flow in module.flows:
        if flow.scope.is_class or isinstance(flow.scope.node, cst.Lambda) or _is_unit_test(module, flow.scope):
            continue
        if flow.scope.name in _TRAINING_NAMES:
            continue  # a layer that puts its batch normalisation into eval mode
        seen: set[int] = set()
        for call in flow.calls:
            if not _builds_a_graph(call):
                continue
            region = _region_loop(flow, call)
            key = id(region.node) if region is not None else 0
            if key in seen or (region is None and (call.loop is not None or flow.has_backward or flow.has_step)):
                continue
            found = _region(module, flow, region, call)
            if found is not None:
                seen.add(key)
                yield found


def _is_unit_test(module: Module, scope: Scope) -> bool:
    """Tests run small models once. `def test(model, loader)` in a training script is no unit test."""
    owner = scope.enclosing_class()
    return owner is not None and (
        owner.name.startswith("Test") or "unittest.TestCase" in module.analysis.base_names(owner.qualname)
    )


def _builds_a_graph(call: Call) -> bool:
    if not call.is_forward or call.handler or call.mode in (Mode.OFF, Mode.UNKNOWN) or not call.result.carries_graph:
        return False
    cls = call.callee.cls
    return cls is None or not (cls.startswith("torch.nn.") and cls.endswith("Loss"))


def _region_loop(flow: Flow, call: Call) -> Loop | None:
    """The outermost loop around the call in which nothing trains."""
    outermost = None
    for loop in call.loop.outer() if call.loop is not None else ():
        if loop.is_training_loop:
            break
        outermost = loop
    return outermost


def _region(module: Module, flow: Flow, loop: Loop | None, call: Call) -> EvaluationRegion | None:
    scope = flow.scope
    if scope.words & _DIFFERENTIATING_WORDS or call.root in module.analysis.differentiated:
        return None
    questions = module.questions(call.result.conditions)
    if questions is None:
        return None
    model = path_of(call.call.func)
    evaluated = module.put_into_eval(scope, loop, model) if model is not None else None
    evidence = f"`{evaluated}.eval()` was called" if evaluated is not None else _by_name(module, scope, loop)
    if evidence is None or _somebody_may_differentiate(flow, loop, call):
        return None
    leaves = _graph_leaves(module, flow, call)
    if evaluated is None and leaves:
        return None  # by its name an evaluation, but somebody gets the graph
    if loop is None and call.root in module.analysis.escaped:
        return None  # one forward pass, whose output unknown code gets: it may well be there to be differentiated
    if call.mode is Mode.ENTRY:
        questions |= {GradOnEntry(scope.qualname)}
    function, statement, unused = _where_to_switch(module, flow, loop, leaves)
    one_off = loop is None and (not scope.is_function or not words_of(scope.name).isdisjoint(_CONVERTING_WORDS))
    return EvaluationRegion(
        scope, loop, call, evidence, evaluated is not None, questions, function, statement, one_off, unused
    )


def _by_name(module: Module, scope: Scope, loop: Loop | None) -> str | None:
    """A name that says evaluation counts only where a loop over batches runs the model."""
    return module.named_for_evaluation(scope, loop) if loop is not None and loop.is_batch_loop else None


def _where_to_switch(
    module: Module, flow: Flow, loop: Loop | None, leaves: bool
) -> tuple[cst.FunctionDef | None, cst.For | cst.While | None, bool]:
    """What to run with grad off, the function or else the loop, and whether that surely changes nothing else."""
    trains = flow.has_backward or flow.has_step
    function = flow.scope.node if isinstance(flow.scope.node, cst.FunctionDef) and not trains else None
    statement = loop.node if loop is not None and isinstance(loop.node, (cst.For, cst.While)) else None
    if leaves or not _cannot_notice(module, flow, loop):
        return function, statement, False
    if function is not None and not _runs_unseen_code(module, flow, None):
        return function, statement, True
    if statement is not None and not _runs_unseen_code(module, flow, loop):
        return None, statement, True  # what stands outside the loop, a callback say, may train
    return function, statement, False


def _runs_unseen_code(module: Module, flow: Flow, loop: Loop | None) -> bool:
    """Whether code out of view runs in the loop (or the function), other than the model: it may differentiate."""
    pending, seen = [flow], {flow.scope}
    while pending:
        current = pending.pop()
        for call in current.calls:
            if current is flow and loop is not None and loop not in _loops(call):
                continue
            if call.root in module.analysis.unseen and not call.is_forward:
                return True
            for name in call.callee.quals:
                scope = module.analysis.scope_named(name)
                inner = module.flow_of(scope) if scope is not None and scope not in seen else None
                if inner is not None:
                    seen.add(inner.scope)
                    pending.append(inner)
    return False


def _somebody_may_differentiate(flow: Flow, loop: Loop | None, forward: Call) -> bool:
    """Whether code out of view gets the model, or the output together with the input: what an attack needs."""
    inputs = frozenset().union(*(argument.value.idents for argument in forward.positional))
    for call in flow.calls:
        if call.is_forward or call.callee.kind is Kind.MODULE or (loop is not None and loop not in _loops(call)):
            continue
        if call.root not in flow.analysis.unseen:
            continue
        given = [argument.value for argument in (*call.positional, *call.keywords.values())]
        if any(value.kind is Kind.MODULE for value in given):
            return True
        gets_output = any(forward.root in value.roots and not value.idents & inputs for value in given)
        if gets_output and any(value.idents & inputs for value in given):
            return True
    return False


def _loops(call: Call) -> Sequence[Loop]:
    return call.loop.outer() if call.loop is not None else ()


def _graph_leaves(module: Module, flow: Flow, call: Call) -> bool:
    """Whether the output, or anything computed from it, leaves with its graph."""
    analysis = module.analysis
    root = call.root
    return root in analysis.escaped or root in analysis.shared or root in flow.return_roots


def _cannot_notice(module: Module, flow: Flow, loop: Loop | None) -> bool:
    """The rest of the proof that grad mode is not needed (fix-safety.md, row on `@torch.no_grad()`)."""
    node = flow.scope.node
    if isinstance(node, cst.FunctionDef) and (
        node.asynchronous is not None or flow.scope.has_yield or module.is_compiled(flow.scope)
    ):
        return False
    if loop is not None and isinstance(loop.node, cst.GeneratorExp):
        return False
    if module.words & (_FAST_PATH_WORDS | _NOTICING_WORDS) or module.mentions(PROJECT_DIFFERENTIATES):
        return False
    return not any(value.grad is not Grad.NO or value.kind is Kind.MODULE for value in flow.returned)
