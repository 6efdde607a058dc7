"""Unified diffs that `git apply` and `patch` accept."""

from __future__ import annotations

import difflib
import re

_NO_NEWLINE = "\\ No newline at end of file\n"
_QUOTED = re.compile(r'[\x00-\x1f"\\\x7f]')
_SHORT_ESCAPES = {"\a": "a", "\b": "b", "\t": "t", "\n": "n", "\v": "v", "\f": "f", "\r": "r", '"': '"', "\\": "\\"}


def unified_diff(path: str, before: bytes, after: bytes) -> bytes:
    """What changes `before` into `after`; nothing where they are equal.

    `path` is relative to the folder in which the diff is to be applied, with forward slashes. Lines end with a
    line feed as in every diff; a carriage return before it is part of the line.
    """
    if before == after:
        return b""
    # Latin-1 maps each byte to one character and back, so no encoding can get in the way.
    old, new = _lines(before), _lines(after)
    header = f"--- {_name('a', path)}\n+++ {_name('b', path)}\n".encode(errors="surrogateescape")
    hunks = list(difflib.unified_diff(old, new))[2:]
    return header + "".join(map(_terminated, hunks)).encode("latin-1")


def _lines(content: bytes) -> list[str]:
    return re.findall(r"[^\n]*\n|[^\n]+", content.decode("latin-1"))


def _terminated(line: str) -> str:
    return line if line.endswith("\n") else f"{line}\n{_NO_NEWLINE}"


def _name(side: str, path: str) -> str:
    """The path as git writes it: quoted where it holds a quote, a backslash or a control character."""
    name = f"{side}/{path}"
    if _QUOTED.search(name):
        return '"' + _QUOTED.sub(lambda match: _escape(match.group()), name) + '"'
    # Without a tab, what follows a blank would be taken for a time stamp.
    return f"{name}\t" if " " in name else name


def _escape(char: str) -> str:
    return "\\" + (_SHORT_ESCAPES.get(char) or f"{ord(char):03o}")
