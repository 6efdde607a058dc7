"""`memlint fix`."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from memlint.cli.options import Running, common_options, running_options
from memlint.config.options import Options
from memlint.linting.finding import FileResult, FixResult

if TYPE_CHECKING:
    from memlint.cli.run import Job, Plan


@click.command()
@click.argument("paths", nargs=-1, metavar="[PATHS]...")
@common_options
@running_options
@click.option("--apply", "write", is_flag=True, help="Write the fixed files instead of printing a diff.")
@click.option("--unsafe-fixes", is_flag=True, help="Include fixes that may change what the code does.")
@click.option(
    "--only-confirmed",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Only fixes that `memlint confirm --output FILE` saw to save memory.",
)
@click.option("--exit-zero", is_flag=True, help="Exit with 0 even when there are findings or fixes.")
@click.option("--stdin-filename", metavar="NAME", help="The name of the file that `-` reads from standard input.")
@click.pass_context
def fix(  # noqa: PLR0913 - one for each option
    ctx: click.Context,
    *,
    paths: tuple[str, ...],
    overrides: Options,
    running: Running,
    write: bool,
    unsafe_fixes: bool,
    only_confirmed: Path | None,
    exit_zero: bool,
    stdin_filename: str | None,
) -> None:
    """Print the fixes as a diff for `git apply` in the current folder, or write them with --apply.

    What remains after the fixes is reported as `memlint check` does: after a diff on standard error, with the
    lines as they are once the diff is applied.

    `-` reads one file from standard input; with --apply the fixed file goes to standard output.

    The exit status is 0 when there is nothing to fix and nothing remains, 1 when there is, 2 on trouble. With
    --apply only what remains counts.
    """
    from memlint.cli.run import plan

    planned = plan(paths, stdin_filename, overrides, running, unsafe_fixes=unsafe_fixes)
    if only_confirmed is not None:
        planned = _confirmed(planned, only_confirmed)
    ctx.exit(fix_files(planned, write=write, exit_zero=exit_zero))


def _confirmed(planned: Plan, file: Path) -> Plan:
    """The plan, less the fixes that were not confirmed of these very files."""
    from memlint.cli.measured import contents_of, read_confirmation, warn_of_changes

    saved = read_confirmation(file)
    contents = contents_of(planned.jobs)
    warn_of_changes(saved, "its fixes are left out; ")
    jobs = (job._replace(only=saved.confirmed(job.path, contents[job.path])) for job in planned.jobs)
    return replace(planned, jobs=tuple(jobs))


def fix_files(planned: Plan, *, write: bool, statistics: bool = False, exit_zero: bool = False) -> int:
    """Fix the planned files, report on them, and return the exit status."""
    from memlint.cli.output import FOR_PEOPLE, NO_FILES, exit_status, print_report, print_troubles
    from memlint.cli.run import fix_all
    from memlint.reporting import summary
    from memlint.reporting.report import Report

    remaining = planned.troubles
    applied: Counter[str] = Counter()
    fixed_files = 0
    to_stdout = any(job.content is not None for job in planned.jobs)
    results: Iterable[FixResult] = fix_all(planned.jobs, planned.means)
    if write:
        results = list(results)  # all are worked out from the project as it was, before any of its files changes
    for job, result in zip(planned.jobs, results, strict=True):
        left = _put(job, result, write=write)
        remaining.append(left)
        if result.before != result.after and left.trouble is None:
            applied.update(result.applied)
            fixed_files += 1
    report = Report.of(remaining)
    output_format = planned.settings.output_format
    # Standard output belongs to the diff, or to the fixed file.
    stream = sys.stdout if write and not to_stdout else sys.stderr
    print_report(report, output_format, stream, statistics=statistics)
    if not planned.jobs:
        click.echo(NO_FILES, err=True)
    elif output_format in FOR_PEOPLE:
        click.echo(summary.fixed(applied, fixed_files, written=write), file=stream)
        click.echo(summary.remaining(report), file=stream)
    print_troubles(remaining)
    status = exit_status(remaining, exit_zero=exit_zero)
    return 1 if status == 0 and fixed_files and not write and not exit_zero else status


def _put(job: Job, result: FixResult, *, write: bool) -> FileResult:
    """Write the fixed file, or print its diff; return what remains."""
    from memlint.source.diffs import unified_diff
    from memlint.source.file import write_atomically

    stdout = sys.stdout.buffer
    if write and job.content is not None:
        stdout.write(result.after if result.remaining.trouble is None else job.content)
        stdout.flush()
        return result.remaining
    if result.before == result.after:
        return result.remaining
    if not write:
        stdout.write(unified_diff(Path(result.path).as_posix(), result.before, result.after))
        stdout.flush()
        return result.remaining
    try:
        if job.path.read_bytes() != result.before:
            return replace(result.remaining, findings=(), trouble="not fixed: it changed while memlint read it")
        write_atomically(job.path, result.after)
    except OSError as error:
        return replace(result.remaining, findings=(), trouble=f"cannot be written: {error.strerror or error}")
    return result.remaining
