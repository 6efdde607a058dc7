"""Applying fixes: which, in which order, and which wait for the next round."""

from __future__ import annotations

import libcst as cst
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memlint.linting.apply import apply_fixes, demote_if_comment_dropped
from memlint.linting.finding import Applicability, Edit, Finding, Fix
from memlint.semantics.layout import Layout
from memlint.source.file import SourceFile

SAFE, UNSAFE, DISPLAY_ONLY = Applicability.SAFE, Applicability.UNSAFE, Applicability.DISPLAY_ONLY


def fix(source: SourceFile, *edits: tuple[int, int, str], applicability: Applicability = SAFE) -> Fix:
    position = source.lines.position
    return Fix(applicability, "", tuple(Edit(position(start), position(end), text) for start, end, text in edits))


def finding(
    source: SourceFile, *edits: tuple[int, int, str], code: str = "MEM101", applicability: Applicability = SAFE
) -> Finding:
    start = source.lines.position(0)
    return Finding(code, "", "", "file.py", start, start, fix=fix(source, *edits, applicability=applicability))


def apply(text: str, *fixes: tuple[tuple[int, int, str], ...]) -> tuple[str, int]:
    source = SourceFile.decode("file.py", text.encode())
    after, applied = apply_fixes(source, [finding(source, *edits) for edits in fixes], unsafe=False)
    return after, applied.get("MEM101", 0)


def test_the_original_text_with_the_edits_in_it() -> None:
    assert apply("a\rb\r\n\fc", ((0, 1, "x"),), ((6, 6, "y"), (3, 5, "\n"))) == ("x\rb\n\fyc", 2)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((1, 3, "x"), (2, 4, "y")),
        ((1, 4, "x"), (2, 3, "y")),
        ((1, 2, "x"), (2, 3, "y")),
        ((1, 1, "x"), (1, 1, "y")),
        ((1, 1, "x"), (1, 2, "y")),
        ((1, 2, ""), (1, 2, "")),
        ((1, 1, "("), (1, 1, "(")),
    ],
)
def test_fixes_that_overlap_or_touch_wait(first: tuple[int, int, str], second: tuple[int, int, str]) -> None:
    start, end, text = first
    assert apply("abcdef", (first,), (second,)) == ("abcdef"[:start] + text + "abcdef"[end:], 1)


def test_a_fix_is_applied_as_a_whole_or_not_at_all() -> None:
    assert apply("abcdef", ((1, 2, "x"),), ((0, 1, "y"), (5, 6, "z"))) == ("ybcdez", 1)
    assert apply("abcdef", ((1, 2, "x"),), ((2, 3, "y"), (5, 6, "z")), ((4, 4, "w"),)) == ("axcdwef", 2)


def test_the_same_import_is_added_once() -> None:
    line = (0, 0, "import torch\n")
    assert apply("abcdef", (line, (1, 2, "x")), (line, (4, 5, "y"))) == ("import torch\naxcdyf", 2)


def test_insertions_of_one_fix_at_one_place_stay_in_order() -> None:
    assert apply("ab", ((1, 1, "y"), (1, 1, "x"), (1, 2, "z"))) == ("ayxz", 1)


def test_edits_of_one_fix_must_not_overlap() -> None:
    with pytest.raises(ValueError, match="MEM101"):
        apply("abc", ((0, 2, ""), (1, 3, "")))


def test_who_may_apply_what() -> None:
    source = SourceFile.decode("file.py", b"abcdef")
    findings = [
        finding(source, (0, 1, "x")),
        finding(source, (2, 3, "y"), code="MEM501", applicability=UNSAFE),
        finding(source, (4, 5, "z"), applicability=DISPLAY_ONLY),
    ]
    assert apply_fixes(source, findings, unsafe=False) == ("xbcdef", {"MEM101": 1})
    assert apply_fixes(source, findings, unsafe=True) == ("xbydef", {"MEM101": 1, "MEM501": 1})


def test_a_file_that_is_not_editable_is_left_alone() -> None:
    source = SourceFile.decode("file.py", b"# coding: utf-7\n# +AGE-\n")
    assert apply_fixes(source, [finding(source, (0, 1, "x"))], unsafe=True) == (source.text, {})


_EDITS = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 3), st.sampled_from(["", "x", "y\n"])), max_size=8)


@settings(deadline=None, derandomize=True)
@given(_EDITS)
def test_any_single_edits_are_all_applied_in_the_end_or_wait_for_a_neighbour(edits: list[tuple[int, int, str]]) -> None:
    text = "abcdefghijklmnopqrstuvwxyz"
    after, applied = apply(text, *[((start, start + length, new),) for start, length, new in edits])
    assert applied >= min(1, len(edits))
    assert len(after) <= len(text) + sum(len(new) for _, _, new in edits)
    # What no edit is near is there as it was.
    far = [i for i in range(26) if all(not start <= i < start + length for start, length, _ in edits)]
    kept = iter(after)
    assert all(text[offset] in kept for offset in far)


@pytest.mark.parametrize(
    ("edits", "expected"),
    [
        (((0, 5, ""),), SAFE),
        (((0, 6, ""),), SAFE),
        (((0, 8, ""),), DISPLAY_ONLY),
        (((0, 16, ""),), DISPLAY_ONLY),
        (((10, 10, "x"),), SAFE),
        (((0, 16, "y\n"), (16, 16, "# one two\n")), SAFE),
        (((0, 33, "# one two\n"),), DISPLAY_ONLY),
    ],
)
def test_a_fix_that_drops_a_comment_is_only_shown(
    edits: tuple[tuple[int, int, str], ...], expected: Applicability
) -> None:
    source = SourceFile.decode("file.py", b"x = 1 # one two\ny = '#' # one two\n")
    parse_text = source.parse_text()
    comments = Layout(cst.parse_module(parse_text.text), source, parse_text).comments
    assert demote_if_comment_dropped(fix(source, *edits), source, comments).applicability is expected
    unsafe = demote_if_comment_dropped(fix(source, *edits, applicability=UNSAFE), source, comments)
    assert unsafe.applicability is (UNSAFE if expected is SAFE else DISPLAY_ONLY)
    display_only = fix(source, *edits, applicability=DISPLAY_ONLY)
    assert demote_if_comment_dropped(display_only, source, comments) is display_only
