"""Which card `fake` pretends where none is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from memlint.measure.devices import in_this_machine

INFORMATION = "Model: \t\t {model}\nIRQ:   \t\t 30\nGPU UUID: \t GPU-00000000-0000-0000-0000-000000000000\n"


@pytest.mark.parametrize(
    ("models", "expected"),
    [
        ([], None),
        (["NVIDIA H200"], "h200-141gb"),
        (["NVIDIA H200", "NVIDIA H200"], "h200-141gb"),
        (["NVIDIA H200", "Tesla T4"], None),
        (["NVIDIA NewCard"], None),
    ],
)
def test_the_driver_says_which_card_is_here(models: list[str], expected: str | None, tmp_path: Path) -> None:
    for number, model in enumerate(models):
        folder = tmp_path / f"0000:0{number}:00.0"
        folder.mkdir()
        (folder / "information").write_text(INFORMATION.format(model=model))
    assert in_this_machine(tmp_path) == expected
