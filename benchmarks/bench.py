"""Measures memlint's speed beside that of its peers, and writes benchmarks/speed.md.

    python benchmarks/bench.py CORPUS [--peers BIN] [--rounds N]

CORPUS is the folder of `benchmarks/corpus.py download`. BIN is the `bin` folder of an environment in which the peers
are installed (`make bench` makes one); without it they are left out. CPU seconds, user and system, unless a row says
otherwise. What is compared takes turns, so that a slower moment of the machine meets all; ratios are what to read.
"""

from __future__ import annotations

import argparse
import ast
import gc
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path

import growth
import libcst
from skipping import without_skipping
from speed import every_rule

from memlint.linting.lint import forget_projects, lint

TORCH_HEAVY = ("timm", "ultralytics", "accelerate", "trl", "pytorch-lightning", "torch-geometric", "pythae")
SPEED = Path(__file__).parent / "speed.md"
MEMLINT = (sys.executable, "-m", "memlint")
PEER_PACKAGE = "pythae"


@dataclass(frozen=True)
class Used:
    """What a process used: CPU and wall seconds, the peak of its memory in bytes."""

    cpu: float
    wall: float
    peak: int


def run(command: Sequence[str], folder: Path) -> Used:
    """Run to the end; what it prints and its exit status are nobody's business here."""
    start = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=_environment()
    )
    _, _, usage = os.wait4(process.pid, 0)
    process.returncode = 0
    return Used(usage.ru_utime + usage.ru_stime, time.perf_counter() - start, usage.ru_maxrss * 1024)


def _environment() -> dict[str, str]:
    """An installed memlint has its byte code, as LibCST has: pip writes it."""
    return {**{name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}, "CI": "1"}


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


# --- cold, in one process ---


def cold(corpus: Path, rounds: int) -> Iterator[str]:
    yield "## Cold: one process, all rules, project-wide facts"
    yield ""
    yield "Lines per CPU-second, and memlint's time as a multiple of `libcst.parse_module` over the same files."
    yield "Imports and reading the file are off the clock, reading the rest of the project is on it. *unskipped*:"
    yield "every rule runs on every file that mentions torch. As in memlint's worker, no garbage is collected"
    yield "while it lints."
    yield ""
    yield "| package | files | lines | memlint | LibCST's parse | `ast.parse` | memlint / parse | unskipped / parse |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    totals = [0.0, 0.0]
    for name in TORCH_HEAVY:
        folder = next(iter(corpus.glob(f"{name}-[0-9]*")), None)
        if folder is None:
            continue
        files = _parsable(folder)
        lines = sum(raw.count(b"\n") for _, raw in files)
        taken = [_one_round(files) for _ in range(rounds)]
        ours, theirs, python, unskipped = (median([one[index] for one in taken]) for index in range(4))
        totals[0] += ours
        totals[1] += theirs
        yield (
            f"| {folder.name} | {len(files):,} | {lines:,} | {lines / ours:,.0f} | {lines / theirs:,.0f} "
            f"| {lines / python:,.0f} | {ours / theirs:.2f} | {unskipped / theirs:.2f} |"
        )
    yield ""
    yield f"Over all: {totals[0] / totals[1]:.2f} times the parse, {100 * totals[1] / totals[0]:.0f} % of its speed."


def _parsable(folder: Path) -> list[tuple[Path, bytes]]:
    found = []
    for path in sorted(folder.resolve().rglob("*.py")):
        raw = path.read_bytes()
        try:
            libcst.parse_module(raw)
            _ast(raw)
        except Exception:  # noqa: BLE001 - would be compared with nothing
            continue
        found.append((path, raw))
    return found


def _ast(raw: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ast.parse(raw)


def _one_round(files: Sequence[tuple[Path, bytes]]) -> tuple[float, float, float, float]:
    """CPU seconds of all lints, of LibCST's and of Python's own parses, and of all lints that skip nothing."""
    forget_projects()
    taken = [0.0, 0.0, 0.0]
    for path, raw in files:
        policy = every_rule(path)
        taken[0] += _without_collecting(lambda raw=raw, path=path, policy=policy: lint(str(path), raw, policy))  # type: ignore[misc]
        taken[1] += _timed(lambda raw=raw: libcst.parse_module(raw))  # type: ignore[misc]
        taken[2] += _timed(lambda raw=raw: _ast(raw))  # type: ignore[misc]
    forget_projects()
    unskipped = 0.0
    with without_skipping():
        for path, raw in files:
            policy = every_rule(path)
            unskipped += _without_collecting(lambda raw=raw, path=path, policy=policy: lint(str(path), raw, policy))  # type: ignore[misc]
    return taken[0], taken[1], taken[2], unskipped


def _timed(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def _without_collecting(work: Callable[[], object]) -> float:
    gc.disable()
    try:
        return _timed(work)
    finally:
        gc.enable()


# --- whole runs ---


def runs(corpus: Path, rounds: int) -> Iterator[str]:
    yield "## Whole runs of the command"
    yield ""
    yield "| what | CPU s | wall s | peak of a process, MiB | beside |"
    yield "| --- | ---: | ---: | ---: | --- |"
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        yield from _start_up(folder, rounds)
        yield from _warm(folder, 1_000, rounds)
        yield from _warm(folder, 20_000, rounds)
        yield from _side_by_side(corpus, rounds)
        yield from _one_changed_file(corpus, folder, rounds)


def _row(what: str, used: Sequence[Used], beside: str = "") -> str:
    cpu, wall = median([one.cpu for one in used]), median([one.wall for one in used])
    return f"| {what} | {cpu:.2f} | {wall:.2f} | {max(one.peak for one in used) / 2**20:.0f} | {beside} |"


def _in_turn(commands: Sequence[Sequence[str]], folder: Path, rounds: int) -> list[list[Used]]:
    """What each used, in each round."""
    for command in commands:
        run(command, folder)  # warms the file system, and writes byte code
    taken = [[run(command, folder) for command in commands] for _ in range(rounds)]
    return [list(column) for column in zip(*taken, strict=True)]


def _ratio(ours: Sequence[Used], theirs: Sequence[Used]) -> float:
    return median([one.cpu / other.cpu for one, other in zip(ours, theirs, strict=True)])


def _start_up(folder: Path, rounds: int) -> Iterator[str]:
    ours, click, python = _in_turn(
        [(*MEMLINT, "--version"), (sys.executable, "-c", "import click"), (sys.executable, "-c", "pass")],
        folder,
        4 * rounds,
    )
    yield _row("`memlint --version`", ours, f"{_ratio(ours, click):.2f} times `python -c 'import click'`")
    yield _row("`python -c 'import click'`", click)
    yield _row("`python -c pass`", python)


_CLEAN = """import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.layer = nn.Linear(width, width)

    def forward(self, x):
        return self.layer(x).relu()


def train(net, loader, optimizer):
    for x, y in loader:
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(net(x), y)
        loss.backward()
        optimizer.step()
"""


def _warm(scratch: Path, count: int, rounds: int) -> Iterator[str]:
    """A project of that many small files: cold, and when nothing has changed."""
    folder = scratch / f"project_{count}"
    for number in range(count):
        package = folder / "package" / f"part_{number // 50}"
        package.mkdir(parents=True, exist_ok=True)
        # One in fifty has findings, which take their time to be shown.
        text = growth.functions(24) if number % 50 == 0 else _CLEAN
        (package / f"file_{number}.py").write_text(text.replace("train", f"train_{number}"))
    (folder / "pyproject.toml").write_text("")
    time.sleep(3)  # a file that was written just now is read again
    yield _row(f"{count:,} small files, cold", [run((*MEMLINT, "check"), folder)])
    ours, start = _in_turn([(*MEMLINT, "check"), (*MEMLINT, "--version")], folder, rounds)
    yield _row(f"{count:,} files, unchanged", ours, f"{_ratio(ours, start):.2f} times `memlint --version`")


def _side_by_side(corpus: Path, rounds: int) -> Iterator[str]:
    for name in ("ultralytics", "timm"):
        folder = next(iter(corpus.glob(f"{name}-[0-9]*")), None)
        if folder is None:
            continue
        check = (*MEMLINT, "check", "--no-cache")
        one, two = _in_turn([(*check, "--jobs=1"), (*check, "--jobs=2")], folder, rounds)
        faster = median([a.wall / b.wall for a, b in zip(one, two, strict=True)])
        more = median([b.cpu / a.cpu for a, b in zip(one, two, strict=True)])
        yield _row(f"{folder.name}, cold, one process", one)
        balance = f"{faster:.2f} times as fast; {more:.2f} times the CPU, so {2 / more:.2f} on two idle cores"
        yield _row(f"{folder.name}, cold, two processes", two, balance)


def _one_changed_file(corpus: Path, scratch: Path, rounds: int) -> Iterator[str]:
    """The file of training code that changed since the last run, in a project of which all else is known."""
    origin = next(iter(corpus.glob("ultralytics-[0-9]*")), None)
    if origin is None:
        return
    folder = scratch / "changed"
    shutil.copytree(origin, folder)
    run((*MEMLINT, "check"), folder)
    file = next(folder.glob("**/engine/trainer.py"))
    text = file.read_text()
    parse = f"import sys, libcst; libcst.parse_module(open({str(file)!r}).read())"
    ours, theirs = [], []
    for number in range(rounds):
        file.write_text(f"{text}\n# {number}\n")
        ours.append(run((*MEMLINT, "check", str(file)), folder))
        theirs.append(run((sys.executable, "-c", parse), folder))
    lines = text.count("\n")
    yield _row(
        f"one changed file of {lines:,} lines",
        ours,
        f"{_ratio(ours, theirs):.2f} times importing LibCST and parsing it",
    )


# --- growth ---


def growing() -> Iterator[str]:
    yield "## Growth"
    yield ""
    yield "Microseconds of memlint's own time (LibCST's parse taken off) per unit of size: the lines of a file,"
    yield "or the depth or width of what the name says (`benchmarks/growth.py`). Level is linear."
    yield ""
    yield "| shape | |"
    yield "| --- | --- |"
    for name, measured in growth.rows():
        yield f"| {name.replace('_', ' ')} | {', '.join(f'{size:,}: {taken:,.0f}' for size, taken in measured)} |"


# --- peers ---


def peers(corpus: Path, tools: Path, rounds: int) -> Iterator[str]:
    folder = next(iter(corpus.glob(f"{PEER_PACKAGE}-[0-9]*")))
    lines = sum(path.read_bytes().count(b"\n") for path in folder.rglob("*.py"))
    checks = "W8101,W8102,W8201,W8202,W8203,W8204,W8205,W8301,W8401,W8402,W8403"
    pylint = ("--load-plugins=perflint", "--disable=all", f"--enable={checks}", "--recursive=y", "--jobs=1")
    commands = {
        "memlint, all rules": [*MEMLINT, "check", "--no-cache", "--jobs=1", "--select=ALL"],
        "TorchFix": [str(tools / "torchfix"), "--select", "ALL", "."],
        "Fixit": [str(tools / "fixit"), "lint", "."],
        "pylint with perflint": [str(tools / "pylint"), *pylint, "."],
        "ruff, all rules": [str(tools / "ruff"), "check", "--no-cache", "--select=ALL", "--quiet", "."],
    }
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(shutil.copytree(folder, Path(scratch) / "package"))
        taken = _in_turn(list(commands.values()), copy, rounds)
    yield "## Peers"
    yield ""
    yield f"Whole processes over {folder.name} ({lines:,} lines), one process where a tool can be told so."
    yield ""
    yield "| tool | CPU s | lines per CPU-second | times memlint's CPU | peak MiB |"
    yield "| --- | ---: | ---: | ---: | ---: |"
    for name, used in zip(commands, taken, strict=True):
        cpu = median([one.cpu for one in used])
        peak = max(one.peak for one in used) / 2**20
        yield f"| {name} | {cpu:.2f} | {lines / cpu:,.0f} | {_ratio(used, taken[0]):.2f} | {peak:.0f} |"
    yield ""
    yield f"Versions: {_versions(tools)}."


def _versions(tools: Path) -> str:
    names = ("torchfix", "fixit", "pylint", "perflint", "ruff")
    program = f"from importlib.metadata import version; print(', '.join(f'{{n}} {{version(n)}}' for n in {names}))"
    return subprocess.run([tools / "python", "-c", program], check=True, capture_output=True, text=True).stdout.strip()


# --- the report ---


def report(corpus: Path, tools: Path | None, rounds: int) -> Iterator[str]:
    yield "# Speed"
    yield ""
    yield "Written by `make bench`: what is compared was measured side by side in one run. The ratios are what to read."
    yield ""
    versions = f"Python {platform.python_version()}, LibCST {version('libcst')}, memlint {version('memlint-torch')}"
    machine = f"{os.cpu_count()} cores ({platform.machine()}, {platform.system()})"
    yield f"{date.today():%Y-%m-%d}, {versions}, {machine}, load {os.getloadavg()[0]:.1f} at the start."
    yield ""
    yield from cold(corpus, rounds)
    yield ""
    yield from runs(corpus, rounds)
    yield ""
    yield from growing()
    if tools is not None:
        yield ""
        yield from peers(corpus, tools, rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path, metavar="CORPUS")
    parser.add_argument("--peers", type=Path, metavar="BIN")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    lines = []
    for line in report(options.corpus.resolve(), options.peers, options.rounds):
        print(line, flush=True)
        lines.append(line)
    SPEED.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
