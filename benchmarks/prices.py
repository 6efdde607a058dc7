"""What each rule's waste costs, measured: every pair of fixtures/measured is run, and docs/prices.md written.

    python benchmarks/prices.py [--backend cpu] [--backend fake] [--only RULE] [--jobs N]

A pair is a program with the waste (`bad.py`) and without it (`good.py`); each runs in a process of its own, as in
`memlint confirm`, and the verdict is that of its rule. The rules without a pair stand in the table with the reason.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from memlint.linting.registry import RuleInfo, all_rules
from memlint.measure.confirm.verdicts import Grade, Price, Results, Verdict, compare, judge
from memlint.measure.job import BackendName, Job, Layer, Target
from memlint.measure.launch import run
from memlint.measure.outcome import Outcome, Status
from memlint.measure.sizes import words

ROOT = Path(__file__).resolve().parent.parent
PAIRS = ROOT / "fixtures" / "measured"
TABLE = ROOT / "docs" / "prices.md"
STEPS = 6

# Why a rule has no pair: what its waste costs, no backend that runs here can see.
UNMEASURED = {
    "step-outputs-never-cleared": "Lightning's trainer calls the steps; the growth is that of MEM102",
    "oom-retry-inside-except": "it takes a card that runs out of memory",
    "load-without-map-location": "it takes a file that was saved from a GPU, and several processes for the worst of it",
    "cuda-in-dataset": "a CUDA context in each worker process: outside of the allocator, and workers are set to 0 here",
    "empty-cache-in-loop": "it costs time, not memory",
    "debug-tools-left-on": "most of it is host memory and time",
}


@dataclass(frozen=True)
class Pair:
    """A rule's two programs on one backend, and what came of each."""

    rule: RuleInfo
    backend: BackendName
    bad: Outcome
    good: Outcome

    @property
    def failed(self) -> Outcome | None:
        return next((outcome for outcome in (self.bad, self.good) if outcome.status is not Status.OK), None)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--backend", action="append", choices=["cpu", "fake", "cuda"], help="[default: cpu and fake]")
    parser.add_argument("--only", action="append", metavar="RULE", help="print these rules' rows, write nothing")
    parser.add_argument("--jobs", type=int, default=1, help="how many programs run at a time")
    given = parser.parse_args()
    backends: list[BackendName] = given.backend or ["cpu", "fake"]
    rules = [rule for rule in all_rules() if rule.family != "memlint" and (not given.only or rule.name in given.only)]
    with ThreadPoolExecutor(given.jobs) as pool:
        pairs = list(
            pool.map(lambda one: measured(*one), [(rule, b) for rule in rules if has_pair(rule) for b in backends])
        )
    table = "\n".join(rows(rules, pairs))
    print(table)
    if not given.only:
        TABLE.write_text(f"{HEAD}\n{table}\n", encoding="utf-8")


def folder_of(rule: RuleInfo) -> Path:
    return PAIRS / rule.name.replace("-", "_")


def has_pair(rule: RuleInfo) -> bool:
    return folder_of(rule).is_dir()


def measured(rule: RuleInfo, backend: BackendName) -> Pair:
    folder = folder_of(rule)
    bad, good = (run(job_of(folder / f"{name}.py", backend), "discard") for name in ("bad", "good"))
    return Pair(rule, backend, bad, good)


def job_of(file: Path, backend: BackendName) -> Job:
    """Programs that have no steps of their own have a function `step`."""
    is_function = "\ndef step():" in file.read_text(encoding="utf-8")
    target = Target("function", f"{file.stem}:step") if is_function else Target("script", str(file))
    layers = {Layer.LINES, Layer.GROWTH} | ({Layer.FINGERPRINTS} if backend != "fake" else set())
    return Job(target, backend, str(file.parent), steps=STEPS, layers=frozenset(layers))


HEAD = """\
# Prices

What the waste that each rule finds costs in a small program: with it and without it. Written by
`python benchmarks/prices.py`, which runs the pairs of `fixtures/measured/`, each program in a process of its own for
six steps. Peaks are allocated device memory, from set-up to the last step; growth is what each step leaves behind.
`cpu`: measured on cpu, the storages of the device counted. `fake`: predicted for an A100 without a GPU. Neither was
held against a GPU. Verdicts and results are those of `memlint confirm` ([what they mean](confirm.md)).

The two programs of a pair are not always a fix apart: where one differentiates in other portions (MEM107, MEM402,
MEM403), its losses are others, and the results say so; the verdict is about memory alone.

A row shows what kind of price a rule's waste has, not what yours costs: `memlint confirm your_script.py` measures that.
"""

_COLUMNS = ("rule", "backend", "peak before", "peak after", "growth before", "growth after", "verdict", "results")


def rows(rules: Sequence[RuleInfo], pairs: Sequence[Pair]) -> Iterator[str]:
    yield f"| {' | '.join(_COLUMNS)} |"
    yield f"|{'---|' * 2}{'---:|' * 4}{'---|' * 2}"
    for rule in rules:
        title = f"{rule.code} {rule.name}"
        own = [pair for pair in pairs if pair.rule.code == rule.code]
        if not own:
            yield f"| {title} | - | | | | | not measured | {UNMEASURED[rule.name]} |"
        for pair in own:
            yield f"| {title} | {pair.backend} | {' | '.join(_cells(pair))} |"


def _cells(pair: Pair) -> list[str]:
    if pair.failed is not None or pair.bad.recording is None or pair.good.recording is None:
        why = "" if pair.failed is None else f"{pair.failed.status.value}: {pair.failed.message}"
        return ["", "", "", "", Verdict.COULD_NOT_RUN.value, why.replace("|", "\\|").replace("\n", " ")]
    before, after = Price.of(pair.bad.recording), Price.of(pair.good.recording)
    prints = pair.bad.recording.fingerprints, pair.good.recording.fingerprints
    results = compare(prints[0], prints[1]) if prints[0] and prints[1] else Results(Grade.NOT_CHECKED)
    verdict = judge(before, after, Results(Grade.NOT_CHECKED))
    return [
        words(before.peak_allocated_bytes),
        words(after.peak_allocated_bytes),
        _growth(before),
        _growth(after),
        verdict.value,
        str(results),
    ]


def _growth(price: Price) -> str:
    if price.growth_bytes_per_step:
        return f"{words(price.growth_bytes_per_step)} a step"
    nodes = price.graph_nodes_per_step
    return f"0 ({nodes} graph nodes on the host)" if nodes else "0"


if __name__ == "__main__":
    main()
