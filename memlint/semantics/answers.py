"""What a file's analysis asked of the project and what it was told, to be asked again when the project has changed.

An analysis is worked out from the file, the settings and these answers alone. While they are the same, so is its
result, whatever else has changed.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeVar, cast

from memlint.project.reads import digest_of
from memlint.semantics.values import Kind

if TYPE_CHECKING:
    from memlint.semantics.callers import Site, Sites
    from memlint.semantics.project import View

_Method = TypeVar("_Method", bound=Callable[..., Any])


@dataclass(frozen=True)
class Asked:
    """One question to a view, by the name of its method, and a digest of the answer."""

    method: str
    given: tuple[Any, ...]
    answer: str


@dataclass(frozen=True)
class AskedForSites:
    """The call sites of a function, as far as they were read."""

    function: str
    count: int
    all_read: bool
    answer: str


@dataclass(frozen=True)
class AskedOfSite:
    """A question about one of these sites."""

    method: str
    function: str
    index: int
    given: tuple[Any, ...]
    """What was given beside the site."""
    answer: str


Question = Asked | AskedForSites | AskedOfSite


def asked(method: _Method) -> _Method:
    """A method of a view, with positional arguments alone, whose answers are kept."""
    name = method.__name__

    @functools.wraps(method)
    def ask(self: View, *given: Any) -> Any:
        answer = method(self, *given)
        self.answers.given.setdefault((name, given), answer)
        return answer

    return cast("_Method", ask)


@dataclass
class Answers:
    """What one view was asked, in order."""

    given: dict[tuple[str, tuple[Any, ...]], Any] = field(default_factory=dict)
    sites: dict[str, WatchedSites | None] = field(default_factory=dict)

    def watch(self, function: str, sites: Sites | None) -> WatchedSites | None:
        if function not in self.sites:
            self.sites[function] = None if sites is None else WatchedSites(sites)
        return self.sites[function]

    def questions(self) -> tuple[Question, ...]:
        """Everything that was asked, as plain data."""
        places = {
            id(site): (function, index)
            for function, watched in self.sites.items()
            if watched is not None
            for index, site in enumerate(watched.seen)
        }
        found: list[Question] = [_asked_for_sites(function, watched) for function, watched in self.sites.items()]
        for (method, given), answer in self.given.items():
            place = places.get(id(given[0])) if given else None
            digest = digest_of_answer(answer)
            if place is None:
                found.append(Asked(method, given, digest))
            else:
                found.append(AskedOfSite(method, *place, given[1:], digest))
        return tuple(found)


class WatchedSites:
    """The sites of a function, and how many of them were read."""

    def __init__(self, sites: Sites) -> None:
        self._sites = sites
        self.seen: list[Site] = []
        self.all_read = False

    def __iter__(self) -> Iterator[Site]:
        for index, site in enumerate(self._sites):
            if index == len(self.seen):
                self.seen.append(site)
            yield self.seen[index]
        self.all_read = True

    def __bool__(self) -> bool:
        return next(iter(self), None) is not None


def same_answers(view: View, questions: tuple[Question, ...]) -> bool:
    """Whether the view, asked again, says the same."""
    try:
        return all(_is_same(view, question) for question in questions)
    except (KeyError, AttributeError, TypeError):
        return False  # what was asked about is not there any more


def _is_same(view: View, question: Question) -> bool:
    if isinstance(question, AskedForSites):
        watched = view.sites(question.function)
        if watched is not None:
            # The range comes first: once it is used up no further site is searched for.
            for _ in watched if question.all_read else zip(range(question.count), watched, strict=False):
                pass
        return _asked_for_sites(question.function, watched) == question
    if isinstance(question, AskedOfSite):
        watched = view.sites(question.function)
        assert watched is not None
        site = watched.seen[question.index]
        return digest_of_answer(getattr(view, question.method)(site, *question.given)) == question.answer
    return digest_of_answer(getattr(view, question.method)(*question.given)) == question.answer


def _asked_for_sites(function: str, watched: WatchedSites | None) -> AskedForSites:
    if watched is None:
        return AskedForSites(function, 0, False, "")
    # Where in its file a call stands is nobody's business: the lines above it may change.
    answer = digest_of_answer([(site.caller, site.mode, site.certain, site.place is None) for site in watched.seen])
    return AskedForSites(function, len(watched.seen), watched.all_read, answer)


# --- as text, to be stored ---


def to_text(questions: Iterable[Question]) -> str:
    """The questions as JSON."""
    return json.dumps([_as_list(question) for question in questions], separators=(",", ":"))


def from_text(text: str) -> tuple[Question, ...]:
    """The questions again. Raises ValueError, TypeError or KeyError for a text that is damaged."""
    return tuple(_FORMS[form](*(_given(part) for part in parts)) for form, *parts in json.loads(text))


_FORMS: dict[str, Callable[..., Question]] = {"view": Asked, "sites": AskedForSites, "site": AskedOfSite}


def _as_list(question: Question) -> list[object]:
    form = next(form for form, kind in _FORMS.items() if type(question) is kind)
    return [form, *(_stored(getattr(question, item.name)) for item in fields(question))]


def _stored(value: object) -> object:
    if isinstance(value, Kind):
        return {"kind": value.value}
    return [_stored(item) for item in value] if isinstance(value, tuple) else value


def _given(value: object) -> object:
    if isinstance(value, dict):
        return Kind(value["kind"])
    return tuple(_given(item) for item in value) if isinstance(value, list) else value


# --- digests ---


def digest_of_answer(answer: object) -> str:
    return digest_of(repr(_plain(answer)).encode(errors="surrogatepass"))


def _plain(value: object) -> object:
    """The value in a form that prints the same in every process."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted(repr(_plain(item)) for item in value)
    if isinstance(value, Mapping):
        return sorted((repr(_plain(key)), _plain(item)) for key, item in value.items())
    if is_dataclass(value):
        return [_plain(getattr(value, item.name)) for item in fields(value)]
    return value
