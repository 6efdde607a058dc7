"""The core: from bytes and a policy to findings and fixed bytes."""

from __future__ import annotations

import pickle
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace

import pytest

from memlint.linting import lint as core
from memlint.linting.edits import Replace
from memlint.linting.finding import Confidence, FileResult, FixResult
from memlint.linting.lint import analyse, conclude, fix, lint
from memlint.linting.policy import Policy
from memlint.linting.registry import all_rules, rule_classes
from memlint.linting.rule import Draft, FixDraft, Rule, safe_fix, unsafe_fix
from memlint.semantics.module import Module

POLICY = Policy(codes=frozenset(rule.code for rule in all_rules()), confidence=Confidence.LOW)

TRAINING = """\
import torch

def train(model, loader, criterion):
    total = 0.0
    for x, y in loader:
        loss = criterion(model(x), y)
        loss.backward()
        total += loss
    print(total / len(loader))
"""
# A safe and an unsafe fix: what `net` returns need be no tensor.
COPIES = """\
import torch
def copies(t: torch.nn.Parameter, net: torch.nn.Module):
    x = net(t)
    return t.clone().detach(), x.clone().detach()
"""
# Each of the two fixes lies inside the other's text.
NESTED = """\
import torch

def targets(labels: torch.Tensor):
    return torch.tensor(labels.clone().detach())
"""
# Whether `collect` keeps graphs is for its caller to say.
CALLED = """\
import torch

def collect(loader):
    layer = torch.nn.Linear(8, 2)
    kept = []
    for x in loader:
        kept.append(layer(x))
    print(len(kept))

@torch.no_grad()
def main(loader):
    collect(loader)
"""


def lint_text(text: str, policy: Policy = POLICY) -> FileResult:
    return lint("train.py", text.encode(), policy)


def fix_text(text: str, *, unsafe: bool = False) -> FixResult:
    return fix("train.py", text.encode(), POLICY, unsafe=unsafe)


def codes(result: FileResult) -> list[str]:
    return [finding.code for finding in result.findings]


def rule_class(code: str) -> type[Rule]:
    (found,) = [rule for rule in rule_classes() if rule.code == code]
    return found


@pytest.fixture
def change_drafts(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Callable[[Draft], Draft]], None]:
    """Makes a rule yield something else than its own drafts."""

    def change(code: str, change_one: Callable[[Draft], Draft]) -> None:
        rule = rule_class(code)
        check = rule.check

        def changed(self: Rule, module: Module) -> Iterator[Draft]:
            yield from map(change_one, check(self, module))

        monkeypatch.setattr(rule, "check", changed)

    return change


# --- Two steps ---


@pytest.mark.parametrize(
    "text",
    [
        TRAINING,
        COPIES,
        TRAINING.replace("+= loss", "+= loss  # noqa: MEM101"),
        TRAINING.replace("+= loss", "+= loss  # memlint: ignore[MEM601]"),
        "import torch\nx = (\n",
        "print('no torch')\n",
        "# coding: klingon\n",
        CALLED,
    ],
    ids=["a finding", "fixes", "suppressed", "suppressed in vain", "syntax error", "no torch", "undecodable", "asked"],
)
def test_the_first_step_gives_plain_data_from_which_the_second_concludes_the_same(text: str) -> None:
    pickled = pickle.dumps(analyse("train.py", text.encode(), POLICY))
    assert b"libcst" not in pickled
    assert conclude(pickle.loads(pickled), POLICY) == lint_text(text)


def test_the_answer_to_an_open_question_decides() -> None:
    with_grad = CALLED.replace("@torch.no_grad()\n", "")
    assert (codes(lint_text(CALLED)), codes(lint_text(with_grad))) == ([], ["MEM102"])
    analysis = analyse("train.py", CALLED.encode(), POLICY)
    assert [candidate.finding.code for candidate in analysis.candidates] == ["MEM102"]
    unasked = tuple(replace(candidate, questions=frozenset()) for candidate in analysis.candidates)
    assert codes(conclude(replace(analysis, candidates=unasked), POLICY)) == ["MEM102"]


# --- Findings ---


def test_a_finding_names_its_place_and_its_lines() -> None:
    result = lint_text(TRAINING)
    (finding,) = result.findings
    assert (finding.code, finding.path, finding.start, finding.end) == ("MEM101", "train.py", (8, 9), (8, 22))
    assert result.lines[8] == "        total += loss"
    assert {related.position.line for related in finding.related} <= result.lines.keys()


def test_findings_are_ordered_by_place_whichever_rule_found_them() -> None:
    text = COPIES + TRAINING + NESTED
    found = [(finding.start.line, finding.code) for finding in lint_text(text).findings]
    assert found == [(4, "MEM501"), (4, "MEM501"), (12, "MEM101"), (17, "MEM502"), (17, "MEM501")]


def test_only_the_wanted_rules_are_asked() -> None:
    assert codes(lint_text(NESTED, POLICY._replace(codes=frozenset({"MEM501"})))) == ["MEM501"]
    assert codes(lint_text(NESTED, POLICY._replace(codes=frozenset()))) == []


def test_a_file_that_does_not_mention_torch_is_silent() -> None:
    other = TRAINING.replace("import torch", "import jax")
    assert codes(lint_text(other)) == []


@pytest.mark.parametrize("policy", [POLICY, POLICY._replace(codes=frozenset())])
def test_a_syntax_error_is_reported_of_any_file_under_any_selection(policy: Policy) -> None:
    assert codes(lint_text("def f(:\n", policy)) == ["MEM001"]
    assert codes(lint_text(TRAINING + "def f(:\n", policy)) == ["MEM001"]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("def f(:\n", (1, 7)),
        ("x = 1\r\rdef f(:\r", (3, 7)),
        ("if x:\n    a\n  b\n", (3, 4)),
        ("größe = (1 + )\n", (1, 14)),
        ("print 'loss'\n", (1, 1)),
        ("\ufeffx = $\n", (1, 5)),
        ("x = '''\n\n", (1, 5)),
    ],
)
def test_a_syntax_error_has_one_place(text: str, place: tuple[int, int]) -> None:
    (finding,) = lint_text(text).findings
    assert (finding.code, finding.start) == ("MEM001", place)
    assert "error at" not in finding.message


def test_where_python_finds_no_error_the_place_is_the_parsers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core, "ast", SimpleNamespace(parse=lambda _: None))
    (finding,) = lint_text(TRAINING + "x = (1 2)\n").findings
    assert finding.start.line == 10
    assert finding.message.startswith("this file does not parse: expected one of ")


@pytest.mark.parametrize(
    ("confidence", "shown"),
    [
        (Confidence.HIGH, ["MEM501"]),
        (Confidence.MEDIUM, ["MEM501", "MEM501"]),
        (Confidence.LOW, ["MEM101", "MEM501", "MEM501"]),
    ],
)
def test_findings_below_the_wanted_confidence_are_left_out(
    change_drafts: Callable[..., None], confidence: Confidence, shown: list[str]
) -> None:
    change_drafts("MEM101", lambda draft: replace(draft, confidence=Confidence.LOW))
    assert codes(lint_text(TRAINING + COPIES, POLICY._replace(confidence=confidence))) == shown


# --- Suppressions ---


@pytest.mark.parametrize(
    "comment",
    [
        "# noqa",
        "# noqa: MEM101",
        "# noqa: E501,MEM1",
        "# NOQA:MEM",
        "# memlint: ignore",
        "# memlint: ignore[MEM101]",
        "# memlint: ignore[loss-accumulates-graph]",
        "# memlint: ignore[graph-retention, ]",
        "# read once  # memlint: ignore[MEM101]",
    ],
)
def test_a_suppression_hides_the_finding_of_its_line(comment: str) -> None:
    assert codes(lint_text(TRAINING.replace("+= loss", f"+= loss  {comment}"))) == []


def test_a_suppression_above_the_line_and_one_of_the_whole_file() -> None:
    above = TRAINING.replace("        total +=", "        # memlint: ignore[MEM101]\n        total +=")
    assert codes(lint_text(above)) == []
    assert codes(lint_text("# memlint: skip-file\n" + TRAINING)) == []


def test_a_suppression_of_another_rule_hides_nothing_and_is_reported() -> None:
    assert codes(lint_text(TRAINING.replace("+= loss", "+= loss  # noqa: MEM601"))) == ["MEM101", "MEM003"]
    result = fix_text(TRAINING.replace("+= loss", "+= loss  # noqa: MEM601"))
    assert result.after.decode() == TRAINING.replace("+= loss", "+= loss.detach()")


def test_what_could_not_be_checked_cannot_be_suppressed() -> None:
    assert codes(lint_text("# memlint: skip-file\ndef f(:  # noqa\n")) == ["MEM001"]


# --- Rules that crash ---


def test_a_rule_that_crashes_is_named_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(self: Rule, module: Module) -> Iterator[Draft]:
        raise ZeroDivisionError("no shapes left")

    monkeypatch.setattr(rule_class("MEM501"), "check", crash)
    crashed, found, *others = lint_text(TRAINING + COPIES).findings
    assert (crashed.code, crashed.start, crashed.path) == ("MEM004", (1, 1), "train.py")
    assert "MEM501 (clone-before-detach) crashed: ZeroDivisionError: no shapes left" in crashed.message
    assert (found.code, others) == ("MEM101", [])
    assert fix_text(TRAINING + COPIES).after.decode() == TRAINING.replace("+= loss", "+= loss.detach()") + COPIES


def test_a_rule_that_crashes_half_way_keeps_what_it_found(monkeypatch: pytest.MonkeyPatch) -> None:
    rule = rule_class("MEM501")
    check = rule.check

    def crash(self: Rule, module: Module) -> Iterator[Draft]:
        yield next(iter(check(self, module)))
        raise KeyError("x")

    monkeypatch.setattr(rule, "check", crash)
    assert codes(lint_text(COPIES)) == ["MEM004", "MEM501"]


# --- Fixes ---


def test_safe_fixes_alone_are_applied_unless_asked_otherwise() -> None:
    safe, both = fix_text(COPIES), fix_text(COPIES, unsafe=True)
    assert "return t.detach().clone(), x.clone().detach()" in safe.after.decode()
    assert (safe.applied, codes(safe.remaining)) == ({"MEM501": 1}, ["MEM501"])
    assert "return t.detach().clone(), x.detach().clone()" in both.after.decode()
    assert (both.applied, codes(both.remaining)) == ({"MEM501": 2}, [])


def test_fixes_that_lie_in_each_other_are_applied_in_rounds() -> None:
    result = fix_text(NESTED)
    assert "return labels.detach().clone().detach().clone()" in result.after.decode()
    assert result.applied == {"MEM501": 1, "MEM502": 1}
    assert fix("train.py", result.after, POLICY, unsafe=True).after == result.after


def test_a_fix_that_makes_way_for_another_is_followed_by_it() -> None:
    text = NESTED.replace("labels.clone().detach()", "torch.tensor(labels)")
    result = fix_text(text)
    assert "return labels.detach().clone()" in result.after.decode()
    assert result.applied == {"MEM502": 1, "MEM503": 1}


def test_fixes_that_never_settle_come_to_an_end(change_drafts: Callable[..., None]) -> None:
    def again(draft: Draft) -> Draft:
        return replace(draft, fix=safe_fix("write the same with blanks", Replace(draft.node, "detach( ).clone")))

    change_drafts("MEM501", again)
    monotonous = textwrap.dedent("""\
        import torch
        def f(t: torch.Tensor): return t.clone().detach()
    """)
    result = fix_text(monotonous)
    assert 1 <= result.applied["MEM501"] <= 100


@pytest.mark.parametrize(("make", "unsafe"), [(safe_fix, False), (unsafe_fix, True)])
def test_a_fix_after_which_the_file_does_not_parse_is_thrown_away_and_reported(
    change_drafts: Callable[..., None], make: Callable[..., FixDraft], unsafe: bool
) -> None:
    change_drafts("MEM501", lambda draft: replace(draft, fix=make("break it", Replace(draft.node, "("))))
    result = fix_text(COPIES, unsafe=unsafe)
    assert result.after == result.before == COPIES.encode()
    assert result.applied == {}
    assert codes(result.remaining) == ["MEM004", "MEM501", "MEM501"]
    message = result.remaining.findings[0].message
    assert message.startswith("the fixes of MEM501 made this file unparsable and were not applied")


def test_a_fix_that_would_delete_a_comment_is_only_shown() -> None:
    text = NESTED.replace("torch.tensor(labels.clone().detach())", "torch.tensor(  # why\n        labels\n    )")
    result = fix_text(text, unsafe=True)
    assert result.after.decode() == text
    (finding,) = result.remaining.findings
    assert finding.fix is not None and finding.fix.applicability == "display-only"


def test_a_file_that_is_fine_is_left_byte_for_byte() -> None:
    raw = b"\xef\xbb\xbfimport torch\r\rx = torch.zeros(3)\r\n\x0c\n"
    result = fix("train.py", raw, POLICY, unsafe=True)
    assert (result.before, result.after, result.applied, codes(result.remaining)) == (raw, raw, {}, [])
