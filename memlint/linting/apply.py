"""Applying fixes to a text, one round at a time."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from memlint.linting.finding import Applicability, Edit, Finding, Fix
from memlint.source.file import Comment, SourceFile

_Span = tuple[int, int, str]


def apply_fixes(source: SourceFile, findings: Sequence[Finding], *, unsafe: bool) -> tuple[str, dict[str, int]]:
    """One round: the text after all fixes that do not get in each other's way, and how many of each code.

    Safe fixes only, or also unsafe ones; display-only ones never. The fix that starts first wins; one that
    overlaps or touches what is taken already is left for the next round. The same line wanted by two fixes (an
    import) is put in once. Nothing is applied to a file that is not editable.

    Raises ValueError for a fix whose own edits overlap.
    """
    taken: list[_Span] = []
    applied: Counter[str] = Counter()
    for code, spans in _fixes_in_order(source, findings, unsafe=unsafe):
        new = [span for span in spans if not (_is_whole_line(span) and span in taken)]
        if any(_collides(span, taken) for span in new):
            continue
        for span in new:
            insort(taken, span, key=lambda one: one[:2])
        applied[code] += 1
    return _apply(source.text, taken), dict(applied)


def edited(source: SourceFile, fix: Fix) -> str:
    """The text after one fix, whatever its applicability. Raises ValueError for edits that overlap."""
    return _apply(source.text, list(_spans(source, fix, fix.message)))


def demote_if_comment_dropped(fix: Fix, source: SourceFile, comments: Sequence[Comment]) -> Fix:
    """A fix is only shown where its edits delete a comment that none of them puts back.

    `comments` are those of the file, in the order of the text.
    For the fixes of rules. The fix of an unused suppression, whose point is to drop a comment, does not pass here.
    """
    if fix.applicability is Applicability.DISPLAY_ONLY:
        return fix
    dropped = Counter(comment.text for comment in _cut(comments, fix.edits, source))
    if all(sum(edit.content.count(text) for edit in fix.edits) >= count for text, count in dropped.items()):
        return fix
    return replace(fix, applicability=Applicability.DISPLAY_ONLY)


def _fixes_in_order(
    source: SourceFile, findings: Sequence[Finding], *, unsafe: bool
) -> list[tuple[str, tuple[_Span, ...]]]:
    wanted = {Applicability.SAFE, Applicability.UNSAFE} if unsafe else {Applicability.SAFE}
    fixes = [
        (finding.code, _spans(source, finding.fix, finding.code))
        for finding in findings
        if source.editable and finding.fix and finding.fix.edits and finding.fix.applicability in wanted
    ]
    return sorted(fixes, key=lambda fix: (fix[1][0][:2], fix[0]))


def _spans(source: SourceFile, fix: Fix, code: str) -> tuple[_Span, ...]:
    offset = source.lines.offset
    # The sort is stable: insertions at one place stay in the order in which the fix names them.
    spans = sorted(((offset(edit.start), offset(edit.end), edit.content) for edit in fix.edits), key=lambda s: s[:2])
    for before, after in pairwise(spans):
        if after[0] < before[1]:
            raise ValueError(f"{source.path}: the edits of a fix of {code} overlap")
    return tuple(spans)


def _is_whole_line(span: _Span) -> bool:
    """Whether a span inserts a line. Smaller insertions that look alike (a parenthesis) may belong elsewhere."""
    start, end, content = span
    return start == end and ("\n" in content or "\r" in content)


def _collides(span: _Span, taken: list[_Span]) -> bool:
    """Whether a span overlaps or touches one of the taken ones, which are sorted and disjoint."""
    index = bisect_left(taken, span[0], key=lambda one: one[1])
    return index < len(taken) and taken[index][0] <= span[1]


def _apply(text: str, spans: list[_Span]) -> str:
    pieces: list[str] = []
    position = 0
    for start, end, content in spans:
        pieces += (text[position:start], content)
        position = end
    pieces.append(text[position:])
    return "".join(pieces)


def _cut(comments: Sequence[Comment], edits: Sequence[Edit], source: SourceFile) -> set[Comment]:
    """The comments that an edit takes something of."""
    offset = source.lines.offset
    cut: set[Comment] = set()
    for edit in edits:
        if edit.start < edit.end:
            first = bisect_right(comments, offset(edit.start), key=_end)
            cut.update(comments[first : bisect_left(comments, offset(edit.end), key=_start)])
    return cut


def _start(comment: Comment) -> int:
    return comment.offset


def _end(comment: Comment) -> int:
    return comment.offset + len(comment.text)
