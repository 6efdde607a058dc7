"""The fake backend, in a process of its own: user code that says `cuda`, weights on the host, attention's kernels."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
from checks import names, outcomes

_SCRIPTS = sorted(Path(__file__).parent.glob("fake_*.py"))


@cache
def _outcomes(script: Path) -> dict[str, str]:
    return outcomes(script)


@pytest.mark.parametrize(
    ("script", "name"),
    [pytest.param(path, name, id=f"{path.stem}:{name}") for path in _SCRIPTS for name in names(path)],
)
def test_check(script: Path, name: str) -> None:
    assert _outcomes(script).get(name) == "ok"
