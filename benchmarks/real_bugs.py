"""Score memlint on memory bugs that people really fixed, and on correct code that a naive rule would flag.

    python benchmarks/real_bugs.py fetch DIR         download the packages of real_bugs.jsonl and real_traps.jsonl
    python benchmarks/real_bugs.py score DIR         recall before the fix, silence after it; silence at the traps
    python benchmarks/real_bugs.py score DIR --missed    the same, and every miss and false alarm by name

The records hold references and facts, no code. The text of a bug is read where its record says:

- `text` is `package`: in two versions of a package from PyPI, DIR/<package>-<version>/<path>, with all around it; where
  only the corrected one was released, the other as of a repository;
- `text` is `repository`: in DIR/<id>/before.py and after.py, copied from <path> of the repository at the commit before
  and after the fix (`git show COMMIT:PATH`); in DIR/<id>/before/<path> and after/<path> where several files count.
  A record with `excerpt` was scored on the functions and imports concerned. Where `commit` is null only the thread is
  known, not the commit of the text;
- `text` is `thread`: only the issue or pull request shows the code; its re-creation is in fixtures/real_bugs/.

A bug counts as found when a finding of one of its codes, at high or medium confidence, starts within two lines of the
place; a corrected place as silent when none does. `half` tells the fresh cases, `dev` and `held-out`; `round` 2 to 4
the later collections of them (real_bugs.md).
Specimens, real_specimens.jsonl, are defects that nobody has corrected.
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
BUGS, SPECIMENS, TRAPS = (HERE / f"real_{name}.jsonl" for name in ("bugs", "specimens", "traps"))
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
                if f"{when}_version" in bug:
                    found[Package(bug["package"], bug[f"{when}_version"], bug[f"{when}_kind"])] = None
    for trap in traps:
        if "package" in trap:
            found[Package(trap["package"], trap["version"], trap["kind"])] = None
    return list(found)


def fetch(folder: Path) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    failed = 0
    for package in packages(records(BUGS) + records(SPECIMENS), records(TRAPS)):
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


def text_of(folder: Path, record: Record, when: str) -> Path:
    """Where the text of a record is to be, `before` or `after`."""
    path = str(record.get(f"{when}_path") or record.get("path") or "module.py")
    if record["text"] == "package" and f"{when}_version" in record:
        return folder / f"{record['package']}-{record[f'{when}_version']}" / path
    in_project = folder / str(record["id"]) / when
    return in_project / path if in_project.is_dir() else in_project.with_suffix(".py")


def score_bug(folder: Path, bug: Record) -> Outcome:
    if bug["text"] == "thread":
        return Outcome(bug, None, None)
    found = flags(text_of(folder, bug, "before"), bug["codes"], bug["before_lines"])
    flagged = flags(text_of(folder, bug, "after"), bug["codes"], bug.get("after_lines", []))
    return Outcome(bug, found, None if flagged is None else not flagged)


def score_trap(folder: Path, trap: Record) -> Outcome:
    if "package" in trap:
        path = folder / f"{trap['package']}-{trap['version']}" / trap["path"]
    else:
        path = text_of(folder, trap, "before")
    codes, lines = trap.get("codes") or [trap["code"]], trap.get("lines") or [trap["line"]]
    flagged = flags(path, codes, lines)
    return Outcome(trap, None, None if flagged is None else not flagged)


def half_of(record: Record) -> str:
    """The collection that a record belongs to, and its half."""
    return f"round {record.get('round', 1)}, {record['half']}" if "half" in record else "first corpus"


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
    specimens = [score_bug(folder, specimen) for specimen in records(SPECIMENS)]
    traps = [score_trap(folder, trap) for trap in records(TRAPS)]
    first, fresh, categories = (defaultdict[str, list[Outcome]](list) for _ in range(3))
    for kind, outcomes in (("fixed", bugs), ("specimen", specimens)):
        for outcome in outcomes:
            record = outcome.record
            if "half" in record:
                fresh[f"{half_of(record)}, {kind}, {record['difficulty']}"].append(outcome)
            else:
                first[str(record["difficulty"])].append(outcome)
            categories[record["category"]].append(outcome)
    for title, groups in {"difficulty": first, "round, half, kind, difficulty": fresh, "category": categories}.items():
        _print_table(title, groups)
    for half in sorted({half_of(outcome.record) for outcome in traps}):
        silent = [outcome.silent for outcome in traps if half_of(outcome.record) == half]
        print(f"\ntraps silent ({half}): {_share(silent)}")
    if missed:
        _print_failures(bugs + specimens, traps)
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
            print(f"false alarm: {outcome.record['id']}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["fetch", "score"])
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--missed", action="store_true")
    options = parser.parse_args()
    return fetch(options.folder) if options.action == "fetch" else score(options.folder, options.missed)


if __name__ == "__main__":
    sys.exit(main())
