"""Bytes to text and back; writing files."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memlint.source.file import ParseText, SourceFile, UndecodableFile, write_atomically
from memlint.source.lines import Position


@pytest.mark.parametrize(
    ("raw", "text", "encoding", "has_bom"),
    [
        (b"", "", "utf-8", False),
        ("x = 'ä'\n".encode(), "x = 'ä'\n", "utf-8", False),
        (b"\xef\xbb\xbfx\r\n", "x\r\n", "utf-8", True),
        (b"\xef\xbb\xbf# coding: utf-8\n", "# coding: utf-8\n", "utf-8", True),
        (b"# coding: utf-8-sig\n", "# coding: utf-8-sig\n", "utf-8", False),
        (b"# -*- coding: latin-1 -*-\nx = '\xe9'\n", "# -*- coding: latin-1 -*-\nx = 'é'\n", "iso-8859-1", False),
        (b"# -*- coding: latin-1 -*- \xe9\n", "# -*- coding: latin-1 -*- é\n", "iso-8859-1", False),
        (b"# \xe9\n# coding: latin-1\n", "# é\n# coding: latin-1\n", "iso-8859-1", False),
        (b"#!/bin/python\r# vim: set fileencoding=cp1252 :\r'\x80'\r", None, "cp1252", False),
        (b"# a\rx = 'coding: latin-1'\r", None, "utf-8", False),
        ("x = 1\n# coding: latin-1\n# ä\n".encode(), None, "utf-8", False),
        ("# -*- coding: future_fstrings -*-\nx = f'ä'\n".encode(), None, "utf-8", False),
        ("#!/bin/python\r# coding=future-fstrings\rx = 'ä'".encode(), None, "utf-8", False),
        ("# coding: shift_jis\n# 表\n".encode("shift_jis"), "# coding: shift_jis\n# 表\n", "shift_jis", False),
    ],
)
def test_a_file_is_decoded_as_python_does(raw: bytes, text: str | None, encoding: str, has_bom: bool) -> None:
    source = SourceFile.decode("file.py", raw)
    assert (source.encoding, source.has_bom, source.editable) == (encoding, has_bom, True)
    assert source.encode(source.text) == raw
    assert text is None or source.text == text


@pytest.mark.parametrize(
    ("raw", "line", "column", "part"),
    [
        (b"x = 1\ny = '\xff'\n", 2, 6, "0xff is not valid utf-8"),
        ("ää = '".encode() + b"\xff'\n", 1, 7, "0xff"),
        (b"\xef\xbb\xbfx\r\r\xff", 3, 1, "0xff"),
        (b"# coding: ascii\rx = '\xe9'\r", 2, 6, "0xe9 is not valid ascii"),
        (b"# a\n# coding: klingon\n", 2, 1, "klingon"),
        (b"\xef\xbb\xbf# coding: latin-1\n", 1, 1, ""),
        (b"# coding: hex\nx\n", 1, 1, "hex"),
        (b"# coding: future_fstrings2\n", 1, 1, "future_fstrings2"),
        (b"# coding: rot13\nx\n", 1, 1, "rot13"),
        (b"# coding: undefined\n", 1, 1, "undefined"),
        (b"# coding: utf-7\n# +2AA-\n", 1, 1, "utf-7"),
        (b"\xff\xfex\x00", 1, 1, "0xff"),
        (b"# \xe9\n", 1, 3, "0xe9 is not valid utf-8"),
        (b"# coding: utf-8 \xe9\n", 1, 17, "0xe9 is not valid utf-8"),
        (b"# \xe9\n# coding: klingon\n", 2, 1, "klingon"),
    ],
)
def test_what_cannot_be_decoded_names_its_place(raw: bytes, line: int, column: int, part: str) -> None:
    with pytest.raises(UndecodableFile) as caught:
        SourceFile.decode("file.py", raw)
    assert caught.value.position == Position(line, column)
    assert part in caught.value.reason


def test_a_text_that_does_not_encode_back_is_not_editable() -> None:
    assert not SourceFile.decode("file.py", b"# coding: utf-7\n# +AGE-\n").editable


@pytest.mark.parametrize(
    ("text", "first", "after_b"),
    [("a\nb\r\nc", "\n", "\r\n"), ("a\r\nb\n", "\r\n", "\n"), ("a\rb", "\r", "\r"), ("b", "\n", "\n")],
)
def test_newlines(text: str, first: str, after_b: str) -> None:
    source = SourceFile.decode("file.py", text.encode())
    assert source.newline == first
    assert source.newline_at(text.index("b")) == after_b


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("\fx\n", "x\n"),
        ("  \f  x\f=\f1\n", "  x\f=\f1\n"),
        ("x\ry\r\nz\r\r\n", "x\ny\r\nz\n\r\n"),
        ("\\\nx\n", "x\n"),
        ("if x:\n  \\\n      y\n", "if x:\n  y\n"),
        ("if x:\n\\\n\\\n  y\n", "if x:\n  y\n"),
        ("x = 1 + \\\n  2\n", "x = 1 + \\\n  2\n"),
    ],
)
def test_the_parser_gets_a_text_that_it_prints_back(text: str, parsed: str) -> None:
    assert SourceFile.decode("file.py", text.encode()).parse_text().text == parsed


@pytest.mark.parametrize("end", ["", "\n", "   \n", "\\"])
@pytest.mark.parametrize("line", ["\\\n", "  \\\n", "\\\r\n"])
def test_continuations_before_nothing_stay_however_many(line: str, end: str) -> None:
    """They are read once: to look behind each of them for code took minutes for thousands."""
    text = "x = 1\n" + line * 10_000 + end
    assert SourceFile.decode("file.py", text.encode()).parse_text().text == text


@settings(deadline=None, derandomize=True)
@given(st.text(alphabet="ab \t\f\r\n\\\"'#\ufeffä", max_size=40))
def test_every_character_of_the_parse_text_is_found_in_the_original(text: str) -> None:
    source = SourceFile.decode("file.py", text.encode())
    parse_text = source.parse_text()
    assert len(parse_text.text) + len(parse_text.removed) == len(source.text)
    for offset, char in enumerate(parse_text.text):
        original = source.text[parse_text.original(offset)]
        assert char == original or (char, original) == ("\n", "\r")
    assert parse_text.original(len(parse_text.text)) <= len(source.text)


def test_a_span_has_nothing_removed_at_its_ends() -> None:
    parse_text = ParseText("abc", (1, 2, 5))  # a..bc.
    assert parse_text.original_span(0, 1) == (0, 1)
    assert parse_text.original_span(1, 3) == (3, 5)
    assert parse_text.original_span(0, 3) == (0, 5)
    assert parse_text.original_span(1, 1) == (3, 3)


@settings(deadline=None, derandomize=True)
@given(st.binary(max_size=60))
def test_any_bytes_decode_and_encode_back_or_are_refused(raw: bytes) -> None:
    try:
        source = SourceFile.decode("file.py", raw)
    except UndecodableFile:
        return
    assert source.encode(source.text) == raw or not source.editable


@settings(deadline=None, derandomize=True)
@given(
    st.text(st.characters(codec="utf-8")),
    st.sampled_from(["utf-8", "latin-1", "utf-7", "iso2022_jp", "cp1252"]),
    st.booleans(),
)
def test_any_text_survives_its_encoding(body: str, encoding: str, bom: bool) -> None:
    text = f"# coding: {encoding}\n{body}"
    try:
        raw = text.encode(encoding)
    except UnicodeEncodeError:
        return
    if bom and encoding == "utf-8":
        raw = b"\xef\xbb\xbf" + raw
    source = SourceFile.decode("file.py", raw)
    assert source.text == raw.removeprefix(b"\xef\xbb\xbf").decode(encoding)
    assert source.editable == (source.encode(source.text) == raw)


def test_a_write_keeps_the_mode_and_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "file.py"
    path.write_bytes(b"old")
    path.chmod(0o754)
    write_atomically(path, b"new\r\n")
    assert path.read_bytes() == b"new\r\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o754
    assert [left.name for left in tmp_path.iterdir()] == ["file.py"]


def test_a_write_follows_a_link_and_keeps_it(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "file.py"
    target.parent.mkdir()
    target.write_bytes(b"old")
    link = tmp_path / "link.py"
    link.symlink_to(target)
    write_atomically(link, b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"


def test_a_failed_write_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.py"
    path.write_bytes(b"old")

    def full(self: Path, target: Path) -> Path:
        raise OSError("no space left")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="no space left"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [left.name for left in tmp_path.iterdir()] == ["file.py"]
