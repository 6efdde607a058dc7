"""`memlint check`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from memlint.cli.options import common_options
from memlint.config.options import Options


@click.command()
@click.argument("paths", nargs=-1, metavar="[PATHS]...")
@common_options
@click.option("--statistics", is_flag=True, help="Print how often each rule was found, instead of the findings.")
@click.option("--exit-zero", is_flag=True, help="Exit with 0 even when there are findings.")
@click.option("--stdin-filename", metavar="NAME", help="The name of the file that `-` reads from standard input.")
@click.option(
    "--output-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the findings to this file instead of printing them.",
)
@click.option("--fix", "apply_fixes", is_flag=True, help="Apply safe fixes first, as `memlint fix --apply` does.")
@click.pass_context
def check(
    ctx: click.Context,
    paths: tuple[str, ...],
    overrides: Options,
    statistics: bool,
    exit_zero: bool,
    stdin_filename: str | None,
    output_file: Path | None,
    apply_fixes: bool,
) -> None:
    """Report the lines that waste GPU memory.

    PATHS are files and folders, by default the current folder; `-` reads one file from standard input.

    The exit status is 0 when nothing was found, 1 when something was, and 2 when the check could not be done.
    """
    from memlint.cli.fix import fix_files
    from memlint.cli.output import FOR_PEOPLE, NO_FILES, exit_status, print_report, print_troubles, write_report
    from memlint.cli.run import check_all, plan
    from memlint.reporting import summary
    from memlint.reporting.report import Report

    planned = plan(paths, stdin_filename, overrides)
    if apply_fixes:
        ctx.exit(fix_files(planned, write=True, statistics=statistics, exit_zero=exit_zero))
    results = [*check_all(planned.jobs), *planned.troubles]
    report = Report.of(results)
    output_format = planned.settings.output_format
    if output_file is None:
        print_report(report, output_format, sys.stdout, statistics=statistics)
    else:
        write_report(report, output_format, output_file, statistics=statistics)
    if not planned.jobs:
        click.echo(NO_FILES, err=True)
    elif output_format in FOR_PEOPLE or output_file is not None:
        click.echo(summary.found(report, len(planned.jobs)))
    print_troubles(results)
    ctx.exit(exit_status(results, exit_zero=exit_zero))
