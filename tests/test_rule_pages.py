"""Each rule's docstring is its page: fixed headings, an example that is flagged, and what to write instead."""

from __future__ import annotations

import re

import pytest

import mdtest
from memlint.linting.lint import lint
from memlint.linting.registry import RuleInfo, all_rules

HEADINGS = [
    "What it does",
    "What it costs",
    "Example",
    "Use instead",
    "Fix safety",
    "When it stays silent",
    "References",
]
RULES = [rule for rule in all_rules() if not rule.code.startswith("MEM0")]

each_rule = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)


def sections(rule: RuleInfo) -> dict[str, str]:
    """Heading -> text below it, in the order of the page."""
    _, *parts = re.split(r"^## (.+)$", rule.page, flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2], strict=True))


def first_block(rule: RuleInfo, heading: str) -> str:
    block = re.search(r"^```python\n(.*?)^```$", sections(rule)[heading], flags=re.MULTILINE | re.DOTALL)
    assert block is not None, f"{rule.code}: no ```python block under `## {heading}`"
    return block[1]


def codes_found(code: str) -> set[str]:
    """An example may leave out the import that every file of its kind begins with."""
    if "import" not in code:
        code = f"import torch\n\n\n{code}"
    return {finding.code for finding in lint("module.py", code.encode(), mdtest.policy({})).findings}


@each_rule
def test_the_page_has_the_fixed_headings_and_no_empty_section(rule: RuleInfo) -> None:
    assert list(sections(rule)) == HEADINGS
    assert [heading for heading, text in sections(rule).items() if not text.strip()] == []


@each_rule
def test_the_page_begins_with_one_sentence(rule: RuleInfo) -> None:
    assert rule.summary == rule.page.strip().splitlines()[0]
    assert rule.summary.endswith(".")
    assert len(rule.summary) <= 110


@each_rule
def test_the_example_is_flagged_by_this_rule_alone(rule: RuleInfo) -> None:
    assert codes_found(first_block(rule, "Example")) == {rule.code}


@each_rule
def test_what_to_use_instead_is_silent(rule: RuleInfo) -> None:
    assert codes_found(first_block(rule, "Use instead")) == set()


@pytest.mark.parametrize("rule", all_rules(), ids=lambda rule: rule.name)
def test_every_rule_says_what_it_is_and_since_when(rule: RuleInfo) -> None:
    assert re.fullmatch(r"MEM\d{3}", rule.code)
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)+", rule.name)
    assert re.fullmatch(r"\d+\.\d+", rule.since)
    assert rule.page.strip()
