"""Which modules a function has put into evaluation, and which back into training, at each place in it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator

import libcst as cst

from memlint.semantics.events import Call
from memlint.semantics.held_models import covering, item_in_loop, item_path
from memlint.semantics.scopes import chain_of, path_of


class Switches:
    """The calls of a function that switch a module to or from evaluation. Places are the orders of calls."""

    def __init__(self, calls: Iterable[Call]) -> None:
        """`calls` in their order."""
        self._places: dict[str, list[int]] = {}
        self._to_eval: dict[str, list[bool]] = {}
        for call in calls:
            path = _switched_path(call)
            if path is not None:
                self._places.setdefault(path, []).append(call.order)
                self._to_eval.setdefault(path, []).append(call.method == "eval" or _is_false(call))
        self._paths = list(self._places)
        self._begun = [places[0] for places in self._places.values()]

    def begun(self, until: float) -> Iterator[str]:
        """The paths of which a module was switched before this place, the last one first."""
        return reversed(self._paths[: bisect_left(self._begun, until)])

    def most_specific(self, model: str, until: float) -> str | None:
        """The longest path that was switched before this place and has the model: `self.backbone` rather than `self`.

        Of `nets[*]` and `nets[0]` the one that was switched first.
        """
        first = {path: self._places[path][0] for path in covering(model) if path in self._places}
        known = (path for path in first if first[path] < until)
        return max(known, key=lambda path: (len(path), -first[path]), default=None)

    def is_in_eval(self, path: str, until: float) -> bool:
        """Whether the last switch of a path that was switched before this place was to evaluation."""
        return self._to_eval[path][bisect_left(self._places[path], until) - 1]


def _switched_path(call: Call) -> str | None:
    """The module that `.eval()` or `.train()` switches: `net.eval()`, `net.cuda().eval()`, `net = build().eval()`."""
    if call.method not in ("eval", "train") or call.receiver_node is None or len(call.positional) > 1:
        return None
    if call.method == "eval" and call.positional:
        return None
    statement = call.statement
    if isinstance(statement, cst.Assign) and any(item is call.node for item in chain_of(statement.value)):
        return path_of(statement.targets[0].target)
    node = call.receiver_node
    for inner in chain_of(node):
        node = inner.func.value  # type: ignore[attr-defined]
    path = item_path(node)
    return item_in_loop(call.loop, path) or path


def _is_false(call: Call) -> bool:
    return bool(call.positional) and call.positional[0].value.literal is False
