"""Paths as the user sees them."""

from __future__ import annotations

import os
from pathlib import Path


def absolute(path: str | Path) -> Path:
    """The path made absolute and free of `..`, its symbolic links kept."""
    return Path(os.path.abspath(path))  # noqa: PTH100 - Path.resolve() follows symbolic links


def relative_to(path: Path | str, base: Path | str) -> str | None:
    """`path` seen from `base`, with forward slashes; None where it lies outside; "." for `base` itself."""
    # Asked of every file there is: pathlib's own answer takes ten times as long.
    inner, outer = str(path), str(base)
    if inner == outer:
        return "."
    outer = outer.rstrip(os.sep) + os.sep
    return inner[len(outer) :].replace(os.sep, "/") if inner.startswith(outer) else None


def shown(path: Path) -> str:
    """The path relative to the current folder where it lies inside, else absolute."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
