"""Comments that suppress findings: `# noqa`, `# memlint: ignore[...]` and `# memlint: skip-file`.

`noqa` is read as flake8 and ruff read it. Both kinds act on the findings that start in the statement they stand
in, on whichever of its lines (of a compound statement: its decorators and its header); `memlint: ignore` also
acts on the statement directly below when it stands on a line of its own.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Protocol

from memlint.linting.finding import Applicability, Edit, Finding, Fix
from memlint.source.file import Comment, SourceFile

UNUSED = "MEM003"
UNUSED_NAME = "unused-suppression"

# Findings about the run itself: a file that was not linted must not look as if it were clean.
_NOT_SUPPRESSIBLE = frozenset({"MEM001", "MEM002", "MEM004", "MEM005", "MEM006"})

_CODE = r"(?:[A-Z]+[0-9]+|MEM)\b"
_NOQA = re.compile(rf"#\s*noqa\b(?:\s*:\s*(?P<codes>{_CODE}(?:[\s,]+{_CODE})*))?", re.IGNORECASE)
_IGNORE = re.compile(r"#\s*memlint\s*:\s*ignore(?![\w-])(?:\s*\[(?P<codes>[^\]]*)\]|(?!\s*\[))", re.IGNORECASE)
_SKIP_FILE = re.compile(r"#\s*memlint\s*:\s*skip-file(?![\w-])", re.IGNORECASE)
# To the end of the line at most, whatever is found: else a line of many `noqa` would be read once for each.
_NOQA_OF_OURS = re.compile(r"noqa\s*:[^\r\n]*?(?:mem|(?=[\r\n])|\Z)")
_WORD = re.compile(r"[^\s,]+")
_OUR_CODE = re.compile(r"MEM[0-9]*", re.IGNORECASE)


@dataclass(frozen=True)
class Entry:
    """A code or name in a directive's list, and its offsets in the comment."""

    text: str
    start: int
    end: int


@dataclass(frozen=True)
class Directive:
    """One suppression in a comment.

    `entries` is None for one that names no rule and so means all. `start` and `end` are offsets in the comment,
    `lines` the first and the last line it acts on; None where it stands above nothing.
    """

    comment: Comment
    is_noqa: bool
    entries: tuple[Entry, ...] | None
    start: int
    end: int
    lines: tuple[int, int] | None


@dataclass(frozen=True)
class Suppressions:
    """All directives of a file, in the order of the text."""

    directives: tuple[Directive, ...] = ()
    skip_file: bool = False


class Commented(Protocol):
    """The comments of a file, and the first and the last line of each of its statements (sorted, disjoint)."""

    @property
    def comments(self) -> tuple[Comment, ...]: ...

    @property
    def statements(self) -> tuple[tuple[int, int], ...]: ...


def mentions(text: str) -> bool:
    """Whether a text may hold a suppression. A cheap test of the text, never wrongly False."""
    lower = text.lower()
    return "noqa" in lower or "memlint" in lower


def names_rules(text: str) -> bool:
    """Whether a text may hold a suppression of ours: one that is of no use where nothing is found.

    Never wrongly False. Only then does a file without findings need its comments looked at.
    """
    lower = text.lower()
    return "memlint" in lower or any(match.group().endswith("mem") for match in _NOQA_OF_OURS.finditer(lower))


def find_directives(layout: Commented) -> Suppressions:
    """Read the suppressions of a file."""
    comments, statements = layout.comments, layout.statements
    if any(_SKIP_FILE.search(comment.text) for comment in comments):
        return Suppressions(skip_file=True)
    below = _lines_below(comments)
    found = [
        _directive(comment, match, statements, below)
        for comment in comments
        for match in (*_NOQA.finditer(comment.text), *_IGNORE.finditer(comment.text))
    ]
    return Suppressions(tuple(found))


def suppress(
    findings: Iterable[Finding],
    layout: Commented,
    source: SourceFile,
    *,
    enabled: AbstractSet[str],
    known: Mapping[str, AbstractSet[str]],
) -> list[Finding]:
    """The findings that are left, and those about suppressions that suppress nothing (MEM003).

    `findings` must not have lost the ones of low confidence yet: what suppresses one of them is of use.
    `enabled` holds the codes of the rules that ran; a suppression of a rule that did not run is not judged.
    MEM003 findings are made when MEM003 is in it. `known` maps each code, name and family name to its codes.

    The fix of a MEM003 finding drops comments, as it should: it is complete, and is not to be demoted for that.
    """
    suppressions = find_directives(layout)
    if suppressions.skip_file:
        return [finding for finding in findings if finding.code in _NOT_SUPPRESSIBLE]
    if not suppressions.directives:
        return list(findings)
    uses = _Uses(suppressions.directives, _Rules.of(known, enabled))
    left = [finding for finding in findings if not uses.take(finding)]
    if UNUSED not in enabled:
        return left
    return left + [finding for finding in uses.unused(source) if not uses.take(finding)]


@dataclass(frozen=True)
class _Rules:
    known: Mapping[str, AbstractSet[str]]
    enabled: AbstractSet[str]

    @classmethod
    def of(cls, known: Mapping[str, AbstractSet[str]], enabled: AbstractSet[str]) -> _Rules:
        return cls({selector.casefold(): codes for selector, codes in known.items()}, enabled)

    def codes(self, selector: str) -> frozenset[str]:
        """The codes that a code, the beginning of one, a name or a family name stands for."""
        exact = self.known.get(selector.casefold())
        if exact is not None:
            return frozenset(exact)
        if not _OUR_CODE.fullmatch(selector):
            return frozenset()
        return frozenset(code for code in self._all() if code.startswith(selector.upper()))

    def all_ran(self) -> bool:
        return {code for code in self._all() if not code.startswith("MEM0")} <= self.enabled

    def _all(self) -> frozenset[str]:
        return frozenset(code for codes in self.known.values() for code in codes)


@dataclass
class _Use:
    """A directive, and which of its entries have suppressed a finding."""

    directive: Directive
    rules: _Rules
    used: set[Entry] = field(default_factory=set)
    used_at_all: bool = False

    def takes(self, code: str) -> bool:
        """Whether it suppresses a finding of this code on its lines."""
        entries = self.directive.entries
        if entries is None:
            # A bare comment that says "all rules" does not hide that it, or its neighbour, is of no use.
            takes_it = code != UNUSED
        else:
            matching = {entry for entry in entries if code in self.rules.codes(entry.text)}
            self.used |= matching
            takes_it = bool(matching)
        self.used_at_all |= takes_it
        return takes_it

    def unused(self, source: SourceFile) -> list[Finding]:
        entries = self.directive.entries
        if entries is None:
            return self._unused_as_a_whole(source)
        if not entries:
            return [self._finding(source, entries, "this suppression names no rule", drop=entries)]
        found = []
        ours = [entry for entry in entries if not self.directive.is_noqa or _OUR_CODE.fullmatch(entry.text)]
        unused = [entry for entry in ours if self._is_unused(entry)]
        if unused:
            names = ", ".join(entry.text for entry in unused)
            verb = "suppress" if len(unused) > 1 else "suppresses"
            found.append(self._finding(source, unused, f"{names} {verb} nothing here", drop=unused))
        unknown = [entry for entry in ours if not self.rules.codes(entry.text)]
        found += [self._finding(source, [entry], f"{entry.text} is no rule of memlint", drop=None) for entry in unknown]
        return found

    def _unused_as_a_whole(self, source: SourceFile) -> list[Finding]:
        if self.directive.is_noqa or self.used_at_all or not self.rules.all_ran():
            return []
        return [self._finding(source, [], "this comment suppresses nothing", drop=())]

    def _is_unused(self, entry: Entry) -> bool:
        codes = self.rules.codes(entry.text)
        return bool(codes) and UNUSED not in codes and codes <= self.rules.enabled and entry not in self.used

    def _finding(
        self, source: SourceFile, entries: Sequence[Entry], message: str, *, drop: Sequence[Entry] | None
    ) -> Finding:
        directive = self.directive
        start = entries[0].start if entries else directive.start
        end = entries[-1].end if entries else directive.end
        fix = None
        if drop is not None and source.editable:
            fix = Fix(Applicability.SAFE, "Remove the unused suppression", (_without(directive, drop, source),))
        position = source.lines.position
        offset = directive.comment.offset
        return Finding(
            UNUSED, UNUSED_NAME, message, source.path, position(offset + start), position(offset + end), fix=fix
        )


class _Uses:
    """The directives of a file, by the lines that they act on."""

    def __init__(self, directives: Iterable[Directive], rules: _Rules) -> None:
        self._all = [_Use(directive, rules) for directive in directives]
        self._at: dict[tuple[int, int], list[_Use]] = {}
        for use in self._all:
            if use.directive.lines is not None:
                self._at.setdefault(use.directive.lines, []).append(use)
        self._lines = sorted(self._at)
        self._taken: dict[tuple[tuple[int, int], str], bool] = {}

    def take(self, finding: Finding) -> bool:
        """Whether one of them suppresses the finding."""
        lines = None if finding.code in _NOT_SUPPRESSIBLE else _statement_at(self._lines, finding.start.line)
        if lines is None:
            return False
        key = (lines, finding.code)
        if key not in self._taken:
            # Ask all of them, not up to the first: each that would suppress the finding is of use.
            self._taken[key] = bool([use for use in self._at[lines] if use.takes(finding.code)])
        return self._taken[key]

    def unused(self, source: SourceFile) -> list[Finding]:
        return [finding for use in self._all for finding in use.unused(source)]


def _directive(
    comment: Comment, match: re.Match[str], statements: Sequence[tuple[int, int]], below: Mapping[int, int]
) -> Directive:
    is_noqa = match.re is _NOQA
    listed = match["codes"]
    entries = None
    if listed is not None:
        first = match.start("codes")
        words = _WORD.finditer(listed)
        entries = tuple(Entry(word.group(), first + word.start(), first + word.end()) for word in words)
    lines = _statement_at(statements, comment.line)
    if lines is None and comment.own_line and not is_noqa:
        lines = _statement_at(statements, below[comment.line])
    return Directive(comment, is_noqa, entries, match.start(), match.end(), lines)


def _statement_at(statements: Sequence[tuple[int, int]], line: int) -> tuple[int, int] | None:
    index = bisect_right(statements, line, key=lambda lines: lines[0]) - 1
    return statements[index] if index >= 0 and line <= statements[index][1] else None


def _lines_below(comments: Iterable[Comment]) -> dict[int, int]:
    """For each line that holds nothing but a comment the first one after it that holds something else."""
    below: dict[int, int] = {}
    for line in sorted((comment.line for comment in comments if comment.own_line), reverse=True):
        below[line] = below.get(line + 1, line + 1)
    return below


def _without(directive: Directive, drop: Sequence[Entry], source: SourceFile) -> Edit:
    """Take entries out of a directive; all of it when none is left; the comment too when it says nothing else."""
    entries = directive.entries or ()
    dropped = frozenset(drop)
    kept = [index for index, entry in enumerate(entries) if entry not in dropped]
    text = directive.comment.text
    if kept:
        # Each entry keeps the separator before it, but for the first.
        listed = "".join(
            text[entries[index].start if number == 0 else entries[index - 1].end : entries[index].end]
            for number, index in enumerate(kept)
        )
        offset = directive.comment.offset
        return _edit(source, offset + entries[0].start, offset + entries[-1].end, listed)
    rest = _rest(text[: directive.start].rstrip(), text[directive.end :].strip(" \t\f,"))
    return _without_comment(directive.comment, source) if not rest else _with_comment(directive.comment, source, rest)


def _rest(before: str, after: str) -> str:
    """What is left of a comment around a directive."""
    if not before.strip("#").strip():
        before = ""
    if after and not after.startswith("#"):
        after = f"# {after}"
    return f"{before}  {after}".strip()


def _with_comment(comment: Comment, source: SourceFile, text: str) -> Edit:
    return _edit(source, comment.offset, comment.offset + len(comment.text), text)


def _without_comment(comment: Comment, source: SourceFile) -> Edit:
    lines = source.lines
    start, end = comment.offset, comment.offset + len(comment.text)
    line_start = lines.line_start(comment.line)
    continued = comment.line > 1 and lines.line_text(comment.line - 1).endswith("\\")
    if comment.own_line and not continued:  # the line goes with it; a continued statement needs its last line
        following = lines.line_start(comment.line + 1) if comment.line < lines.line_count else end
        return _edit(source, line_start, following, "")
    before = source.text[line_start:start]
    return _edit(source, line_start + len(before.rstrip(" \t\f")), end, "")


def _edit(source: SourceFile, start: int, end: int, content: str) -> Edit:
    return Edit(source.lines.position(start), source.lines.position(end), content)
