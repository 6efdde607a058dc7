"""LSTM, GRU and plain recurrent layers on the CPU as PyTorch's own CUDA cells run them: the gates in one operation.

The loops follow aten/src/ATen/native/RNN.cpp, the cells aten/src/ATen/native/cuda/RNN.cu. Packed sequences go
PyTorch's own way for the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional as F  # noqa: N812 - its usual name

from memlint.measure.worker import compat

aten = torch.ops.aten

Hidden = tuple[torch.Tensor, ...]
Weights = Sequence[torch.Tensor]
Cell = Callable[[torch.Tensor, Hidden, Weights], Hidden]
"""Input, state, and weights and biases -> the new state, whose first tensor is the output."""


def _bias(weights: Weights, index: int) -> torch.Tensor | None:
    return weights[index] if len(weights) > index else None


def _lstm_cell(x: torch.Tensor, hidden: Hidden, weights: Weights) -> Hidden:
    gates, recurrent = x.matmul(weights[0].t()), hidden[0].matmul(weights[1].t())
    hy, cy, _ = aten._thnn_fused_lstm_cell(gates, recurrent, hidden[1], _bias(weights, 2), _bias(weights, 3))
    return hy, cy


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


NAMES = tuple(_CELLS)


def routes(note: Callable[[str], None]) -> dict[str, Callable[..., Any]]:
    """Of each operator, what it comes to on a card. `note` is told which is called."""
    return {f"{name}.input": _layers(name, cell, note) for name, cell in _CELLS.items()}


def _layers(name: str, cell: Cell, note: Callable[[str], None]) -> Callable[..., Any]:
    operator = compat.operator(f"{name}.input")
    is_lstm = name == "lstm"

    def run(
        x: torch.Tensor,
        hx: Any,
        params: Weights,
        has_biases: bool,
        num_layers: int,
        dropout: float,
        train: bool,
        bidirectional: bool,
        batch_first: bool,
    ) -> Any:
        note(name)
        states: list[torch.Tensor] = list(hx) if is_lstm else [hx]
        per_layer = 4 if has_biases else 2
        directions = 2 if bidirectional else 1
        if len(params) != per_layer * num_layers * directions:  # projections
            arguments = (x, hx, params, has_biases, num_layers, dropout, train, bidirectional, batch_first)
            return compat.compose(operator, arguments, {})
        hidden = list(zip(*(state.unbind(0) for state in states), strict=True))
        layer_input = x.transpose(0, 1) if batch_first else x
        finals: list[Hidden] = []
        for layer in range(num_layers):
            outputs = []
            for direction in range(directions):
                index = layer * directions + direction
                weights = params[index * per_layer : (index + 1) * per_layer]
                output, final = _over_time(cell, layer_input, hidden[index], weights, reverse=direction == 1)
                outputs.append(output)
                finals.append(final)
            layer_input = torch.cat(outputs, outputs[0].dim() - 1) if bidirectional else outputs[0]
            if dropout and train and layer < num_layers - 1:
                layer_input = torch.dropout(layer_input, dropout, train=True)
        result = layer_input.transpose_(0, 1) if batch_first else layer_input
        return result, *(torch.stack(state, 0) for state in zip(*finals, strict=True))

    return run


def _over_time(
    cell: Cell, x: torch.Tensor, hidden: Hidden, weights: Weights, reverse: bool
) -> tuple[torch.Tensor, Hidden]:
    outputs = []
    steps = x.unbind(0)
    for step in reversed(steps) if reverse else steps:
        hidden = cell(step, hidden, weights)
        outputs.append(hidden[0])
    return torch.stack(outputs[::-1] if reverse else outputs, 0), hidden


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
