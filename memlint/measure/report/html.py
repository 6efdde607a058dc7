"""The measurement as one HTML file that asks the network for nothing: a timeline, and the annotated source.

Plotly draws the timeline; its script is part of the file.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from memlint import __version__
from memlint.measure import analysis
from memlint.measure.job import Layer
from memlint.measure.recording import Category, Place
from memlint.measure.report.subject import Subject
from memlint.measure.report.wording import CATEGORY_WORDS, during, facts, keeps, matters, notes
from memlint.measure.sizes import words

MOST_POINTS = 3000
"""Points of the timeline; of longer runs each is the highest of a stretch, so that no peak is lost."""
LINES_A_POINT = 8
CONTEXT = 4
"""Lines of source that are shown around one that holds memory."""

_UNITS = {1024**power: name for power, name in enumerate(("B", "KiB", "MiB", "GiB", "TiB"))}


def render(subject: Subject) -> str:
    """The page.

    Raises:
        ImportError: plotly or jinja2 is missing; they come with the extra `measure`.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    samples = analysis.timeline(subject.recording, MOST_POINTS, LINES_A_POINT)
    source = _Source(subject, samples)
    environment = Environment(
        loader=PackageLoader("memlint.measure", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(size=words, words=CATEGORY_WORDS.__getitem__, titles=_titles)
    recording = subject.recording
    return environment.get_template("page.html.jinja").render(
        subject=subject,
        recording=recording,
        version=__version__,
        facts=facts(subject),
        keeps=keeps,
        resolution=_resolution(len(recording.events), len(samples)),
        categories=sorted(subject.categories.items(), key=lambda item: -item[1]),
        held_over=subject.held_over if matters(subject, subject.held_over) else (),
        saved=analysis.saved_tensors(recording) if Layer.SAVED_TENSORS in recording.layers else None,
        source=source,
        steps=zip(recording.steps, analysis.step_peaks(recording), analysis.step_ends(recording), strict=True),
        notes=notes(subject),
        chart=_chart(subject, samples, source),
        plotly=Markup(get_plotlyjs()),
    )


@dataclass(frozen=True)
class _Row:
    """A line of source. `notes` says what it keeps from step to step."""

    anchor: str
    number: int
    text: str
    shares: tuple[analysis.LineShare, ...]
    notes: tuple[str, ...]

    @property
    def bytes(self) -> int:
        return sum(share.bytes for share in self.shares)


@dataclass(frozen=True)
class _File:
    """What is shown of a file; None in `rows` stands for lines that are left out."""

    name: str
    bytes: int
    rows: tuple[_Row | None, ...]


class _Source:
    """The lines of source that the page shows: those that hold or keep memory, and some around them."""

    def __init__(self, subject: Subject, samples: Sequence[analysis.Sample]) -> None:
        self._subject = subject
        self._shares: dict[tuple[str, int], list[analysis.LineShare]] = defaultdict(list)
        for share in subject.lines:
            if share.place is not None:
                self._shares[share.place.path, share.place.line].append(share)
        self._notes = _keeping(subject)
        shown = {*self._shares, *self._notes}
        shown |= {(share.place.path, share.place.line) for sample in samples for share in sample.lines if share.place}
        self._lines: dict[str, list[int]] = defaultdict(list)
        for path, line in sorted(shown):
            self._lines[path].append(line)
        totals = {path: sum(self._bytes(path, line) for line in lines) for path, lines in self._lines.items()}
        self._totals = dict(sorted(totals.items(), key=lambda item: (-item[1], item[0])))
        self._numbers = {path: number for number, path in enumerate(self._totals)}

    @property
    def files(self) -> Iterator[_File]:
        """What holds most first."""
        for path, total in self._totals.items():
            yield _File(self._subject.shown(path), total, tuple(self._rows(path)))

    @property
    def most(self) -> int:
        """The bytes of the line that holds most: bars are drawn in proportion to it."""
        return max((self._bytes(*line) for line in self._shares), default=0) or 1

    @property
    def unnamed(self) -> int:
        """The bytes at the peak that belong to no line of the user's."""
        return sum(share.bytes for share in self._subject.lines if share.place is None)

    def anchor(self, place: Place | None) -> str:
        """The id of the place's row; empty where the page does not show it."""
        if place is None or place.line not in self._lines.get(place.path, ()):
            return ""
        return self._anchor(place.path, place.line)

    def _anchor(self, path: str, line: int) -> str:
        return f"line-{self._numbers[path]}-{line}"

    def _bytes(self, path: str, line: int) -> int:
        return sum(share.bytes for share in self._shares.get((path, line), ()))

    def _rows(self, path: str) -> Iterator[_Row | None]:
        text = self._subject.source(path)
        lines = self._lines[path]
        around = {near for line in lines for near in range(line - CONTEXT, line + CONTEXT + 1)}
        numbers = sorted({*lines, *(number for number in around if 0 < number <= len(text))})
        previous = 0
        for number in numbers:
            if number > previous + 1:
                yield None
            previous = number
            yield _Row(
                self._anchor(path, number),
                number,
                text[number - 1] if 0 < number <= len(text) else "",
                tuple(self._shares.get((path, number), ())),
                tuple(self._notes.get((path, number), ())),
            )


def _keeping(subject: Subject) -> dict[tuple[str, int], list[str]]:
    """What lines keep from step to step."""
    found: dict[tuple[str, int], list[str]] = defaultdict(list)
    for _, line in subject.growing:
        if line.keeper is not None and line.keeper.place is not None:
            place = line.keeper.place
            found[place.path, place.line].append(f"{line.keeper.name} keeps {words(line.bytes_per_step)} of each step")
    nodes = subject.host_growth.nodes_per_step
    for keeper in subject.host_growth.keepers:
        if keeper.place is not None:
            note = f"{keeper.name} keeps graph nodes ({nodes} more at every step, in host memory)"
            found[keeper.place.path, keeper.place.line].append(note)
    return found


def _titles(shares: Sequence[analysis.LineShare]) -> str:
    return ", ".join(f"{CATEGORY_WORDS[share.category]} {words(share.bytes)}" for share in shares)


def _resolution(events: int, points: int) -> str:
    if events <= points:
        return "each allocation and release"
    return f"each point is the highest of {-(-events // points)} allocations and releases"


def _chart(subject: Subject, samples: Sequence[analysis.Sample], source: _Source) -> dict[str, object]:
    """What the page's script draws."""
    recording = subject.recording
    highest = max((sample.bytes for sample in samples), default=0)
    unit = max(size for size in _UNITS if size <= max(highest, 1))
    places = {share.place: None for sample in samples for share in sample.lines}
    numbers = {place: number for number, place in enumerate(places)}
    categories = list(Category)
    starts = [(0, "set-up"), *((step.start, f"step {step.number}") for step in recording.steps)]
    return {
        "basis": subject.basis,
        "unit": {"name": _UNITS[unit], "bytes": unit},
        "events": [sample.event for sample in samples],
        "last_event": len(recording.events) - 1,
        "totals": [sample.bytes for sample in samples],
        "where": [during(analysis.step_of(recording, sample.event)) for sample in samples],
        "categories": [{"name": category.value, "words": CATEGORY_WORDS[category]} for category in categories],
        "levels": [[sample.categories[category] for sample in samples] for category in categories],
        "peak": next((index for index, sample in enumerate(samples) if sample.bytes == highest), None),
        "reserved": subject.peak_reserved_bytes,
        "steps": [{"start": start, "words": label} for start, label in dict(starts).items()],
        "lines": [
            {
                "words": subject.where(place),
                "source": (subject.source_line(place) or "").strip(),
                "anchor": source.anchor(place),
            }
            for place in places
        ],
        "lines_at": [
            [[numbers[share.place], categories.index(share.category), share.bytes] for share in sample.lines]
            for sample in samples
        ],
    }
