"""Score memlint on memory bugs that people really fixed, and on correct code that a naive rule would flag.

    python benchmarks/real_bugs.py fetch DIR         download the packages of real_bugs.jsonl and real_traps.jsonl
    python benchmarks/real_bugs.py score DIR         recall before the fix, silence after it; silence at the traps
    python benchmarks/real_bugs.py score DIR --missed    the same, and every miss and false alarm by name

The records hold references and facts, no code. The text of a bug is read where its record says:

- `text` is `package`: in two versions of a package from PyPI, DIR/<package>-<version>/<path>, with all around it;
- `text` is `repository`: in DIR/<id>/before.py and after.py, copied from <path> of the repository at the commit before
  and after the fix (`git show COMMIT:PATH`). A record with `excerpt` was scored on the functions and imports concerned;
- `text` is `thread`: only the issue or pull request shows the code; its re-creation is in fixtures/real_bugs/.

A bug counts as found when a finding of one of its codes, at high or medium confidence, starts within two lines of the
place; a corrected place as silent when none does.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corpus import DownloadError, Package, download

from memlint.linting.finding import Confidence, FileResult
from memlint.linting.lint import lint
from memlint.linting.policy import Policy
from memlint.linting.registry import all_rules
from memlint.project.files import project_root

HERE = Path(__file__).parent
BUGS, TRAPS = HERE / "real_bugs.jsonl", HERE / "real_traps.jsonl"
# A finding may start at the call within a statement of a few lines.
TOLERANCE_LINES = 2

Record = dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """`found` and `silent` are None where there is no text to read."""

    record: Record
    found: bool | None
    silent: bool | None


def records(path: Path) -> list[Record]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def packages(bugs: Iterable[Record], traps: Iterable[Record]) -> list[Package]:
    """Each package once, in the order of the records."""
    found: dict[Package, None] = {}
    for bug in bugs:
        if bug["text"] == "package":
            for when in ("before", "after"):
                found[Package(bug["package"], bug[f"{when}_version"], bug[f"{when}_kind"])] = None
    for trap in traps:
        found[Package(trap["package"], trap["version"], trap["kind"])] = None
    return list(found)


def fetch(folder: Path) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    failed = 0
    for package in packages(records(BUGS), records(TRAPS)):
        try:
            download(package, folder)
        except DownloadError as error:
            failed += 1
            print(f"{package.folder_name}: not downloaded: {error}", file=sys.stderr, flush=True)
    return 1 if failed else 0


def lint_file(path: Path) -> FileResult:
    codes = frozenset(rule.code for rule in all_rules())
    path = path.resolve()
    policy = Policy(codes, Confidence.MEDIUM, None, str(project_root(path.parent)), path)
    return lint(str(path), path.read_bytes(), policy)


def flags(path: Path, codes: Iterable[str], lines: Iterable[int]) -> bool | None:
    """Whether a finding of one of the codes starts near one of the lines; None where the file is not there."""
    if not path.is_file():
        return None
    places = {finding.start.line for finding in lint_file(path).findings if finding.code in codes}
    return any(abs(place - line) <= TOLERANCE_LINES for place in places for line in lines)


def score_bug(folder: Path, bug: Record) -> Outcome:
    if bug["text"] == "thread":
        return Outcome(bug, None, None)
    if bug["text"] == "package":
        before = folder / f"{bug['package']}-{bug['before_version']}" / bug["path"]
        after = folder / f"{bug['package']}-{bug['after_version']}" / (bug.get("after_path") or bug["path"])
    else:
        before, after = folder / bug["id"] / "before.py", folder / bug["id"] / "after.py"
    found = flags(before, bug["codes"], bug["before_lines"])
    flagged = flags(after, bug["codes"], bug["after_lines"])
    return Outcome(bug, found, None if flagged is None else not flagged)


def score_trap(folder: Path, trap: Record) -> Outcome:
    path = folder / f"{trap['package']}-{trap['version']}" / trap["path"]
    flagged = flags(path, [trap["code"]], [trap["line"]])
    return Outcome(trap, None, None if flagged is None else not flagged)


def _share(values: list[bool | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{sum(known)} of {len(known)}" if known else "-"


def _print_table(title: str, groups: dict[str, list[Outcome]]) -> None:
    print(f"\n| {title} | bugs | text read | found before | silent after |")
    print("|---|---:|---:|---:|---:|")
    for name, outcomes in sorted(groups.items()):
        found = [outcome.found for outcome in outcomes]
        silent = [outcome.silent for outcome in outcomes]
        read = sum(value is not None for value in found)
        print(f"| {name} | {len(outcomes)} | {read} | {_share(found)} | {_share(silent)} |")


def score(folder: Path, missed: bool) -> int:
    bugs = [score_bug(folder, bug) for bug in records(BUGS)]
    traps = [score_trap(folder, trap) for trap in records(TRAPS)]
    by: dict[str, dict[str, list[Outcome]]] = {"difficulty": defaultdict(list), "category": defaultdict(list)}
    for outcome in bugs:
        by["difficulty"][str(outcome.record["difficulty"])].append(outcome)
        by["category"][outcome.record["category"]].append(outcome)
    for title, groups in by.items():
        _print_table(title, groups)
    print(f"\ntraps silent: {_share([outcome.silent for outcome in traps])}")
    if missed:
        _print_failures(bugs, traps)
    return 0


def _print_failures(bugs: list[Outcome], traps: list[Outcome]) -> None:
    for outcome in bugs:
        record = outcome.record
        what = f"{record['id']} ({', '.join(record['codes'])}, difficulty {record['difficulty']})"
        if outcome.found is False:
            print(f"missed: {what}")
        if outcome.silent is False:
            print(f"flagged after the fix: {what}")
        if outcome.found is None and record["text"] != "thread":
            print(f"no text: {what}")
    for outcome in traps:
        if outcome.silent is False:
            print(f"false alarm: {outcome.record['id']} ({outcome.record['code']})")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["fetch", "score"])
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--missed", action="store_true")
    options = parser.parse_args()
    return fetch(options.folder) if options.action == "fetch" else score(options.folder, options.missed)


if __name__ == "__main__":
    sys.exit(main())
