"""LSTM, GRU and plain recurrent layers on the CPU as PyTorch's own CUDA cells run them: the gates in one operation.

The loops follow aten/src/ATen/native/RNN.cpp, the cells aten/src/ATen/native/cuda/RNN.cu.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.nn import functional as F  # noqa: N812 - its usual name

aten = torch.ops.aten

Hidden = tuple[torch.Tensor, ...]
Weights = Sequence[torch.Tensor]
Cell = Callable[[torch.Tensor, Hidden, Weights], Hidden]
"""Input, state, and weights and biases -> the new state, whose first tensor is the output."""


def _bias(weights: Weights, index: int) -> torch.Tensor | None:
    return weights[index] if len(weights) > 3 else None  # two, or three with a projection, have none


def _lstm_cell(x: torch.Tensor, hidden: Hidden, weights: Weights) -> Hidden:
    gates, recurrent = x.matmul(weights[0].t()), hidden[0].matmul(weights[1].t())
    hy, cy, _ = aten._thnn_fused_lstm_cell(gates, recurrent, hidden[1], _bias(weights, 2), _bias(weights, 3))
    projects = len(weights) % 2 == 1
    return hy.matmul(weights[-1].t()) if projects else hy, cy


def _gru_cell(x: torch.Tensor, hidden: Hidden, weights: Weights) -> Hidden:
    gates, recurrent = x.matmul(weights[0].t()), hidden[0].matmul(weights[1].t())
    return (aten._thnn_fused_gru_cell(gates, recurrent, hidden[0], _bias(weights, 2), _bias(weights, 3))[0],)


def _simple_cell(activation: Callable[[torch.Tensor], torch.Tensor]) -> Cell:
    def cell(x: torch.Tensor, hidden: Hidden, weights: Weights) -> Hidden:
        recurrent = F.linear(hidden[0], weights[1], _bias(weights, 3))
        return (activation(recurrent.add_(F.linear(x, weights[0], _bias(weights, 2)))),)

    return cell


_CELLS: dict[str, Cell] = {
    "lstm": _lstm_cell,
    "gru": _gru_cell,
    "rnn_tanh": _simple_cell(torch.tanh),
    "rnn_relu": _simple_cell(torch.relu),
}


OverTime = Callable[[Cell, torch.Tensor, Hidden, Weights, bool], tuple[torch.Tensor, Hidden]]
"""Cell, input, state, weights, whether backwards -> the outputs of all steps, and the last state."""


@dataclass(frozen=True)
class _Stack:
    """What both forms of a recurrent layer are given besides their input, as PyTorch orders it."""

    params: Weights
    has_biases: bool
    num_layers: int
    dropout: float
    train: bool
    bidirectional: bool

    def run(self, cell: Cell, over_time: OverTime, x: torch.Tensor, states: Sequence[torch.Tensor]) -> Any:
        """The output, and each last state of all layers."""
        directions = 2 if self.bidirectional else 1
        per_layer = len(self.params) // (self.num_layers * directions)
        hidden = list(zip(*(state.unbind(0) for state in states), strict=True))
        finals: list[Hidden] = []
        for layer in range(self.num_layers):
            outputs = []
            for direction in range(directions):
                index = layer * directions + direction
                weights = self.params[index * per_layer : (index + 1) * per_layer]
                output, final = over_time(cell, x, hidden[index], weights, direction == 1)
                outputs.append(output)
                finals.append(final)
            x = torch.cat(outputs, outputs[0].dim() - 1) if self.bidirectional else outputs[0]
            if self.dropout and self.train and layer < self.num_layers - 1:
                x = torch.dropout(x, self.dropout, train=True)
        return x, *(torch.stack(state, 0) for state in zip(*finals, strict=True))


def routes(note: Callable[[str], None]) -> dict[str, Callable[..., Any]]:
    """Of each operator, what it comes to on a card. `note` is told which layer is called."""
    padded = {f"{name}.input": _padded(name, cell, note) for name, cell in _CELLS.items()}
    packed = {f"{name}.data": _packed(name, cell, note) for name, cell in _CELLS.items()}
    return padded | packed | {"lstm_cell": _one_lstm_cell, "gru_cell": _one_gru_cell}


def _padded(name: str, cell: Cell, note: Callable[[str], None]) -> Callable[..., Any]:
    def run(x: torch.Tensor, hx: Any, *options: Any) -> Any:
        note(name)
        *stack, batch_first = options
        output, *finals = _Stack(*stack).run(cell, _over_time, x.transpose(0, 1) if batch_first else x, _states(hx))
        return output.transpose_(0, 1) if batch_first else output, *finals

    return run


def _packed(name: str, cell: Cell, note: Callable[[str], None]) -> Callable[..., Any]:
    def run(data: torch.Tensor, batch_sizes: torch.Tensor, hx: Any, *options: Any) -> Any:
        note(name)
        return _Stack(*options).run(cell, partial(_over_packed, batch_sizes.tolist()), data, _states(hx))

    return run


def _one_lstm_cell(x: torch.Tensor, hx: Sequence[torch.Tensor], *weights: torch.Tensor | None) -> Any:
    return _lstm_cell(x, tuple(hx), [weight for weight in weights if weight is not None])


def _one_gru_cell(x: torch.Tensor, hx: torch.Tensor, *weights: torch.Tensor | None) -> Any:
    return _gru_cell(x, (hx,), [weight for weight in weights if weight is not None])[0]


def _states(hx: Any) -> Sequence[torch.Tensor]:
    return [hx] if isinstance(hx, torch.Tensor) else hx


def _over_time(
    cell: Cell, x: torch.Tensor, hidden: Hidden, weights: Weights, backwards: bool
) -> tuple[torch.Tensor, Hidden]:
    outputs = []
    steps = x.unbind(0)
    for step in reversed(steps) if backwards else steps:
        hidden = cell(step, hidden, weights)
        outputs.append(hidden[0])
    return torch.stack(outputs[::-1] if backwards else outputs, 0), hidden


def _over_packed(
    sizes: Sequence[int], cell: Cell, data: torch.Tensor, hidden: Hidden, weights: Weights, backwards: bool
) -> tuple[torch.Tensor, Hidden]:
    """`PackedLayer` and `ReversedPackedLayer`: each step has as many rows as sequences that are that long.

    Forwards, the state of a sequence that ends is put aside; backwards, a sequence joins with its first state.
    """
    first, outputs, ended = hidden, [], []
    steps = list(zip(sizes, data.split(list(sizes)), strict=True))
    rows = sizes[-1 if backwards else 0]
    hidden = _rows(first, 0, rows) if backwards else first
    for size, step in reversed(steps) if backwards else steps:
        if size < rows:
            ended.append(_rows(hidden, size, rows))
            hidden = _rows(hidden, 0, size)
        elif size > rows:
            hidden = _joined([hidden, _rows(first, rows, size)])
        rows = size
        hidden = cell(step, hidden, weights)
        outputs.append(hidden[0])
    output = torch.cat(outputs[::-1] if backwards else outputs)
    return output, hidden if backwards else _joined([hidden, *reversed(ended)])


def _rows(hidden: Hidden, start: int, end: int) -> Hidden:
    return tuple(state[start:end] for state in hidden)


def _joined(hiddens: Sequence[Hidden]) -> Hidden:
    return tuple(torch.cat(states) for states in zip(*hiddens, strict=True))


# ---- what the fused cells compute


def lstm_cell(
    gates: torch.Tensor, recurrent: torch.Tensor, cx: torch.Tensor, bias: Any = None, recurrent_bias: Any = None
) -> Any:
    total = gates + recurrent
    if bias is not None:
        total = total + bias + recurrent_bias
    i, f, g, o = total.chunk(4, 1)
    i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
    cy = f * cx + i * g
    return o * cy.tanh(), cy, torch.cat([i, f, g, o], 1)


def lstm_cell_backward(
    grad_hy: Any, grad_cy: Any, cx: torch.Tensor, cy: torch.Tensor, workspace: torch.Tensor, has_bias: bool
) -> Any:
    i, f, g, o = workspace.chunk(4, 1)
    squashed = cy.tanh()
    of_cell = torch.zeros_like(cy) if grad_cy is None else grad_cy
    of_output = torch.zeros_like(cy)
    if grad_hy is not None:
        of_cell = of_cell + grad_hy * o * (1 - squashed.square())
        of_output = grad_hy * squashed * o * (1 - o)
    grad_gates = torch.cat(
        [of_cell * g * i * (1 - i), of_cell * cx * f * (1 - f), of_cell * i * (1 - g.square()), of_output], 1
    )
    return grad_gates, of_cell * f, grad_gates.sum(0) if has_bias else None


def gru_cell(
    gates: torch.Tensor, recurrent: torch.Tensor, hx: torch.Tensor, bias: Any = None, recurrent_bias: Any = None
) -> Any:
    if bias is not None:
        gates, recurrent = gates + bias, recurrent + recurrent_bias
    ir, iz, new = gates.chunk(3, 1)
    hr, hz, hn = recurrent.chunk(3, 1)
    r, z = (ir + hr).sigmoid(), (iz + hz).sigmoid()
    n = (new + r * hn).tanh()
    return n + z * (hx - n), torch.cat([r, z, n, hx, hn], 1)


def gru_cell_backward(grad: torch.Tensor, workspace: torch.Tensor, has_bias: bool) -> Any:
    r, z, n, hx, hn = workspace.chunk(5, 1)
    of_new = grad * (1 - z) * (1 - n.square())
    of_reset = of_new * hn * r * (1 - r)
    of_update = grad * (hx - n) * z * (1 - z)
    grad_gates = torch.cat([of_reset, of_update, of_new], 1)
    grad_recurrent = torch.cat([of_reset, of_update, of_new * r], 1)
    biases = (grad_gates.sum(0), grad_recurrent.sum(0)) if has_bias else (None, None)
    return grad_gates, grad_recurrent, grad * z, *biases
