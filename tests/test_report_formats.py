"""What the formats for other programs print, on findings made by hand, held against their schemas."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import pytest
from click.testing import CliRunner, Result
from test_reporting import BROKEN, LOAD, REPORT, TOTAL

from memlint.cli.main import memlint as command
from memlint.config.options import OutputFormat
from memlint.linting.finding import Applicability, Edit, FileResult, Finding, Fix, Related
from memlint.reporting import as_json, azure, gitlab, json_lines, junit, rdjson, sarif
from memlint.reporting.as_json import finding_object
from memlint.reporting.fingerprint import fingerprints
from memlint.reporting.report import Report
from memlint.source.cells import CellIndex
from memlint.source.lines import Position

DOCS = Path(__file__).resolve().parent.parent / "docs"
SARIF_SCHEMA = json.loads((Path(__file__).parent / "data" / "sarif-2.1.0-rtm.5.json").read_text())

# Line 4 of the program is line 2 of cell 3, and stands on line 31 of the file.
IN_A_CELL = FileResult(
    "book.ipynb",
    (
        Finding(
            "MEM101",
            "loss-accumulates-graph",
            "`loss` still carries its graph",
            "book.ipynb",
            Position(4, 5),
            Position(4, 9),
            cost=TOTAL.cost,
            related=(Related("book.ipynb", Position(2, 1), "the graph comes from here"),),
            fix=Fix(Applicability.SAFE, "detach", (Edit(Position(4, 9), Position(4, 9), ".detach()"),)),
        ),
    ),
    {2: "loss = f()", 4: "    loss"},
    cells=CellIndex(numbers=(3,), before=(2,), file_lines=(20, 20, 30, 31)),
)
NOTHING = Report(())


def sarif_log(report: Report) -> Any:
    log = json.loads("\n".join(sarif.render(report)))
    jsonschema.validate(log, SARIF_SCHEMA)
    return log["runs"][0]


def test_the_json_agrees_with_its_schema() -> None:
    schema = json.loads((DOCS / "json-output.schema.json").read_text())
    for report in (REPORT, Report.of([IN_A_CELL]), NOTHING):
        found = json.loads("\n".join(as_json.render(report)))
        jsonschema.validate(found, schema)
        for finding in found:
            assert finding.keys() == schema["$defs"]["finding"]["properties"].keys()


def test_json_lines() -> None:
    lines = list(json_lines.render(REPORT))
    assert [json.loads(line) for line in lines] == [finding_object(finding) for finding in (BROKEN, LOAD, TOTAL)]
    assert list(json_lines.render(NOTHING)) == []


def test_azure() -> None:
    assert list(azure.render(REPORT))[1:] == [
        (
            "##vso[task.logissue type=error;sourcepath=src/train.py;linenumber=2;columnnumber=5;code=MEM601;]"
            "[load-without-map-location] 100% of: it,␊lands on the device"
        ),
        (
            "##vso[task.logissue type=error;sourcepath=src/train.py;linenumber=14;columnnumber=18;code=MEM101;]"
            "[loss-accumulates-graph] `loss` still carries its graph"
        ),
    ]


def test_azure_escapes_what_would_end_a_property() -> None:
    finding = Finding("MEM999", "a-sin", "bad", "a;b]c%.py", Position(1, 1), Position(1, 2))
    assert "sourcepath=a%3Bb%5Dc%AZP25.py;" in next(azure.render(Report((finding,))))


def test_gitlab() -> None:
    broken, load, total = json.loads("\n".join(gitlab.render(REPORT)))
    assert total == {
        "description": "`loss` still carries its graph",
        "check_name": "MEM101 loss-accumulates-graph",
        "fingerprint": fingerprints(REPORT)[2],
        "severity": "critical",
        "location": {"path": "src/train.py", "lines": {"begin": 14, "end": 14}},
    }
    assert load["location"]["lines"] == {"begin": 2, "end": 3}
    assert [broken["severity"], load["severity"]] == ["blocker", "major"]
    assert json.loads("\n".join(gitlab.render(NOTHING))) == []


def test_junit() -> None:
    suites = ElementTree.fromstring("\n".join(junit.render(REPORT)))
    assert suites.attrib == {"name": "memlint", "tests": "3", "failures": "3"}
    assert [(suite.get("name"), suite.get("failures")) for suite in suites] == [
        ("src/bad.py", "1"),
        ("src/train.py", "2"),
    ]
    case = suites[1][1]
    assert case.attrib == {
        "name": "MEM101 src/train.py:14:18",
        "classname": "loss-accumulates-graph",
        "file": "src/train.py",
        "line": "14",
    }
    assert case[0].attrib == {"message": "`loss` still carries its graph", "type": "MEM101"}


def test_a_clean_run_is_a_test_that_passed() -> None:
    suites = ElementTree.fromstring("\n".join(junit.render(NOTHING)))
    assert (suites.get("tests"), suites.get("failures")) == ("1", "0")
    assert [case.tag for case in suites.iter("testcase")] == ["testcase"]
    assert list(suites.iter("failure")) == []


def test_junit_holds_no_character_that_xml_forbids() -> None:
    finding = Finding("MEM999", "a-sin", "bad \x1b \x00 <&", "a\x07.py", Position(1, 1), Position(1, 2))
    suites = ElementTree.fromstring("\n".join(junit.render(Report((finding,)))))
    assert [failure.get("message") for failure in suites.iter("failure")] == ["bad ␛ ␀ <&"]


def test_rdjson() -> None:
    _, load, total = json.loads("\n".join(rdjson.render(REPORT)))["diagnostics"]
    assert total == {
        "message": "[loss-accumulates-graph] `loss` still carries its graph",
        "location": {
            "path": "src/train.py",
            "range": {"start": {"line": 14, "column": 18}, "end": {"line": 14, "column": 22}},
        },
        "code": {"value": "MEM101"},
        "suggestions": [
            {"range": {"start": {"line": 14, "column": 22}, "end": {"line": 14, "column": 22}}, "text": ".detach()"}
        ],
    }
    assert "suggestions" not in load


def test_rdjson_counts_columns_in_bytes() -> None:
    finding = Finding("MEM999", "a-sin", "bad", "a.py", Position(1, 6), Position(1, 8))
    report = Report.of([FileResult("a.py", (finding,), {1: "é = 𝛼 + b"})])
    [diagnostic] = json.loads("\n".join(rdjson.render(report)))["diagnostics"]
    assert diagnostic["location"]["range"] == {"start": {"line": 1, "column": 10}, "end": {"line": 1, "column": 12}}


def test_a_fix_of_several_edits_is_no_suggestion() -> None:
    """Each suggestion is applied alone, and half of a fix breaks code."""
    edits = (Edit(Position(1, 1), Position(1, 1), "("), Edit(Position(1, 2), Position(1, 2), ")"))
    finding = Finding(
        "MEM999", "a-sin", "bad", "a.py", Position(1, 1), Position(1, 2), fix=Fix(Applicability.SAFE, "", edits)
    )
    [diagnostic] = json.loads("\n".join(rdjson.render(Report.of([FileResult("a.py", (finding,), {1: "x"})]))))[
        "diagnostics"
    ]
    assert "suggestions" not in diagnostic


def test_sarif() -> None:
    run = sarif_log(REPORT)
    assert run["columnKind"] == "unicodeCodePoints"
    assert [rule["id"] for rule in run["tool"]["driver"]["rules"]] == ["MEM001", "MEM101", "MEM601"]
    assert "What it costs" in run["tool"]["driver"]["rules"][1]["help"]["markdown"]
    total = run["results"][2]
    assert (total["ruleId"], total["ruleIndex"], total["level"]) == ("MEM101", 1, "warning")
    place = total["locations"][0]["physicalLocation"]
    assert place == {
        "artifactLocation": {"uri": "src/train.py"},
        "region": {"startLine": 14, "startColumn": 18, "endLine": 14, "endColumn": 22},
    }
    assert [related["message"]["text"] for related in total["relatedLocations"]] == [
        "the graph comes from here",
        "through this forward",
    ]
    [fix] = total["fixes"]
    assert fix["description"] == {"text": "use `loss.detach()` (safe fix)"}
    assert fix["artifactChanges"][0]["replacements"][0]["insertedContent"] == {"text": ".detach()"}
    assert total["partialFingerprints"] == {"memlint/v1": fingerprints(REPORT)[2]}


def test_sarif_of_nothing_is_a_run_without_results() -> None:
    run = sarif_log(NOTHING)
    assert (run["results"], run["invocations"][0]["executionSuccessful"]) == ([], True)


def test_sarif_says_what_could_not_be_checked() -> None:
    run = sarif_log(Report.of([FileResult("a b.py", trouble="cannot be opened: no")]))
    [invocation] = run["invocations"]
    assert invocation["executionSuccessful"] is False
    [notification] = invocation["toolExecutionNotifications"]
    assert notification["message"] == {"text": "cannot be opened: no"}
    assert notification["locations"][0]["physicalLocation"]["artifactLocation"] == {"uri": "a%20b.py"}


# --- notebooks ---


def test_the_json_places_a_finding_in_its_cell() -> None:
    found = finding_object(Report.of([IN_A_CELL]).findings[0])
    assert (found["cell"], found["line"], found["column"]) == (3, 2, 5)
    assert found["related"] == [
        {"path": "book.ipynb", "cell": 3, "line": 1, "column": 1, "message": "the graph comes from here"}
    ]
    position = {"line": 2, "column": 9}
    assert found["fix"]["edits"] == [{"cell": 3, "start": position, "end": position, "content": ".detach()"}]  # type: ignore[index]


@pytest.mark.parametrize(
    ("renderer", "line"),
    [
        (azure, "linenumber=31;"),
        (gitlab, '"begin": 31,'),
        (junit, 'line="31"'),
        (rdjson, '"line": 31'),
        (sarif, '"startLine": 31'),
    ],
)
def test_formats_without_cells_name_the_line_of_the_file_and_say_the_cell(renderer: Any, line: str) -> None:
    printed = "\n".join(renderer.render(Report.of([IN_A_CELL])))
    assert line in printed
    assert "cell 3, line 2: " in printed or "book.ipynb:cell 3:2:5" in printed


# --- fingerprints ---


def moved(finding: Finding, line: int) -> FileResult:
    at = Finding(finding.code, finding.name, "other words", finding.path, Position(line, 3), Position(line, 4))
    return FileResult(finding.path, (at,), {line: "\ttotal += loss"})


def test_a_fingerprint_stays_when_lines_move() -> None:
    assert fingerprints(Report.of([moved(TOTAL, 3)])) == fingerprints(Report.of([moved(TOTAL, 300)]))


def test_findings_on_equal_lines_have_fingerprints_of_their_own() -> None:
    twice = FileResult(
        "a.py", (*moved(TOTAL, 3).findings, *moved(TOTAL, 9).findings), {3: "total += loss", 9: "total += loss"}
    )
    first, second = fingerprints(Report.of([twice]))
    assert first != second


# --- on the command line ---

TRAIN = """\
import torch

def train(model, loader, criterion):
    total = 0.0
    for x, y in loader:
        loss = criterion(model(x), y)
        loss.backward()
        total += loss
    return total.item()
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text(TRAIN)
    return tmp_path


def check(*arguments: str) -> Result:
    return CliRunner().invoke(command, ["check", *arguments])


def test_in_github_actions_annotations_are_added_to_the_text(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = check().output
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    annotated = check().output.splitlines()
    assert [line for line in annotated if not line.startswith("::error ")] == plain.splitlines()
    assert sum(line.startswith("::error ") for line in annotated) == 1
    assert "::error " not in check("--output-format", "json").output


def test_the_output_file_holds_what_would_be_printed(project: Path) -> None:
    printed = check("--output-format", "sarif")
    written = check("--output-format", "sarif", "--output-file", "reports/memlint.sarif")
    assert (project / "reports" / "memlint.sarif").read_text() == printed.output
    assert written.output == "Found 1 finding in 1 file (1 fixable with `memlint fix --apply`).\n"
    assert printed.exit_code == written.exit_code == 1


def test_an_output_file_that_cannot_be_written_is_trouble(project: Path) -> None:
    (project / "reports").write_text("a file")
    result = check("--output-file", "reports/memlint.txt")
    assert result.exit_code == 2
    assert (
        "cannot write reports/memlint.txt" in str(result.exception or result.output) or "cannot write" in result.output
    )


@pytest.mark.parametrize("output_format", [item.value for item in OutputFormat])
def test_every_format_is_printed_for_findings_and_for_none(project: Path, output_format: str) -> None:
    assert check("--output-format", output_format).exit_code == 1
    (project / "train.py").write_text("import torch\n")
    assert check("--output-format", output_format).exit_code == 0
