"""All of a run, known by what it was told: while nothing that it looked at has changed, it says the same again."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

from memlint.cache.snapshot import Status, listing_of, status_of
from memlint.cache.store import Store
from memlint.cache.texts import decoded, encoded

# In place of a project's name: a run may be over a part of it, or begin elsewhere.
_WHOLE = "*"


Said = tuple[str, str, int]
"""What a run printed, what it said beside it, and its exit status."""


class Whole(NamedTuple):
    """What a run said rests on."""

    statuses: dict[str, Status | None]
    """Of every file that was read, or would have been; None for one that was not there."""
    listings: dict[str, str]
    """Of every folder, a digest of what lies in it."""
    looked_for: dict[str, bool]
    """Of what else was looked for, whether it was there."""


def recalled(store: Store, run: str) -> Said | None:
    """What the run said; None where it is not known, or something has changed."""
    text = store.run(_WHOLE, run)
    if text is None:
        return None
    said, *parts = decoded(text)
    whole = Whole(*parts)
    if not are_as_before(whole.looked_for) or any(listing_of(path) != was for path, was in whole.listings.items()):
        return None
    if any(status_of(path) != was for path, was in whole.statuses.items()):
        return None
    report, summary, status = said
    return str(report), str(summary), int(status)


def put(store: Store, run: str, said: Said, whole: Whole) -> None:
    with store.writing():
        store.put_run(_WHOLE, run, encoded([said, *whole]))


def are_as_before(looked_for: Mapping[str, bool]) -> bool:
    return all(os.path.exists(path) == was_there for path, was_there in looked_for.items())  # noqa: PTH110
