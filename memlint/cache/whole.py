"""All of a run, known by what it was told: while nothing that it looked at has changed, it finds the same again."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from memlint.cache.encoding import decoded, encoded, result_from_text
from memlint.cache.snapshot import Status, listing_of, status_of
from memlint.cache.store import Store
from memlint.linting.finding import FileResult

# In place of a project's name: a run may be over a part of it, or begin elsewhere.
_WHOLE = "*"


class Again(NamedTuple):
    """What a run printed, and how."""

    output_format: str
    results: list[FileResult]


class Wanting(NamedTuple):
    """A run that is to be stored: the project that it began in, a digest of what it was told, and how much it is."""

    root: Path
    run: str
    output_format: str
    files: int


class Whole(NamedTuple):
    """The files as they are shown, what was found in them by their places, and what that rests on."""

    shown: list[str]
    found: dict[str, str]
    statuses: dict[str, Status | None]
    """Of every file that was read, or would have been; None for one that was not there."""
    listings: dict[str, str]
    """Of every folder, a digest of what lies in it."""
    looked_for: dict[str, bool]
    """Of what else was looked for, whether it was there."""


def recalled(store: Store, run: str) -> Again | None:
    """What the run found; None where it is not known, or something has changed."""
    text = store.run(_WHOLE, run)
    if text is None:
        return None
    output_format, *parts = decoded(text)
    whole = Whole(*parts)
    if not are_as_before(whole.looked_for) or any(listing_of(path) != was for path, was in whole.listings.items()):
        return None
    if any(status_of(path) != was for path, was in whole.statuses.items()):
        return None
    found = (whole.found.get(str(index), "") for index in range(len(whole.shown)))
    return Again(output_format, [result_from_text(*one) for one in zip(whole.shown, found, strict=True)])


def put(store: Store, wanting: Wanting, whole: Whole | None) -> None:
    """Store what a run found, if that is all of it."""
    if whole is not None and len(whole.shown) == wanting.files:
        with store.writing():
            store.put_run(_WHOLE, wanting.run, encoded([wanting.output_format, *whole]))


def are_as_before(looked_for: Mapping[str, bool]) -> bool:
    return all(os.path.exists(path) == was_there for path, was_there in looked_for.items())  # noqa: PTH110
