"""How the code at a call names what the called function names otherwise."""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import TYPE_CHECKING

import libcst as cst

from memlint.semantics.scopes import Scope, parameters, path_of

if TYPE_CHECKING:
    from memlint.semantics.events import Call


def parameter_names(scope: Scope) -> tuple[str, ...]:
    node = scope.node
    return tuple(param.name.value for param in parameters(node.params)) if isinstance(node, cst.FunctionDef) else ()


def head_of(path: str) -> str:
    """`nets` of `nets.g` and of `nets[g]`."""
    return path.partition(".")[0].partition("[")[0]


def renamed(path: str | None, call: Call, names: Sequence[str], *, bound: bool, local: Set[str]) -> str | None:
    """A path of the called function as the code at the call names it; `bound`: its first parameter is its object."""
    if path is None:
        return None
    head = head_of(path)
    rest = path.removeprefix(head)
    if bound and names and head == names[0]:
        owner = path_of(call.receiver_node) if call.receiver_node is not None else None
    elif head in names:
        position = names.index(head) - bound
        given = call.keywords.get(head)
        if given is None and not call.unpacks and position < len(call.positional):
            given = call.positional[position]
        owner = path_of(given.expression) if given is not None else None
    else:
        return None if head in local else path
    return None if owner is None else owner + rest
