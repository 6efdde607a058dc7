"""What a run computes, hashed bit by bit: losses, first gradients, parameters, buffers, random state."""

from __future__ import annotations

import ctypes
import hashlib
import random
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch

from memlint.measure.recording import Fingerprints
from memlint.measure.worker import compat
from memlint.measure.worker.categories import Categories
from memlint.measure.worker.steps import Span
from memlint.measure.worker.tracker import parts


class Fingerprinter:
    """Told what the program does. Reads values only: no random number is drawn, no device memory allocated."""

    def __init__(self, categories: Categories) -> None:
        self._categories = categories
        self._losses: list[tuple[int, bool, str, float]] = []
        """Time, whether it was differentiated, hash, value."""
        self._first_gradients: dict[int, str] = {}
        """Of each optimizer, before its first step."""
        self._of_first_backward = ""
        self._parameters = self._buffers = self._random_state = ""

    def differentiated(self, roots: object, time: int) -> None:
        self._note(roots, time, differentiated=True)

    def given(self, result: object, time: int) -> None:
        """The model, or the function that is measured, has returned this."""
        self._note(result, time, differentiated=False)

    def backward_ended(self) -> None:
        if not self._of_first_backward:
            gradients = (parameter.grad for parameter in self._categories.parameters())
            self._of_first_backward = _hash(gradient for gradient in gradients if gradient is not None)

    def before_optimizer(self, optimizer: torch.optim.Optimizer, key: int) -> None:
        if key not in self._first_gradients:
            leaves = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            self._first_gradients[key] = _hash(leaf.grad for leaf in leaves if leaf.grad is not None)

    def step_ended(self) -> None:
        """The program may end, and its model with it, before the steps are complete."""
        self._parameters = _hash(self._categories.parameters())
        self._buffers = _hash(self._categories.buffers())
        self._random_state = _random_state()

    def result(self, spans: Sequence[Span]) -> Fingerprints:
        gradients = "".join(self._first_gradients.values()) or self._of_first_backward
        return Fingerprints(
            losses=tuple(self._loss(span) for span in spans),
            parameters=self._parameters,
            buffers=self._buffers,
            first_gradients=hashlib.blake2b(gradients.encode(), digest_size=16).hexdigest(),
            random_state=self._random_state,
        )

    def _loss(self, span: Span) -> tuple[str, float]:
        """What was differentiated in a step; where nothing was, what the model gave."""
        within = [loss for loss in self._losses if span.start.time < loss[0] <= span.end.time]
        chosen = [loss for loss in within if loss[1]] or within
        digest = hashlib.blake2b("".join(loss[2] for loss in chosen).encode(), digest_size=16)
        return digest.hexdigest(), sum(loss[3] for loss in chosen)

    def _note(self, value: object, time: int, differentiated: bool) -> None:
        tensors = list(_tensors(value))
        if tensors:
            with compat.unseen():
                total = sum(_sum(tensor) for tensor in tensors)
            self._losses.append((time, differentiated, _hash(tensors), total))


def _sum(tensor: torch.Tensor) -> float:
    dense = tensor.detach().cpu()
    return float(dense.abs().sum() if dense.is_complex() else dense.double().sum())


def _tensors(value: object, depth: int = 0) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif depth > 4:
        return
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item, depth + 1)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item, depth + 1)


def _hash(tensors: Iterable[torch.Tensor]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    with compat.unseen():
        for tensor in tensors:
            for part in parts(tensor.detach()):
                dense = part.cpu().contiguous()
                digest.update(f"{dense.dtype}{tuple(dense.shape)}".encode())
                size = dense.numel() * dense.element_size()
                if size:
                    digest.update((ctypes.c_char * size).from_address(dense.data_ptr()))
    return digest.hexdigest()


def _random_state() -> str:
    numpy: Any = sys.modules.get("numpy")
    states = [random.getstate(), numpy.random.get_state() if numpy is not None else None]
    digest = hashlib.blake2b(repr(states).encode(), digest_size=16)
    with compat.unseen():
        cards = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
        digest.update(_hash([torch.get_rng_state(), *cards]).encode())
    return digest.hexdigest()
