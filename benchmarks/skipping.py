"""Whether skipping loses findings: every file is checked as usual, and with every rule whatever the file's words are.

    python benchmarks/skipping.py CORPUS

CORPUS is the folder of `benchmarks/corpus.py download`. A file is not parsed where none of its words is a trigger of an
enabled rule, and a rule does not run on a file without one of its triggers. With all rules on and low confidence shown,
both ways must find the same in every file. Names and counts go to benchmarks/skipping.jsonl, a line a package; packages
that stand there are not read again. Prints each difference; the exit status is 1 where there is one.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from unittest.mock import patch

from corpus import present
from speed import every_rule

from memlint.linting import lint as core
from memlint.linting.finding import Finding
from memlint.semantics.parsing import parse

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


def compare(path: Path, counted: Counted, parses: Callable[[], int]) -> None:
    """`parses` says how many texts have been parsed."""
    raw, policy = path.read_bytes(), every_rule(path)
    before = parses()
    skipping = core.lint(str(path), raw, policy).findings
    counted.not_parsed += parses() == before
    with without_skipping():
        everything = core.lint(str(path), raw, policy).findings
    counted.files += 1
    counted.findings += len(skipping)
    counted.findings_without_skipping += len(everything)
    if skipping != everything:
        counted.differing_files += 1
        print(f"{path}: {_codes(skipping)} with skipping, {_codes(everything)} without")


def _codes(findings: tuple[Finding, ...]) -> str:
    return ", ".join(f"{finding.code} in line {finding.start.line}" for finding in findings) or "nothing"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path, metavar="CORPUS")
    corpus: Path = parser.parse_args().corpus.resolve()
    done = [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []
    known = {(row["package"], row["version"]) for row in done}
    # Both ways read the same tree.
    once = lru_cache(maxsize=1)(parse)
    with patch.object(core, "parse", once):
        for package, paths in present(corpus):
            if (package.name, package.version) in known:
                continue
            counted = Counted(package.name, package.version)
            for path in paths:
                compare(path, counted, lambda: once.cache_info().misses)
            with RESULTS.open("a") as stream:
                stream.write(json.dumps(asdict(counted)) + "\n")
            done.append(asdict(counted))
    total = {key: sum(row[key] for row in done) for key in asdict(Counted("", "")) if key not in ("package", "version")}
    print(f"{len(done)} packages: {total}")
    sys.exit(1 if total["differing_files"] else 0)


if __name__ == "__main__":
    main()
