"""The one error of this layer."""

from __future__ import annotations

from collections.abc import Iterable


class ConfigError(Exception):
    """Something the user wrote cannot be used. The message names the place and what to do."""


def nearest(wrong: str, valid: Iterable[str]) -> str:
    """`; did you mean "..."?` for the valid word closest to `wrong`, or else the list of valid words."""
    import difflib

    words = list(valid)
    close = difflib.get_close_matches(wrong, words, n=1, cutoff=0.6)
    if close:
        return f'; did you mean "{close[0]}"?'
    return f"; there are: {', '.join(words)}" if len(words) <= 20 else ""
