"""The table in `benchmarks/measure_patterns.md` is what the benchmark finds: checked on its smaller model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

_BENCHMARK = Path(__file__).parent.parent.parent / "benchmarks" / "measure_patterns.py"


def _written() -> dict[str, int]:
    found = {}
    for line in _BENCHMARK.with_suffix(".md").read_text("utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 6 and cells[1] == "resnet":
            habit = cells[0].replace(" ", "_")
            found[f"{habit}/resnet/bad"], found[f"{habit}/resnet/fixed"] = int(cells[3]), int(cells[5])
    return found


def test_fake_finds_what_is_written() -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    run = subprocess.run(
        [sys.executable, str(_BENCHMARK), "fake", "resnet"],
        stdout=subprocess.PIPE,
        timeout=300,
        check=True,
        env=environment,
    )
    written = _written()
    assert len(written) == 12
    assert json.loads(run.stdout) == written
