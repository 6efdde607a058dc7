"""Objects of known libraries: what building one gives, and what its methods do (`knowledge/libraries.py`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import libcst as cst

from memlint.semantics.entry_modes import maker_of
from memlint.semantics.knowledge import frameworks, libraries
from memlint.semantics.knowledge.libraries.rows import Effect, Role
from memlint.semantics.modes import may_switch_grad_mode
from memlint.semantics.scopes import path_of
from memlint.semantics.values import PLAIN, Grad, Kind, Mode, Value

if TYPE_CHECKING:
    from memlint.semantics.flow import Flow
    from memlint.semantics.reading import Reading

_KIND_OF_ROLE = {
    Role.MODULE: Kind.MODULE,
    Role.LOADER: Kind.LOADER,
    Role.OPTIMIZER: Kind.OPTIMIZER,
}


def object_of(cls: str) -> Value | None:
    """An object of the class with this qualified name; None where nothing is known of the class."""
    role = libraries.role_of(cls)
    return None if role is None else Value(_KIND_OF_ROLE.get(role, Kind.INSTANCE), cls=cls)


def built(flow: Flow, reading: Reading, name: str) -> Value | None:
    """What calling this class, class method or function of a known library builds."""
    classes = libraries.built_classes(name)
    if classes is None:
        return None
    objects = [object_of(cls) or PLAIN for cls in classes]
    for value in reading.values:
        if value.kind is not Kind.MODULE and value.grad is not Grad.NO:
            flow.escape(value)  # what it is built from it may keep
    return objects[0] if len(objects) == 1 else Value(Kind.CONTAINER, elements=tuple(objects))


def effect_of(flow: Flow, reading: Reading) -> Effect | None:
    """What is known of this call of an object, or of a method of one."""
    callee = reading.callee
    if callee.quals:
        return None  # a function, or a method in view
    if callee.kind is Kind.INSTANCE and callee.cls is not None:
        effect = _effect(flow, callee.cls, "__call__")
        if effect is not None:
            return effect
    if reading.method is None or reading.receiver is None:
        return None
    if reading.receiver.cls is not None:
        return _effect(flow, reading.receiver.cls, reading.method)
    return libraries.effect_of_method(reading.method) if reading.receiver.kind is Kind.UNKNOWN else None


def is_neutral_context(flow: Flow, value: Value, item: cst.BaseExpression) -> bool:
    """`with tqdm(loader) as bar:`, `with h5py.File(path):`, `with accelerator.accumulate(model):`, out of view."""
    if value.mode is Mode.KEEP and value.elements is not None:
        return True  # what wraps an iteration
    made = item.func if isinstance(item, cst.Call) else item
    path = path_of(made) or ""
    if value.kind is Kind.UNKNOWN and not may_switch_grad_mode(path):
        return True  # `with reporter.observe("valid"):`, `with self.lock:`
    if not isinstance(item, cst.Call):
        return False
    name = flow.analysis.qualify(made) or ""
    if frameworks.is_of_plain_library(name) and not name.startswith("contextlib."):
        return True
    # `with console.status("..."):`
    return frameworks.is_of_plain_library(maker_of(flow.analysis, name.partition(".")[0]))


def _effect(flow: Flow, cls: str, method: str) -> Effect | None:
    """What a method of an object of the class does, by the class itself or, of one of this file, by its bases."""
    if not cls.startswith(":"):
        return libraries.method_effect(cls, method)
    for base in flow.analysis.base_names(cls):
        effect = libraries.method_effect(base, method)
        if effect is not None:
            return effect
    return None


def result_of(flow: Flow, reading: Reading, effect: Effect) -> Value | None:
    """What a call with this effect returns; None where that is somebody else's matter (backward passes, steps)."""
    values = reading.values
    if effect is Effect.CONSUMES:
        return PLAIN
    if effect is Effect.CONTEXT:
        return Value(Kind.CONTEXT, mode=Mode.KEEP)
    if effect is Effect.RETURNS_SELF:
        return reading.receiver
    if effect is Effect.RETURNS_FIRST and values:
        return values[0]
    if effect is Effect.RETURNS_ALL and values and not reading.unpacks:
        return values[0] if len(values) == 1 else Value(Kind.CONTAINER, elements=tuple(values))
    if effect is Effect.PASSES:
        reading.root = flow.root(reading.node, saves=True)
        return flow.derived(Kind.UNKNOWN, reading.node, values, reading.root)
    if effect in (Effect.MAY_PASS, Effect.KEEPS):
        roots = frozenset().union(*(flow.all_roots(value) for value in values)) if values else frozenset()
        carries = any(value.grad is not Grad.NO or value.boxes or value.elements for value in values)
        return Value(Kind.UNKNOWN, Grad.MIXED if carries else Grad.NO, roots=roots)
    return None
