"""How fast memlint reads code, beside LibCST's parse of the same files, and how fast it starts.

    python benchmarks/speed.py FOLDER [--rounds N]

Every .py file below FOLDER is linted in this process with all rules on, and parsed by `libcst.parse_module`. The two
take turns file by file, so that a slower moment of the machine meets both; one line a round shows the noise. CPU
seconds. Imports, and reading the file itself from the disk, are not on the clock; what memlint reads of the rest of the
project is. Nothing is cached between rounds.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

import libcst

from memlint.linting.finding import Confidence
from memlint.linting.lint import forget_projects, lint
from memlint.linting.policy import Policy
from memlint.linting.registry import all_rules
from memlint.project.files import project_root

START_UPS = 15


def every_rule(path: Path) -> Policy:
    """All rules, with the facts of the project around the file."""
    codes = frozenset(rule.code for rule in all_rules())
    return Policy(codes, Confidence.LOW, None, str(project_root(path.parent)), path)


def readable_files(folder: Path) -> list[tuple[Path, bytes]]:
    """The files that LibCST can parse: the others would be compared with nothing."""
    found = []
    for path in sorted(folder.resolve().rglob("*.py")):
        raw = path.read_bytes()
        try:
            libcst.parse_module(raw)
        except Exception as error:  # noqa: BLE001 - a syntax error comes in several classes
            print(f"left out: {path}: {type(error).__name__}", file=sys.stderr)
            continue
        found.append((path, raw))
    return found


def one_round(files: list[tuple[Path, bytes]]) -> tuple[float, float]:
    """CPU seconds of all lints and of all parses."""
    forget_projects()
    linting = parsing = 0.0
    clock = time.process_time
    for path, raw in files:
        start = clock()
        libcst.parse_module(raw)
        policy = every_rule(path)
        middle = clock()
        lint(str(path), raw, policy)
        parsing += middle - start
        linting += clock() - middle
    return linting, parsing


def print_throughput(folder: Path, rounds: int) -> None:
    files = readable_files(folder)
    if not files:
        sys.exit(f"no Python files below {folder}")
    lines = sum(raw.count(b"\n") for _, raw in files)
    print(f"{folder.name}: {len(files):,} files, {lines:,} lines, {len(all_rules())} rules")
    print("round   memlint lines/s   libcst lines/s   memlint/libcst time")
    rates, ratios = [], []
    for number in range(1, rounds + 1):
        linting, parsing = one_round(files)
        rates.append(lines / linting)
        ratios.append(linting / parsing)
        ours, theirs = f"{lines / linting:15,.0f}", f"{lines / parsing:14,.0f}"
        print(f"{number:5}   {ours}   {theirs}   {linting / parsing:19.2f}", flush=True)
    rate, ratio = statistics.median(rates), statistics.median(ratios)
    print(f"median: {rate:,.0f} lines per CPU-second, {ratio:.2f} times libcst's parse")


def _start_up_seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start


def print_start_up() -> None:
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "memlint --version": [sys.executable, "-m", "memlint", "--version"],
        "import libcst": [sys.executable, "-c", "import libcst"],
    }
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(START_UPS):
        for name, command in commands.items():
            seconds[name].append(_start_up_seconds(command))
    print(f"\nstart-up, wall-clock milliseconds, median of {START_UPS} (least)")
    for name, taken in seconds.items():
        print(f"  {name:18} {1000 * statistics.median(taken):6.0f} ({1000 * min(taken):.0f})")
    traced = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "memlint", "--version"], check=True, capture_output=True, text=True
    )
    for module in ("libcst", "rich"):
        imported = any(line.split("|")[-1].strip() == module for line in traced.stderr.splitlines())
        print(f"  memlint --version imports {module}: {'yes' if imported else 'no'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print_throughput(options.folder, options.rounds)
    print_start_up()


if __name__ == "__main__":
    main()
