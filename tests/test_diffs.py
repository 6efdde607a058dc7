"""Diffs, as `git apply` reads them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memlint.source.diffs import unified_diff


def applied(folder: Path, name: str, before: bytes, after: bytes) -> bytes:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(before)
    environment = {**os.environ, "GIT_CEILING_DIRECTORIES": str(folder.parent), "GIT_CONFIG_GLOBAL": os.devnull}
    command = ["git", "apply", "--whitespace=nowarn", "-"]
    subprocess.run(command, cwd=folder, env=environment, input=unified_diff(name, before, after), check=True)
    return path.read_bytes()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"a\nb\n", b"a\nc\n"),
        (b"a\r\nb\r\n", b"a\r\nc\r\n"),
        (b"a\nb", b"a\nc"),
        (b"a\nb", b"c\nb"),
        (b"a\nb", b"a\nb\n"),
        (b"a\nb\n", b"a\nb"),
        (b"a\r\nb", b"a\r\nb\r\n"),
        (b"a\rb\r", b"a\rc\r"),
        (b"x\n\x0c\ny\n", b"x\n\x0c\nz\n"),
        (b"a\n", b""),
        (b"\xef\xbb\xbfa\n", b"\xef\xbb\xbfb\n"),
        (b"# coding: latin-1\n# \xe9\nx\n", b"# coding: latin-1\n# \xe9\ny\n"),
        ("x\x1c\x85\u2028y\nz\n".encode(), "x\x1c\x85\u2028y\nw\n".encode()),
        (b"--- a\n+++ b\n", b"--- a\n@@ c\n"),
    ],
)
def test_git_applies_it(tmp_path: Path, before: bytes, after: bytes) -> None:
    assert applied(tmp_path, "file.py", before, after) == after


@pytest.mark.parametrize(
    "name", ["a folder/a file.py", 'quo"te.py', "tab\tbed.py", "back\\slash.py", "\u00e4\u4e2d.py"]
)
def test_any_name_will_do(tmp_path: Path, name: str) -> None:
    assert applied(tmp_path, name, b"a\n", b"b\n") == b"b\n"


def test_equal_contents_have_no_diff() -> None:
    assert unified_diff("file.py", b"a\n", b"a\n") == b""


_LINES = st.lists(st.sampled_from([b"a", b"b\n", b"c\r\n", b"\r", b"\x0c\n", b"\xff\n", b"\n"]), max_size=12).map(
    b"".join
)


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_LINES.filter(bool), _LINES.filter(bool))
def test_git_applies_any_change(tmp_path: Path, before: bytes, after: bytes) -> None:
    if before != after:
        assert applied(tmp_path, "file.py", before, after) == after
