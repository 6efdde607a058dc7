"""Questions are answered from facts alone, however densely functions call each other."""

from __future__ import annotations

from memlint.semantics.questions import CallSite, FunctionFacts, GradOnEntry, ModuleFacts, answer


def _facts(entries: dict[str, str], calls: list[tuple[str, str, str]]) -> ModuleFacts:
    functions = {name: FunctionFacts(name, entry, handed_over=False) for name, entry in entries.items()}
    return ModuleFacts(functions, tuple(CallSite(callee, caller, mode, True, False) for callee, caller, mode in calls))


def test_grad_is_on_where_all_callers_run_with_grad_on() -> None:
    facts = _facts({"a": "entry", "b": "entry", "main": "on"}, [("a", "b", "entry"), ("b", "main", "on")])
    assert answer(GradOnEntry("a"), facts)


def test_one_caller_with_grad_off_is_enough() -> None:
    facts = _facts({"a": "entry", "b": "entry"}, [("a", "b", "entry"), ("b", "b", "entry"), ("b", "main", "off")])
    assert not answer(GradOnEntry("a"), facts)


def test_functions_that_all_call_each_other_are_answered_at_once() -> None:
    names = [f"forward_{number}" for number in range(60)]
    facts = _facts(dict.fromkeys(names, "entry"), [(a, b, "entry") for a in names for b in names])
    assert answer(GradOnEntry("forward_0"), facts)
