"""Rewrite the fixtures in ways that change nothing, and see which findings come or go.

    python benchmarks/rewritten.py [--forms FORM ...] [--cases WORD] [--show]

A reviewer does not care whether an argument stands in a variable, or whether a loop has a progress bar. Where memlint
does, one of two texts that do the same is missed, or wrongly flagged. The forms are those of `forms.py`. Some
differences are right: what a loop that no progress bar would stand around means to the code around it, a name that a
rule goes by. They are for reading (`--show` prints the rewritten code).
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from forms import FORMS, rewritten

from memlint.linting.lint import lint
from memlint.testing.cases import Case, read_cases


def codes_of(case: Case, code: str) -> Counter[str]:
    """How often each rule is found."""
    return Counter(finding.code for finding in lint("case.py", code.encode(), case.policy).findings)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--forms", nargs="*", default=list(FORMS), choices=list(FORMS))
    parser.add_argument("--cases", default="", metavar="WORD", help="only those with this in their names")
    parser.add_argument("--show", action="store_true", help="print the rewritten code of each difference")
    given = parser.parse_args()
    cases = [case for case in _cases() if given.cases in case.id]
    print("| form | cases | findings | lost | new |\n| --- | ---: | ---: | ---: | ---: |")
    for row in [_row(cases, form, show=given.show) for form in given.forms]:
        print(row)


def _cases() -> Sequence[Case]:
    fixtures = Path(__file__).parents[1] / "fixtures"
    return [case for path in sorted(fixtures.glob("*/*.md")) for case in read_cases(path)]


def _row(cases: Sequence[Case], form: str, *, show: bool) -> str:
    seen: Counter[str] = Counter()
    for case in cases:
        new = rewritten(case.code, form)
        if new is None:
            continue
        before, after = codes_of(case, case.code), codes_of(case, new)
        lost, more = before - after, after - before
        seen.update(cases=1, findings=before.total(), lost=lost.total(), new=more.total())
        if lost or more:
            print(f"{form}: {case.id}: lost {dict(lost)}, new {dict(more)}", flush=True)
            print(new if show else "", end="")
    return f"| {form} | {seen['cases']:,} | {seen['findings']:,} | {seen['lost']} | {seen['new']} |"


if __name__ == "__main__":
    main()
