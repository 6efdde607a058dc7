"""A run that is told the same as an earlier one, and finds all as it was: it says the same, and plans nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from memlint.cache.stores import Stores, folder_for
from memlint.cache.whole import recalled
from memlint.cli.said import Manner, Said
from memlint.config.options import Options
from memlint.project.files import project_root
from memlint.project.reads import digest_of

if TYPE_CHECKING:
    from memlint.cli.run import Plan


class EarlierRun:
    """What a run with these paths and options, in this folder, said the last time."""

    def __init__(self, paths: Sequence[str], overrides: Options, manner: Manner) -> None:
        cwd = Path.cwd()
        self._root = project_root(cwd)
        self._told = digest_of(repr((str(cwd), tuple(paths), overrides, manner)).encode(errors="surrogateescape"))
        self.stores = new_stores()

    def recall(self) -> Said | None:
        """None where something may have changed, or nothing is known."""
        said = self.stores.ask(folder_for(self._root), lambda store: recalled(store, self._told), None)
        return None if said is None else Said(*said)

    def keep(self, planned: Plan, said: Said) -> None:
        """Have what this run says known to the next one."""
        results = planned.means.results
        if results is not None and planned.may_be_repeated:
            results.keep_whole(self._root, self._told, said, len(planned.jobs))


def new_stores() -> Stores:
    return Stores(lambda text: click.echo(f"note: {text}", err=True))
