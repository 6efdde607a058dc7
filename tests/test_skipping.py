"""A rule does not run on a file without one of its trigger words, and loses no finding by that."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest

import mdtest
from memlint.linting import lint as core
from memlint.linting.finding import Confidence, Finding
from memlint.linting.policy import Policy
from memlint.linting.registry import all_rules

EVERY_RULE = Policy(frozenset(rule.code for rule in all_rules()), Confidence.LOW)


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
