"""What a file's analysis asked of the project and what it was told.

An analysis is worked out from the file, the settings and these answers alone. While they are the same, so is its
result, whatever else has changed. And while nothing has changed that an answer rests on, it need not be worked out
again: a file that has changed itself asks most of what it asked before.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

from memlint.project.names import Names
from memlint.project.reads import Read, Reads
from memlint.semantics.plain import SiteNumber, from_plain, to_plain

if TYPE_CHECKING:
    from memlint.semantics.callers import Site
    from memlint.semantics.project import View

_Method = TypeVar("_Method", bound=Callable[..., Any])
Question = tuple[str, tuple[Any, ...]]
"""A method of a view, by its name, and what it is given; on record, a call site is given by its number."""


class Told(NamedTuple):
    """An answer, plain, and what it rests on."""

    answer: Any
    reads: frozenset[Read]


class ToldSites(NamedTuple):
    """The call sites of a function, plain, as far as they were read; None where they cannot be told."""

    sites: Any
    all_read: bool
    reads: frozenset[Read]


class Record(NamedTuple):
    """All that one view was asked and told."""

    sites: dict[str, ToldSites]
    answers: dict[Question, Told]
    surfaces: dict[str, str]
    """Digests of the surfaces that answers rest on."""


class Remembered(NamedTuple):
    """The record of an earlier view."""

    record: Record
    moved: frozenset[Read] = frozenset()
    """What may have another outcome by now."""


_NOTHING = Remembered(Record({}, {}, {}))


def asked(method: _Method) -> _Method:
    """A method of a view, with positional arguments alone, whose answers are kept."""
    name = method.__name__

    @functools.wraps(method)
    def ask(self: View, *given: Any) -> Any:
        return self.answers.answer((name, given), lambda: method(self, *given))

    return cast("_Method", ask)


class Answers:
    """What one view was asked, in order."""

    def __init__(self, names: Names, remembered: Remembered | None = None) -> None:
        self._names = names
        self._reads = names.reads
        self._remembered = remembered or _NOTHING
        self._known: dict[Question, _Known] = {}
        self._sites: dict[str, WatchedSites] = {}
        self._numbers: dict[int, SiteNumber] = {}
        """By the identity of a site that was read."""

    def answer(self, question: Question, work: Callable[[], Any]) -> Any:
        """As it was given before, as it is remembered, or as it is worked out."""
        known = self._known.get(question)
        if known is None:
            known = self._known[question] = self._recalled(question) or _Known(*self._reads.resting(work))
        self._reads.note(*known.reads)
        return known.answer

    def doubts(self, read: Read) -> bool:
        """Whether what is remembered may rest on this, and this may have another outcome by now."""
        return read in self._remembered.moved

    def _recalled(self, question: Question) -> _Known | None:
        question = self._on_record(question)
        told, site = self._remembered.record.answers.get(question), _site_in(question)
        if told is None or not self._stands(told) or (site is not None and self._recalled_sites(site.function) is None):
            return None
        try:
            return _Known(from_plain(told.answer), told.reads, told)
        except UNREADABLE:
            return None

    def _recalled_sites(self, function: str) -> ToldSites | None:
        told = self._remembered.record.sites.get(function)
        return told if told is not None and self._stands(told) else None

    def _stands(self, told: Told | ToldSites) -> bool:
        """Whether the answer would be the same again. Where a file has changed, its surface may be as it was."""
        return all(
            read.kind == "surface" and self._shows_the_same(read.name) for read in told.reads & self._remembered.moved
        )

    def _shows_the_same(self, file: str) -> bool:
        return self._names.digest_of_surface(file) == self._remembered.record.surfaces.get(file)

    def _on_record(self, question: Question) -> Question:
        name, given = question
        number = self._numbers.get(id(given[0])) if given else None
        return question if number is None else (name, (number, *given[1:]))

    def watch(self, function: str, search: Callable[[], Iterable[Site] | None]) -> WatchedSites | None:
        """The sites of a function: those that are remembered, and the others searched for as far as somebody reads."""
        if function not in self._sites:
            told = self._recalled_sites(function)
            self._sites[function] = WatchedSites(function, search, self._reads, self._numbers, told)
        watched = self._sites[function]
        self._reads.note(*watched.reads)
        return watched if watched.can_be_told else None

    def record(self) -> Record:
        """Everything that was asked, and the answers."""
        sites = {function: watched.told() for function, watched in self._sites.items()}
        answers = {self._on_record(question): known.on_record() for question, known in self._known.items()}
        surfaces = {
            read.name: self._surface(read.name)
            for reads in (*(told.reads for told in sites.values()), *(told.reads for told in answers.values()))
            for read in reads
            if read.kind == "surface"
        }
        return Record(sites, answers, surfaces)

    def _surface(self, file: str) -> str:
        """The digest of a surface, be it remembered: then the file was not read."""
        is_read = self._names.has_surface(file)
        return self._names.digest_of_surface(file) if is_read else self._remembered.record.surfaces[file]


class _Known(NamedTuple):
    answer: Any
    reads: frozenset[Read]
    told: Told | None = None

    def on_record(self) -> Told:
        return self.told or Told(to_plain(self.answer), self.reads)


class WatchedSites:
    """The sites of a function, and how many of them were read."""

    def __init__(
        self,
        function: str,
        search: Callable[[], Iterable[Site] | None],
        reads: Reads,
        numbers: dict[int, SiteNumber],
        told: ToldSites | None,
    ) -> None:
        """`numbers` gets the number of each site that is read."""
        self._function = function
        self._search = search
        self._reads = reads
        self._numbers = numbers
        self._rest: Iterator[Site] | None = None
        self.reads: set[Read] = set()
        """What the sites rest on that are read."""
        self.seen: list[Site] = []
        self.all_read = False
        self.can_be_told = True
        if told is None:
            self._begin()
            return
        self.reads |= told.reads
        self.all_read, self.can_be_told = told.all_read, told.sites is not None
        for site in from_plain(told.sites or []):
            self._see(site)

    def __iter__(self) -> Iterator[Site]:
        self._reads.note(*self.reads)
        index = 0
        while index < len(self.seen) or self._finds_another():
            yield self.seen[index]
            index += 1

    def __bool__(self) -> bool:
        return next(iter(self), None) is not None

    def told(self) -> ToldSites:
        sites = to_plain(tuple(self.seen)) if self.can_be_told else None
        return ToldSites(sites, self.all_read, frozenset(self.reads))

    def _finds_another(self) -> bool:
        if self.all_read:
            return False
        site, reads = self._reads.resting(self._next)
        self.reads |= reads
        if site is None:
            self.all_read = True
            return False
        self._see(site)
        return True

    def _next(self) -> Site | None:
        if self._rest is None:
            self._begin()
        return next(self._rest, None) if self._rest is not None else None

    def _begin(self) -> None:
        """Search, behind what is seen already."""
        found, reads = self._reads.resting(self._search)
        self.reads |= reads
        self.can_be_told = found is not None
        self._rest = islice(found or (), len(self.seen), None)

    def _see(self, site: Site) -> None:
        self._numbers[id(site)] = SiteNumber(self._function, len(self.seen))
        self.seen.append(site)


# --- the same questions, asked again ---


def same_answers(view: View, remembered: Remembered) -> bool:
    """Whether the view, which remembers, still says what is on record."""
    sites, answers, _ = remembered.record
    try:
        return all(_has_same_sites(view, function, told) for function, told in sites.items()) and all(
            _has_same_answer(view, question, told) for question, told in answers.items()
        )
    except (KeyError, AttributeError, TypeError, IndexError):
        return False  # what was asked about is not there any more


def _has_same_sites(view: View, function: str, told: ToldSites) -> bool:
    watched = view.sites(function)
    if watched is None or told.sites is None:
        return watched is None and told.sites is None
    # The range comes first: once it is used up no further site is searched for.
    for _ in watched if told.all_read else zip(range(len(told.sites)), watched, strict=False):
        pass
    seen = [_meaning(site) for site in watched.seen]
    return watched.all_read == told.all_read and seen == [_meaning(site) for site in from_plain(told.sites)]


def _meaning(site: Site) -> tuple[object, ...]:
    # Where in its file a call stands is nobody's business: the lines above it may change.
    return site.caller, site.mode, site.certain, site.place is None


def _has_same_answer(view: View, question: Question, told: Told) -> bool:
    name, given = question
    site = _site_in(question)
    if site is not None:
        watched = view.sites(site.function)
        assert watched is not None
        given = (watched.seen[site.number], *given[1:])
    return _text(to_plain(getattr(view, name)(*given))) == _text(told.answer)


def _site_in(question: Question) -> SiteNumber | None:
    """The site that a question on record is about."""
    _, given = question
    return given[0] if given and isinstance(given[0], SiteNumber) else None


# --- as text, to be stored ---

UNREADABLE = (ValueError, TypeError, KeyError, IndexError, AttributeError)
"""What a damaged text raises."""


def _text(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def to_text(record: Record) -> str:
    """The record as JSON. Each read stands in it once; answers name it by its number."""
    numbers: dict[Read, int] = {}

    def numbered(reads: Iterable[Read]) -> list[int]:
        return [numbers.setdefault(read, len(numbers)) for read in reads]

    sites = [[function, told.sites, told.all_read, numbered(told.reads)] for function, told in record.sites.items()]
    answers = [
        [name, to_plain(given), told.answer, numbered(told.reads)] for (name, given), told in record.answers.items()
    ]
    return _text([[*map(list, numbers)], record.surfaces, sites, answers])


def from_text(text: str) -> Record:
    """The record again. Raises what is in UNREADABLE for a text that is damaged."""
    names, surfaces, sites, answers = json.loads(text)
    reads = [Read(kind, name) for kind, name in names]

    def named(numbers: Iterable[int]) -> frozenset[Read]:
        return frozenset(reads[number] for number in numbers)

    return Record(
        {function: ToldSites(found, all_read, named(rests)) for function, found, all_read, rests in sites},
        {(name, from_plain(given)): Told(answer, named(rests)) for name, given, answer, rests in answers},
        dict(surfaces),
    )
