"""From paths and options to the results of each file."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from memlint.cli.errors import Trouble
from memlint.cli.progress import with_progress
from memlint.config.discovery import SourcePath, Unreadable, excluder_of, find_files
from memlint.config.load import SettingsResolver
from memlint.config.options import Options
from memlint.config.paths import absolute, shown
from memlint.config.policies import PolicyMaker
from memlint.config.settings import Settings
from memlint.linting.finding import FileResult, Finding, FixResult
from memlint.linting.policy import Policy
from memlint.source.lines import Position

if TYPE_CHECKING:
    from memlint.linting.pool import Lost

STDIN = "-"

_Result = TypeVar("_Result")

_FIRST = Position(1, 1)


@dataclass(frozen=True)
class Job:
    """One file to check or fix. `content` is given where it is not to be read from `path`: standard input."""

    shown: str
    path: Path
    content: bytes | None
    policy: Policy
    timeout_seconds: float
    unsafe_fixes: bool = False
    only: frozenset[tuple[str, int]] | None = None
    """The findings to fix, by code and line; None: all."""

    def read(self) -> bytes:
        """Raises OSError."""
        return self.path.read_bytes() if self.content is None else self.content


@dataclass(frozen=True)
class Plan:
    """What a run is going to do. `settings` are those of the current folder: they decide about the output."""

    settings: Settings
    jobs: tuple[Job, ...]
    unreadable: tuple[Unreadable, ...] = ()

    @property
    def troubles(self) -> list[FileResult]:
        return [FileResult(folder.shown, trouble=f"cannot be read: {folder.reason}") for folder in self.unreadable]


def plan(paths: Sequence[str], stdin_filename: str | None, overrides: Options, *, unsafe_fixes: bool = False) -> Plan:
    """Find the files and what is to be checked in each.

    Raises:
        ConfigError: a path that does not exist, or settings that cannot be used.
    """
    resolver = SettingsResolver(overrides)
    policies = PolicyMaker(resolver)
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
    return Plan(settings, jobs, found.unreadable)


def _stdin_jobs(
    paths: Sequence[str], stdin_filename: str | None, policies: PolicyMaker, *, unsafe_fixes: bool
) -> tuple[Job, ...]:
    if len(paths) > 1:
        raise Trouble("`-` (standard input) goes with no other path")
    content = sys.stdin.buffer.read()
    file = SourcePath(absolute(stdin_filename or STDIN), stdin_filename or STDIN)
    settings = policies.resolver.for_folder(file.path.parent)
    if settings.force_exclude and excluder_of(settings).match(file.path):
        return ()
    return (job_of(file, content, policies, unsafe_fixes=unsafe_fixes),)


def job_of(file: SourcePath, content: bytes | None, policies: PolicyMaker, *, unsafe_fixes: bool = False) -> Job:
    """What is to be done with a file, as its settings say."""
    timeout = policies.resolver.for_folder(file.path.parent).timeout_per_file
    return Job(file.shown, file.path, content, policies.policy(file.path), timeout, unsafe_fixes)


def check_all(jobs: Sequence[Job]) -> Iterator[FileResult]:
    """The result of each file, in the order of the jobs."""
    return _each(jobs, _check_one, _lost)


def fix_all(jobs: Sequence[Job]) -> Iterator[FixResult]:
    """What fixing made of each file, in the order of the jobs. Nothing is written."""
    return _each(jobs, _fix_one, lambda lost: _unfixed(_lost(lost)))


def _each(
    jobs: Sequence[Job], work: Callable[[Job], _Result], when_lost: Callable[[Lost[Job]], _Result]
) -> Iterator[_Result]:
    return with_progress(_outcomes(jobs, work, when_lost), len(jobs))


def _outcomes(
    jobs: Sequence[Job], work: Callable[[Job], _Result], when_lost: Callable[[Lost[Job]], _Result]
) -> Iterator[_Result]:
    from memlint.linting.pool import Lost, WorkerDidNotStart, run_files

    try:
        for timeout, group in groupby(jobs, key=lambda job: job.timeout_seconds):
            for outcome in run_files(list(group), work, timeout=timeout, prepare=_prepare):
                yield when_lost(outcome) if isinstance(outcome, Lost) else outcome
    except WorkerDidNotStart as error:
        raise Trouble(str(error)) from None


def _prepare() -> None:
    """Runs in a worker before its first file: what takes long to import is not on the file's clock."""
    import memlint.linting.lint  # noqa: F401
    from memlint.linting.registry import all_rules

    all_rules()


def _check_one(job: Job) -> FileResult:
    from memlint.linting.lint import lint

    try:
        raw = job.read()
    except OSError as error:
        return _unopened(job, error)
    return lint(job.shown, raw, job.policy)


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
        return FileResult(shown, (_own(lost.job, "MEM005", _timed_out(lost.job)),))
    if lost.reason == "overflowed":
        return FileResult(shown, (_own(lost.job, "MEM006", _overflowed(lost)),))
    if lost.reason == "died":
        return FileResult(shown, trouble=f"the check broke off: {lost.detail}")
    return FileResult(shown, trouble=f"internal error; please report it with these lines:\n{lost.detail.rstrip()}")


def _timed_out(job: Job) -> str:
    return (
        f"checking this file takes longer than {job.timeout_seconds:g} s, so it was not checked: "
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
