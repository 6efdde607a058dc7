"""Whether skipping loses findings: every file is checked as usual, and with every rule whatever the file's words are.

    python benchmarks/skipping.py CORPUS [--jobs N]

CORPUS is the folder of `benchmarks/corpus.py download`. A file is not parsed where none of its words is a trigger of an
enabled rule, and a rule does not run on a file without one of its triggers. With all rules on and low confidence shown,
both ways must find the same in every file. Every rule runs once, and what is lost is what a rule found that would not
have run; one file in twenty, and each that would not be parsed, is really checked both ways. Names and counts go to
benchmarks/skipping.jsonl, a line a package; packages that stand there are not read again. Prints each difference; the
exit status is 1 where there is one.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from unittest.mock import Mock, patch

import libcst as cst
from corpus import Package, present
from speed import every_rule

from memlint.linting import lint as core
from memlint.linting.finding import Finding
from memlint.linting.registry import Traced
from memlint.semantics.parsing import parse

_TWICE = 20
RESULTS = Path(__file__).with_name("skipping.jsonl")


@dataclass
class Counted:
    package: str
    version: str
    files: int = 0
    not_parsed: int = 0
    findings: int = 0
    findings_without_skipping: int = 0
    differing_files: int = 0


def without_skipping() -> AbstractContextManager[object]:
    return patch.object(core, "_may_find", lambda *_: True)


@dataclass
class Runs:
    """Lets every rule run, and notes those that usually would not."""

    usual: Callable[[Traced, frozenset[str]], bool] = core._may_find
    skipped: set[str] = field(default_factory=set)

    def __call__(self, rule: Traced, words: frozenset[str]) -> bool:
        if not self.usual(rule, words):
            self.skipped.add(rule.code)
        return True


@dataclass(frozen=True)
class Compared:
    """The findings of one file."""

    skipping: tuple[Finding, ...]
    everything: tuple[Finding, ...]
    is_parsed: bool
    """When rules are skipped."""


def compare(path: Path, *, twice: bool = False) -> Compared:
    """Every rule runs once; what it finds is lost where it would have been skipped. `twice`: it is also run as usual.

    Rules know nothing of each other, so that the others find the same. A file that usually is not parsed, or that
    cannot be, is run both ways.
    """
    raw, policy = path.read_bytes(), every_rule(path)
    view, runs = core.view_of(policy), Runs()
    with patch.object(core, "parse", Mock(side_effect=_parse_once)) as parsing:
        with patch.object(core, "_may_find", runs):
            analysis = core.analyse(str(path), raw, policy, view)
        everything = core.conclude(analysis, policy, view).findings
        if twice or analysis.blocked or runs.skipped == policy.codes:
            parsing.reset_mock()
            return Compared(core.lint(str(path), raw, policy).findings, everything, parsing.called)
    left = tuple(item for item in analysis.candidates if item.finding.code not in runs.skipped)
    skipping = core.conclude(replace(analysis, candidates=left), policy, view).findings
    return Compared(skipping, everything, parsing.called)


@lru_cache(maxsize=1)
def _parse_once(text: str) -> cst.Module:
    """Both ways read the same tree."""
    return parse(text)


def compare_package(package: Package, paths: list[Path]) -> tuple[Counted, list[str]]:
    """The numbers, and each difference in words."""
    counted, differences = Counted(package.name, package.version), []
    for number, path in enumerate(paths):
        compared = compare(path, twice=number % _TWICE == 0)
        counted.files += 1
        counted.not_parsed += not compared.is_parsed
        counted.findings += len(compared.skipping)
        counted.findings_without_skipping += len(compared.everything)
        if compared.skipping != compared.everything:
            counted.differing_files += 1
            before, after = _codes(compared.skipping), _codes(compared.everything)
            differences.append(f"{path}: {before} with skipping, {after} without")
    return counted, differences


def _codes(findings: tuple[Finding, ...]) -> str:
    return ", ".join(f"{finding.code} in line {finding.start.line}" for finding in findings) or "nothing"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path, metavar="CORPUS")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    corpus: Path = options.corpus.resolve()
    done = [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []
    known = {(row["package"], row["version"]) for row in done}
    todo = [item for item in present(corpus) if (item[0].name, item[0].version) not in known]
    with ProcessPoolExecutor(options.jobs) as pool:
        for counted, differences in pool.map(compare_package, *zip(*todo, strict=True)) if todo else ():
            print(*differences, sep="\n", end="\n" if differences else "", flush=True)
            with RESULTS.open("a") as stream:
                stream.write(json.dumps(asdict(counted)) + "\n")
            done.append(asdict(counted))
    total = {key: sum(row[key] for row in done) for key in asdict(Counted("", "")) if key not in ("package", "version")}
    print(f"{len(done)} packages: {total}")
    sys.exit(1 if total["differing_files"] else 0)


if __name__ == "__main__":
    main()
