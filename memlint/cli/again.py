"""A run that is told the same as an earlier one, and finds all as it was: it says the same, and plans nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from memlint.cache.results import Results
from memlint.cli.said import Manner, Said
from memlint.config.options import Options
from memlint.project.files import project_root
from memlint.project.reads import digest_of


class EarlierRun:
    """What a run with these paths and options, in this folder, said the last time."""

    def __init__(self, paths: Sequence[str], overrides: Options, manner: Manner) -> None:
        cwd = Path.cwd()
        self._root = project_root(cwd)
        self._told = digest_of(repr((str(cwd), tuple(paths), overrides, manner)).encode(errors="surrogateescape"))
        self.results = Results(lambda text: click.echo(f"note: {text}", err=True))

    def recall(self) -> Said | None:
        """None where something may have changed, or nothing is known."""
        said = self.results.recall(self._root, self._told)
        return None if said is None else Said(*said)

    def keep(self, said: Said, files: int) -> None:
        """Have what this run says of so many files known to the next one."""
        self.results.keep_whole(self._root, self._told, said, files)
