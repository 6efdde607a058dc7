"""What each output format prints, on findings made by hand."""

from __future__ import annotations

import io
import json
import textwrap
from dataclasses import replace

import pytest

from memlint.cli.output import print_report
from memlint.config.options import OutputFormat
from memlint.linting.finding import (
    Applicability,
    Confidence,
    Cost,
    CostClass,
    Edit,
    FileResult,
    Finding,
    Fix,
    Measured,
    Related,
)
from memlint.reporting import as_json, concise, counts, github, summary, text
from memlint.reporting.colour import Palette, wants_colour
from memlint.reporting.report import Report
from memlint.source.lines import Position

TOTAL = Finding(
    code="MEM101",
    name="loss-accumulates-graph",
    message="`loss` still carries its graph",
    path="src/train.py",
    start=Position(14, 18),
    end=Position(14, 22),
    confidence=Confidence.HIGH,
    cost=Cost(CostClass.GROWS_ON_DEVICE, "A per step"),
    related=(
        Related("src/train.py", Position(12, 16), "the graph comes from here"),
        Related("src/model.py", Position(3, 5), "through this forward"),
    ),
    fix=Fix(Applicability.SAFE, "use `loss.detach()`", (Edit(Position(14, 22), Position(14, 22), ".detach()"),)),
)
LOAD = Finding(
    code="MEM601",
    name="load-without-map-location",
    message="100% of: it,\nlands on the device",
    path="src/train.py",
    start=Position(2, 5),
    end=Position(3, 2),
    confidence=Confidence.MEDIUM,
    cost=Cost(CostClass.RAISES_PEAK),
    fix=Fix(Applicability.UNSAFE, "say where to", ()),
)
BROKEN = Finding("MEM001", "syntax-error", "it does not parse", "src/bad.py", Position(1, 1), Position(1, 1))

REPORT = Report.of(
    [
        FileResult(
            "src/train.py",
            (TOTAL, LOAD),
            {
                2: "s = torch.load(",
                3: ")",
                12: "        loss = criterion(model(x), y)",
                13: "        loss.backward()",
                14: "        total += loss",
            },
        ),
        FileResult("src/model.py", (), {3: "    def forward(self, x):"}),
        FileResult("src/bad.py", (BROKEN,)),
    ]
)


def printed(finding: Finding, lines: dict[int, str], *, width: int = 120) -> list[str]:
    """The text report of one finding, without its first line."""
    report = Report.of([FileResult(finding.path, (finding,), lines)])
    return list(text.render(report, width=width))[1:]


def at(column: int, end_column: int, **more: object) -> Finding:
    return Finding("MEM999", "a-sin", "bad", "a.py", Position(7, column), Position(7, end_column), **more)  # type: ignore[arg-type]


# --- text ---


def test_text() -> None:
    expected = """\
        src/bad.py:1:1: MEM001 [syntax-error] it does not parse

        src/train.py:2:5: MEM601 [load-without-map-location] 100% of: it,␊lands on the device
          |
        2 | s = torch.load(
          |     ^^^^^^^^^^^
          |
          = cost: raises the peak of device memory
          = help (unsafe fix): say where to

        src/train.py:14:18: MEM101 [loss-accumulates-graph] `loss` still carries its graph
           |
        12 |         loss = criterion(model(x), y)
           |                --------- the graph comes from here
        ...
        14 |         total += loss
           |                  ^^^^
          ::: src/model.py:3:5
         3 |     def forward(self, x):
           |     --- through this forward
           |
           = cost: device memory grows at every step: A per step
           = help (safe fix): use `loss.detach()`

        """
    assert "\n".join([*text.render(REPORT), ""]) == textwrap.dedent(expected)


def test_a_related_place_on_a_line_that_is_not_known_is_named_all_the_same() -> None:
    related = Related("lib.py", Position(120, 3), "defined here")
    assert printed(at(1, 2, related=(related,)), {7: "x"}) == [
        "    |",
        "  7 | x",
        "    | ^",
        "   ::: lib.py:120:3 defined here",
        "",
    ]


def test_two_marks_on_one_line_stand_below_each_other() -> None:
    related = Related("a.py", Position(7, 1), "grows here")
    assert printed(at(10, 14, related=(related,)), {7: "total += loss"}) == [
        "  |",
        "7 | total += loss",
        "  |          ^^^^",
        "  | ----- grows here",
        "",
    ]


def test_neighbouring_lines_have_no_gap_between_them() -> None:
    related = Related("a.py", Position(6, 1), "here")
    assert printed(at(1, 2, related=(related,)), {6: "y", 7: "x"}) == [
        "  |",
        "6 | y",
        "  | - here",
        "7 | x",
        "  | ^",
        "",
    ]


def test_further_lines_of_a_help_are_indented() -> None:
    fix = Fix(Applicability.DISPLAY_ONLY, "first\nsecond", ())
    assert printed(at(1, 2, fix=fix), {7: "x"})[-3:] == [
        "  = help (not applied for you): first",
        "                                second",
        "",
    ]


@pytest.mark.parametrize(
    ("line", "columns", "shown", "marks"),
    [
        ("\tx = y", (6, 7), "    x = y", "        ^"),
        ("\t\tx\t= y", (3, 4), "        x    = y", "        ^"),
        ("f('模型', loss)", (9, 13), "f('模型', loss)", "          ^^^^"),
        ("f('模型')", (4, 6), "f('模型')", "   ^^^^"),
        ("e\u0301 = loss", (6, 10), "e\u0301 = loss", "    ^^^^"),
        ("x = \x1b[31m\x0cy", (11, 12), "x = ␛[31m␌y", "          ^"),
        ("x = y   ", (5, 40), "x = y", "    ^"),
        ("x", (1, 1), "x", "^"),
        ("", (1, 2), "", "^"),
    ],
)
def test_marks_stand_under_the_right_characters(line: str, columns: tuple[int, int], shown: str, marks: str) -> None:
    assert printed(at(*columns), {7: line})[1:3] == [f"7 | {shown}".rstrip(), f"  | {marks}"]


@pytest.mark.parametrize("column", [1, 60, 150, 290])
def test_a_long_line_is_cut_around_the_mark(column: int) -> None:
    line = "".join(chr(ord("a") + index % 26) for index in range(300))
    _, source, marks, *_ = printed(at(column, column + 4), {7: line}, width=80)
    assert len(source) <= 80
    start = marks.index("^")
    assert source[start : start + 4] == line[column - 1 : column + 3]
    assert source.startswith("7 | …") == (column > 30)
    assert source.endswith("…") == (column < 250)


def test_a_mark_longer_than_the_line_printed_ends_with_it() -> None:
    _, source, marks, *_ = printed(at(1, 300), {7: "y" * 300}, width=80)
    assert len(marks) <= len(source) <= 80


def test_colours_add_nothing_but_colours() -> None:
    import re

    coloured = "\n".join(text.render(REPORT, palette=Palette(on=True)))
    assert "\x1b[1;31m^^^^\x1b[0m" in coloured
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == "\n".join(text.render(REPORT))


def test_no_color_and_force_color_are_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal:
        def isatty(self) -> bool:
            return True

    class File:
        def isatty(self) -> bool:
            return False

    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert wants_colour(Terminal())  # type: ignore[arg-type]
    assert not wants_colour(File())  # type: ignore[arg-type]
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert wants_colour(File())  # type: ignore[arg-type]
    monkeypatch.setenv("NO_COLOR", "1")
    assert not wants_colour(Terminal())  # type: ignore[arg-type]


# --- the formats for programs ---


def test_concise() -> None:
    assert list(concise.render(REPORT)) == [
        "src/bad.py:1:1: MEM001 [syntax-error] it does not parse",
        "src/train.py:2:5: MEM601 [load-without-map-location] 100% of: it,␊lands on the device",
        "src/train.py:14:18: MEM101 [loss-accumulates-graph] `loss` still carries its graph",
    ]


def test_json() -> None:
    broken, load, total = json.loads("\n".join(as_json.render(REPORT)))
    assert total == {
        "code": "MEM101",
        "name": "loss-accumulates-graph",
        "message": "`loss` still carries its graph",
        "path": "src/train.py",
        "cell": None,
        "line": 14,
        "column": 18,
        "end_line": 14,
        "end_column": 22,
        "confidence": "high",
        "cost": {"class": "grows-on-device", "formula": "A per step"},
        "related": [
            {"path": "src/train.py", "cell": None, "line": 12, "column": 16, "message": "the graph comes from here"},
            {"path": "src/model.py", "cell": None, "line": 3, "column": 5, "message": "through this forward"},
        ],
        "fix": {
            "applicability": "safe",
            "message": "use `loss.detach()`",
            "edits": [
                {
                    "cell": None,
                    "start": {"line": 14, "column": 22},
                    "end": {"line": 14, "column": 22},
                    "content": ".detach()",
                }
            ],
        },
        "measured": None,
        "url": None,
    }
    assert load["cost"] == {"class": "raises-peak", "formula": None}
    assert load["message"] == "100% of: it,\nlands on the device"
    assert (broken["cost"], broken["fix"], broken["related"]) == (None, None, [])
    assert list(broken) == list(total)


def test_json_of_nothing_is_an_empty_array() -> None:
    assert json.loads("\n".join(as_json.render(Report(())))) == []


def test_github() -> None:
    assert list(github.render(REPORT)) == [
        (
            "::error title=memlint (MEM001),file=src/bad.py,line=1,col=1,endLine=1,endColumn=1"
            "::src/bad.py:1:1: MEM001 [syntax-error] it does not parse"
        ),
        (
            "::error title=memlint (MEM601),file=src/train.py,line=2,col=5,endLine=3,endColumn=2"
            "::src/train.py:2:5: MEM601 [load-without-map-location] 100%25 of: it,␊lands on the device"
        ),
        (
            "::error title=memlint (MEM101),file=src/train.py,line=14,col=18,endLine=14,endColumn=22"
            "::src/train.py:14:18: MEM101 [loss-accumulates-graph] `loss` still carries its graph"
        ),
    ]


def test_github_escapes_what_would_end_a_property() -> None:
    finding = Finding("MEM999", "a-sin", "bad", "a,b:c%.py", Position(1, 1), Position(1, 2))
    assert "file=a%2Cb%3Ac%25.py," in next(github.render(Report((finding,))))


# --- counts and the summary ---


def test_statistics_put_the_most_frequent_rule_first() -> None:
    report = Report((BROKEN, TOTAL, TOTAL, LOAD))
    assert list(counts.render(report)) == [
        "2  MEM101  loss-accumulates-graph     fixable: 2 safe",
        "1  MEM001  syntax-error",
        "1  MEM601  load-without-map-location  fixable: 1 unsafe",
    ]
    assert json.loads("\n".join(counts.render_json(report)))[0] == {
        "code": "MEM101",
        "name": "loss-accumulates-graph",
        "count": 2,
        "fixable": 2,
        "safely_fixable": 2,
    }


@pytest.mark.parametrize(
    ("findings", "line"),
    [
        ((), "No findings in 3 files."),
        ((BROKEN,), "Found 1 finding in 1 file."),
        ((BROKEN, TOTAL), "Found 2 findings in 2 files (1 fixable with `memlint fix --apply`)."),
        ((LOAD,), "Found 1 finding in 1 file (1 fixable with `memlint fix --apply --unsafe-fixes`)."),
        (
            (TOTAL, LOAD),
            "Found 2 findings in 1 file (1 fixable with `memlint fix --apply`, 1 more with `--unsafe-fixes`).",
        ),
    ],
)
def test_the_summary(findings: tuple[Finding, ...], line: str) -> None:
    assert summary.found(Report(findings), 3) == line


def test_findings_are_ordered_by_path_line_column_and_code() -> None:
    def finding(path: str, line: int, column: int, code: str) -> Finding:
        return Finding(code, "x", "m", path, Position(line, column), Position(line, column + 1))

    ordered = [
        finding("a.py", 2, 1, "MEM1"),
        finding("a.py", 2, 1, "MEM2"),
        finding("a.py", 2, 3, "MEM1"),
        finding("a.py", 10, 1, "MEM1"),
        finding("b.py", 1, 1, "MEM1"),
    ]
    shuffled = [FileResult("b.py", (ordered[4],)), FileResult("a.py", tuple(reversed(ordered[:4])))]
    assert list(Report.of(shuffled).findings) == ordered


# --- prices ---

MEASURED = Measured(
    verdict="growth confirmed",
    summary="growth confirmed: growth 89.7 MiB -> 0 B a step; results identical (measured on cpu, 6 steps)",
    basis="measured on cpu",
    steps=6,
    peak_before_bytes=597_675_520,
    peak_after_bytes=221_391_872,
    growth_before_bytes_per_step=94_057_984,
    growth_after_bytes_per_step=0,
    held_at_peak_bytes=512,
    results="identical",
)


@pytest.mark.parametrize("output_format", [one for one in OutputFormat if one is not OutputFormat.TEXT])
def test_every_format_shows_the_price_beside_the_finding(output_format: OutputFormat) -> None:
    broken, load, total = REPORT.findings
    priced = replace(REPORT, findings=(broken, replace(load, measured=MEASURED), total))
    stream = io.StringIO()
    print_report(priced, output_format, stream)
    assert "growth confirmed: growth 89.7 MiB" in stream.getvalue()
    print_report(REPORT, output_format, stream := io.StringIO())
    assert "growth" not in stream.getvalue().replace("grows", "")


def priced_finding(measured: Measured) -> Report:
    start, end = Position(1, 1), Position(1, 2)
    return Report((Finding("MEM101", "loss-accumulates-graph", "it grows", "a.py", start, end, measured=measured),))


def test_a_price_in_the_report_for_people() -> None:
    assert f"= measured: {MEASURED.summary}" in "\n".join(text.render(priced_finding(MEASURED)))


def test_a_price_of_another_state_of_the_file_says_so() -> None:
    report = priced_finding(replace(MEASURED, changed_since=True))
    (line,) = concise.render(report)
    assert line.endswith(f"it grows [before this file changed: {MEASURED.summary}]")
    assert json.loads("".join(as_json.render(report)))[0]["measured"]["changed_since"] is True
