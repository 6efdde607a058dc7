"""Models that a dictionary or a list holds: what is called on its items shows that they are modules."""

from __future__ import annotations

from collections.abc import Iterator, Set
from functools import lru_cache
from typing import TYPE_CHECKING

import libcst as cst

from memlint.semantics.knowledge import torch as known
from memlint.semantics.reading import literal_index, literal_key
from memlint.semantics.scopes import NODES_REMEMBERED, Scope, chain_of, path_of, target_names, walk

if TYPE_CHECKING:
    from memlint.semantics.events import Loop

_AROUND = frozenset({"list", "tuple", "enumerate", "tqdm"})
_ANY = "[*]"
_SWITCHES = frozenset({"eval", "train"})
# Somebody may freeze one of them.
_FREEZING = frozenset({"requires_grad", "requires_grad_"})


def item_path(node: cst.CSTNode) -> str | None:
    """`self.nets[generator]` of `self.nets["generator"]`, `self.nets[*]` of any other item; the path of a name."""
    if not isinstance(node, cst.Subscript):
        return path_of(node)
    base = path_of(node.value)
    key = literal_key(node)
    index = literal_index(node) if key is None else None
    if base is None or len(node.slice) != 1 or not isinstance(node.slice[0].slice, cst.Index):
        return None
    return f"{base}[{key if key is not None else index}]" if key is not None or index is not None else base + _ANY


def covering(model: str) -> frozenset[str]:
    """The paths of which what is done to their modules is done to this one.

    `self` has `self.nets`, that its items: `self.nets[*]` and `self.nets[generator]`.
    """
    paths = {model}
    for end, sign in enumerate(model):
        if sign in ".[":
            paths.add(model[:end])
        if sign == "[":
            paths.add(model[:end] + _ANY)
    return frozenset(paths)


def item_in_loop(loop: Loop | None, name: str | None) -> str | None:
    """`nets[*]` for the `net` of `for net in nets.values()`."""
    for around in loop.outer() if loop is not None else ():
        if not isinstance(around.node, cst.For) or around.item is None or around.source is None:
            continue
        if any(name == target for target in target_names(around.item)):
            return _items_of(around.source)
    return None


def _items_of(iterable: cst.BaseExpression) -> str | None:
    while isinstance(iterable, cst.Call) and path_of(iterable.func) in _AROUND and len(iterable.args) == 1:
        iterable = iterable.args[0].value
    if isinstance(iterable, cst.Call) and isinstance(iterable.func, cst.Attribute) and not iterable.args:
        iterable = iterable.func.value if iterable.func.attr.value in ("values", "items") else iterable
    container = path_of(iterable)
    return container + _ANY if container is not None else None


def shows_module(scope: Scope, item: cst.Subscript) -> bool:
    """Whether the function, or another method of its class, calls on the item, or on all, what only modules have."""
    path, owner = item_path(item), scope.enclosing_class()
    if path is None:
        return False
    is_own = path.startswith("self.") and owner is not None
    within = owner if is_own and owner is not None else scope
    if not within.words_within.isdisjoint(_FREEZING):
        return False
    called = _called_on_items(within.node)
    proofs: Set[str] = known.MODULE_METHODS
    return any(not proofs.isdisjoint(called.get(of, ())) for of in covering(path))


@lru_cache(maxsize=NODES_REMEMBERED)
def _called_on_items(inside: cst.CSTNode) -> dict[str, set[str]]:
    """The methods that code calls on items of containers, also on all of them in a loop."""
    called: dict[str, set[str]] = {}
    for path, method in _calls_on_items(inside):
        called.setdefault(path, set()).add(method)
    return called


def _calls_on_items(inside: cst.CSTNode) -> Iterator[tuple[str, str]]:
    for node in walk(inside):
        if isinstance(node, cst.Call) and isinstance(node.func, cst.Attribute):
            owner = node.func.value
            for inner in chain_of(owner):
                owner = inner.func.value  # type: ignore[attr-defined]
            path = item_path(owner) if isinstance(owner, cst.Subscript) else None
            if path is not None:
                yield path, node.func.attr.value
        elif isinstance(node, cst.For) and (items := _items_of(node.iter)) is not None:
            names = set(target_names(node.target))
            yield from ((items, method) for method in _switches_of(node.body, names))


def _switches_of(body: cst.BaseSuite, names: set[str]) -> Iterator[str]:
    """`net.eval()` for one of these names."""
    for node in walk(body):
        if not isinstance(node, cst.Call) or not isinstance(node.func, cst.Attribute) or node.args:
            continue
        if path_of(node.func.value) in names and node.func.attr.value in _SWITCHES:
            yield node.func.attr.value
