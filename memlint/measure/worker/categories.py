"""What a storage holds: parameters, gradients and optimizer state, found where PyTorch keeps them."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from typing import Any

import torch

from memlint.measure.recording import Category, Phase, Storage
from memlint.measure.worker.compat import without_torch_function
from memlint.measure.worker.tracker import Tracker

_LASTING = frozenset({Category.PARAMETERS, Category.GRADIENTS, Category.OPTIMIZER_STATE})


class Categories:
    """Names the storages of modules and optimizers, of all that were seen. Keeps nothing alive."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self._modules: dict[int, weakref.ref[torch.nn.Module]] = {}

    def saw_module(self, module: torch.nn.Module) -> None:
        """A module, and those that it holds: a copied one has not registered them."""
        if id(module) not in self._modules:
            for each in module.modules():
                self._saw(each)

    def _saw(self, module: torch.nn.Module) -> None:
        key = id(module)
        if key not in self._modules:
            self._modules[key] = weakref.ref(module, lambda _: self._modules.pop(key, None))

    def modules(self) -> Iterator[torch.nn.Module]:
        """In the order in which they were first seen."""
        for reference in list(self._modules.values()):
            module = reference()
            if module is not None:
                yield module

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        for module in self.modules():
            yield from (parameter for parameter in module._parameters.values() if parameter is not None)

    def buffers(self) -> Iterator[torch.Tensor]:
        for module in self.modules():
            yield from (buffer for buffer in module._buffers.values() if buffer is not None)

    def mark_parameters(self) -> None:
        self._mark(self.parameters(), Category.PARAMETERS)
        self._mark(self.buffers(), Category.PARAMETERS)

    def mark_gradients(self) -> None:
        """After a backward pass: an optimizer's step, or the next batch, may let them go."""
        self._mark((p.grad for p in self.parameters() if p.grad is not None), Category.GRADIENTS)

    def mark_trained(self, optimizer: torch.optim.Optimizer) -> None:
        """Before a step: what the optimizer trains outside of any module, and its gradients."""
        known = set(map(id, self.parameters()))
        leaves = [p for group in optimizer.param_groups for p in group["params"] if id(p) not in known]
        self._mark(leaves, Category.PARAMETERS)
        self._mark((leaf.grad for leaf in leaves if leaf.grad is not None), Category.GRADIENTS)

    def mark_state(self, optimizer: torch.optim.Optimizer) -> None:
        """After a step."""
        self._mark(_tensors(optimizer.state), Category.OPTIMIZER_STATE)

    def mark_kept_by_optimizer(self) -> None:
        """At a step's end: what an optimizer has made and still lives is its state, wherever it keeps it."""
        for record in self._tracker.live_records():
            if record.phase is Phase.OPTIMIZER and record.category not in _LASTING:
                record.category = Category.OPTIMIZER_STATE

    def _mark(self, tensors: Iterable[torch.Tensor], category: Category) -> None:
        with without_torch_function():
            for tensor in tensors:
                for record in self._tracker.records_of(tensor):
                    _name(record, category)


def _name(record: Storage, category: Category) -> None:
    # A parameter stays one, whatever else shares its bytes: an optimizer may keep views.
    if record.category is not Category.PARAMETERS:
        record.category = category


def _tensors(value: Any, depth: int = 0) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif depth < 4 and isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item, depth + 1)
    elif depth < 4 and isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item, depth + 1)
