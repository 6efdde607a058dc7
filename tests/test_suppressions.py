"""Suppression comments: what they act on, and what is said about those that are of no use."""

from __future__ import annotations

from dataclasses import dataclass

import libcst as cst
import pytest

from memlint.linting.apply import apply_fixes
from memlint.linting.finding import Applicability, Finding
from memlint.semantics.layout import Layout
from memlint.source.file import SourceFile
from memlint.source.lines import Position
from memlint.source.suppressions import mentions, names_rules, suppress

KNOWN = {
    "MEM003": frozenset({"MEM003"}),
    "unused-suppression": frozenset({"MEM003"}),
    "MEM101": frozenset({"MEM101"}),
    "loss-accumulates-graph": frozenset({"MEM101"}),
    "MEM102": frozenset({"MEM102"}),
    "container-keeps-graph": frozenset({"MEM102"}),
    "graph-retention": frozenset({"MEM101", "MEM102"}),
    "MEM501": frozenset({"MEM501"}),
}
ALL = frozenset({"MEM003", "MEM101", "MEM102", "MEM501"})


@dataclass
class Result:
    source: SourceFile
    findings: list[Finding]

    @property
    def shown(self) -> list[tuple[str, int]]:
        return [(finding.code, finding.start.line) for finding in self.findings]

    @property
    def fixed(self) -> str:
        return apply_fixes(self.source, self.findings, unsafe=False)[0]


def run(code: str, *found: tuple[str, int], enabled: frozenset[str] = ALL) -> Result:
    """Suppress findings given as code and line."""
    source = SourceFile.decode("file.py", code.encode())
    parse_text = source.parse_text()
    layout = Layout(cst.parse_module(parse_text.text), source, parse_text)
    findings = [Finding(rule, "", "", "file.py", Position(line, 1), Position(line, 2)) for rule, line in found]
    return Result(source, suppress(findings, layout, source, enabled=enabled, known=KNOWN))


@pytest.mark.parametrize(
    "comment",
    [
        "# noqa",
        "#noqa",
        "# NOQA",
        "# noqa because",
        "# noqa: MEM101",
        "# noqa:MEM101",
        "# noqa : MEM101",
        "# noqa: mem101",
        "# noqa: MEM1",
        "# noqa: E501, MEM101",
        "# noqa: E501,MEM101",
        "# noqa: E501 MEM101  because",
        "# type: ignore  # noqa: MEM101",
        "# memlint: ignore",
        "#memlint:ignore",
        "# memlint: ignore because",
        "# memlint: ignore[MEM101]",
        "# memlint: ignore[mem101]",
        "# memlint: ignore[loss-accumulates-graph]",
        "# memlint: ignore[graph-retention]",
        "# memlint: ignore[ MEM102 , MEM101 ]  because",
        "# noqa: E501  # memlint: ignore[MEM101]",
    ],
)
def test_a_comment_suppresses_the_finding_of_its_line(comment: str) -> None:
    assert run(f"x = 1  {comment}\n", ("MEM101", 1), ("MEM102", 1)).shown in ([], [("MEM102", 1)])
    assert mentions(comment)


@pytest.mark.parametrize(
    "comment",
    [
        "# noqa: MEM102",
        "# noqa: E501",
        "# flake8: noqa",
        "# noqas",
        "# memlint: ignore[MEM102]",
        "# memlint: ignore[container-keeps-graph]",
        "# memlint: ignored",
        "# memlint: ignore[MEM102, MEM101",
        "# memlint: ignore-file",
        "# memlint",
    ],
)
def test_other_comments_do_not(comment: str) -> None:
    assert ("MEM101", 1) in run(f"x = 1  {comment}\n", ("MEM101", 1), ("MEM102", 1)).shown


def test_text_in_a_string_is_no_comment() -> None:
    assert run('x = "# noqa"\n', ("MEM101", 1)).shown == [("MEM101", 1)]


@pytest.mark.parametrize("line", [1, 2, 3, 4])
def test_any_line_of_the_statement_will_do(line: int) -> None:
    lines = ["x = f(", "    a,", "    b,", ")", "y = 1"]
    lines[line - 1] += "  # noqa: MEM101"
    code = "\n".join(lines) + "\n"
    assert run(code, *[("MEM101", number) for number in range(1, 6)]).shown == [("MEM101", 5)]


@pytest.mark.parametrize(
    "code",
    [
        "@d  # noqa\n@e\ndef f(\n    a\n):\n    x = 1\n",
        "@d\n# memlint: ignore\n@e\ndef f(\n    a\n):\n    x = 1\n",
        "@d\n@e\ndef f(\n    a\n):  # noqa\n    x = 1\n",
    ],
)
def test_of_a_compound_statement_the_header_and_its_decorators(code: str) -> None:
    last = len(code.splitlines())
    assert run(code, *[("MEM101", line) for line in range(1, last + 1)]).shown == [("MEM101", last)]


@pytest.mark.parametrize("clause", ["else:", "except E:", "finally:"])
def test_a_clause_is_a_statement_of_its_own(clause: str) -> None:
    code = f"try:\n    a\nexcept F:\n    b\n{clause}  # noqa\n    c\n"
    assert run(code, ("MEM101", 3), ("MEM101", 5), ("MEM101", 6)).shown == [("MEM101", 3), ("MEM101", 6)]


def test_a_line_of_its_own_acts_on_the_statement_below() -> None:
    code = "a\n# memlint: ignore[MEM101]\n# because\nb = f(\n  c)\n\nd\n"
    findings = [("MEM101", line) for line in (1, 4, 5, 7)]
    assert run(code, *findings).shown == [("MEM101", 1), ("MEM101", 7)]


@pytest.mark.parametrize("code", ["# memlint: ignore[MEM101]\n\nx = 1\n", "# noqa: MEM101\nx = 1\n"])
def test_not_over_a_blank_line_and_not_with_noqa(code: str) -> None:
    line = len(code.splitlines())
    assert run(code, ("MEM101", line)).shown == [("MEM101", line), ("MEM003", 1)]


def test_a_skipped_file_has_no_findings_but_those_about_the_run() -> None:
    code = "x = 1  # noqa: MEM501\n# memlint: skip-file\n"
    assert run(code, ("MEM101", 1), ("MEM004", 1)).shown == [("MEM004", 1)]
    assert names_rules(code)


def test_findings_about_the_run_are_not_suppressed() -> None:
    assert run("x = 1  # noqa\n", ("MEM004", 1), ("MEM101", 1)).shown == [("MEM004", 1)]


@pytest.mark.parametrize(
    ("code", "fixed"),
    [
        ("x = 1  # memlint: ignore\n", "x = 1\n"),
        ("x = 1  # memlint: ignore[MEM501]\n", "x = 1\n"),
        ("x = 1\t#memlint:ignore[ MEM501 ] ", "x = 1"),
        ("x = 1  # memlint: ignore[MEM501, MEM101]\n", "x = 1  # memlint: ignore[MEM101]\n"),
        ("x = 1  # memlint: ignore[MEM101, MEM501]\n", "x = 1  # memlint: ignore[MEM101]\n"),
        ("x = 1  # memlint: ignore[ MEM102,MEM101 ,MEM501]\n", "x = 1  # memlint: ignore[ MEM101]\n"),
        ("x = 1  # memlint: ignore[]\n", "x = 1\n"),
        ("x = 1  # memlint: ignore[MEM501]  because\n", "x = 1  # because\n"),
        ("x = 1  # noqa: MEM501\r\n", "x = 1\r\n"),
        ("x = 1  # noqa: E501, MEM501  -- because\n", "x = 1  # noqa: E501  -- because\n"),
        ("x = 1  # noqa: MEM501, E501  -- because\n", "x = 1  # noqa: E501  -- because\n"),
        ("x = 1  # noqa: E501 MEM501 W291\n", "x = 1  # noqa: E501 W291\n"),
        ("x = 1  # noqa: MEM501 -- because\n", "x = 1  # -- because\n"),
        ("x = 1  # type: ignore  # noqa: MEM501\n", "x = 1  # type: ignore\n"),
        ("x = 1  # noqa: MEM501  # type: ignore\n", "x = 1  # type: ignore\n"),
        ("x = 1  # one  # noqa: MEM501  # two\n", "x = 1  # one  # two\n"),
        ("x = 1  # noqa: MEM501 # memlint: ignore[MEM501]\n", "x = 1\n"),
        ("y\n# memlint: ignore[MEM501]\nx = 1\n", "y\nx = 1\n"),
        ("if y:\n    # why\n    # memlint: ignore\n    x = 1\n", "if y:\n    # why\n    x = 1\n"),
        ("x = 1\n# memlint: ignore", "x = 1\n"),
        ("x = f(\n    # memlint: ignore[MEM501]\n    1)\n", "x = f(\n    1)\n"),
        ("x = 1 + \\\n  2  # memlint: ignore[MEM501]\n", "x = 1 + \\\n  2\n"),
        ("x = 1 \\\n  # memlint: ignore[MEM501]\ny = 2\n", "x = 1 \\\n\ny = 2\n"),
    ],
)
def test_unused_codes_and_comments_are_reported_and_go(code: str, fixed: str) -> None:
    result = run(code, *([("MEM101", 1)] if "MEM101" in code else []))
    assert {finding.code for finding in result.findings} == {"MEM003"}
    assert all(finding.fix and finding.fix.applicability is Applicability.SAFE for finding in result.findings)
    assert names_rules(code)
    while result.fixed != result.source.text:  # two comments that touch take two rounds
        result = run(result.fixed, *([("MEM101", 1)] if "MEM101" in code else []))
    assert result.source.text == fixed


def test_the_place_and_the_words_of_an_unused_suppression() -> None:
    (finding,) = run("x = 1  # noqa: E501, MEM501, W1, MEM102\n").findings
    assert (finding.name, finding.message) == ("unused-suppression", "MEM501, MEM102 suppress nothing here")
    assert (finding.start, finding.end) == (Position(1, 22), Position(1, 40))


@pytest.mark.parametrize("code", ["x = 1  # noqa\n", "x = 1  # noqa: E501\n", "# noqa\n", "# memlint: skip-file\n"])
def test_bare_noqa_and_the_codes_of_other_tools_are_left_alone(code: str) -> None:
    assert run(code).findings == []


def test_a_rule_that_did_not_run_leaves_its_suppression_alone() -> None:
    code = "x = 1  # memlint: ignore[MEM501, graph-retention, MEM101]\ny = 1  # memlint: ignore\nz = 1  # noqa: MEM5\n"
    (finding,) = run(code, enabled=frozenset({"MEM003", "MEM101"})).findings
    assert finding.message == "MEM101 suppresses nothing here"


def test_nothing_is_said_about_suppressions_when_their_rule_is_off() -> None:
    assert run("x = 1  # memlint: ignore[MEM501]\n", enabled=ALL - {"MEM003"}).findings == []


def test_an_unknown_name_is_reported_and_stays() -> None:
    result = run("x = 1  # memlint: ignore[los-accumulates-graph, MEM101]\ny = 1  # noqa: MEM999\n", ("MEM101", 1))
    messages = [finding.message for finding in result.findings]
    assert messages == ["los-accumulates-graph is no rule of memlint", "MEM999 is no rule of memlint"]
    assert result.fixed == result.source.text


def test_an_unused_suppression_can_be_kept_by_name_only() -> None:
    assert run("x = 1  # memlint: ignore[MEM501, unused-suppression]\n").findings == []
    assert run("x = 1  # noqa  # memlint: ignore[MEM501]\n").shown == [("MEM003", 1)]


def test_a_suppression_of_a_shown_and_of_a_hidden_finding_are_both_of_use() -> None:
    code = "# memlint: ignore[MEM101]\nx = 1  # noqa: MEM101\n"
    assert run(code, ("MEM101", 2)).findings == []


def test_a_file_that_does_not_encode_back_gets_no_fix() -> None:
    raw = b"# coding: utf-7\nx = 1  # memlint: ignore +AGE-\n"
    source = SourceFile.decode("file.py", raw)
    parse_text = source.parse_text()
    layout = Layout(cst.parse_module(parse_text.text), source, parse_text)
    (finding,) = suppress([], layout, source, enabled=ALL, known=KNOWN)
    assert finding.fix is None
