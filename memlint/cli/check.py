"""`memlint check`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from memlint.cli.errors import Trouble
from memlint.cli.options import Running, common_options, running_options
from memlint.config.options import Options
from memlint.linting.finding import FileResult

if TYPE_CHECKING:
    from memlint.cli.again import EarlierRun
    from memlint.cli.run import Plan
    from memlint.cli.said import Manner, Said


@click.command()
@click.argument("paths", nargs=-1, metavar="[PATHS]...")
@common_options
@running_options
@click.option("--statistics", is_flag=True, help="Print how often each rule was found, instead of the findings.")
@click.option("--exit-zero", is_flag=True, help="Exit with 0 even when there are findings.")
@click.option("--stdin-filename", metavar="NAME", help="The name of the file that `-` reads from standard input.")
@click.option(
    "--output-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the findings to this file instead of printing them.",
)
@click.option("--since", metavar="REV", help="Only findings on lines that have changed since this revision of git.")
@click.option(
    "--baseline",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Leave out the findings that this file knows; see `memlint baseline`.",
)
@click.option(
    "--measured",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Show what `memlint confirm --output FILE` has measured beside the findings.",
)
@click.option("--add-noqa", metavar="REASON", help="Suppress each finding with a comment that gives this reason.")
@click.option("--fix", "apply_fixes", is_flag=True, help="Apply safe fixes first, as `memlint fix --apply` does.")
@click.option("--watch", is_flag=True, help="Check again whenever a file changes, until Ctrl-C.")
@click.pass_context
def check(  # noqa: PLR0913 - one for each option
    ctx: click.Context,
    *,
    paths: tuple[str, ...],
    overrides: Options,
    running: Running,
    statistics: bool,
    exit_zero: bool,
    stdin_filename: str | None,
    output_file: Path | None,
    since: str | None,
    baseline: Path | None,
    measured: Path | None,
    add_noqa: str | None,
    apply_fixes: bool,
    watch: bool,
) -> None:
    """Report the lines that waste GPU memory.

    PATHS are files and folders, by default the current folder; `-` reads one file from standard input.

    The exit status is 0 when nothing was found, 1 when something was, and 2 when the check could not be done.
    """
    from memlint.cli.said import manner, say

    others = (since, measured, add_noqa, baseline, stdin_filename)
    # Files that are named themselves are nearly always those that have changed.
    may_be_as_it_was = not apply_fixes and all(option is None for option in others) and all(map(os.path.isdir, paths))
    how = manner(statistics=statistics, exit_zero=exit_zero, output_file=output_file)

    def run_once() -> int:
        earlier = _earlier_run(paths, overrides, how) if may_be_as_it_was and running.cache else None
        again = earlier.recall() if earlier is not None else None
        if again is not None:
            return say(again, output_file)
        from memlint.cli.output import NO_FILES, print_troubles
        from memlint.cli.run import check_all, plan

        planned = plan(paths, stdin_filename, overrides, running, earlier.stores if earlier is not None else None)
        if apply_fixes:
            from memlint.cli.fix import fix_files

            return fix_files(planned, write=True, statistics=statistics, exit_zero=exit_zero)
        results = list(check_all(planned.jobs, planned.means))
        if baseline or planned.settings.baseline:
            results = _without_known(planned, results, baseline)
        if since is not None:
            results = _only_changed(planned, results, since)
        if measured is not None:
            results = _priced(planned, results, measured)
        if add_noqa is not None:
            results = _suppressed(planned, results, add_noqa)
        results += planned.troubles
        said = _said(results, planned, how)
        if earlier is not None:
            earlier.keep(planned, said)
        status = say(said, output_file)
        if not planned.jobs:
            click.echo(NO_FILES, err=True)
        print_troubles(results)
        return status

    if not watch:
        ctx.exit(run_once())
    from memlint.cli.watching import watch_and_run

    watch_and_run(paths, run_once)


def _earlier_run(paths: Sequence[str], overrides: Options, how: Manner) -> EarlierRun:
    from memlint.cli.again import EarlierRun

    return EarlierRun(paths, overrides, how)


def _said(results: Sequence[FileResult], planned: Plan, how: Manner) -> Said:
    from memlint.cli.output import FOR_PEOPLE, exit_status, report_text
    from memlint.cli.said import Said
    from memlint.reporting import summary
    from memlint.reporting.report import Report

    report, output_format = Report.of(results), planned.settings.output_format
    for_people = planned.jobs and (output_format in FOR_PEOPLE or how.is_to_file)
    line = summary.found(report, len(planned.jobs)) if for_people else ""
    text = report_text(report, output_format, how.looks, statistics=how.statistics)
    return Said(text, line, exit_status(results, exit_zero=how.exit_zero))


def _without_known(planned: Plan, results: Sequence[FileResult], file: Path | None) -> list[FileResult]:
    """The findings that the baseline does not know. What it knows in vain is taken out of it."""
    from memlint.adoption.baseline import Baseline
    from memlint.cli.baseline import checked_files
    from memlint.config.paths import absolute, shown

    known = Baseline.read(absolute(file) if file else planned.settings.baseline or Path())
    left, shrunk = known.without_known(checked_files(planned, results))
    gone = known.entries.total() - shrunk.entries.total()
    if not gone or any(job.content is not None for job in planned.jobs):
        return left
    what = f"{gone} {'entry' if gone == 1 else 'entries'} of {shown(known.path)} {'is' if gone == 1 else 'are'} gone"
    if os.environ.get("CI"):
        click.echo(f"note: {what}; a check outside of CI takes them out", err=True)
        return left
    try:
        shrunk.write()
    except OSError as error:
        raise Trouble(f"cannot write {shown(known.path)}: {error.strerror or error}") from None
    click.echo(f"note: {what}, and taken out of it", err=True)
    return left


def _priced(planned: Plan, results: Sequence[FileResult], file: Path) -> list[FileResult]:
    from memlint.cli.measured import contents_of, read_confirmation, warn_of_changes

    saved = read_confirmation(file)
    contents = contents_of(planned.jobs)
    warn_of_changes(saved)
    pairs = zip(planned.jobs, results, strict=True)
    return [saved.priced(result, job.path, contents[job.path]) for job, result in pairs]


def _only_changed(planned: Plan, results: Sequence[FileResult], revision: str) -> list[FileResult]:
    from memlint.adoption.changes import NoChanges, changes_since

    try:
        changes = changes_since(revision, Path.cwd())
    except NoChanges as error:
        raise Trouble(f'cannot tell what has changed since "{revision}": {error}') from None
    pairs = zip(planned.jobs, results, strict=True)
    return [changes.only_touched(result, job.path) for job, result in pairs]


def _suppressed(planned: Plan, results: Sequence[FileResult], reason: str) -> list[FileResult]:
    """Write the comments; return what they left."""
    from memlint.cli.suppressing import suppress
    from memlint.reporting.summary import counted

    left = [suppress(job, result, reason) for job, result in zip(planned.jobs, results, strict=True)]
    count = sum(len(before.findings) - len(after.findings) for before, after in zip(results, left, strict=True))
    click.echo(f"Suppressed {counted(count, 'finding')}.", err=True)
    return left
