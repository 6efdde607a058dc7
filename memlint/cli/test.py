"""`memlint test`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from memlint.cli.errors import Trouble
from memlint.cli.options import common_options
from memlint.config.options import Options


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@common_options
def test(paths: tuple[Path, ...], overrides: Options) -> None:
    """Test rules on cases written as Markdown: PATHS are such files, or folders that hold some.

    docs/custom-rules.md describes the format. The rules are memlint's, those of installed plugins, and, if they are
    allowed, the project's own. Nothing in the cases is run.

    The exit status is 0 when every case holds, 1 when one does not, 2 when a file cannot be read.
    """
    from memlint.config.load import SettingsResolver
    from memlint.config.policies import PolicyMaker
    from memlint.reporting.summary import counted
    from memlint.testing.cases import FixtureError, check, read_cases

    settings = SettingsResolver(overrides).for_folder(Path.cwd())
    PolicyMaker(SettingsResolver(overrides)).validate(settings)
    if overrides.allow_local_rules and not settings.local_rules:
        click.echo("note: no rules of the project are named: `local-rules` in [tool.memlint] does", err=True)
    try:
        cases = [case for path in _files(paths) for case in read_cases(path, settings.local_rules)]
    except FixtureError as error:
        raise Trouble(str(error)) from None
    if not cases:
        raise Trouble("no cases were found: a case is a `## ` heading with a ```python block in a .md file")
    failed = 0
    for case in cases:
        try:
            check(case)
        except AssertionError as error:
            failed += 1
            click.echo(f"{error}\n")
    passed = f"{counted(len(cases) - failed, 'case')} passed"
    click.echo(f"{passed}, {failed} failed." if failed else f"{passed}.")
    click.get_current_context().exit(1 if failed else 0)


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        yield from sorted(path.rglob("*.md")) if path.is_dir() else [path]
