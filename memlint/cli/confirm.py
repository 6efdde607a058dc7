"""`memlint confirm`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from memlint.cli.errors import Trouble
from memlint.cli.measuring import explain, measure_options, note, requested, run_target
from memlint.config.measure import MeasureOptions

if TYPE_CHECKING:
    from memlint.cli.run import Job as CheckJob
    from memlint.config.policies import PolicyMaker
    from memlint.linting.finding import Finding
    from memlint.measure.confirm.confirmation import Confirmation


@click.command()
@measure_options
@click.option("--select", multiple=True, metavar="RULES", help="Only the findings of these rules.")
@click.option("--ignore", multiple=True, metavar="RULES", help="Not the findings of these rules.")
@click.option(
    "--confidence", type=click.Choice(["high", "medium", "low"]), help="The lowest confidence of findings to price."
)
@click.option("--verify/--no-verify", default=True, help="Prove that results do not change.  [default: --verify]")
@click.option("--output-format", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option(
    "--output", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path), help="Save the confirmation, too."
)
@click.option("--exit-zero", is_flag=True, help="Exit with 0 even when a finding is confirmed.")
@click.pass_context
def confirm(  # noqa: PLR0913 - one for each option
    ctx: click.Context,
    *,
    words: tuple[str, ...],
    module: str | None,
    overrides: MeasureOptions,
    select: tuple[str, ...],
    ignore: tuple[str, ...],
    confidence: str | None,
    verify: bool,
    output_format: str,
    output: Path | None,
    exit_zero: bool,
) -> None:
    """Price the findings in the files that TARGET runs: measure it as it is, with each fix, with all of them.

    TARGET is as for `memlint measure`. Each run is a process of its own, with the same seeds. No file is changed: fixes
    are applied in memory. That the program still computes the same is checked on cuda or cpu.

    `memlint check --measured FILE` shows the prices that --output has saved, and `memlint fix --only-confirmed FILE`
    applies the fixes that were confirmed.

    The exit status is 0 when no fix was confirmed, 1 when one was, 2 when the target could not be run.
    """
    from memlint.cli.options import COMMAND_LINE, separated
    from memlint.config.load import SettingsResolver
    from memlint.config.options import Options
    from memlint.config.policies import PolicyMaker
    from memlint.linting.finding import Confidence
    from memlint.measure.confirm.engine import Engine, NoBaseline, layers_of
    from memlint.measure.launch import run
    from memlint.measure.outcome import Status

    options = Options(
        COMMAND_LINE,
        select=separated(select) if select else None,
        ignore=separated(ignore),
        confidence=Confidence(confidence) if confidence else None,
    )
    policies = PolicyMaker(SettingsResolver(options))
    settings = policies.resolver.for_folder(Path.cwd())
    policies.validate(settings)
    request = requested(words, module, overrides, settings)
    say = _Progress()
    say("the target as it is")
    job, outcome = run_target(request, "discard", layers_of)
    if outcome.recording is None or outcome.status is not Status.OK:
        raise Trouble(explain(outcome))
    engine = Engine(job, outcome.recording, _Linter(policies), lambda job: run(job, "discard"), say, verify=verify)
    try:
        confirmation = engine.confirm()
    except NoBaseline as error:
        raise Trouble(f"the target ran once, and not a second time: {explain(error.outcome)}") from None
    finally:
        say.clear()
    _print(confirmation, output_format)
    if output is not None:
        _save(confirmation, output)
    ctx.exit(1 if any(one.saves for one in confirmation.priced) and not exit_zero else 0)


class _Progress:
    """Says on standard error what runs now; on a terminal in one line that is written over."""

    def __init__(self) -> None:
        self._runs = 0

    def __call__(self, what: str) -> None:
        self._runs += 1
        if sys.stderr.isatty():
            click.echo(f"\r\x1b[2Krun {self._runs}: {what}", nl=False, err=True)

    def clear(self) -> None:
        if sys.stderr.isatty():
            click.echo("\r\x1b[2K", nl=False, err=True)


class _Linter:
    """The static half, as `memlint check` and `memlint fix` run it."""

    def __init__(self, policies: PolicyMaker) -> None:
        self._policies = policies

    def findings(self, paths: Sequence[Path]) -> list[tuple[Path, Finding]]:
        from memlint.cli.output import print_troubles
        from memlint.cli.run import check_all
        from memlint.config.discovery import excluder_of

        folder_settings = self._policies.resolver.for_folder
        wanted = [path for path in paths if excluder_of(folder_settings(path.parent)).match(path) is None]
        results = list(check_all([self._job(path) for path in wanted]))
        print_troubles(results)
        pairs = zip(wanted, results, strict=True)
        # MEM0xx are about the check itself, and cost nobody memory.
        return [(path, one) for path, result in pairs for one in result.findings if not one.code.startswith("MEM0")]

    def fixed(self, path: Path, only: frozenset[tuple[str, int]]) -> str:
        from memlint.cli.run import fix_all
        from memlint.source.file import SourceFile

        job = self._job(path)._replace(unsafe_fixes=True, only=only)
        (result,) = fix_all([job])
        return SourceFile.decode(str(path), result.after).text

    def _job(self, path: Path) -> CheckJob:
        from memlint.cli.run import job_of
        from memlint.config.discovery import SourcePath
        from memlint.config.paths import shown

        return job_of(SourcePath(str(path), shown(path)), None, self._policies)


def _print(confirmation: Confirmation, output_format: str) -> None:
    if output_format == "json":
        from memlint.measure.confirm import as_json

        click.echo(as_json.render(confirmation, Path.cwd()))
        return
    from memlint.measure.confirm import report
    from memlint.reporting.colour import Palette, wants_colour

    click.echo(report.render(confirmation, Palette(wants_colour(sys.stdout))), nl=False, color=True)


def _save(confirmation: Confirmation, file: Path) -> None:
    from memlint.config.paths import absolute
    from memlint.measure.confirm import as_json
    from memlint.source.file import write_atomically

    try:
        write_atomically(file, as_json.render(confirmation, absolute(file).parent).encode() + b"\n")
    except OSError as error:
        raise Trouble(f"{file}: cannot be written: {error.strerror or error}") from None
    note(f"wrote {file}")
