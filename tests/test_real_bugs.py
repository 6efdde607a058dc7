"""The records of really fixed bugs and of traps, and the re-creations in fixtures/real_bugs/."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

from memlint.linting.registry import all_rules

ROOT = Path(__file__).resolve().parent.parent
RULES = {rule.code: rule.name for rule in all_rules()}


def records(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (ROOT / "benchmarks" / name).read_text(encoding="utf-8").splitlines()]


BUGS, SPECIMENS, TRAPS = (records(f"real_{name}.jsonl") for name in ("bugs", "specimens", "traps"))
HALVES = {None, "dev", "held-out"}


def test_each_bug_and_each_trap_is_recorded_once() -> None:
    names = Counter(record["id"] for record in [*BUGS, *SPECIMENS, *TRAPS])
    assert [name for name, count in names.items() if count > 1] == []
    assert len(BUGS) >= 60
    assert len(TRAPS) >= 60


def test_the_records_name_rules_that_there_are() -> None:
    codes = {code for record in [*BUGS, *SPECIMENS] for code in record["codes"]}
    assert codes | {code for trap in TRAPS for code in trap.get("codes") or [trap["code"]]} <= RULES.keys()
    assert {record["category"] for record in [*BUGS, *SPECIMENS]} <= set(RULES.values())


def test_the_records_name_the_half_of_fresh_cases() -> None:
    assert {record.get("half") for record in [*BUGS, *TRAPS]} == HALVES
    assert {record.get("half") for record in SPECIMENS} == HALVES - {None}


def test_each_bug_has_a_re_creation_before_and_after() -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "fixtures" / "real_bugs").glob("*.md"))
    headings = set(re.findall(r"^## ([\w.-]+)(:|, corrected)", text, re.MULTILINE))
    missing = [(bug["id"], kind) for bug in BUGS for kind in (":", ", corrected") if (bug["id"], kind) not in headings]
    assert missing == []
