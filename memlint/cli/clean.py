"""`memlint clean`."""

from __future__ import annotations

from pathlib import Path

import click

from memlint.cli.errors import Trouble


@click.command()
@click.argument("paths", nargs=-1, metavar="[PATHS]...", type=click.Path(exists=True, path_type=Path))
def clean(paths: tuple[Path, ...]) -> None:
    """Remove the caches of the projects that PATHS belong to, by default that of the current folder."""
    from memlint.cache.store import remove
    from memlint.cache.stores import folder_for
    from memlint.config.paths import absolute, shown
    from memlint.project.files import project_root

    places = [absolute(path) for path in paths or (Path(),)]
    folders = sorted({folder_for(project_root(path if path.is_dir() else path.parent)) for path in places})
    for folder in folders:
        try:
            click.echo(f"Removed {shown(folder)}." if remove(folder) else f"{shown(folder)}: there is no cache.")
        except OSError as error:
            raise Trouble(f"cannot remove {shown(folder)}: {error.strerror or error}") from None
