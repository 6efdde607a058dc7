"""Each heading of the Markdown fixtures holds, and each rule has fixtures."""

from __future__ import annotations

import pytest

import mdtest
from memlint.linting.registry import RuleInfo, all_rules

RULES = [rule for rule in all_rules() if not rule.code.startswith("MEM0")]


@pytest.mark.parametrize("case", mdtest.all_cases(), ids=lambda case: case.id)
def test_fixture(case: mdtest.Case) -> None:
    mdtest.check(case)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_each_rule_has_as_many_silent_cases_as_flagged_ones(rule: RuleInfo) -> None:
    cases = [case for case in mdtest.all_cases() if case.path.stem == rule.name]
    flagged = [case for case in cases if any(mark.kind == "error" and mark.code == rule.code for mark in case.marks)]
    silent = [case for case in cases if not any(mark.code == rule.code for mark in case.marks)]
    assert flagged, f"no case of {rule.name}.md has a mark `# error: {rule.code}`"
    assert len(silent) >= len(flagged), f"{rule.name}.md: {len(silent)} silent cases for {len(flagged)} flagged ones"


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_the_fixtures_of_a_rule_stand_in_its_family_under_its_name(rule: RuleInfo) -> None:
    path = mdtest.FIXTURES / rule.family.replace("-", "_") / f"{rule.name}.md"
    assert path.is_file(), f"{rule.code} has no fixtures: {path.relative_to(mdtest.FIXTURES.parent)} is missing"
    assert path.read_text(encoding="utf-8").splitlines()[0] == f"# `{rule.name}`"
