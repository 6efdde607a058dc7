"""Evaluation that builds autograd graphs: forward passes with grad on that nobody differentiates.

Catalogue, section 7c, item 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import libcst as cst

from memlint.project.names import is_symbol
from memlint.semantics.blocks import leaves_at_once
from memlint.semantics.eval_mode import Evidence, eval_evidence
from memlint.semantics.events import Call, Loop
from memlint.semantics.flow import Flow
from memlint.semantics.forwards import (
    MOST_HELPERS,
    Builds,
    Run,
    builds,
    builds_a_graph,
    carrying,
    method_runs_at,
    runs_at,
    runs_through,
)
from memlint.semantics.gradient_users import differentiates, holder_gets, loops_around, somebody_may_differentiate
from memlint.semantics.graph_ends import Ends, ends_of
from memlint.semantics.kept_outputs import is_kept_as_data
from memlint.semantics.knowledge import torch as known
from memlint.semantics.mode_flags import EvaluatingRun, evaluating_runs
from memlint.semantics.model_inputs import takes_data
from memlint.semantics.module import Module
from memlint.semantics.naming import EVALUATION_WORDS, words_of
from memlint.semantics.output_evidence import SHOWING_WORDS, acts, by_acting, by_output, makers_of
from memlint.semantics.output_takers import TEST_WORDS, goes_to_watchers, graph_leaves
from memlint.semantics.purpose import CALLED_IN_TRAINING, by_purpose, is_inference
from memlint.semantics.questions import GradOnEntry, Question
from memlint.semantics.scopes import NODES_REMEMBERED, Scope, path_of, walk
from memlint.semantics.summaries import DIFFERENTIATING_WORDS
from memlint.semantics.values import Grad, Kind, Mode

# In the whole project these make it doubtful that a model's own forward never differentiates (fix-safety.md).
PROJECT_DIFFERENTIATES = (
    "autograd.grad",
    "import grad",
    "torch.func",
    "create_graph",
    ".requires_grad_(",
    "enable_grad",
)
_TAKES_GRADIENTS = ("autograd.grad", "import grad", "jacobian", "torch.func")
_FORCES = "forces"
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
_CONVERTING_WORDS = frozenset({"convert", "conversion", "export", "trace", "torchscript"})
# An option, or its key, that hands the choice of grad mode to the model.
_GRAD_MODE_OPTIONS = frozenset({"no_grad", "enable_grad", "with_grad", "requires_grad", "grad_enabled"})


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
    is_doubtful: bool
    """One forward pass of a script, or of a function that converts or exports a model: a check, run once. Or the model
    may be of a class of the project that differentiates in its forward."""
    provably_unused: bool
    """No value that may carry a graph leaves, and nothing else can notice that grad is off."""


def evaluation_regions(module: Module) -> Iterator[EvaluationRegion]:
    reported: set[Scope] = set()
    running: set[Scope] = set()
    # Nearest to the model first: whoever calls a function that is reported is not reported for it again.
    for helpers in range(MOST_HELPERS + 1):
        for flow in module.flows:
            if flow.scope in reported or not _may_evaluate(module, flow.scope):
                continue
            for found in _regions(module, flow, helpers, reported, running):
                if all(module.answer(question) for question in found.questions):
                    reported.add(flow.scope)
                    yield found
    for flow in module.flows:
        # Last what only a name and the output's use show, where no caller is reported for what runs in the function.
        is_last = flow.scope not in reported | running and (acts(flow) or is_inference(flow))
        if is_last and _may_evaluate(module, flow.scope):
            for found in _regions(module, flow, 0, reported, running, by_use=True):
                reported.add(flow.scope)
                yield found
    for flow in module.flows:
        found_by_flag = _flagged_region(module, flow) if flow.scope not in reported else None
        if found_by_flag is not None:
            yield found_by_flag


def _flagged_region(module: Module, flow: Flow) -> EvaluationRegion | None:
    """A function that also runs without training, as a flag says, and then builds graphs all the same."""
    scope = flow.scope
    if not flow.has_backward or scope.words_but_off & DIFFERENTIATING_WORDS or not _may_evaluate(module, scope):
        return None
    for run in evaluating_runs(module, flow):
        first = next((call for call in flow.calls if builds_a_graph(call) and run.reaches(call)), None)
        if first is None or _is_differentiated_by(module, run, first):
            continue
        questions = module.questions(carrying(first.result).conditions)
        if questions is None or run.mode in (Mode.OFF, Mode.UNKNOWN):
            continue
        questions -= {GradOnEntry(scope.qualname)}
        if run.mode is Mode.ENTRY and (run.caller is not None or first.mode is Mode.ENTRY):
            questions |= {GradOnEntry(run.caller or scope.qualname)}
        return EvaluationRegion(scope, first.loop, first, run.evidence, False, questions, None, None, False, False)
    return None


def _is_differentiated_by(module: Module, run: EvaluatingRun, forward: Call) -> bool:
    """Whether whoever runs the function so may differentiate what it returns."""
    if not any(forward.root in value.roots and value.grad is not Grad.NO for value in run.flow.returned):
        return False
    view = module.analysis.view
    if run.site is not None:
        return view is None or not view.result_is_clean(run.site)
    if run.call is None or run.call.is_statement:
        return False
    caller = module.flow_of(run.call.scope)
    return caller is None or caller.has_backward or bool(run.call.result.roots & module.analysis.differentiated)


def _may_evaluate(module: Module, scope: Scope) -> bool:
    if scope.is_class or isinstance(scope.node, cst.Lambda) or _is_unit_test(module, scope):
        return False
    if scope.name == "__call__":
        owner = scope.enclosing_class()
        return owner is not None and not module.analysis.may_be_module(owner)
    return scope.name not in CALLED_IN_TRAINING  # a layer that puts its batch normalisation into eval mode


def _regions(
    module: Module, flow: Flow, helpers: int, reported: set[Scope], running: set[Scope], *, by_use: bool = False
) -> Iterator[EvaluationRegion]:
    """Those of one function: where it calls models, or where it calls functions that do, through so many of them.

    In which functions the models run is noted in `running`.
    """
    seen: set[int] = set()
    for call in flow.calls:
        runs = (
            runs_through(module, call, reported, helpers) if helpers else runs_at(call) or method_runs_at(module, call)
        )
        if not runs:
            continue
        loops = _region_loops(call)
        beside_training = not loops and (call.loop is not None or flow.has_backward or flow.has_step)
        if beside_training and (not _may_be_an_evaluation(flow, call) or graph_leaves(module, flow, call)):
            continue
        if any(id(loop.node) in seen for loop in loops) or (not loops and 0 in seen):
            continue
        # The outermost loop; where an epoch of it also trains, out of view, the loop inside.
        candidates: list[Loop | None] = [*loops] or [None]
        for loop in candidates:
            found = _region(module, flow, loop, call, runs, by_use=by_use)
            if found is not None:
                running.update(run.call.scope for run in runs if run.call is not None)
                seen.add(id(loop.node) if loop is not None else 0)
                yield found
                if found.function is not None:
                    return  # with grad off in the function, it is off for all of them
                break


def _may_be_an_evaluation(flow: Flow, call: Call) -> bool:
    """In code that trains, after it or in an epoch: no teacher, and no layers kept in eval mode, of a batch."""
    if not (flow.has_backward or flow.has_step or call.scope.is_function):
        return False
    loop = call.loop
    if loop is None or not (loop.draws_from_loader or loop.feeds_forward):
        return True
    # Now and then, of something else than the batch: `if step % 100 == 0: fake = generator(fixed_noise)`.
    given = (argument.value.roots for argument in (*call.positional, *call.keywords.values()))
    return call.guarded and not any(loop.element in roots for roots in given)


def _is_unit_test(module: Module, scope: Scope) -> bool:
    """Tests run small models once. `def test(model, loader)` in a training script is no unit test."""
    owner = scope.enclosing_class()
    if owner is None:
        return False
    has_tests = owner.name.startswith("Test") and any(inner.name.startswith("test_") for inner in owner.children)
    return has_tests or "unittest.TestCase" in module.analysis.base_names(owner.qualname)


def _region_loops(call: Call) -> list[Loop]:
    """The loops around the call in which nothing trains, outermost first."""
    loops: list[Loop] = []
    for loop in call.loop.outer() if call.loop is not None else ():
        if loop.is_training_loop:
            break
        loops.insert(0, loop)
    return loops


def _region(
    module: Module, flow: Flow, loop: Loop | None, call: Call, runs: Sequence[Run], *, by_use: bool
) -> EvaluationRegion | None:
    scope = flow.scope
    if differentiates(module, flow, call, runs):
        return None
    ends = ends_of(module, flow, call.root)
    is_method = any(run.is_method for run in runs)
    questions = frozenset[Question]() if is_method else _carries(module, call)
    if questions is None or ends.raises:
        return None
    # The functions that run at this call are entered in its grad mode.
    entered = {run.call.scope.qualname for run in runs if run.call is not None} - {scope.qualname}
    questions -= {GradOnEntry(name) for name in entered}
    evaluated = eval_evidence(module, scope, loop, call, runs)
    evidence = evaluated.text if evaluated is not None else _by_name(module, flow, loop, call)
    is_said, is_built_here = evidence is not None, _is_built_here(call)
    if not is_said and not is_built_here:
        is_acting = by_use and acts(flow)
        evidence = by_acting(module, flow, call) if is_acting else by_output(module, flow, loop, call, runs, ends)
    purpose = by_purpose(module, flow, call) if by_use and evaluated is None and not is_built_here else None
    if evidence is None:
        evidence, is_said = purpose, purpose is not None
    if is_said and somebody_may_differentiate(flow, loop, call):
        return None
    if evidence is None or holder_gets(flow, call, runs) or _is_told_grad_mode(flow):
        return None
    if is_method and not _method_builds(module, call, ends, is_said=is_said):
        return None
    leaves = graph_leaves(module, flow, call)
    is_watched = purpose is not None or (leaves and _is_watched(module, flow, loop, call, evaluated))
    if leaves and not is_watched and (evaluated is None or not evaluated.strong):
        # By its name, or for its callers, an evaluation, but somebody gets the graph.
        if evaluated is None or _is_out_of_view(module, call, own_object=evaluated.by_object):
            return None
        questions |= evaluated.asks
    is_strong = evaluated is not None and evaluated.strong
    is_shown = is_watched or (is_strong and (_shows(module, scope) or _is_named_for_evaluation(scope)))
    if loop is None and leaves and not is_shown and not _is_named_for_evaluation(scope):
        return None  # a feature extractor in eval mode: gradients may flow through it to its input
    if call.is_statement and _prepares(module, loop):
        return None
    lost = {run.call.root for run in runs if run.call is not None and run.call.root not in call.result.roots}
    if loop is None and not is_shown and not module.analysis.escaped.isdisjoint({call.root} | lost):
        return None  # one forward pass, whose output unknown code gets: it may well be there to be differentiated
    if call.mode is Mode.ENTRY:
        questions |= {GradOnEntry(scope.qualname)}
    function, statement, unused = _where_to_switch(module, flow, loop, leaves)
    one_off = loop is None and _is_a_check(module, scope, is_used=leaves or ends.takes_something)
    direct = any(run.call is call for run in runs)
    return EvaluationRegion(
        scope,
        loop,
        call,
        evidence,
        evaluated is not None and evaluated.strong and direct,
        questions,
        function,
        statement,
        one_off or any(_may_need_grad(module, run) or (not is_strong and _may_be_wrapped(module, run)) for run in runs),
        unused and direct,
    )


def _is_watched(module: Module, flow: Flow, loop: Loop | None, call: Call, evaluated: Evidence | None) -> bool:
    """Whether whoever gets the graph surely does not differentiate it."""
    is_own = evaluated is not None and evaluated.by_object and call.root not in flow.return_roots
    return (
        (evaluated is not None and evaluated.said_of_object and takes_data(module, flow, call))
        or goes_to_watchers(module, flow, loop, call)
        or _is_named_twice(module, flow.scope, loop)
        or is_kept_as_data(module, call)
        or (is_own and _is_named_for_evaluation(flow.scope))
    )


def _carries(module: Module, call: Call) -> frozenset[Question] | None:
    """What must hold for the result, or one of several results, to carry a graph: `targets, scores = run(model, x)`."""
    parts = [part for part in (call.result, *(call.result.elements or ())) if part.carries_graph] or [call.result]
    return next((found for part in parts if (found := module.questions(part.conditions)) is not None), None)


def _prepares(module: Module, loop: Loop | None) -> bool:
    """Whether a forward pass whose output nobody takes is there for something else than to evaluate.

    Hooks take what they want out of it, maybe to be differentiated; one batch of a loop makes lazy parameters.
    """
    if loop is None:
        return "register_forward_hook" in module.words
    return isinstance(loop.node, (cst.For, cst.While)) and leaves_at_once(loop.node)


def _method_builds(module: Module, call: Call, ends: Ends, *, is_said: bool) -> bool:
    """Whether a method of a model out of view builds a graph.

    One that computes residuals or forces differentiates itself, or what it calls does.
    """
    found = builds(module, call.method or "")
    if found is Builds.NO:
        return False
    if ends.is_detached:
        return True
    is_likely = found is Builds.YES or (found is Builds.LIKELY and is_said)
    return is_likely and not module.mentions(_TAKES_GRADIENTS)


def _is_a_check(module: Module, scope: Scope, *, is_used: bool) -> bool:
    """One forward pass of a conversion, or of a script that takes nothing from the output but its shape."""
    if scope.is_function:
        return not words_of(scope.name).isdisjoint(_CONVERTING_WORDS)
    return not is_used or any(not words_of(word).isdisjoint(_CONVERTING_WORDS) for word in module.words)


def _shows(module: Module, scope: Scope) -> bool:
    """A script, or a function named for what it does with the output, in a file that trains nothing."""
    named = not scope.is_function or not words_of(scope.name).isdisjoint(SHOWING_WORDS)
    return named and module.words.isdisjoint(known.BACKWARD_METHODS | DIFFERENTIATING_WORDS | {"grad"})


def _is_built_here(call: Call) -> bool:
    """`search = BeamSearch(scorers=...)`, `search(x)`: no model that was trained, but something that runs one."""
    name = path_of(call.call.func) or ""
    if not known.MODULE_METHODS.isdisjoint(call.scope.methods_called.get(name, ())):
        return False
    return name in call.scope.bound and name in _built_in(call.scope.node)


@lru_cache(maxsize=NODES_REMEMBERED)
def _built_in(function: cst.CSTNode) -> frozenset[str | None]:
    """The names and paths to which the results of calls are assigned; what is made and moved at once is a module."""
    built = (node for node in walk(function) if isinstance(node, cst.Assign) and isinstance(node.value, cst.Call))
    built = (node for node in built if not _is_method(node.value, known.MODULE_SELF_METHODS))
    return frozenset(path_of(item.target) for node in built for item in node.targets)


def _is_method(node: cst.BaseExpression, names: frozenset[str]) -> bool:
    return isinstance(node, cst.Call) and isinstance(node.func, cst.Attribute) and node.func.attr.value in names


def _is_named_for_evaluation(scope: Scope) -> bool:
    return bool(words_of(scope.name) & EVALUATION_WORDS)


@lru_cache(maxsize=NODES_REMEMBERED)
def _is_told_grad_mode(flow: Flow) -> bool:
    """`Encoder(options={"no_grad": "True"})`, `encode(x, no_grad=True)`: the model switches it itself."""
    data = {id(call.node) for call in flow.calls if _makes_data(call)}
    for node in walk(flow.scope.node):
        if isinstance(node, cst.SimpleString) and node.raw_value in _GRAD_MODE_OPTIONS:
            return True
        if isinstance(node, cst.Call) and id(node) not in data:
            is_variable = (path_of(node.func) or "").rpartition(".")[2] == "Variable"
            keywords = {argument.keyword.value for argument in node.args if argument.keyword is not None}
            if not is_variable and not keywords.isdisjoint(_GRAD_MODE_OPTIONS):
                return True
    return False


def _makes_data(call: Call) -> bool:
    """`torch.zeros(n, requires_grad=False)`: a tensor is told what it is anyway."""
    required = call.keywords.get("requires_grad")
    is_off = required is not None and path_of(required.expression) == "False"
    return is_off and call.names(known.DETERMINISTIC_FACTORIES | known.RANDOM_FACTORIES | known.LIKE_FACTORIES)


def _may_need_grad(module: Module, run: Run) -> bool:
    """`model: BaseModel`, whose forward is open, in a project in which something differentiates.

    Or any model in a project that takes gradients for forces, which it then does when it evaluates, too.
    """
    cls, view = run.call.callee.cls if run.call is not None else None, module.analysis.view
    if view is None:
        return False
    if cls is None:
        return view.some_file_has(("autograd.grad", "import grad"), _FORCES) is not False
    if not is_symbol(cls) or not view.leaves_forward_open(cls):
        return False
    return any(view.is_mentioned(text) for text in PROJECT_DIFFERENTIATES)


def _may_be_wrapped(module: Module, run: Run) -> bool:
    """What a function of the project makes may switch grad off itself, where some `__call__` of the project does."""
    view = module.analysis.view
    if view is None or run.call is None or run.call.callee.cls is not None or run.call.method == "forward":
        return False
    makers = (qual for call in makers_of(module, run.call) for qual in call.callee.quals)
    return any(is_symbol(qual) for qual in makers) and view.mentions_gradients("__call__") is True


def _by_name(module: Module, flow: Flow, loop: Loop | None, call: Call) -> str | None:
    """A name that says evaluation counts only where a loop runs the model, one over batches if a graph leaves it.

    In a model's own class, where a loop of its `evaluate` runs it.
    """
    if loop is None:
        return None
    given = (argument.value.roots for argument in (*call.positional, *call.keywords.values()))
    scope = flow.scope
    is_over_batches = loop.is_batch_loop or any(loop.element in roots for roots in given)
    if is_over_batches or (_is_named_for_evaluation(scope) and not graph_leaves(module, flow, call)):
        named = module.named_for_evaluation(scope, loop)
        if named is not None:
            return named
    is_method = scope.parent is not None and scope.parent.is_class
    return f"it stands in `{scope.name}`" if is_method and words_of(scope.name) & TEST_WORDS else None


def _is_named_twice(module: Module, scope: Scope, loop: Loop | None) -> bool:
    """`def testing(model, test_loader)`, with a loop over the latter: whatever it returns, nobody learns from it."""
    if loop is None or not scope.is_function or words_of(scope.name).isdisjoint(TEST_WORDS):
        return False
    return not scope.has_yield and module.named_for_evaluation(module.analysis.root, loop) is not None


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
            if current is flow and loop is not None and loop not in loops_around(call):
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


def _is_out_of_view(module: Module, call: Call, *, own_object: bool) -> bool:
    """Whether the output leaves by another way than a return (or an attribute, where the object's code is known)."""
    return call.root in module.analysis.escaped or (call.root in module.analysis.shared and not own_object)


def _cannot_notice(module: Module, flow: Flow, loop: Loop | None) -> bool:
    """The rest of the proof that grad mode is not needed (fix-safety.md, row on `@torch.no_grad()`)."""
    if loop is not None and isinstance(loop.node, cst.GeneratorExp):
        return False
    return _function_cannot_notice(module, flow)


@lru_cache(maxsize=NODES_REMEMBERED)
def _function_cannot_notice(module: Module, flow: Flow) -> bool:
    node = flow.scope.node
    if isinstance(node, cst.FunctionDef) and (
        node.asynchronous is not None or flow.scope.has_yield or module.is_compiled(flow.scope)
    ):
        return False
    if module.words & (_FAST_PATH_WORDS | _NOTICING_WORDS) or module.mentions(PROJECT_DIFFERENTIATES):
        return False
    if any(call.in_try for call in flow.calls):
        return False  # with grad on some things raise that do not without, and a handler may be there for that
    left_on_objects = (store for store in module.attribute_stores if store.scope.name != "__init__")
    if any(store.value.grad is not Grad.NO for store in left_on_objects):
        return False  # a forward pass that leaves its output on the model: somebody may differentiate it later
    return not any(value.grad is not Grad.NO or value.kind is Kind.MODULE for value in flow.returned)
