"""The pairs of fixtures/measured: the rule flags the bad program alone, and its waste is seen in a run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from memlint.linting.finding import Confidence
from memlint.linting.lint import lint
from memlint.linting.policy import Policy
from memlint.linting.registry import RuleInfo, all_rules
from memlint.measure.confirm.verdicts import Grade, Price, Results, Verdict, compare, judge
from memlint.measure.job import BackendName, Job, Layer, Target
from memlint.measure.launch import run
from memlint.measure.outcome import Status
from memlint.measure.recording import Recording

PAIRS = Path(__file__).resolve().parents[2] / "fixtures" / "measured"
RULES = {rule.name: rule for rule in all_rules()}
NAMES = sorted(folder.name.replace("_", "-") for folder in PAIRS.iterdir() if folder.is_dir())
TABLE = PAIRS.parents[1] / "docs" / "prices.md"

# One of each kind of price; `python benchmarks/prices.py` runs all.
RUN = {
    "loss-accumulates-graph": Verdict.GROWTH_CONFIRMED,
    "eval-without-no-grad": Verdict.CONFIRMED,
    "tensor-hook-self-reference": Verdict.GROWTH_CONFIRMED,
    "clone-before-detach": Verdict.NO_EFFECT,
}


def codes_found(rule: RuleInfo, program: str, tmp_path: Path) -> set[str]:
    """Of one program alone: the other of the pair is not its project."""
    folder = tmp_path / program
    folder.mkdir()
    (folder / "pyproject.toml").touch()
    file = folder / "program.py"
    shutil.copy(PAIRS / rule.name.replace("-", "_") / f"{program}.py", file)
    codes = frozenset(rule.code for rule in RULES.values())
    policy = Policy(codes, Confidence.MEDIUM, None, str(folder), file)
    return {finding.code for finding in lint("program.py", file.read_bytes(), policy).findings}


@pytest.mark.parametrize("name", NAMES)
def test_the_rule_flags_the_bad_program_alone(name: str, tmp_path: Path) -> None:
    rule = RULES[name]
    bad, good = codes_found(rule, "bad", tmp_path), codes_found(rule, "good", tmp_path)
    assert rule.code in bad
    assert rule.code not in good
    assert good <= bad


def test_every_rule_stands_in_the_table() -> None:
    table = TABLE.read_text(encoding="utf-8")
    missing = [
        rule.name for rule in RULES.values() if rule.family != "memlint" and f"{rule.code} {rule.name} |" not in table
    ]
    assert missing == []


def recorded(name: str, program: str, backend: BackendName) -> Recording:
    folder = PAIRS / name.replace("-", "_")
    layers = frozenset({Layer.LINES, Layer.GROWTH} | ({Layer.FINGERPRINTS} if backend == "cpu" else set()))
    job = Job(Target("script", f"{program}.py"), backend, str(folder), layers=layers)
    outcome = run(job, "discard")
    assert outcome.status is Status.OK, outcome.message
    assert outcome.recording is not None
    return outcome.recording


@pytest.mark.parametrize("name", sorted(RUN))
def test_the_waste_is_seen_and_the_results_stay(name: str) -> None:
    bad, good = recorded(name, "bad", "cpu"), recorded(name, "good", "cpu")
    assert bad.fingerprints is not None
    assert good.fingerprints is not None
    results = compare(bad.fingerprints, good.fingerprints)
    assert results.grade is Grade.IDENTICAL
    assert judge(Price.of(bad), Price.of(good), results) is RUN[name]


def test_fake_gives_the_same_verdict() -> None:
    bad, good = (recorded("eval-without-no-grad", program, "fake") for program in ("bad", "good"))
    assert judge(Price.of(bad), Price.of(good), Results(Grade.NOT_CHECKED)) is Verdict.CONFIRMED
