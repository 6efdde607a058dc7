"""Measures memlint's speed beside that of its peers, and writes benchmarks/speed.md.

    python benchmarks/bench.py CORPUS [--peers BIN] [--small]

CORPUS is the folder of `benchmarks/corpus.py download`. BIN is the `bin` folder of an environment in which the peers
are installed (`make bench` makes one); without it they are left out. CPU seconds, user and system, unless a row says
otherwise. What is compared takes turns, so that a slower moment of the machine meets all; ratios are what to read.
Takes a quarter of an hour on two quiet cores; `--small` tries every part on little in two minutes, and writes nothing.
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
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path

import growth
import libcst
from corpus import count_lines, present
from skipping import without_skipping
from speed import every_rule

from memlint.linting.lint import forget_projects, lint

TORCH_HEAVY = ("pythae", "accelerate", "trl", "pytorch-lightning", "ultralytics")
SPEED = Path(__file__).parent / "speed.md"
MEMLINT = (sys.executable, "-m", "memlint")
PEER_PACKAGE = "pythae"
ROUNDS = 2


@dataclass(frozen=True)
class Extent:
    """How much is measured."""

    cold: tuple[str, ...] = TORCH_HEAVY
    files: tuple[int, ...] = (1_000, 20_000)
    """Of the projects that do not change."""
    side_by_side: tuple[str, ...] = ("ultralytics", "timm")
    lines_at_once: int = 1_000_000
    shapes: tuple[growth.Shape, ...] = growth.SHAPES
    project_lines: tuple[int, ...] = (10_000, 100_000, 2_000_000)
    keys: int = 40


SMALL = Extent(
    cold=("pythae",),
    files=(100,),
    side_by_side=(),
    lines_at_once=30_000,
    shapes=growth.SHAPES[-3:],
    project_lines=(2_000, 20_000),
    keys=5,
)


@dataclass(frozen=True)
class Used:
    """What a process used: CPU and wall seconds, the peak of its memory in bytes."""

    cpu: float
    wall: float
    peak: int


# A process begins with the memory of the one that starts it, and that counts for its peak: a small one starts them.
_STARTER = """
import os, subprocess, sys, time
start = time.perf_counter()
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
_, _, usage = os.wait4(process.pid, 0)
print(usage.ru_utime + usage.ru_stime, time.perf_counter() - start, usage.ru_maxrss * 1024)
"""


def run(command: Sequence[str], folder: Path) -> Used:
    """Run to the end; what it prints and its exit status are nobody's business here."""
    starter = (sys.executable, "-S", "-c", _STARTER, *command)
    said = subprocess.run(starter, cwd=folder, env=_environment(), check=True, capture_output=True, text=True).stdout
    cpu, wall, peak = said.split()
    return Used(float(cpu), float(wall), int(peak))


def _environment() -> dict[str, str]:
    """An installed memlint has its byte code, as LibCST has: pip writes it."""
    return {**{name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}, "CI": "1"}


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


# --- cold, in one process ---


def cold(corpus: Path, names: Sequence[str]) -> Iterator[str]:
    yield "## Cold: one process, all rules, project-wide facts"
    yield ""
    yield "Lines per CPU-second, and memlint's time as a multiple of `libcst.parse_module` over the same files."
    yield "Imports and reading the file are off the clock, reading the rest of the project is on it. *unskipped*:"
    yield "every rule runs on every file that mentions torch. *own*: microseconds a line without memlint's parses."
    yield "As in memlint's worker, no garbage is collected while it lints."
    yield ""
    yield "| package | files | lines | memlint | LibCST | `ast` | memlint / LibCST | unskipped / LibCST | own |"
    yield "| --- |" + " ---: |" * 8
    totals = [0.0, 0.0]
    for name in names:
        folder = _package(corpus, name)
        files = _parsable(folder)
        lines = sum(raw.count(b"\n") for _, raw in files)
        taken = [_one_round(files) for _ in range(ROUNDS)]
        ours, theirs, python, unskipped, parsing = (median([one[index] for one in taken]) for index in range(5))
        totals[0] += ours
        totals[1] += theirs
        yield (
            f"| {folder.name} | {len(files):,} | {lines:,} | {lines / ours:,.0f} | {lines / theirs:,.0f} "
            f"| {lines / python:,.0f} | {ours / theirs:.2f} | {unskipped / theirs:.2f} "
            f"| {1e6 * (ours - parsing) / lines:.0f} |"
        )
    yield ""
    yield f"Over all: {totals[0] / totals[1]:.2f} times the parse, {100 * totals[1] / totals[0]:.0f} % of its speed."


def _package(corpus: Path, name: str) -> Path:
    return next(corpus.glob(f"{name}-[0-9]*"))


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


def _one_round(files: Sequence[tuple[Path, bytes]]) -> tuple[float, ...]:
    """CPU seconds: of all lints, of LibCST's and of Python's own parses, of all lints that skip nothing.

    And of the parses within the first.
    """
    forget_projects()
    taken = [0.0, 0.0, 0.0]
    parses = growth.Parses()
    for path, raw in files:
        policy = every_rule(path)
        with parses.timed():
            taken[0] += _without_collecting(lambda raw=raw, path=path, policy=policy: lint(str(path), raw, policy))  # type: ignore[misc]
        taken[1] += _timed(lambda raw=raw: libcst.parse_module(raw))  # type: ignore[misc]
        taken[2] += _timed(lambda raw=raw: _ast(raw))  # type: ignore[misc]
    forget_projects()
    unskipped = 0.0
    with without_skipping():
        for path, raw in files:
            policy = every_rule(path)
            unskipped += _without_collecting(lambda raw=raw, path=path, policy=policy: lint(str(path), raw, policy))  # type: ignore[misc]
    return (*taken, unskipped, parses.seconds)


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


def runs(corpus: Path, extent: Extent) -> Iterator[str]:
    yield "## Whole runs of the command"
    yield ""
    yield "| what | CPU s | wall s | peak of a process, MiB | beside |"
    yield "| --- | ---: | ---: | ---: | --- |"
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        yield from _start_up(folder)
        for count in extent.files:
            yield from _warm(folder, count)
        yield from _side_by_side(corpus, extent.side_by_side)
        yield _at_once(corpus, extent.lines_at_once)
        yield from _one_changed_file(corpus, folder)


def _row(what: str, used: Sequence[Used], beside: str = "") -> str:
    cpu, wall = median([one.cpu for one in used]), median([one.wall for one in used])
    return f"| {what} | {cpu:.2f} | {wall:.2f} | {max(one.peak for one in used) / 2**20:.0f} | {beside} |"


def _in_turn(commands: Sequence[Sequence[str]], folder: Path, rounds: int = ROUNDS) -> list[list[Used]]:
    """What each used, in each round."""
    taken = [[run(command, folder) for command in commands] for _ in range(rounds)]
    return [list(column) for column in zip(*taken, strict=True)]


def _ratio(ours: Sequence[Used], theirs: Sequence[Used]) -> float:
    return median([one.cpu / other.cpu for one, other in zip(ours, theirs, strict=True)])


def _start_up(folder: Path) -> Iterator[str]:
    ours, click, python = _in_turn(
        [(*MEMLINT, "--version"), (sys.executable, "-c", "import click"), (sys.executable, "-c", "pass")],
        folder,
        10 * ROUNDS,
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


def _warm(scratch: Path, count: int) -> Iterator[str]:
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
    ours, start = _in_turn([(*MEMLINT, "check"), (*MEMLINT, "--version")], folder, 5 * ROUNDS)
    yield _row(f"{count:,} files, unchanged", ours, f"{_ratio(ours, start):.2f} times `memlint --version`")


def _side_by_side(corpus: Path, names: Sequence[str]) -> Iterator[str]:
    for name in names:
        folder = _package(corpus, name)
        check = (*MEMLINT, "check", "--no-cache")
        one, two = _in_turn([(*check, "--jobs=1"), (*check, "--jobs=2")], folder)
        faster = median([a.wall / b.wall for a, b in zip(one, two, strict=True)])
        more = median([b.cpu / a.cpu for a, b in zip(one, two, strict=True)])
        yield _row(f"{folder.name}, cold, one process", one)
        balance = f"{faster:.2f} times as fast; {more:.2f} times the CPU, so {2 / more:.2f} on two idle cores"
        yield _row(f"{folder.name}, cold, two processes", two, balance)


def _at_once(corpus: Path, wanted: int) -> str:
    """The first packages of the corpus, until there are that many lines, in one run."""
    folders: list[str] = []
    lines = 0
    for package, paths in present(corpus):
        if lines >= wanted:
            break
        folders.append(package.folder_name)
        lines += count_lines(paths)
    used = run((*MEMLINT, "check", "--no-cache", "--jobs=2", "--select=ALL", *folders), corpus)
    what = f"{len(folders)} packages of the corpus, {lines:,} lines, cold, two processes, all rules"
    return _row(what, [used], f"{lines / used.wall:,.0f} lines a second")


def _one_changed_file(corpus: Path, scratch: Path) -> Iterator[str]:
    """The file of training code that changed since the last run, in a project of which all else is known."""
    folder = scratch / "changed"
    shutil.copytree(_package(corpus, "ultralytics"), folder)
    run((*MEMLINT, "check"), folder)
    file = next(folder.glob("**/engine/trainer.py"))
    text = file.read_text()
    parse = f"import sys, libcst; libcst.parse_module(open({str(file)!r}).read())"
    ours, theirs = [], []
    for number in range(5 * ROUNDS):
        file.write_text(f"{text}\n# {number}\n")
        ours.append(run((*MEMLINT, "check", str(file)), folder))
        theirs.append(run((sys.executable, "-c", parse), folder))
    lines = text.count("\n")
    yield _row(
        f"one changed file of {lines:,} lines",
        ours,
        f"{_ratio(ours, theirs):.2f} times importing LibCST and parsing it",
    )


# --- in the editor ---


def editor(keys: int) -> Iterator[str]:
    command = [sys.executable, str(Path(__file__).with_name("editor.py")), f"--keys={keys}"]
    said = subprocess.run(command, check=True, capture_output=True, text=True, env=_environment()).stdout
    yield "## In the editor"
    yield ""
    yield "From a keystroke, after the debounce, to the diagnostics, wall clock; LibCST's parse of the same text in"
    yield "between (`benchmarks/editor.py`)."
    yield ""
    yield from (f"- {line}" for line in said.splitlines())


# --- growth ---


def growing(extent: Extent) -> Iterator[str]:
    yield "## Growth"
    yield ""
    yield "Steps of memlint's own work (calls and facts, counted by `benchmarks/steps.py`; LibCST's parse taken off)"
    yield "per unit of size, and the microseconds that they took: of the lines of a file, or of the depth or width of"
    yield "what the name says (`benchmarks/growth.py`). Level is linear; the steps are the same on any machine. That"
    yield "they grow as the code does, whatever is repeated in it, is what `benchmarks/fuzz_growth.py` looks for."
    yield ""
    yield "| shape | |"
    yield "| --- | --- |"
    for name, measured in growth.rows(extent.shapes):
        yield f"| {name.replace('_', ' ')} | {_sizes(measured)} |"
    yield ""
    yield f"A project of files of {growth.LINES_OF_A_FILE} lines in packages of {growth.FILES_OF_A_PACKAGE}, each file"
    yield "calling the one before it; one of a package has findings. The command as below *whole runs*, with all rules,"
    yield "no cache and two processes; *own* is the CPU time of all its processes without LibCST's parse."
    yield ""
    yield "| lines | files | CPU s | wall s | peak of a process, MiB | own, microseconds a line |"
    yield "| ---: |" + " ---: |" * 5
    yield from _growing_project(extent.project_lines)


def _growing_project(sizes: Iterable[int]) -> Iterator[str]:
    """A row for each number of lines: the files of the smaller project are part of the larger one."""
    command = (*MEMLINT, "check", "--no-cache", "--jobs=2", "--select=ALL")
    count = 0
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for size in sizes:
            files = range(count, size // growth.LINES_OF_A_FILE)
            growth.write_project(root, files)
            count = files.stop
            paths = list(root.rglob("*.py"))
            lines = count_lines(paths)
            used = run(command, root)
            sample = [path.read_text() for path in paths[:: max(1, count // 40)]]
            parsed = growth.parse_seconds(sample) / sum(text.count("\n") for text in sample)
            own = 1e6 * (used.cpu / lines - parsed)
            yield (
                f"| {lines:,} | {count:,} | {used.cpu:.1f} | {used.wall:.1f} | {used.peak / 2**20:.0f} | {own:.0f} |"
            )


def _sizes(measured: Iterable[growth.Grown]) -> str:
    return ", ".join(f"{size:,}: {steps:,.0f} ({taken:,.0f} µs)" for size, steps, taken in measured)


# --- peers ---


def peers(corpus: Path, tools: Path) -> Iterator[str]:
    folder = _package(corpus, PEER_PACKAGE)
    lines = sum(path.read_bytes().count(b"\n") for path in folder.rglob("*.py"))
    checks = "W8101,W8102,W8201,W8202,W8203,W8204,W8205,W8301,W8401,W8402,W8403"
    pylint = ("--load-plugins=perflint", "--disable=all", f"--enable={checks}", "--recursive=y", "--jobs=1")
    commands = {
        "memlint, all rules": [*MEMLINT, "check", "--no-cache", "--jobs=1", "--select=ALL"],
        "TorchFix": [str(tools / "torchfix"), "--select", "ALL", "."],
        "Fixit": [str(tools / "fixit"), "lint", "."],
        "pylint with perflint": [str(tools / "pylint"), *pylint, "."],
        "bare LibCST: `parse_module`": [sys.executable, "-c", _READ_ALL.format("libcst", "parse_module")],
        "`ast.parse`": [sys.executable, "-c", _READ_ALL.format("ast", "parse")],
        "ruff, all rules": [str(tools / "ruff"), "check", "--no-cache", "--select=ALL", "--quiet", "."],
    }
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(shutil.copytree(folder, Path(scratch) / "package"))
        taken = _in_turn(list(commands.values()), copy)
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


_READ_ALL = """import pathlib, warnings, {0}
warnings.simplefilter("ignore")
for path in pathlib.Path(".").rglob("*.py"):
    {0}.{1}(path.read_bytes())
"""


def _versions(tools: Path) -> str:
    names = ("torchfix", "fixit", "pylint", "perflint", "ruff")
    program = f"from importlib.metadata import version; print(', '.join(f'{{n}} {{version(n)}}' for n in {names}))"
    return subprocess.run([tools / "python", "-c", program], check=True, capture_output=True, text=True).stdout.strip()


# --- the report ---


def report(corpus: Path, tools: Path | None, extent: Extent) -> Iterator[str]:
    yield "# Speed"
    yield ""
    yield "Written by `make bench`: what is compared was measured side by side in one run. The ratios are what to read."
    yield "Where the time goes, and what was done about it: [optimisations.md](optimisations.md)."
    yield ""
    versions = f"Python {platform.python_version()}, LibCST {version('libcst')}, memlint {version('memlint-torch')}"
    machine = f"{_processor()}, {os.cpu_count()} cores, {platform.system()}"
    yield f"{date.today():%Y-%m-%d}, {versions}; {machine}, load {os.getloadavg()[0]:.1f} at the start."
    yield ""
    yield from cold(corpus, extent.cold)
    yield ""
    if tools is not None:
        yield from peers(corpus, tools)
        yield ""
    yield from runs(corpus, extent)
    yield ""
    yield from editor(extent.keys)
    yield ""
    yield from growing(extent)


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path, metavar="CORPUS")
    parser.add_argument("--peers", type=Path, metavar="BIN")
    parser.add_argument("--small", action="store_true")
    options = parser.parse_args()
    tools = options.peers.resolve() if options.peers is not None else None
    lines = []
    for line in report(options.corpus.resolve(), tools, SMALL if options.small else Extent()):
        print(line, flush=True)
        lines.append(line)
    if not options.small:
        SPEED.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
