"""The cache among processes: killed while they write, several at once, and one that may not write."""

from __future__ import annotations

import ctypes
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals and modes")

HELPER = """
import torch.nn.functional as F

def loss_of(model, x, y):
    return F.cross_entropy(model(x), y)
"""
TRAIN = """
import torch
from helper import loss_of

def run(model, loader, optimizer):
    total = 0
    for x, y in loader:
        loss = loss_of(model, x, y)
        loss.backward()
        optimizer.step()
        total += loss
    return total
"""
FILES = 12
# Ends itself, as `kill -9` would, once it has put so many results into the transaction that saves them.
KILLED = """
import os, signal, sys
from memlint.cache.store import Store
from memlint.cli.main import main

left, put_result = int(sys.argv.pop(1)), Store.put_result

def put_or_die(*given):
    global left
    put_result(*given)
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)

Store.put_result = put_or_die
main()
"""
CHECK = [sys.executable, "-m", "memlint", "check", "--jobs=2"]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "pyproject.toml").write_text("")
    (tmp_path / "helper.py").write_text(HELPER)
    for number in range(FILES):
        (tmp_path / f"train_{number}.py").write_text(TRAIN)
    return tmp_path


def checked(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*CHECK, *options], cwd=folder, capture_output=True, text=True, check=False)


def started(command: list[str], folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def stored(folder: Path) -> int:
    """How many results the store holds."""
    connection = sqlite3.connect(folder / ".memlint_cache" / "results.sqlite")
    (count,) = connection.execute("SELECT count(*) FROM results").fetchone()
    connection.close()
    return int(count)


@pytest.fixture
def agrees(project: Path) -> Callable[[], None]:
    def check_both() -> None:
        """Whatever has happened to the store: the findings are those of a run without, and nothing is said of it."""
        fresh, cached, again = checked(project, "--no-cache"), checked(project), checked(project)
        assert fresh.returncode == 1
        for run in (cached, again):
            assert (run.returncode, run.stdout, run.stderr) == (fresh.returncode, fresh.stdout, fresh.stderr)
        assert stored(project) == FILES + 1

    return check_both


@pytest.mark.parametrize("results", [1, FILES])
def test_a_run_that_is_killed_while_it_writes_leaves_the_store_as_it_was(
    project: Path, agrees: Callable[[], None], results: int
) -> None:
    killed = [sys.executable, "-c", KILLED, str(results), "check"]
    assert subprocess.run(killed, cwd=project, check=False, capture_output=True).returncode == -signal.SIGKILL
    assert stored(project) == 0
    agrees()
    (project / "helper.py").write_text(HELPER.replace("y)\n", "y).item()\n"))
    for number in range(FILES):
        (project / f"train_{number}.py").write_text(TRAIN + "\n\nx = 1\n")
    assert subprocess.run(killed, cwd=project, check=False, capture_output=True).returncode == -signal.SIGKILL
    (project / "helper.py").write_text(HELPER)
    agrees()


def test_a_run_that_is_killed_at_any_time(project: Path, agrees: Callable[[], None]) -> None:
    for tenths in range(1, 8):
        process = started(CHECK, project)
        time.sleep(tenths / 10)
        process.kill()
        process.communicate()
    agrees()


def test_several_runs_at_once(project: Path, agrees: Callable[[], None]) -> None:
    for change in ("", "\n\nx = 1\n"):
        (project / "train_0.py").write_text(TRAIN + change)
        fresh = checked(project, "--no-cache")
        for process in [started(CHECK, project) for _ in range(4)]:
            output = process.communicate()
            assert (process.returncode, *output) == (fresh.returncode, fresh.stdout, fresh.stderr)
    agrees()


# --- a store that may not be written ---

_PR_CAPBSET_DROP, _CAP_DAC_OVERRIDE = 24, 1


def _give_up_rights() -> None:
    """Root writes where no mode lets it: a process that is begun without this right does not."""
    if os.getuid() == 0 and ctypes.CDLL(None).prctl(_PR_CAPBSET_DROP, _CAP_DAC_OVERRIDE) != 0:
        os._exit(77)


def checked_without_rights(folder: Path) -> subprocess.CompletedProcess[str]:
    run = subprocess.run(CHECK, cwd=folder, capture_output=True, text=True, check=False, preexec_fn=_give_up_rights)
    if run.returncode == 77:
        pytest.skip("root that cannot give up its rights")
    return run


@pytest.fixture
def locked(project: Path) -> Iterator[Callable[[], None]]:
    folder = project / ".memlint_cache"

    def lock() -> None:
        for path in folder.iterdir():
            path.chmod(0o400)
        folder.chmod(0o500)

    yield lock
    folder.chmod(0o700)


def test_a_store_that_may_be_read_alone_is_read_and_says_once_that_it_keeps_nothing(
    project: Path, locked: Callable[[], None]
) -> None:
    checked(project)
    locked()
    (project / "helper.py").write_text(HELPER.replace("y)\n", "y).item()\n"))
    fresh, run = checked(project, "--no-cache"), checked_without_rights(project)
    assert (run.returncode, run.stdout) == (fresh.returncode, fresh.stdout)
    assert "train_0.py" not in run.stdout
    assert run.stderr.count("cannot be used") == 1
    assert run.stderr.count("\n") == 1
