"""Saved confirmations on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from memlint.cli.errors import Trouble

if TYPE_CHECKING:
    from memlint.cli.run import Job
    from memlint.measure.confirm.saved import SavedConfirmation


def read_confirmation(file: Path) -> SavedConfirmation:
    """Raises Trouble."""
    from memlint.measure.confirm.saved import NotAConfirmation, SavedConfirmation

    try:
        return SavedConfirmation.read(file)
    except OSError as error:
        raise Trouble(f"{file}: cannot be opened: {error.strerror or error}") from None
    except NotAConfirmation as error:
        raise Trouble(f"{file}: {error}") from None


def contents_of(jobs: Sequence[Job]) -> dict[Path, bytes]:
    """What each file holds; nothing where it cannot be read, which the check says itself."""
    contents = {}
    for job in jobs:
        try:
            contents[job.path] = job.read()
        except OSError:
            contents[job.path] = b""
    return contents


def warn_of_changes(saved: SavedConfirmation, consequence: str = "") -> None:
    """Say which files are no longer those that were measured."""
    from memlint.config.paths import shown

    for path in saved.changed():
        click.echo(
            f"note: {shown(path)} has changed since it was measured: {consequence}run `memlint confirm` again", err=True
        )
