"""Which workspaces of cuBLAS a run would have made on a card, and when."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch

from memlint.measure.recording import Workspace
from memlint.measure.worker.compat import running_node
from memlint.measure.workspaces import Workspaces

_PRODUCTS = ("mm", "addmm", "_addmm_activation", "bmm", "baddbmm", "addbmm", "addmv", "mv", "dot", "vdot", "linear")
_OPERATORS = frozenset(
    getattr(packet, overload)
    for packet in (getattr(torch.ops.aten, name) for name in _PRODUCTS)
    for overload in packet.overloads()
)
_WITH_BIAS = frozenset({torch.ops.aten.addmm.default, torch.ops.aten._addmm_activation.default})


class UsedWorkspaces:
    """Told of operators. `time`: how many events the log has."""

    def __init__(self, sizes: Workspaces, time: Callable[[], int]) -> None:
        self._sizes = sizes
        self._time = time
        self._made: dict[tuple[str, object], Workspace] = {}

    @property
    def made(self) -> list[Workspace]:
        return list(self._made.values())

    def note(self, operator: Any, args: tuple[Any, ...]) -> None:
        """An operator has run on the device: the first of a thread that multiplies matrices makes the workspace."""
        if operator not in _OPERATORS:
            return
        backward = running_node() is not None
        thread: object = "backward" if backward else threading.get_ident()
        self._make("cuBLAS", self._sizes.matrix_bytes, thread)
        if operator in _WITH_BIAS and args[0].dim() == 1 and min(args[2].shape) > 1:
            self._make("cuBLASLt", self._sizes.lt_bytes, thread)

    def _make(self, library: str, size: int, thread: object) -> None:
        if size and (library, thread) not in self._made:
            # The product, of which the log learns after this, is allocated before.
            self._made[library, thread] = Workspace(library, size, self._time() + 1)
