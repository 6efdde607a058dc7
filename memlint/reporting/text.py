"""The report for people: each finding with its source, what it costs and what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from memlint.linting.finding import Applicability, Cost, CostClass, Finding, Related
from memlint.reporting.colour import Palette
from memlint.reporting.looks import DEFAULT_WIDTH
from memlint.reporting.report import Report, place, price, visible
from memlint.reporting.snippet import PrintedLine

# Lines of source are never cut below this, however narrow the terminal: there would be nothing to read.
_LEAST_SOURCE_WIDTH = 30

_COST = {
    CostClass.GROWS_ON_DEVICE: "device memory grows at every step",
    CostClass.RAISES_PEAK: "raises the peak of device memory",
    CostClass.GROWS_ON_HOST: "host memory grows at every step",
    CostClass.CONSTANT: "the same waste at every step",
}

_HELP = {
    Applicability.SAFE: "help (safe fix)",
    Applicability.UNSAFE: "help (unsafe fix)",
    Applicability.DISPLAY_ONLY: "help (not applied for you)",
}

_WORD = re.compile(r"[\w.]+")


@dataclass(frozen=True)
class _Mark:
    """A place to underline: columns are 1-based, `end_column` None stands for the word at the place."""

    line: int
    column: int
    end_column: int | None
    note: str
    is_main: bool


def render(report: Report, *, palette: Palette | None = None, width: int = DEFAULT_WIDTH) -> Iterator[str]:
    """The findings, an empty line after each. `width` is that of the terminal, in cells."""
    palette = palette or Palette()
    for finding in report.findings:
        yield from _Block(report, finding, palette, width).render()
        yield ""


class _Block:
    """One finding."""

    def __init__(self, report: Report, finding: Finding, palette: Palette, width: int) -> None:
        self._report = report
        self._finding = finding
        self._palette = palette
        self._marks = sorted(self._shown_marks(), key=lambda mark: (mark.line, not mark.is_main, mark.column))
        self._gutter = len(str(max([finding.start.line, *(related.position.line for related in finding.related)])))
        self._width = max(width - self._gutter - len("  | "), _LEAST_SOURCE_WIDTH)

    def render(self) -> Iterator[str]:
        yield self._headline()
        bar = self._bar(f"{'':{self._gutter}} |")
        footer = list(self._footer())
        if self._marks:
            yield bar
            yield from self._snippet()
        for related in self._finding.related:
            if self._is_elsewhere(related):
                yield from self._elsewhere(related)
        if footer and (self._marks or self._finding.related):
            yield bar
        yield from footer

    def _headline(self) -> str:
        finding, palette = self._finding, self._palette
        where = place("", finding.start, finding.cell)
        return (
            f"{palette.path(visible(finding.path))}{palette.faint(f'{where}:')} {palette.code(finding.code)} "
            f"{palette.faint(f'[{finding.name}]')} {visible(finding.message)}"
        )

    def _shown_marks(self) -> Iterator[_Mark]:
        """The marks whose source line is known."""
        finding = self._finding
        text = self._report.line(finding.path, finding.start.line, finding.cell)
        if text is not None:
            same_line = finding.end.line == finding.start.line
            end = finding.end.column if same_line else len(text) + 1
            yield _Mark(finding.start.line, finding.start.column, end, "", is_main=True)
        for related in finding.related:
            if not self._is_elsewhere(related):
                line, column = related.position
                yield _Mark(line, column, None, visible(related.message), is_main=False)

    def _is_elsewhere(self, related: Related) -> bool:
        """In another file or cell, or on a line that is not known."""
        if (related.path, related.cell) != (self._finding.path, self._finding.cell):
            return True
        return self._report.line(related.path, related.position.line, related.cell) is None

    def _snippet(self) -> Iterator[str]:
        previous: int | None = None
        for number, marks in groupby(self._marks, key=lambda mark: mark.line):
            if previous is not None and number > previous + 1:
                yield self._bar("." * max(3, self._gutter))
            previous = number
            yield from self._line(self._report.line(self._finding.path, number, self._finding.cell) or "", list(marks))

    def _line(self, text: str, marks: list[_Mark]) -> Iterator[str]:
        """A source line, and a line below it for each mark."""
        printed = PrintedLine(text, focus=marks[0].column, width=self._width)
        yield f"{self._bar(f'{marks[0].line:>{self._gutter}} |')} {printed.text}".rstrip()
        for mark in marks:
            yield self._underline(printed, text, mark)

    def _underline(self, printed: PrintedLine, text: str, mark: _Mark) -> str:
        span = printed.span(mark.column, mark.end_column or _end_of_word(text, mark.column))
        paint = self._palette.main if mark.is_main else self._palette.related
        line = ("^" if mark.is_main else "-") * span.length
        note = f"{line} {mark.note}".rstrip()
        return f"{self._bar(f'{chr(32):{self._gutter}} |')} {' ' * span.offset}{paint(note)}"

    def _elsewhere(self, related: Related) -> Iterator[str]:
        line, column = related.position
        where = place(visible(related.path), related.position, related.cell)
        start = f"{self._bar(f'{chr(32):{self._gutter}}:::')} {where}"
        text = self._report.line(related.path, line, related.cell)
        if text is None:
            yield f"{start} {self._palette.related(visible(related.message))}"
            return
        yield start
        yield from self._line(text, [_Mark(line, column, None, visible(related.message), is_main=False)])

    def _footer(self) -> Iterator[str]:
        if self._finding.measured is not None:
            yield from self._note("measured", self._palette.cost("measured:"), price(self._finding.measured))
        if self._finding.cost is not None:
            yield from self._note("cost", self._palette.cost("cost:"), _cost_words(self._finding.cost))
        if self._finding.fix is not None:
            label = _HELP[self._finding.fix.applicability]
            yield from self._note(label, self._palette.help(f"{label}:"), self._finding.fix.message)

    def _note(self, label: str, painted: str, words: str) -> Iterator[str]:
        first, *others = [visible(line) for line in words.splitlines()] or [""]
        yield f"{self._bar(f'{chr(32):{self._gutter}} =')} {painted} {first}"
        indent = " " * (self._gutter + len(" = : ") + len(label))
        for line in others:
            yield indent + line

    def _bar(self, text: str) -> str:
        return self._palette.gutter(text)


def _end_of_word(text: str, column: int) -> int:
    word = _WORD.match(text, column - 1)
    return word.end() + 1 if word else column + 1


def _cost_words(cost: Cost) -> str:
    words = _COST[cost.cost_class]
    return f"{words}: {cost.formula}" if cost.formula else words
