"""Sizes in words and back."""

from __future__ import annotations

import pytest

from memlint.measure.sizes import parse_size, words


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536 * 2**10, "1.5 MiB"),
        (2**20 - 1, "1.0 MiB"),
        (24 * 2**30, "24.0 GiB"),
        (5000 * 2**40, "5000.0 TiB"),
        (-2048, "-2.0 KiB"),
    ],
)
def test_words(size: int, text: str) -> None:
    assert words(size) == text


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("24GiB", 24 * 2**30),
        ("24 GB", 24 * 2**30),
        ("24g", 24 * 2**30),
        ("1.5 MiB", 3 * 2**19),
        ("512", 512),
        ("512 B", 512),
        ("1TiB", 2**40),
    ],
)
def test_sizes_are_read(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GiB", "-1GiB", "1PiB", "iB", "1 iB", "1e9", "a lot"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        parse_size(text)
