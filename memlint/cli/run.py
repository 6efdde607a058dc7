"""From paths and options to the results of each file."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import click

from memlint.cli.errors import Trouble
from memlint.cli.late import compile_methods_late, import_metadata_late
from memlint.cli.options import Running
from memlint.cli.progress import with_progress
from memlint.config.discovery import SourcePath, Unreadable, excluder_of, find_files
from memlint.config.load import SettingsResolver
from memlint.config.options import Options
from memlint.config.paths import absolute, shown
from memlint.config.policies import PolicyMaker
from memlint.config.settings import Settings
from memlint.linting.earlier import Earlier, Examined
from memlint.linting.finding import FileResult, Finding, FixResult
from memlint.linting.policy import Policy
from memlint.project.files import forget_files, project_root
from memlint.source.lines import Position

if TYPE_CHECKING:
    from memlint.cache.results import Results
    from memlint.cache.store import KnownRule
    from memlint.cache.stores import Stores
    from memlint.linting.pool import Lost

STDIN = "-"

_Result = TypeVar("_Result")

_FIRST = Position(1, 1)
# Some 5,000 lines: a second process takes as long to start and to read the project as it saves.
_BYTES_FOR_A_PROCESS = 200_000
_USUALLY = Running()


class Job(NamedTuple):
    """One file to check or fix. `content` is given where it is not to be read from `file`: standard input."""

    shown: str
    file: str
    content: bytes | None
    policy: Policy
    timeout_seconds: float
    unsafe_fixes: bool = False
    only: frozenset[tuple[str, int]] | None = None
    """The findings to fix, by code and line; None: all."""
    earlier: Earlier | None = None
    """What an earlier run found, where it may still hold."""

    @property
    def path(self) -> Path:
        return Path(self.file)

    def read(self) -> bytes:
        """Raises OSError."""
        return self.path.read_bytes() if self.content is None else self.content


@dataclass(frozen=True)
class Means:
    """How a run works: with at most so many worker processes, and with the results of earlier runs or without."""

    processes: int = 1
    results: Results | None = None
    rules: Sequence[KnownRule] = ()
    """All but local ones, as an earlier run has found them: to import them all takes longer than to look up results."""


@dataclass(frozen=True)
class Plan:
    """What a run is going to do. `settings` are those of the current folder: they decide about the output."""

    settings: Settings
    jobs: tuple[Job, ...]
    unreadable: tuple[Unreadable, ...] = ()
    means: Means = field(default_factory=Means)
    has_local_rules: bool = False

    @property
    def may_be_repeated(self) -> bool:
        """Whether the same run prints the same while the files and settings are as they are. Local rules are others."""
        return bool(self.jobs) and not (self.settings.baseline or self.has_local_rules or self.unreadable)

    @property
    def troubles(self) -> list[FileResult]:
        return [FileResult(folder.shown, trouble=f"cannot be read: {folder.reason}") for folder in self.unreadable]


def plan(
    paths: Sequence[str],
    stdin_filename: str | None,
    overrides: Options,
    running: Running = _USUALLY,
    stores: Stores | None = None,
    *,
    unsafe_fixes: bool = False,
) -> Plan:
    """Find the files and what is to be checked in each. `stores` are those of the run, where it has opened them.

    Raises:
        ConfigError: a path that does not exist, or settings that cannot be used.
    """
    forget_files()  # a process may run several times, as `--watch` does
    resolver = SettingsResolver(overrides)
    means = _means(running, stores, uses_stdin=STDIN in paths)
    policies = PolicyMaker(resolver, means.rules)
    settings = resolver.for_folder(Path.cwd())
    policies.validate(settings)
    if settings.refused_local_rules:
        names = ", ".join(shown(Path(path)) for path in settings.refused_local_rules)
        click.echo(f"note: the project's own rules ({names}) are not loaded: `--allow-local-rules` does", err=True)
    if STDIN in paths:
        return Plan(settings, _stdin_jobs(paths, stdin_filename, policies, unsafe_fixes=unsafe_fixes))
    if stdin_filename is not None:
        raise Trouble("`--stdin-filename` goes with `-`, which reads the file from standard input")
    found = find_files(paths, resolver)
    jobs = tuple(job_of(file, None, policies, unsafe_fixes=unsafe_fixes) for file in found.files)
    return Plan(settings, jobs, found.unreadable, means, resolver.has_local_rules)


def _means(running: Running, stores: Stores | None, *, uses_stdin: bool) -> Means:
    processes = running.jobs or _cores()
    if not running.cache or uses_stdin:
        return Means(processes)
    from memlint.cache.results import Results
    from memlint.cli.again import new_stores

    results = Results(stores or new_stores())
    return Means(processes, results, results.rules(project_root(Path.cwd())))


def _cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _stdin_jobs(
    paths: Sequence[str], stdin_filename: str | None, policies: PolicyMaker, *, unsafe_fixes: bool
) -> tuple[Job, ...]:
    if len(paths) > 1:
        raise Trouble("`-` (standard input) goes with no other path")
    content = sys.stdin.buffer.read()
    file = SourcePath(str(absolute(stdin_filename or STDIN)), stdin_filename or STDIN)
    settings = policies.resolver.for_folder(Path(file.path).parent)
    if settings.force_exclude and excluder_of(settings).match(file.path):
        return ()
    return (job_of(file, content, policies, unsafe_fixes=unsafe_fixes),)


def job_of(file: SourcePath, content: bytes | None, policies: PolicyMaker, *, unsafe_fixes: bool = False) -> Job:
    """What is to be done with a file, as its settings say."""
    settings, policy = policies.settings_and_policy(file.path)
    return Job(file.shown, file.path, content, policy, settings.timeout_per_file, unsafe_fixes)


_ALONE = Means()


def check_all(jobs: Sequence[Job], means: Means = _ALONE) -> Iterator[FileResult]:
    """The result of each file, in the order of the jobs."""
    return with_progress(_checked(jobs, means), len(jobs))


def fix_all(jobs: Sequence[Job], means: Means = _ALONE) -> Iterator[FixResult]:
    """What fixing made of each file, in the order of the jobs. Nothing is written."""
    return with_progress(_fixed(jobs, means), len(jobs))


def _checked(jobs: Sequence[Job], means: Means) -> Iterator[FileResult]:
    known = _known_results(jobs, means)
    waiting = [
        job._replace(earlier=result) if isinstance(result, Earlier) else job
        for job, result in zip(jobs, known, strict=True)
        if not isinstance(result, FileResult)
    ]
    examined = _outcomes(waiting, _examine_one, lambda lost: Examined("", _lost(lost)), means)
    for job, result in zip(jobs, known, strict=True):
        if isinstance(result, FileResult):
            yield result
            continue
        found = next(examined)
        if means.results is not None and found.content:
            means.results.keep(job.policy, found)
        yield found.result
    if means.results is not None:
        means.results.save()


def _fixed(jobs: Sequence[Job], means: Means) -> Iterator[FixResult]:
    known = _known_results(jobs, means)
    nothing = [isinstance(one, FileResult) and not any(finding.fix for finding in one.findings) for one in known]
    waiting = [job for job, done in zip(jobs, nothing, strict=True) if not done]
    fixed = _outcomes(waiting, _fix_one, lambda lost: _unfixed(_lost(lost)), means)
    for result, done in zip(known, nothing, strict=True):
        yield _unfixed(result) if done and isinstance(result, FileResult) else next(fixed)


def _known_results(jobs: Sequence[Job], means: Means) -> Sequence[FileResult | Earlier | None]:
    """What an earlier run found in each file, and whether it is known to hold."""
    if means.results is None:
        return [None] * len(jobs)
    return means.results.find([(job.shown, job.policy) for job in jobs])


def _outcomes(
    jobs: Sequence[Job], work: Callable[[Job], _Result], when_lost: Callable[[Lost[Job]], _Result], means: Means
) -> Iterator[_Result]:
    """The outcomes in the order of the jobs."""
    from memlint.linting.child import FORKS
    from memlint.linting.pool import Lost, WorkerDidNotStart, run_side_by_side

    processes = _processes(jobs, means.processes)
    prepare = partial(_prepare, means.rules if processes == 1 else ())
    if processes > 1 and FORKS:
        prepare()  # once, before the workers are forked
    try:
        for timeout, group in groupby(jobs, key=lambda job: job.timeout_seconds):
            outcomes = run_side_by_side(list(group), work, timeout=timeout, processes=processes, prepare=prepare)
            for outcome in outcomes:
                yield when_lost(outcome) if isinstance(outcome, Lost) else outcome
    except WorkerDidNotStart as error:
        raise Trouble(str(error)) from None


def _processes(jobs: Sequence[Job], most: int) -> int:
    """How many pay: each reads of the project for itself what its files ask of it."""
    if most <= 1 or len(jobs) <= 1:
        return 1
    size = sum(_size(job) for job in jobs)
    return max(1, min(most, len(jobs), size // _BYTES_FOR_A_PROCESS))


def _size(job: Job) -> int:
    try:
        return job.path.stat().st_size if job.content is None else len(job.content)
    except OSError:
        return 0


def _prepare(rules: Sequence[KnownRule]) -> None:
    """Runs in a worker before its first file: what takes long to import is not on the file's clock.

    Rules that are known are imported when a file calls for them: a few files need not call for all.
    """
    from memlint.linting.child import FORKS

    if not FORKS:  # else it is as in the process that it was forked from
        compile_methods_late()
    import_metadata_late()
    import memlint.linting.examine  # noqa: F401
    from memlint.linting.registry import assume, rule_classes

    if rules:
        assume(rules)
    else:
        rule_classes()


def _examine_one(job: Job) -> Examined:
    from memlint.linting.examine import examine

    try:
        raw = job.read()
    except OSError as error:
        return Examined("", _unopened(job, error))
    return examine(job.shown, raw, job.policy, job.earlier)


def _fix_one(job: Job) -> FixResult:
    from memlint.linting.lint import fix

    try:
        raw = job.read()
    except OSError as error:
        return _unfixed(_unopened(job, error))
    return fix(job.shown, raw, job.policy, unsafe=job.unsafe_fixes, only=job.only)


def _unopened(job: Job, error: OSError) -> FileResult:
    return FileResult(job.shown, trouble=f"cannot be opened: {error.strerror or error}")


def _unfixed(result: FileResult) -> FixResult:
    return FixResult(result.path, b"", b"", {}, result)


def _lost(lost: Lost[Job]) -> FileResult:
    shown = lost.job.shown
    if lost.reason == "timeout":
        return FileResult(shown, (_own(lost.job, "MEM005", _timed_out(lost)),))
    if lost.reason == "overflowed":
        return FileResult(shown, (_own(lost.job, "MEM006", _overflowed(lost)),))
    if lost.reason == "died":
        return FileResult(shown, trouble=f"the check broke off: {lost.detail}")
    return FileResult(shown, trouble=f"internal error; please report it with these lines:\n{lost.detail.rstrip()}")


def _timed_out(lost: Lost[Job]) -> str:
    return (
        f"checking this file {lost.detail}, so it was not checked: "
        "allow more with `--timeout-per-file`, or name the file in `exclude`"
    )


def _overflowed(lost: Lost[Job]) -> str:
    return (
        f"the parser crashed on this file ({lost.detail}), as it does on code that is nested too deeply, "
        "so it was not checked: name the file in `exclude`"
    )


def _own(job: Job, code: str, message: str) -> Finding:
    from memlint.linting.registry import own_name

    return Finding(code, own_name(code), message, job.shown, _FIRST, _FIRST)
