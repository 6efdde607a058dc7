"""Writing suppression comments for findings, with a reason."""

from __future__ import annotations

import io
import re
import tokenize
from collections import defaultdict
from collections.abc import Iterable

from memlint.linting.finding import Finding
from memlint.linting.policy import ALWAYS_ON
from memlint.source.file import SourceFile

_NOQA_CODES = re.compile(r"#\s*noqa\s*:\s*[A-Z]+[0-9]+\b(?:[\s,]+[A-Z]+[0-9]+\b)*", re.IGNORECASE)


def with_suppressions(source: SourceFile, findings: Iterable[Finding], reason: str) -> str:
    """The text with `# noqa: CODE reason` at each finding's statement. What cannot be marked stays as it is.

    The comment goes to the end of the first of the finding's lines that can hold one, or into a `noqa` there.
    """
    ends = _line_ends(source.text)
    wanted: dict[int, set[str]] = defaultdict(set)
    for finding in findings:
        possible = [number for number in range(finding.start.line, finding.end.line + 1) if number in ends]
        if finding.code not in ALWAYS_ON and possible:
            wanted[possible[0]].add(finding.code)
    text = source.text
    for number in sorted(wanted, reverse=True):
        start, line = source.lines.line_start(number), source.lines.line_text(number)
        text = text[:start] + _marked(line, wanted[number], reason) + text[start + len(line) :]
    return text


def _line_ends(text: str) -> frozenset[int]:
    """The lines that can end in a comment: not within a string, not continued by a backslash.

    None at all where Python's tokenizer gives up.
    """
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(text, newline=None).readline))
    except (tokenize.TokenError, SyntaxError):
        return frozenset()
    return frozenset(token.start[0] for token in tokens if token.type in {tokenize.NEWLINE, tokenize.NL})


def _marked(line: str, codes: set[str], reason: str) -> str:
    match = _NOQA_CODES.search(line)
    if match is None:
        return f"{line.rstrip()}  # noqa: {', '.join(sorted(codes))} {reason}".rstrip()
    return f"{line[: match.end()]}, {', '.join(sorted(codes))}{line[match.end() :]}"
