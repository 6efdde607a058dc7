"""Whether skipping loses findings: every file is checked as usual, and with every rule whatever the file's words are.

    python benchmarks/skipping.py FOLDER...

A file is not parsed where none of its words is a trigger of an enabled rule, and a rule does not run on a file without
one of its triggers. With all rules on and low confidence shown, both ways must find the same in every file. Prints each
difference, and what was skipped; the exit status is 1 where there is one.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from speed import every_rule

from memlint.linting import lint as core
from memlint.linting.finding import Finding
from memlint.semantics.knowledge.frameworks import TORCH_LIBRARIES


@dataclass
class Counted:
    files: int = 0
    skipped: int = 0
    pairs: int = 0
    skipped_pairs: int = 0
    differing: int = 0


@contextmanager
def without_skipping() -> Iterator[None]:
    usual = core._may_find
    core._may_find = lambda *_: True
    try:
        yield
    finally:
        core._may_find = usual


def compare(path: Path, counted: Counted) -> None:
    raw, policy = path.read_bytes(), every_rule(path)
    words = core._words(raw.decode("utf-8", errors="replace"))
    rules = core._rules(policy.codes, policy.local_rules)
    wanted = sum(core._may_find(rule, words) for rule in rules)
    counted.files += 1
    counted.skipped += not wanted or words.isdisjoint(TORCH_LIBRARIES)
    counted.pairs += len(rules)
    counted.skipped_pairs += len(rules) - wanted
    if wanted == len(rules) or words.isdisjoint(TORCH_LIBRARIES):
        return  # both ways are the same
    skipping = core.lint(str(path), raw, policy).findings
    with without_skipping():
        everything = core.lint(str(path), raw, policy).findings
    if skipping != everything:
        counted.differing += 1
        print(f"{path}: {_codes(skipping)} with skipping, {_codes(everything)} without")


def _codes(findings: tuple[Finding, ...]) -> str:
    return ", ".join(f"{finding.code} in line {finding.start.line}" for finding in findings) or "nothing"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    counted = Counted()
    for folder in parser.parse_args().folders:
        for path in sorted(folder.resolve().rglob("*.py")):
            compare(path, counted)
    print(f"{counted.files:,} files, {counted.skipped:,} of them not parsed for any rule")
    print(f"{counted.pairs:,} pairs of a file and a rule, {counted.skipped_pairs:,} of them skipped")
    print(f"{counted.differing} files differ")
    sys.exit(1 if counted.differing else 0)


if __name__ == "__main__":
    main()
