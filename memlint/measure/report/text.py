"""The measurement for people: in a terminal, with the lines of source that hold the memory."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from memlint.measure import analysis
from memlint.measure.job import Layer
from memlint.measure.recording import Category, Place
from memlint.measure.report.subject import Subject
from memlint.measure.report.wording import CATEGORY_WORDS, facts, keeps, kind_of_step, matters, notes
from memlint.measure.sizes import words
from memlint.reporting.looks import DEFAULT_WIDTH
from memlint.reporting.report import visible

MOST_LINES = 12
"""Lines of source that are listed; the JSON output has all of them."""

_BARS = "▁▂▃▄▅▆▇█"
_SPARKLINE_WIDTH = 60

# Of the bars only: on some grounds a colour is hard to read, and the words stand beside them.
_STYLES = {
    Category.PARAMETERS: "blue",
    Category.GRADIENTS: "cyan",
    Category.OPTIMIZER_STATE: "green",
    Category.ACTIVATIONS: "yellow",
    Category.BACKWARD_TEMPORARIES: "magenta",
    Category.INPUTS: "red",
    Category.OTHER: "default",
}


def render(subject: Subject, *, colour: bool = False, width: int = DEFAULT_WIDTH) -> str:
    """The whole report. `width` is that of the terminal, in cells."""
    stream = io.StringIO()
    console = Console(
        file=stream,
        width=width,
        force_terminal=colour,
        color_system="standard" if colour else None,
        no_color=not colour,
        highlight=False,
        emoji=False,
        markup=False,
        legacy_windows=False,
    )
    for block in _blocks(subject):
        console.print(block, soft_wrap=isinstance(block, Text))
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"


def _blocks(subject: Subject) -> Iterator[Text | Table]:
    yield _headline(subject)
    yield Text()
    yield _facts(subject)
    if subject.recording.steps:
        yield Text()
        yield from _timeline(subject)
    if subject.at_peak:
        yield Text()
        yield _title("What holds the peak", subject)
        yield _categories(subject)
        yield Text()
        yield _title("Lines that hold the peak", subject)
        yield _lines(subject, subject.lines)
        yield from _rest(subject.lines)
    yield from _growth(subject)
    yield from _held_over(subject)
    yield from _saved(subject)
    yield from _notes(subject)


def _headline(subject: Subject) -> Text:
    recording = subject.recording
    total = f", {words(subject.card_bytes)}" if subject.card_bytes else ""
    steps = len(recording.steps)
    return Text.assemble(
        (visible(subject.target), "bold"),
        f": {subject.basis} ({visible(recording.device.name)}{total}; torch {recording.torch_version}; ",
        f"{steps} step{'' if steps == 1 else 's'}, the first {recording.warmup} as warm-up)",
    )


def _title(title: str, subject: Subject) -> Text:
    return Text.assemble((title, "bold"), (f" ({subject.basis})", "dim"))


def _grid(*justify: Literal["left", "right"]) -> Table:
    """Columns that keep their width; where there is no room the last one, source code, is cut."""
    table = Table.grid(padding=(0, 2))
    for side in justify[:-1]:
        table.add_column(justify=side, no_wrap=True)
    table.add_column(justify=justify[-1], overflow="ellipsis")
    return table


def _facts(subject: Subject) -> Table:
    table = _grid("left", "right", "left")
    for fact in facts(subject):
        table.add_row(fact.title, Text(fact.value, "bold red" if fact.alarm else "bold"), fact.note)
    return table


def _timeline(subject: Subject) -> Iterator[Text]:
    samples = analysis.timeline(subject.recording, _SPARKLINE_WIDTH)
    highest = max((sample.bytes for sample in samples), default=0)
    yield _title("Allocated over the run", subject)
    yield Text("  " + sparkline([sample.bytes for sample in samples]))
    marks = [" "] * len(samples)
    for step in subject.recording.steps:
        position = sum(sample.event < step.start for sample in samples)
        if position < len(marks) and marks[position] == " ":
            marks[position] = str(step.number % 10)
    yield Text("  " + "".join(marks).rstrip(), "dim")
    yield Text(f"  0 to {words(highest)}; a digit stands where its step begins", "dim")


def sparkline(values: Sequence[int]) -> str:
    """A bar for each value, from 0 to the highest."""
    highest = max(values, default=0) or 1
    return "".join(_BARS[min(value * len(_BARS) // highest, len(_BARS) - 1)] for value in values)


def _categories(subject: Subject) -> Table:
    table = _grid("left", "right", "right", "left")
    total = subject.tracked_peak.bytes or 1
    for category, size in sorted(subject.categories.items(), key=lambda item: -item[1]):
        if not size:
            continue
        bar = Text("█" * max(1, round(30 * size / total)), _STYLES[category])
        table.add_row(f"  {CATEGORY_WORDS[category]}", words(size), _percent(size, total), bar)
    return table


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %"


def _lines(subject: Subject, shares: Sequence[analysis.LineShare]) -> Table:
    """Each line once, the categories it holds below one another."""
    table = _grid("right", "left", "left", "left")
    for share in shares[:MOST_LINES]:
        table.add_row(
            f"  {words(share.bytes)}",
            CATEGORY_WORDS[share.category],
            visible(subject.where(share.place)),
            _source(subject, share.place),
        )
    return table


def _rest(shares: Sequence[analysis.LineShare]) -> Iterator[Text]:
    rest = shares[MOST_LINES:]
    if rest:
        size = words(sum(share.bytes for share in rest))
        yield Text(f"  {size} in {len(rest)} more (`--output-format json` has all)", "dim")


def _source(subject: Subject, place: Place | None) -> Text:
    line = subject.source_line(place)
    return Text(visible(line.strip()) if line else "", "italic", no_wrap=True)


def _growth(subject: Subject) -> Iterator[Text | Table]:
    lines = list(subject.growing)
    if lines:
        yield Text()
        yield _title("Memory that grows", subject)
    for growth, line in lines:
        step = f"{kind_of_step(subject, growth)}step"
        yield Text.assemble(
            "  ", (f"{words(line.bytes_per_step)} per {step}", "bold red"), f", {visible(keeps(subject, line.keeper))}"
        )
        yield from _quoted(subject, line.keeper.place if line.keeper else None)
        table = _grid("right", "left", "left")
        for allocated in line.allocated_at[:MOST_LINES]:
            table.add_row(
                f"      {words(allocated.bytes_per_step)}",
                f"allocated at {visible(subject.where(allocated.place))}",
                _source(subject, allocated.place),
            )
        yield table
    host = subject.host_growth
    if host.nodes_per_step:
        yield Text()
        yield Text.assemble(
            ("Graph nodes that pile up in host memory", "bold"), (f" ({host.nodes_per_step} more a step)", "dim")
        )
        for keeper in host.keepers or [None]:
            yield Text(f"  {visible(keeps(subject, keeper))}")
            yield from _quoted(subject, keeper.place if keeper else None)


def _quoted(subject: Subject, place: Place | None) -> Iterator[Text]:
    line = subject.source_line(place)
    if place is not None and line is not None:
        yield Text.assemble((f"    {place.line} | ", "blue"), visible(line.strip()))


def _held_over(subject: Subject) -> Iterator[Text | Table]:
    if matters(subject, subject.held_over):
        yield Text()
        yield _title("Held over from the step before, at the peak", subject)
        yield _lines(subject, subject.held_over)
        yield from _rest(subject.held_over)


def _saved(subject: Subject) -> Iterator[Text | Table]:
    if Layer.SAVED_TENSORS not in subject.recording.layers:
        return
    yield Text()
    yield _title("Saved for the backward pass", subject)
    saved = analysis.saved_tensors(subject.recording)
    yield _lines(subject, saved)
    yield from _rest(saved)


def _notes(subject: Subject) -> Iterator[Text]:
    for title, items in notes(subject):
        if items:
            yield Text()
            yield Text(title, "bold")
        yield from (Text(f"  {visible(item)}") for item in items)
