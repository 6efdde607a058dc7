"""`memlint check --watch`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import click

from memlint.cli.errors import Trouble
from memlint.config.discovery import SUFFIXES

_CONFIGURATION = frozenset({"pyproject.toml", "memlint.toml", ".gitignore"})


def watch_and_run(paths: Sequence[str], run_once: Callable[[], object]) -> None:
    """Run now, and again whenever a Python file, a notebook or a configuration file changes, until Ctrl-C."""
    try:
        from watchfiles import Change, watch
    except ImportError:
        raise Trouble("`--watch` needs the watchfiles package: pip install 'memlint-torch[watch]'") from None

    def matters(_: Change, path: str) -> bool:
        return path.endswith(SUFFIXES) or Path(path).name in _CONFIGURATION

    _run(run_once)
    for _ in watch(*(paths or ["."]), watch_filter=matters, raise_interrupt=True):
        click.clear()
        _run(run_once)


def _run(run_once: Callable[[], object]) -> None:
    try:
        run_once()
    except click.ClickException as error:
        error.show()
    click.echo("Watching for changes; Ctrl-C ends.", err=True)
