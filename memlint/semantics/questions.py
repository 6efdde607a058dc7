"""Questions that a file's first step leaves open, and the facts from which the second step answers them.

Both are plain frozen data: they cross processes and can be stored. A candidate finding stands when every one of its
questions is answered with yes; unknown counts as no.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple, Protocol

from memlint.semantics.naming import EVALUATION_WORDS, is_entered_with_grad, words_of

if TYPE_CHECKING:
    from memlint.semantics.answers import WatchedSites
    from memlint.semantics.callers import Site
    from memlint.semantics.values import Mode


@dataclass(frozen=True)
class GradOnEntry:
    """Does this function run with grad mode on? Its callers decide; without any in view torch's default holds."""

    function: str


@dataclass(frozen=True)
class GradSometimesOn:
    """Does one of this function's callers run with grad mode on? Without any in view torch's default holds."""

    function: str


@dataclass(frozen=True)
class ResultNotDifferentiated:
    """Is there a caller in view, and does none of them differentiate (or pass on) what the function returns?"""

    function: str


Question = GradOnEntry | GradSometimesOn | ResultNotDifferentiated


@dataclass(frozen=True)
class CallSite:
    """One call in view. `mode` is a `Mode` value; `certain` is False where only the method's name matches."""

    callee: str
    """A function, or `.name`: a method of that name of an unknown object."""
    caller: str
    mode: str
    certain: bool
    result_is_clean: bool
    """The result, in the caller, reaches no backward, leaves by no return and goes to no unknown code."""


@dataclass(frozen=True)
class FunctionFacts:
    """`entry` is what decorators, bases and frameworks say of the grad mode in which the body runs."""

    name: str
    entry: str
    handed_over: bool
    """Used as a value (a callback): somebody unseen may call it."""
    is_method: bool = False


@dataclass(frozen=True)
class ModuleFacts:
    """What other steps and other files may ask of a file."""

    functions: dict[str, FunctionFacts] = field(default_factory=dict)
    calls: tuple[CallSite, ...] = ()

    def calls_of(self, function: str) -> list[CallSite]:
        """The calls in view, those among them that may be of another function of its name."""
        known, calls = self.functions.get(function), self._calls_by_callee.get(function, [])
        if known is None or not known.is_method:
            return calls
        return calls + self._calls_by_callee.get(f".{function.rpartition('.')[2]}", [])

    @cached_property
    def _calls_by_callee(self) -> dict[str, list[CallSite]]:
        calls: dict[str, list[CallSite]] = {}
        for call in self.calls:
            calls.setdefault(call.callee, []).append(call)
        return calls

    switches_grad_off: bool = False
    """A bare `torch.set_grad_enabled(False)` acts on everything that follows, wherever it stands."""


class Outside(Protocol):
    """What the rest of the project says of the file's functions."""

    def sites(self, function: str) -> WatchedSites | None: ...

    def entry_mode(self, symbol: str) -> Mode: ...

    def result_is_clean(self, site: Site) -> bool: ...

    def is_nested(self, symbol: str) -> bool: ...

    def local(self, symbol: str) -> str: ...


# Whoever is called by so many is called by somebody whose grad mode nobody knows.
_MAX_CALLERS = 100
# The name of a method that so many places call is a common word (`predict`): what stands at such a call counts, who
# calls its caller does not.
_MAX_BY_NAME = 20
# One that so few places call is hardly the name of something else, too.
_FEW_BY_NAME = 3
_HOOK_WORDS = frozenset({"on", "hook", "callback", "step"})


def answer(question: Question, facts: ModuleFacts, outside: Outside | None = None) -> bool:
    """True only when the facts, and what the project says, prove a yes."""
    if isinstance(question, GradOnEntry):
        return _grad_on_entry(question.function, facts, outside)
    if isinstance(question, GradSometimesOn):
        return _grad_sometimes_on(question.function, facts, outside)
    calls = facts.calls_of(question.function)
    sites = _sites(question.function, outside)
    if sites is None or not (calls or sites):
        return False
    return all(call.certain and call.result_is_clean for call in calls) and all(
        outside is not None and outside.result_is_clean(site) for site in sites
    )


def _sites(function: str, outside: Outside | None) -> WatchedSites | tuple[()] | None:
    """The calls from other files; a function inside another function has none."""
    name = function.partition(":")[2]
    if outside is None or not name or (function.startswith(":") and "<lambda>" in name):
        return ()
    return outside.sites(function)


def _grad_on_entry(function: str, facts: ModuleFacts, outside: Outside | None) -> bool:
    """Every call must be in grad mode on, or in that of its caller, of whose calls none is known to be off.

    Who calls the callers may be out of view, where their names say that they are no part of an evaluation.
    """
    first = _Caller(function, is_sure=True)
    pending, asked = [first], {first}
    while pending:
        caller = pending.pop()
        callers = _callers(caller, facts, outside, is_near=caller is first)
        if callers is None or len(asked) > _MAX_CALLERS:
            return False
        pending.extend(callers - asked)  # recursion adds no caller of its own
        asked |= callers
    return True


class _Caller(NamedTuple):
    """A function that runs the one in question."""

    name: str
    is_sure: bool
    """No call on the way from it is one by its name alone."""


def _callers(
    callee: _Caller, facts: ModuleFacts, outside: Outside | None, *, is_near: bool
) -> frozenset[_Caller] | None:
    """Those whose grad mode is that of the callee; None where a call is not in grad mode on, or may not be.

    Of what is only called by its name from something that is, again, only called by its name, nothing follows, unless
    the name is so rare that the call must be one of it.
    """
    name = callee.name
    entry, sites = _entry(name, facts, outside), _sites(name, outside)
    if entry == "on" or (entry == "unknown" and name.startswith("@") and _in_tests(name)):
        return frozenset()  # a test runs with grad on, whatever its decorators and base classes are
    by_name = sum(not site.certain for site in sites or ())
    is_rare = by_name <= _FEW_BY_NAME
    calls = [call for call in facts.calls_of(name) if call.certain or callee.is_sure]
    known = [site for site in sites or () if site.certain or callee.is_sure or is_rare]
    if entry == "off" or any(call.mode not in ("on", "entry") for call in calls):
        return None
    if any(_is_switched_off(site, is_sure=site.certain or (is_near and is_rare)) for site in known):
        return None
    is_given_away = _is_given_away(name, facts, outside) or any(_gives_away(site) for site in known)
    is_out_of_view = entry == "unknown" or sites is None
    if is_near and (is_given_away or is_out_of_view):
        return None
    if callee.is_sure and _may_be_evaluating(name, is_given_away=is_given_away, is_out_of_view=is_out_of_view):
        return None
    local = {_Caller(call.caller, callee.is_sure and call.certain) for call in calls if call.mode == "entry"}
    return frozenset(local) | {
        _Caller(outside.local(site.caller), callee.is_sure and site.certain)
        for site in known
        if site.mode.value == "entry" and outside is not None and (site.certain or by_name <= _MAX_BY_NAME)
    }


def _may_be_evaluating(function: str, *, is_given_away: bool, is_out_of_view: bool) -> bool:
    """Whether who calls it, out of view, may do so with grad off, as its name says.

    Nobody trains so: `main` of a launched process. And what a framework evaluates with is called `validation_step`.
    """
    name = function.rpartition(":")[2].rpartition(".")[2]
    if is_given_away:
        return not is_entered_with_grad(name)
    return is_out_of_view and not words_of(name).isdisjoint(EVALUATION_WORDS | _HOOK_WORDS)


def _is_given_away(name: str, facts: ModuleFacts, outside: Outside | None) -> bool:
    """Whether the function is used as a value, or stands in another one that may use it so."""
    if name.startswith("@"):
        return outside is not None and outside.is_nested(name)
    known = facts.functions.get(name)
    return known is not None and known.handed_over


def _gives_away(site: Site) -> bool:
    # A test that wraps a function says nothing of how it is called elsewhere.
    return site.place is None and not _in_tests(site.caller)


def _is_switched_off(site: Site, *, is_sure: bool) -> bool:
    if site.place is None:
        return False
    # Of a call that may be one of something else, and in a mode that is not known, nothing follows.
    return site.mode.value == "off" or (is_sure and site.mode.value == "unknown")


def _in_tests(symbol: str) -> bool:
    *folders, file = symbol[1:].partition(":")[0].split("/")
    return file.startswith("test_") or file.endswith("_test.py") or not {"test", "tests"}.isdisjoint(folders)


def _grad_sometimes_on(function: str, facts: ModuleFacts, outside: Outside | None) -> bool:
    """A caller with grad on is found, or one of which no caller is in view, or none that may switch it off."""
    pending, asked = [function], {function}
    may_be_off = False
    while pending and len(asked) <= _MAX_CALLERS:
        name = pending.pop()
        entry = _entry(name, facts, outside)
        if entry == "on":
            return True
        if entry != "entry":
            may_be_off = True
            continue
        calls = [(call.mode, call.caller) for call in facts.calls_of(name)]
        calls += [(site.mode.value, site.caller) for site in _sites(name, outside) or ()]
        if not calls or any(mode == "on" for mode, _ in calls):
            return True
        may_be_off |= any(mode != "entry" for mode, _ in calls)
        callers = {caller for mode, caller in calls if mode == "entry"}
        pending.extend(sorted(callers - asked))
        asked |= callers
    return not pending and not may_be_off


def _entry(name: str, facts: ModuleFacts, outside: Outside | None) -> str:
    if name.startswith("@"):
        return outside.entry_mode(name).value if outside is not None else "unknown"
    known = facts.functions.get(name)
    if known is None or facts.switches_grad_off:
        return "unknown"
    return "unknown" if known.handed_over and known.entry == "entry" else known.entry
