"""What `fake` predicts is what `cpu` measures, program by program: it says that the two agree, not that a GPU does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

_SCRIPT = Path(__file__).with_name("zoo_peaks.py")
_PROGRAMS = (
    "mlp_sgd resnet_momentum convolutions_channels_last unet_adam lstm_adam gru_adam "
    "packed_sequences lstm_with_projections recurrent_cells patches_folded bfloat16_norms gradients_of_each_sample "
    "gpt_plain_attention "
    "gpt_fused_attention vit_adamw embeddings gpt_bfloat16 resnet_float16_scaled gpt_checkpoint "
    "gpt_checkpoint_reentrant gradient_accumulation evaluation evaluation_with_grad evaluation_in_inference_mode"
).split()


_IN_ANOTHER_ORDER = "steps_within_a_step"


@cache
def _measured(backend: str, *names: str) -> dict[str, Any]:
    run = subprocess.run(
        [sys.executable, str(_SCRIPT), backend, *names],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )
    assert run.returncode == 0, run.stderr
    results: dict[str, Any] = json.loads(run.stdout)
    return results


def test_every_program_is_compared() -> None:
    assert sorted(_measured("fake")) == sorted([*_PROGRAMS, _IN_ANOTHER_ORDER])


def test_the_graph_of_a_gradient_runs_in_another_order_on_a_card() -> None:
    """A card's backward pass numbers the nodes that it makes in a thread of its own; the next pass goes by the numbers.

    In such a thread, `cpu` has the peak of `fake` to the byte. Without one it says that it is not exact. Each process
    has run nothing else: the numbers go on.
    """
    backends = ("fake", "cpu", "cpu-as-a-card")
    fake, cpu, as_a_card = (_measured(backend, _IN_ANOTHER_ORDER)[_IN_ANOTHER_ORDER] for backend in backends)
    assert (fake["effects"], cpu["effects"]) == ([], ["inexact"])
    assert fake["peak"] != cpu["peak"]
    assert fake["peak"] == as_a_card["peak"]


@pytest.mark.parametrize("name", _PROGRAMS)
def test_peaks_agree_to_the_byte(name: str) -> None:
    assert _measured("fake")[name]["peak"] == _measured("cpu")[name]["peak"]


_KERNELS_DIFFER = {"embeddings": {"aten::_embedding_bag": -2 * 512}}
"""The CPU's kernel gives two more tensors of a number a bag, which its backward pass reads."""


@pytest.mark.parametrize("name", _PROGRAMS)
def test_what_is_kept_for_backward_agrees_by_operator(name: str) -> None:
    held = dict(_measured("cpu")[name]["held"])
    for operator, difference in _KERNELS_DIFFER.get(name, {}).items():
        held[operator] += difference
    assert _measured("fake")[name]["held"] == held


_STATE = 16 * 128 * 4
"""A hidden state: batch, hidden size, single precision."""
_STEPS = 32


@pytest.mark.parametrize("backend", ["fake", "cpu"])
def test_recurrent_layers_keep_what_cells_of_a_card_keep(backend: str) -> None:
    """An LSTM: each step's gates from input and state, what the cell kept of them, and the two states. A GRU: a
    workspace of five states in place of the gates, and one state."""
    lstm, gru = (_measured(backend)[name]["held"] for name in ("lstm_adam", "gru_adam"))

    assert lstm["aten::mm"] == 2 * _STEPS * 4 * _STATE
    assert lstm["aten::_thnn_fused_lstm_cell"] == _STEPS * 4 * _STATE + (2 * _STEPS - 1) * _STATE
    assert gru["aten::mm"] == 2 * _STEPS * 3 * _STATE
    assert gru["aten::_thnn_fused_gru_cell"] == _STEPS * 5 * _STATE + (_STEPS - 1) * _STATE
