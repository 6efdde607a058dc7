"""What user code does with `cuda` runs on a machine without a card: `fake_idioms.py`, in a process of its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

_SCRIPT = Path(__file__).with_name("fake_idioms.py")
_IDIOMS = re.findall(r"^@idiom\ndef (\w+)", _SCRIPT.read_text(), re.MULTILINE)


@pytest.fixture(scope="module")
def results() -> dict[str, str]:
    run = subprocess.run(
        [sys.executable, str(_SCRIPT)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )
    assert run.returncode == 0, run.stderr
    outcome: dict[str, str] = json.loads(run.stdout)
    return outcome


@pytest.mark.parametrize("name", _IDIOMS)
def test_idiom_runs(results: dict[str, str], name: str) -> None:
    assert results.get(name) == "ok"
