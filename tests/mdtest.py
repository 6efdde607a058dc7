"""The repository's fixtures."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from memlint.testing.cases import (
    Case,
    FixtureError,
    Mark,
    check,
    findings_of,
    policy,
    read_cases,
    take_marks,
    wrong_findings,
    wrong_fixes,
)

__all__ = [
    "FIXTURES",
    "Case",
    "FixtureError",
    "Mark",
    "all_cases",
    "check",
    "findings_of",
    "policy",
    "read_cases",
    "take_marks",
    "wrong_findings",
    "wrong_fixes",
]

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"


@cache
def all_cases() -> tuple[Case, ...]:
    return tuple(case for path in sorted(FIXTURES.glob("*/*.md")) for case in read_cases(path))
