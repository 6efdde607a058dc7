"""Checks that need a process of their own, as those that pretend a card do: a script of them, run once for all.

`check` marks a function of the script, `run_checks` runs them and prints what became of each; `outcomes` runs such a
script from a test.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_checks: dict[str, Callable[[], None]] = {}


def check(function: Callable[[], None]) -> Callable[[], None]:
    _checks[function.__name__] = function
    return function


def run_checks() -> None:
    """All of them, or those named on the command line."""
    results = {}
    warnings.simplefilter("ignore")
    for name in sys.argv[1:] or _checks:
        try:
            _checks[name]()
        except Exception as error:  # noqa: BLE001 - the others must run
            results[name] = f"{type(error).__name__}: {error}"
        else:
            results[name] = "ok"
    sys.stdout.write(json.dumps(results))
    sys.stdout.flush()


def checks_of(script: Path) -> dict[str, Callable[[], None]]:
    """The checks themselves, of a script that can be imported."""
    importlib.import_module(script.stem)
    return {name: _checks[name] for name in names(script)}


def names(script: Path) -> list[str]:
    return re.findall(r"^@check\ndef (\w+)", script.read_text(), re.MULTILINE)


def outcomes(script: Path) -> dict[str, str]:
    """What became of each check of the script. One that ends the process has no outcome, nor have those after it."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    run = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=300, check=False, env=environment
    )
    assert run.returncode == 0, run.stderr
    results: dict[str, str] = json.loads(run.stdout)
    return results


@dataclass
class NoMeter:
    """A meter for checks of other things than memory."""

    allocated: int = 0
    peak: int = 0

    def reset_peak(self) -> None:
        self.peak = self.allocated

    def forget(self) -> None: ...
