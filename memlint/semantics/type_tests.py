"""Which types the code asks for before it uses a value."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import libcst as cst

from memlint.semantics.blocks import path_to
from memlint.semantics.events import Call
from memlint.semantics.module import Module


def types_asked(module: Module, call: Call, of: cst.BaseExpression) -> Iterator[tuple[cst.BaseExpression, bool]]:
    """The types for which a condition around the call asks the expression, and whether the call is for those.

    `torch.tensor(x) if isinstance(x, np.ndarray) else x`
    """
    if "isinstance" not in call.scope.words:
        return
    asked_of = module.text(of, 200)
    for around, inside in pairwise(path_to(call.scope.node, call.node)):
        if not isinstance(around, (cst.If, cst.IfExp)):
            continue
        test = module.call_at(around.test)
        if test is None or not test.names({"isinstance"}) or len(test.positional) != 2:
            continue
        subject, kind = (given.expression for given in test.positional)
        if module.text(subject, 200) == asked_of:
            yield kind, inside is around.body


def is_for(module: Module, call: Call, of: cst.BaseExpression, types: frozenset[str]) -> bool:
    """Whether the call is only reached where the expression is an object of one of the types."""
    return any(
        is_so and isinstance(kind, (cst.Name, cst.Attribute)) and module.analysis.qualify(kind) in types
        for kind, is_so in types_asked(module, call, of)
    )
