"""Run memlint over the corpus, draw findings for a person to judge, and check what the fixes do.

    python benchmarks/audit.py run CORPUS FINDINGS.jsonl         lint every file; counts per rule and confidence
    python benchmarks/audit.py sample CORPUS FINDINGS.jsonl CODE  a seeded random sample with its source
    python benchmarks/audit.py fixcheck CORPUS [--diffs FILE]    apply all fixes in memory and check the results
    python benchmarks/audit.py compare CORPUS [--record]         download what is missing, lint every file, and print
                                                                 what is new or has vanished since findings.jsonl
    python benchmarks/audit.py table                             the verdicts of audit.jsonl on findings.jsonl, per rule

CORPUS is the folder that corpus.py filled (`compare` fills it). `run`, `fixcheck` and `compare` use every core, bound
the time of each file and take `--only NAME ...`. All rules are on, at every confidence; `compare` looks at what a
default run shows.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import io
import json
import multiprocessing
import os
import random
import sys
import tempfile
import time
import tokenize
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import libcst
from corpus import count_lines, download, packages, present

from memlint.linting.finding import Confidence, Finding
from memlint.linting.lint import fix, lint
from memlint.linting.policy import Policy
from memlint.linting.pool import Lost, run_files
from memlint.linting.registry import all_rules
from memlint.project.files import project_root

TIMEOUT_SECONDS = 60.0
NOT_LINTED = ("MEM001", "MEM002", "MEM005", "MEM006")
INTERNAL_ERROR = "MEM004"
OWN = "MEM00"

Record = dict[str, Any]


@dataclass(frozen=True)
class Job:
    corpus: Path
    package: str
    file: str
    """Relative to the corpus."""

    @property
    def path(self) -> Path:
        return self.corpus.resolve() / self.file

    def read(self) -> bytes:
        return self.path.read_bytes()

    @property
    def policy(self) -> Policy:
        """All rules at every confidence, with the facts of the project around the file."""
        return Policy(every_code(), Confidence.LOW, None, str(project_root(self.path.parent)), self.path)


@cache
def every_code() -> frozenset[str]:
    return frozenset(rule.code for rule in all_rules())


def jobs(corpus: Path, only: list[str] | None) -> tuple[list[Job], int]:
    """A job for each file of the corpus, and the number of lines."""
    found, lines = [], 0
    for package, paths in present(corpus):
        if only is not None and package.name not in only:
            continue
        lines += count_lines(paths)
        found += [Job(corpus, package.name, str(path.relative_to(corpus))) for path in paths]
    if not found:
        sys.exit(f"no package of corpus.toml lies in {corpus}: run corpus.py download {corpus}")
    return found, lines


# --- One process a core, each with a worker of its own whose files are timed -----------------------------------


def run_on_every_core(all_jobs: list[Job], work: Callable[[Job], list[Record]]) -> Iterator[Record]:
    """The records of all jobs, sorted by file; a lost job gives one with code `LOST`."""
    # Imported before the fork, once for all.
    every_code()
    cores = os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as scratch:
        parts = [Path(scratch) / f"{core}.jsonl" for core in range(cores)]
        processes = [
            multiprocessing.Process(target=_run_share, args=(all_jobs[core::cores], work, part))
            for core, part in enumerate(parts)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        if any(process.exitcode != 0 for process in processes):
            sys.exit("a process of the audit failed, see above")
        records = [json.loads(line) for part in parts for line in part.read_text().splitlines()]
    yield from sorted(records, key=lambda record: (record["file"], record["line"], record["code"]))


def _run_share(share: list[Job], work: Callable[[Job], list[Record]], part: Path) -> None:
    with part.open("w") as stream:
        for job, outcome in zip(share, run_files(share, work, timeout=TIMEOUT_SECONDS), strict=True):
            if isinstance(outcome, Lost):
                records = [_record(job, "LOST", 1, f"{outcome.reason}: {outcome.detail}")]
            else:
                records = outcome
            for record in records:
                stream.write(json.dumps(record) + "\n")


def _record(job: Job, code: str, line: int, message: str, **more: object) -> Record:
    return {"package": job.package, "file": job.file, "line": line, "code": code, "message": message, **more}


# --- run -----------------------------------------------------------------------------------------------------


def lint_one(job: Job) -> list[Record]:
    result = lint(job.file, job.read(), job.policy)
    records = [_finding_record(job, finding) for finding in result.findings]
    if result.trouble is not None:
        records.append(_record(job, INTERNAL_ERROR, 1, result.trouble))
    return records


def _finding_record(job: Job, finding: Finding) -> Record:
    return _record(
        job,
        finding.code,
        finding.start.line,
        finding.message,
        column=finding.start.column,
        end_line=finding.end.line,
        name=finding.name,
        confidence=finding.confidence.value,
        cost=finding.cost.cost_class.value if finding.cost else None,
        fix=finding.fix.applicability.value if finding.fix else None,
        related=[[place.position.line, place.message] for place in finding.related],
    )


def run(corpus: Path, output: Path, only: list[str] | None) -> int:
    all_jobs, lines = jobs(corpus, only)
    started = time.perf_counter()
    records = list(run_on_every_core(all_jobs, lint_one))
    seconds = time.perf_counter() - started
    output.write_text("".join(json.dumps(record) + "\n" for record in records))
    print(f"{len(all_jobs):,} files, {lines:,} lines: {len(records):,} findings")
    print(f"{seconds:.0f} s on {os.cpu_count()} cores")
    _print_counts(records)
    _print_places("internal errors and lost files", [r for r in records if r["code"] in (INTERNAL_ERROR, "LOST")])
    _print_places("files that were not linted", [r for r in records if r["code"] in NOT_LINTED])
    return 1 if any(record["code"] in (INTERNAL_ERROR, "LOST") for record in records) else 0


def _print_counts(records: list[Record]) -> None:
    print("\n| code | name | high | medium | low | safe fix | unsafe fix |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for code in sorted({record["code"] for record in records}):
        mine = [record for record in records if record["code"] == code]
        confidences = Counter(record.get("confidence") for record in mine)
        fixes = Counter(record.get("fix") for record in mine)
        cells = [confidences["high"], confidences["medium"], confidences["low"], fixes["safe"], fixes["unsafe"]]
        print(f"| {code} | {mine[0].get('name', '')} | {' | '.join(map(str, cells))} |")


def _print_places(title: str, records: list[Record]) -> None:
    print(f"\n{title}: {len(records)}")
    for record in records:
        message = record["message"].strip().splitlines()
        print(f"  {record['file']}:{record['line']}: {record['code']} {message[-1] if message else ''}")


# --- compare -------------------------------------------------------------------------------------------------


RECORDED = Path(__file__).with_name("findings.jsonl")
KEPT = ("package", "file", "line", "code", "confidence", "message")


def compare(corpus: Path, only: list[str] | None, record: bool) -> int:
    """1 if anything is new or has vanished. `record` makes this run the recorded one."""
    corpus.mkdir(parents=True, exist_ok=True)
    for package in packages():
        if only is None or package.name in only:
            download(package, corpus)
    all_jobs, _ = jobs(corpus, only)
    records = [
        {key: found[key] for key in KEPT}
        for found in run_on_every_core(all_jobs, lint_one)
        if found.get("confidence") in ("high", "medium") or found["code"] in (INTERNAL_ERROR, "LOST")
    ]
    if record:
        RECORDED.write_text("".join(json.dumps(item) + "\n" for item in records))
        print(f"{len(records)} findings recorded")
        return 0
    linted = {job.package for job in all_jobs}
    before = [item for item in map(json.loads, RECORDED.read_text().splitlines()) if item["package"] in linted]
    new = [item for item in records if item not in before]
    vanished = [item for item in before if item not in records]
    _print_places("new", new)
    _print_places("vanished", vanished)
    return 1 if new or vanished else 0


# --- table ---------------------------------------------------------------------------------------------------


VERDICTS = Path(__file__).with_name("audit.jsonl")


def table() -> int:
    """The recorded findings of each rule and what they were judged; verdicts of findings that are gone do not count."""
    verdicts = {_place(item): item["verdict"] for item in map(json.loads, VERDICTS.read_text().splitlines())}
    found = [json.loads(line) for line in RECORDED.read_text().splitlines()]
    print("| rule | findings | judged | true | arguable | false | true share |")
    print("|---|---:|---:|---:|---:|---:|---|")
    for rule in (rule for rule in all_rules() if not rule.code.startswith(OWN)):
        mine = [item for item in found if item["code"] == rule.code]
        _print_row(f"{rule.code} {rule.name}", len(mine), Counter(verdicts.get(_place(item)) for item in mine))
    _print_row("**all**", len(found), Counter(verdicts.get(_place(item)) for item in found))
    return 0


def _place(item: Record) -> tuple[str, int, str]:
    return item["file"], item["line"], item["code"]


def _print_row(name: str, findings: int, verdicts: Counter[str | None]) -> None:
    judged = findings - verdicts[None]
    share = f"{100 * verdicts['true'] / judged:.0f} %" if judged else "-"
    few = " (few)" if 0 < judged < 10 else ""
    counts = " | ".join(str(verdicts[verdict]) for verdict in ("true", "arguable", "false"))
    print(f"| {name} | {findings} | {judged} | {counts} | {share}{few} |")


# --- sample --------------------------------------------------------------------------------------------------


def sample(corpus: Path, findings: Path, code: str, options: argparse.Namespace) -> int:
    records = [json.loads(line) for line in findings.read_text().splitlines()]
    mine = [record for record in records if record["code"] == code]
    if options.confidence is not None:
        mine = [record for record in mine if record["confidence"] in options.confidence]
    drawn = mine
    if len(mine) > options.number:
        drawn = sorted(random.Random(options.seed).sample(mine, options.number), key=lambda r: (r["file"], r["line"]))
    print(f"{code}: {len(drawn)} of {len(mine)} findings, seed {options.seed}")
    for number, record in enumerate(drawn, start=1):
        print(f"\n{'=' * 100}\n[{number}] {record['file']}:{record['line']}:{record.get('column', 1)}")
        print(f"    {record['message']}")
        print(f"    confidence {record.get('confidence')}, cost {record.get('cost')}, fix {record.get('fix')}")
        for line, message in record.get("related", []):
            print(f"    line {line}: {message}")
        _print_source(corpus / record["file"], record["line"], options.context)
    return 0


def _print_source(path: Path, line: int, context: int) -> None:
    with tokenize.open(path) as stream:
        lines = stream.read().split("\n")
    # What explains a finding mostly stands above it.
    first, last = max(1, line - context), min(len(lines), line + context // 2)
    for number in range(first, last + 1):
        print(f"{'>' if number == line else ' '} {number:5} {lines[number - 1]}")


# --- fixcheck ------------------------------------------------------------------------------------------------


def fix_one(job: Job) -> list[Record]:
    """One record for each way the fixes went wrong, and one with code `FIXED` for what they did."""
    raw = job.read()
    result = fix(job.file, raw, job.policy, unsafe=True)
    if result.after == raw:
        return []
    problems = list(_problems(raw, result.after, job))
    diff = _diff(raw, result.after, job.file)
    records = [_record(job, "FIXED", 1, diff, applied=result.applied)]
    return records + [_record(job, "PROBLEM", 1, problem) for problem in problems]


def _problems(before: bytes, after: bytes, job: Job) -> Iterator[str]:
    try:
        libcst.parse_module(after)
    except Exception as error:  # noqa: BLE001 - a syntax error comes in several classes
        yield f"no longer parses: {error}"
        return
    if _compiles(before) and not _compiles(after):
        yield "Python no longer compiles it"
    again = fix(job.file, after, job.policy, unsafe=True)
    if again.after != after:
        yield f"a second run changes it again: {again.applied}"
    lost = _comments(before) - _comments(after)
    if lost:
        yield f"comments lost: {dict(lost)}"


def _compiles(raw: bytes) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            compile(raw, "<corpus>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
        except (SyntaxError, ValueError):
            return False
    return True


def _comments(raw: bytes) -> Counter[str]:
    """The comments of a file, but those that memlint itself may change (MEM003)."""
    try:
        tokens = list(tokenize.tokenize(io.BytesIO(raw).readline))
    except (tokenize.TokenError, SyntaxError):
        return Counter()
    comments = (token.string for token in tokens if token.type == tokenize.COMMENT)
    return Counter(comment for comment in comments if "noqa" not in comment and "memlint:" not in comment)


def _diff(before: bytes, after: bytes, file: str) -> str:
    old, new = (raw.decode("utf-8", "replace").splitlines(keepends=True) for raw in (before, after))
    return "".join(difflib.unified_diff(old, new, f"a/{file}", f"b/{file}"))


def fixcheck(corpus: Path, only: list[str] | None, diffs: Path | None) -> int:
    all_jobs, _ = jobs(corpus, only)
    records = list(run_on_every_core(all_jobs, fix_one))
    fixed = [record for record in records if record["code"] == "FIXED"]
    applied: Counter[str] = Counter()
    for record in fixed:
        applied.update(record["applied"])
    print(f"{len(all_jobs):,} files, {len(fixed):,} changed; fixes applied:")
    for code, count in sorted(applied.items()):
        print(f"  {code} {count}")
    if diffs is not None:
        diffs.write_text("".join(record["message"] for record in fixed))
    problems = [record for record in records if record["code"] != "FIXED"]
    _print_places("problems", problems)
    return 1 if problems else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(dest="action", required=True)
    for name in ("run", "sample", "fixcheck", "compare"):
        action = actions.add_parser(name)
        action.add_argument("corpus", type=Path)
        if name in ("run", "sample"):
            action.add_argument("findings", type=Path)
        if name != "sample":
            action.add_argument("--only", nargs="+", metavar="NAME", help="just these packages")
    actions.add_parser("table")
    sampling = actions.choices["sample"]
    sampling.add_argument("code")
    sampling.add_argument("-n", "--number", type=int, default=40)
    sampling.add_argument("-C", "--context", type=int, default=12, help="lines above the finding (below: half of it)")
    sampling.add_argument("--seed", type=int, default=0)
    sampling.add_argument("--confidence", nargs="+", choices=[level.value for level in Confidence])
    actions.choices["fixcheck"].add_argument("--diffs", type=Path, help="write all changes here as one diff")
    actions.choices["compare"].add_argument("--record", action="store_true", help="make this the recorded run")
    options = parser.parse_args()
    if options.action == "table":
        return table()
    if options.action == "compare":
        return compare(options.corpus, options.only, options.record)
    if options.action == "run":
        return run(options.corpus, options.findings, options.only)
    if options.action == "sample":
        return sample(options.corpus, options.findings, options.code, options)
    return fixcheck(options.corpus, options.only, options.diffs)


if __name__ == "__main__":
    sys.exit(main())
