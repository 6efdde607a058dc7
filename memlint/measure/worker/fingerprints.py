"""What a run computes, hashed bit by bit: losses, first gradients, parameters, buffers, random state."""

from __future__ import annotations

import ctypes
import hashlib
import random
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Any

import torch

from memlint.measure.recording import Digest, Fingerprints
from memlint.measure.worker import compat
from memlint.measure.worker.categories import Categories
from memlint.measure.worker.steps import Span
from memlint.measure.worker.tracker import parts

_NOTHING = Digest("", 0.0, 0.0)


class Fingerprinter:
    """Told what the program does. Reads values only: no random number is drawn, no device memory allocated."""

    def __init__(self, categories: Categories) -> None:
        self._categories = categories
        self._losses: list[tuple[int, bool, Digest]] = []
        """Time, whether it was differentiated, and what."""
        self._first_gradients: dict[int, Digest] = {}
        """Of each optimizer, before its first step."""
        self._of_first_backward = _NOTHING
        self._parameters = self._buffers = _NOTHING
        self._random_state = ""

    def differentiated(self, roots: object, time: int) -> None:
        self._note(roots, time, differentiated=True)

    def given(self, result: object, time: int) -> None:
        """The model, or the function that is measured, has returned this."""
        self._note(result, time, differentiated=False)

    def backward_ended(self) -> None:
        if self._of_first_backward is _NOTHING:
            gradients = (parameter.grad for parameter in self._categories.parameters())
            self._of_first_backward = _digest(gradient for gradient in gradients if gradient is not None)

    def before_optimizer(self, optimizer: torch.optim.Optimizer, key: int) -> None:
        if key not in self._first_gradients:
            leaves = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            self._first_gradients[key] = _digest(leaf.grad for leaf in leaves if leaf.grad is not None)

    def step_ended(self) -> None:
        """The program may end, and its model with it, before the steps are complete."""
        self._parameters = _digest(self._categories.parameters())
        self._buffers = _digest(self._categories.buffers())
        self._random_state = _random_state()

    def result(self, spans: Sequence[Span]) -> Fingerprints:
        return Fingerprints(
            losses=tuple(self._loss(span) for span in spans),
            parameters=self._parameters,
            buffers=self._buffers,
            first_gradients=_joined(list(self._first_gradients.values()) or [self._of_first_backward]),
            random_state=self._random_state,
        )

    def _loss(self, span: Span) -> Digest:
        """What was differentiated in a step; where nothing was, what the model gave."""
        within = [loss for loss in self._losses if span.start.time < loss[0] <= span.end.time]
        chosen = [loss for loss in within if loss[1]] or within
        return _joined([digest for _, _, digest in chosen])

    def _note(self, value: object, time: int, differentiated: bool) -> None:
        tensors = list(_tensors(value))
        if tensors:
            self._losses.append((time, differentiated, _digest(tensors)))


def _joined(digests: Sequence[Digest]) -> Digest:
    bits = hashlib.blake2b("".join(digest.bits for digest in digests).encode(), digest_size=16).hexdigest()
    # Weighted by their order, as elements are by their place.
    projection = sum(digest.projection * number for number, digest in enumerate(digests, start=1))
    magnitude = sum(digest.magnitude * number for number, digest in enumerate(digests, start=1))
    return Digest(bits, projection, magnitude)


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


def _digest(tensors: Iterable[torch.Tensor]) -> Digest:
    bits = hashlib.blake2b(digest_size=16)
    projection = magnitude = 0.0
    with compat.unseen():
        for tensor in tensors:
            for part in parts(tensor.detach()):
                dense = part.cpu().contiguous()
                bits.update(f"{dense.dtype}{tuple(dense.shape)}".encode())
                size = dense.numel() * dense.element_size()
                if size:
                    bits.update((ctypes.c_char * size).from_address(dense.data_ptr()))
                for piece in _numbers(dense).split(_PIECE):
                    exact = piece.double()
                    projection += float(exact @ _weights()[: len(exact)])
                    magnitude += float(exact.abs().sum())
    return Digest(bits.hexdigest(), projection, magnitude)


_PIECE = 2**16


@cache
def _weights() -> torch.Tensor:
    """For the elements of a piece: as many values between 1 and 2, in no order."""
    return 1.5 + 0.5 * torch.arange(_PIECE, dtype=torch.float64).cos()


def _numbers(dense: torch.Tensor) -> torch.Tensor:
    return torch.view_as_real(dense).flatten() if dense.is_complex() else dense.flatten()


def _random_state() -> str:
    numpy: Any = sys.modules.get("numpy")
    states = [random.getstate(), numpy.random.get_state() if numpy is not None else None]
    digest = hashlib.blake2b(repr(states).encode(), digest_size=16)
    with compat.unseen():
        cards = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
        digest.update(_digest([torch.get_rng_state(), *cards]).bits.encode())
    return digest.hexdigest()
