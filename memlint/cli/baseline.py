"""`memlint baseline`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from memlint.cli.errors import Trouble
from memlint.cli.options import Running, common_options, running_options
from memlint.config.options import Options
from memlint.linting.finding import FileResult

if TYPE_CHECKING:
    from memlint.adoption.baseline import Checked
    from memlint.cli.run import Plan


@click.command()
@click.argument("paths", nargs=-1, metavar="[PATHS]...")
@common_options
@running_options
@click.option(
    "--baseline",
    "file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file to write.  [default: the configured one, or memlint-baseline.json]",
)
def baseline(paths: tuple[str, ...], overrides: Options, running: Running, file: Path | None) -> None:
    """Record today's findings, so that `memlint check` reports only new ones.

    Of the files in PATHS all findings are recorded, of others what was recorded before stays. An entry holds the rule,
    the file and the text of the line, so that it is known again when lines move. `memlint check` takes out old ones.
    """
    from memlint.adoption.baseline import DEFAULT_NAME, Baseline
    from memlint.cli.output import print_troubles
    from memlint.cli.run import check_all, plan
    from memlint.config.paths import absolute, shown
    from memlint.reporting.summary import counted

    planned = plan(paths, None, overrides, running)
    path = absolute(file) if file else planned.settings.baseline or planned.settings.root / DEFAULT_NAME
    results = list(check_all(planned.jobs, planned.means))
    known = Baseline.read(path) if path.exists() else Baseline(path, planned.settings.confidence)
    recorded = known.recording(checked_files(planned, results))
    try:
        recorded.write()
    except OSError as error:
        raise Trouble(f"cannot write {shown(path)}: {error.strerror or error}") from None
    click.echo(f"{shown(path)} knows {counted(recorded.entries.total(), 'finding')}.")
    if planned.settings.baseline != path:
        click.echo(
            f'To use it: memlint check --baseline {shown(path)}, or baseline = "{shown(path)}" in [tool.memlint].'
        )
    print_troubles([*results, *planned.troubles])


def checked_files(planned: Plan, results: Sequence[FileResult]) -> list[Checked]:
    """What was checked, and what came of it, in order."""
    from memlint.adoption.baseline import Checked

    pairs = zip(planned.jobs, results, strict=True)
    return [Checked(job.path, job.policy.codes, job.policy.confidence, result) for job, result in pairs]
