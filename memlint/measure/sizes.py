"""Bytes in words, and words in bytes. Units are binary: 1 MiB is 2**20 bytes."""

from __future__ import annotations

import re

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?\s*", re.IGNORECASE)


def words(size: int) -> str:
    """`1.5 GiB`; below 1 KiB the bytes themselves."""
    sign, amount = ("-" if size < 0 else ""), float(abs(size))
    for unit in _UNITS:
        # What would be printed as 1024.0 is 1.0 of the next unit.
        if amount < 1023.95 or unit == _UNITS[-1]:
            break
        amount /= 1024
    return f"{sign}{amount:.0f} B" if unit == "B" else f"{sign}{amount:.1f} {unit}"


def parse_size(text: str) -> int:
    """The bytes of `24GiB`, `1.5 GiB`, `512MB`, `24G` or `1000`. All units are binary.

    Raises:
        ValueError: it is not a size.
    """
    match = _SIZE.fullmatch(text)
    if match is None or (match[3] and not match[2]):
        raise ValueError(f"`{text}` is not a size: write 24GiB, 512MiB or a number of bytes")
    return int(float(match[1]) * 1024 ** " kmgt".index(match[2].lower() or " "))
