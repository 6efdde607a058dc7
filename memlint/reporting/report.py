"""What every output format is made from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from memlint.linting.finding import FileResult, Finding


@dataclass(frozen=True)
class Report:
    """The findings of a run, in their order, and the source lines they name, by path and 1-based number."""

    findings: tuple[Finding, ...]
    lines: Mapping[str, Mapping[int, str]] = field(default_factory=dict)

    @classmethod
    def of(cls, results: Iterable[FileResult]) -> Report:
        collected = list(results)
        findings = sorted((finding for result in collected for finding in result.findings), key=_order)
        return cls(tuple(findings), {result.path: result.lines for result in collected})

    def line(self, path: str, number: int) -> str | None:
        return self.lines.get(path, {}).get(number)


def _order(finding: Finding) -> tuple[object, ...]:
    return finding.sort_key


def headline(finding: Finding) -> str:
    """The finding in one line."""
    place = f"{finding.path}:{finding.start.line}:{finding.start.column}"
    return f"{place}: {finding.code} [{finding.name}] {visible(finding.message)}"


def visible(text: str) -> str:
    """The text with control characters shown as pictures: a report is one line a line, and moves no cursor."""
    return text.translate(_PICTURES)


_PICTURES = {code: chr(0x2400 + code) for code in range(0x20)} | {0x7F: "\u2421"}
_PICTURES |= dict.fromkeys(
    [*range(0x80, 0xA0), 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A)], "\ufffd"
)
