"""`empty_cache()` where it runs at every step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import libcst as cst

from memlint.semantics.batch_slices import goes_by_batches, names_set_in
from memlint.semantics.blocks import leaves_at_once, path_to
from memlint.semantics.events import Call, Loop
from memlint.semantics.flow import Flow
from memlint.semantics.knowledge import device as known
from memlint.semantics.loaders import is_named_loader
from memlint.semantics.module import Module
from memlint.semantics.naming import words_of
from memlint.semantics.paths import head_of, parameter_names
from memlint.semantics.scopes import NODES_REMEMBERED, Scope, parts_of, path_of
from memlint.semantics.values import Kind

_SCOPES = (cst.FunctionDef, cst.ClassDef, cst.Lambda)
_LOOPS = (cst.For, cst.While)


@dataclass(frozen=True, eq=False)
class CacheFlush:
    """A call that empties the cache at every step."""

    call: Call
    through: str | None
    """The function of this file that does so."""
    loop: Loop | None
    method: str | None
    """The method that runs at every step, where there is no loop in view."""
    certain: bool


def cache_flushes(module: Module) -> Iterator[CacheFlush]:
    flushing = _flushing_functions(module)
    steps = {name: loop for name in flushing if (loop := _loop_of_step(module, name)) is not None}
    for call in module.calls:
        if not call.scope.words.isdisjoint(known.PEAK_RESETS):
            continue  # it measures: the cache of the run before does not belong to it
        through = None
        if not call.names(known.EMPTY_CACHE):
            if not call.names(flushing - steps.keys()):
                continue
            through = module.text(call.call.func)
        elif call.scope.qualname in steps and call.loop is None:
            yield CacheFlush(call, None, steps[call.scope.qualname], None, False)
            continue
        loop = call.loop
        if loop is not None and _is_step_loop(module, loop) and _runs_each_time(module, loop.node, call):
            yield CacheFlush(call, through, loop, None, through is None)
        elif loop is not None and _is_named_step_loop(module, loop) and _runs_each_time(module, loop.node, call):
            yield CacheFlush(call, through, loop, None, False)
        elif _runs_every_step(module, call.scope) and _runs_each_time(module, call.scope.node, call):
            known_class = call.scope.name != known.FORWARD or _is_known_class(module, call.scope)
            yield CacheFlush(call, through, None, call.scope.name, through is None and known_class)


def _flushing_functions(module: Module) -> frozenset[str]:
    """Functions of this file each call of which empties the cache, once."""
    return frozenset(
        call.scope.qualname
        for call in module.calls_of(known.EMPTY_CACHE)
        if call.scope.is_function
        and call.loop is None
        and not _has_batch_loop(module.flow_of(call.scope))
        and _runs_each_time(module, call.scope.node, call)
    )


def _loop_of_step(module: Module, function: str) -> Loop | None:
    """The loop that calls the function for each batch, if it is one that handles a batch, and all that call it do so.

    What is called after a failure does not count.
    """
    scope = module.analysis.scope_named(function)
    flow = module.flow_of(scope) if scope is not None else None
    if scope is None or flow is None or not (flow.has_forward or _is_about_batches(scope)):
        return None
    calls = [call for call in module.calls_of(frozenset({function})) if not call.handler]
    loops = [_step_loop_around(module, call) for call in calls]
    return loops[0] if None not in loops and loops else None


def _is_about_batches(scope: Scope) -> bool:
    """`def generate_batch(texts)`, `def score(batch)`"""
    return any("batch" in words_of(name) for name in (scope.name, *parameter_names(scope)))


def _step_loop_around(module: Module, call: Call) -> Loop | None:
    loop = call.loop
    if loop is None or not (_is_step_loop(module, loop) or _is_named_step_loop(module, loop)):
        return None
    return loop if _runs_each_time(module, loop.node, call) else None


def _has_batch_loop(flow: Flow | None) -> bool:
    return flow is not None and any(loop.is_batch_loop for loop in flow.loops)


# --- which loops and methods go step by step ---


def _is_step_loop(module: Module, loop: Loop) -> bool:
    """One iteration is one batch: not an epoch, a model, a layer."""
    if loop.is_comprehension:
        return False
    if loop.iterates.kind is Kind.LOADER:
        return True
    if any(inner is not loop and inner.is_batch_loop and loop in inner.outer() for inner in module.loops):
        return False  # a loop over epochs
    if any(backward.loop is loop for backward in module.backwards):
        return True
    return any(_is_step(module, call, loop) for call in module.calls_in(loop.scope) if call.loop is loop)


def _is_named_step_loop(module: Module, loop: Loop) -> bool:
    """`for x, y in train_loader`, whatever the loader is; `for batch in batches`, and slices of data."""
    if not isinstance(loop.node, _LOOPS):
        return False
    is_loader = loop.iterable is not None and is_named_loader(module, loop.iterable, loop.iterates)
    return is_loader or goes_by_batches(loop.node) or _runs_a_model(module, loop)


def _runs_a_model(module: Module, loop: Loop) -> bool:
    """An iteration runs a model itself, and always the same one: not layer by layer, model by model."""
    if loop.runs_layers or any(inner.parent is loop and inner.has_forward for inner in module.loops):
        return False
    made = names_set_in(loop.node) if isinstance(loop.node, _LOOPS) else frozenset()
    paths = (
        path_of(call.call.func)
        for call in module.calls_in(loop.scope)
        if call.is_forward and call.loop is loop and not call.handler
    )
    return any(path is not None and head_of(path) not in made for path in paths)


def _is_step(module: Module, call: Call, loop: Loop) -> bool:
    """A batch of this loop goes forward: here, or in a function of this file that has no batch loop of its own."""
    given = [argument.value for argument in (*call.positional, *call.keywords.values())]
    fed = any(loop.element in value.roots for value in given)
    if call.is_forward or call.names({"next"}):
        return (fed and call.is_forward) or (loop.draws_from_loader and not call.is_forward)
    scope = module.analysis.scope_named(next(iter(call.callee.quals))) if len(call.callee.quals) == 1 else None
    flow = module.flow_of(scope) if scope is not None else None
    if flow is None or _has_batch_loop(flow):
        return False
    return flow.has_backward or (fed and flow.has_forward)


def _runs_every_step(module: Module, scope: Scope) -> bool:
    owner = scope.parent
    if owner is None or not owner.is_class:
        return False
    if scope.name == known.FORWARD and module.analysis.is_module_class(owner.qualname):
        return True
    bases = module.analysis.base_names(owner.qualname)
    return any(bases & classes and scope.name in methods for classes, methods in known.EVERY_STEP)


def _is_known_class(module: Module, scope: Scope) -> bool:
    owner = scope.parent
    if owner is None:
        return False
    return module.surely_a_module(owner) or bool(module.analysis.base_names(owner.qualname) & known.AUTOGRAD_FUNCTIONS)


# --- does the call run each time? ---


def _runs_each_time(module: Module, inside: cst.CSTNode, call: Call) -> bool:
    """Whether each iteration (or each call of the function) gets to this call, as far as conditions go."""
    if isinstance(inside, _LOOPS) and leaves_at_once(inside):
        return False
    path = path_to(inside, call.node)
    return bool(path) and all(_passes(module, parent, child, inside) for parent, child in pairwise(path))


def _passes(module: Module, parent: cst.CSTNode, child: cst.CSTNode, inside: cst.CSTNode) -> bool:
    if parent is not inside and isinstance(parent, _SCOPES):
        return False
    if isinstance(parent, cst.If):
        return child is parent.test or (child is parent.body and _same_each_time(module, parent.test))
    if isinstance(parent, cst.IfExp):
        return child is parent.test
    if isinstance(parent, cst.BooleanOperation):
        return child is parent.left or _same_each_time(module, parent.left)
    if isinstance(child, (cst.ExceptHandler, cst.ExceptStarHandler, cst.MatchCase)):
        return False
    if isinstance(parent, cst.IndentedBlock):
        return id(child) in _reached(parent, isinstance(inside, _LOOPS))
    return True


def _same_each_time(module: Module, test: cst.BaseExpression) -> bool:
    """Is there a GPU? The answer does not change from step to step."""
    if isinstance(test, cst.BooleanOperation):
        return _same_each_time(module, test.left) and _same_each_time(module, test.right)
    if isinstance(test, cst.UnaryOperation):
        return _same_each_time(module, test.expression)
    call = module.call_at(test)
    return call is not None and call.names(known.DEVICE_CHECKS)


@lru_cache(maxsize=NODES_REMEMBERED)
def _reached(block: cst.IndentedBlock, in_loop: bool) -> frozenset[int]:
    """The identities of the statements before which none turns back."""
    turning = next((index for index, item in enumerate(block.body) if _turns_back(item, in_loop)), len(block.body))
    return frozenset(map(id, block.body[: turning + 1]))


def _turns_back(statement: cst.CSTNode, in_loop: bool) -> bool:
    """On some condition the rest of the iteration (of the function) is skipped."""
    kinds = (cst.Continue,) if in_loop else (cst.Return,)
    stack = [statement]
    while stack:
        node = stack.pop()
        if isinstance(node, kinds):
            return True
        if isinstance(node, _SCOPES) or (in_loop and isinstance(node, _LOOPS)):
            continue
        stack.extend(parts_of(node))
    return False
