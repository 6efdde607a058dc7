"""Questions that a file's first step leaves open, and the facts from which the second step answers them.

Both are plain frozen data: they cross processes and can be stored. A candidate finding stands when every one of its
questions is answered with yes; unknown counts as no.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property


@dataclass(frozen=True)
class GradOnEntry:
    """Does this function run with grad mode on? Its callers decide; without any in view torch's default holds."""

    function: str


@dataclass(frozen=True)
class ResultNotDifferentiated:
    """Is there a caller in view, and does none of them differentiate (or pass on) what the function returns?"""

    function: str


@dataclass(frozen=True)
class ImportCarriesGraph:
    """Does the call of this imported project function return a value that carries a graph?"""

    name: str


Question = GradOnEntry | ResultNotDifferentiated | ImportCarriesGraph


@dataclass(frozen=True)
class CallSite:
    """One call in view. `mode` is a `Mode` value; `certain` is False where only the method's name matches."""

    callee: str
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


@dataclass(frozen=True)
class ModuleFacts:
    """What other steps and other files may ask of a file."""

    functions: dict[str, FunctionFacts] = field(default_factory=dict)
    calls: tuple[CallSite, ...] = ()

    @cached_property
    def calls_of(self) -> dict[str, list[CallSite]]:
        """The calls in view, by callee."""
        calls: dict[str, list[CallSite]] = {}
        for call in self.calls:
            calls.setdefault(call.callee, []).append(call)
        return calls

    switches_grad_off: bool = False
    """A bare `torch.set_grad_enabled(False)` acts on everything that follows, wherever it stands."""


def answer(question: Question, facts: ModuleFacts) -> bool:
    """True only when the facts prove a yes."""
    if isinstance(question, GradOnEntry):
        return _grad_on_entry(question.function, facts)
    if isinstance(question, ResultNotDifferentiated):
        calls = facts.calls_of.get(question.function, [])
        return bool(calls) and all(call.certain and call.result_is_clean for call in calls)
    return False


def _grad_on_entry(function: str, facts: ModuleFacts) -> bool:
    """Every caller, and its callers while they run in their caller's mode, must run with grad on."""
    pending, asked = [function], {function}
    while pending:
        name = pending.pop()
        known = facts.functions.get(name)
        if known is None or facts.switches_grad_off or known.entry in ("off", "unknown"):
            return False
        if known.entry == "on":
            continue
        if known.handed_over or any(call.mode not in ("on", "entry") for call in facts.calls_of.get(name, [])):
            return False
        callers = {call.caller for call in facts.calls_of.get(name, []) if call.mode == "entry"}
        pending.extend(callers - asked)  # recursion adds no caller of its own
        asked |= callers
    return True
