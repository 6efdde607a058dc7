"""The GPU suite: skipped, and says so, where torch has no GPU. `make test-gpu` runs it; docs/measure-gpu.md says how.

What it finds goes to benchmarks/gpu/, as JSON and as Markdown, a file a card and version of torch, failures included.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# From a clone the suite runs without memlint being installed.
sys.path.insert(0, str(ROOT))

from gpu_findings import Findings  # noqa: E402
from gpu_runs import Runs  # noqa: E402

NO_GPU = "torch finds no GPU that it can use: nothing of the GPU suite has run"


def _has_gpu() -> bool:
    try:
        import torch
    except ImportError:
        return False
    return bool(torch.cuda.is_available())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not _has_gpu():
        for item in items:
            item.add_marker(pytest.mark.skip(reason=NO_GPU))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not _has_gpu():
        terminalreporter.write_sep("!", NO_GPU, red=True, bold=True)


@pytest.fixture(scope="session")
def runs() -> Runs:
    return Runs()


@pytest.fixture(scope="session")
def findings() -> Iterator[Findings]:
    found = Findings(ROOT / "benchmarks" / "gpu")
    yield found
    for path in found.written:
        sys.stderr.write(f"\nwrote {path.relative_to(ROOT)}\n")
