"""A rule does not run on a file without one of its trigger words, and loses no finding by that."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pytest
import skipping
from corpus import packages
from growth import functions

import mdtest
from memlint.linting import lint as core
from memlint.linting import registry
from memlint.linting.finding import Confidence, Finding
from memlint.linting.policy import Policy
from memlint.linting.registry import all_rules

ROOT = Path(__file__).parent.parent
EVERY_RULE = Policy(frozenset(rule.code for rule in all_rules()), Confidence.LOW)
PROGRAMS = sorted(
    path for top in ("fixtures", "tests/measure", "tests/projects", "benchmarks") for path in (ROOT / top).rglob("*.py")
)


def by_fixture_file() -> dict[Path, list[mdtest.Case]]:
    cases: dict[Path, list[mdtest.Case]] = defaultdict(list)
    for case in mdtest.all_cases():
        cases[case.path].append(case)
    return cases


@pytest.mark.parametrize("cases", by_fixture_file().values(), ids=[path.stem for path in by_fixture_file()])
def test_skipping_loses_no_finding(cases: list[mdtest.Case], monkeypatch: pytest.MonkeyPatch) -> None:
    with_skipping = [findings(case) for case in cases]
    monkeypatch.setattr(core, "_may_find", lambda *_: True)
    assert [findings(case) for case in cases] == with_skipping


def findings(case: mdtest.Case) -> tuple[Finding, ...]:
    return core.lint("module.py", case.code.encode(), EVERY_RULE).findings


def test_skipping_loses_no_finding_in_a_program_of_this_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    """`benchmarks/skipping.py` does the same over the corpus."""
    with_skipping = [in_project(path) for path in PROGRAMS]
    assert any(with_skipping)
    monkeypatch.setattr(core, "_may_find", lambda *_: True)
    assert [in_project(path) for path in PROGRAMS] == with_skipping


@pytest.mark.parametrize("twice", [False, True])
def test_the_comparison_over_the_corpus_notices_a_loss(
    twice: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "train.py"
    path.write_text(functions(12))
    assert skipping.compare(path, twice=twice).skipping == skipping.compare(path).everything
    never = frozenset({"a word that stands nowhere"})
    rules = [replace(rule, triggers=never) if rule.code == "MEM101" else rule for rule in all_rules()]
    monkeypatch.setattr(registry, "_traced", rules)
    compared = skipping.compare(path, twice=twice)
    assert {finding.code for finding in {*compared.everything} - {*compared.skipping}} == {"MEM101"}


def in_project(path: Path) -> tuple[Finding, ...]:
    policy = EVERY_RULE._replace(project=str(ROOT), file=path)
    return core.lint(str(path), path.read_bytes(), policy).findings


def test_no_package_of_the_corpus_differs() -> None:
    rows = [json.loads(line) for line in (ROOT / "benchmarks" / "skipping.jsonl").read_text("utf-8").splitlines()]
    assert {(row["package"], row["version"]) for row in rows} <= {(item.name, item.version) for item in packages()}
    assert all(not row["differing_files"] and row["findings"] == row["findings_without_skipping"] for row in rows)


_LINT_WITH_KNOWN_RULES = """
import json, sys
from memlint.cache.store import KnownRule
from memlint.linting.finding import Confidence
from memlint.linting.lint import lint
from memlint.linting.policy import Policy
from memlint.linting.registry import assume

rules = [KnownRule(*rule) for rule in json.loads(sys.argv[1])]
assume(rules)
policy = Policy(frozenset(rule.code for rule in rules), Confidence.LOW)
found = lint("train.py", sys.argv[2].encode(), policy).findings
imported = [rule.code for rule in rules if rule.module in sys.modules]
print(json.dumps([[[finding.code, finding.start.line] for finding in found], imported]))
"""


def test_of_known_rules_only_those_that_a_file_calls_for_are_imported() -> None:
    code = functions(12)
    rules = [
        (rule.code, rule.name, rule.family, rule.on_by_default, rule.module, sorted(rule.triggers))
        for rule in all_rules()
    ]
    program = [sys.executable, "-c", _LINT_WITH_KNOWN_RULES, json.dumps(rules), code]
    found, imported = json.loads(subprocess.run(program, check=True, capture_output=True, text=True).stdout)
    here = core.lint("train.py", code.encode(), EVERY_RULE).findings
    assert found == [[finding.code, finding.start.line] for finding in here] != []
    assert "MEM101" in imported
    assert "MEM801" not in imported
