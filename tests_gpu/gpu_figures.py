"""The arithmetic of the GPU suite: errors, traces, tables. It needs neither a GPU nor torch."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from memlint.measure.allocator import CachingAllocator, Settings

Row = dict[str, Any]


def signed_error(predicted: int, measured: int) -> float:
    """By how much of the measured value the prediction is off, in percent; negative: it predicts too little."""
    if measured == 0:
        return 0.0 if predicted == 0 else math.inf
    return round(100 * (predicted - measured) / measured, 4)


def percentile(values: Iterable[float], share: float) -> float:
    """The smallest value that at least `share` of the values do not pass (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(math.ceil(share * len(ordered)) - 1, 0)]


def summary(errors: Sequence[float]) -> Row:
    """Of signed errors in percent: how large they are, and which under-predicts most."""
    if not errors:
        return {"programs": 0}
    sizes = [abs(error) for error in errors]
    return {
        "programs": len(errors),
        "median_absolute_percent": median(sizes),
        "p95_absolute_percent": percentile(sizes, 0.95),
        "lowest_percent": min(errors),
        "highest_percent": max(errors),
    }


def replayed_reserved_peak(trace: Sequence[Mapping[str, Any]], settings: str) -> int:
    """What our replay reserves at most for the trace of one device in a snapshot of PyTorch's."""
    allocator = CachingAllocator(Settings.parse(settings))
    alive: dict[int, int] = {}
    for number, entry in enumerate(trace):
        if entry["action"] == "alloc":
            alive[entry["addr"]] = number
            allocator.allocate(number, entry["size"])
        elif entry["action"] == "free_completed" and entry["addr"] in alive:
            allocator.free(alive.pop(entry["addr"]))
    return allocator.result().reserved_peak


def order_of_trace(trace: Sequence[Mapping[str, Any]]) -> list[int]:
    """Allocations as sizes and releases as negative sizes, in the trace's order."""
    signs = {"alloc": 1, "free_completed": -1}
    return [signs[entry["action"]] * entry["size"] for entry in trace if entry["action"] in signs]


def order_of_recording(events: Sequence[int], sizes: Mapping[int, int]) -> list[int]:
    """The same of a recording: `sizes` by the storages' ids."""
    return [sizes[event] if event >= 0 else -sizes[~event] for event in events]


def agreement(ours: Sequence[int], theirs: Sequence[int]) -> Row:
    """How many of our events the allocator has in the same order, and what only one of the two has seen.

    What only the allocator has seen are workspaces of kernels; what only we have is a mistake of ours.
    """
    common = longest_common_subsequence(ours, theirs)
    return {
        "ours": len(ours),
        "theirs": len(theirs),
        "in_order": common,
        "only_ours": len(ours) - common,
        "only_theirs": len(theirs) - common,
        "percent_of_ours": round(100 * common / len(ours), 3) if ours else 100.0,
    }


def longest_common_subsequence(ours: Sequence[int], theirs: Sequence[int]) -> int:
    """How many items the longest one has: exact, by bit operations (Hyyrö 2004), which difflib's blocks are not."""
    places: dict[int, int] = {}
    for place, item in enumerate(ours):
        places[item] = places.get(item, 0) | 1 << place
    everything = (1 << len(ours)) - 1
    unmatched = everything
    for item in theirs:
        matching = unmatched & places.get(item, 0)
        unmatched = ((unmatched + matching) | (unmatched - matching)) & everything
    return len(ours) - unmatched.bit_count()


def slug(*words: str) -> str:
    """A file's name of these words."""
    return re.sub(r"[^a-z0-9.]+", "-", "-".join(words).lower()).strip("-")


def table(rows: Sequence[Row]) -> str:
    """The rows in Markdown, a column for each key, in the order in which keys first appear."""
    if not rows:
        return "(nothing)"
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    lines += ["| " + " | ".join(_cell(column, row.get(column)) for column in columns) + " |" for row in rows]
    return "\n".join(lines)


def _cell(column: str, value: Any) -> str:
    """Of errors the sign is printed, too."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:+.3f}" if column.endswith("error") else f"{value:.3f}"
    return str(value).replace("|", "\\|")
