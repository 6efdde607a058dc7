"""Notebooks: their cells are one program, without what is no Python; a fix changes the sources of its cells alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from memlint.cli.main import memlint as command
from memlint.linting.finding import Confidence, Finding
from memlint.linting.lint import fix, lint
from memlint.linting.policy import Policy
from memlint.linting.registry import all_rules
from memlint.reporting.report import Report
from memlint.source.cells import Cell, CellsChanged, program_of
from memlint.source.file import UndecodableFile
from memlint.source.notebook import Notebook

POLICY = Policy(frozenset(rule.code for rule in all_rules()), Confidence.MEDIUM)

SETUP = "import torch\nfrom torch import nn\n\nmodel = nn.Linear(4, 1)\ncriterion = nn.MSELoss()"
TRAIN = """\
def train(loader):
    total = 0.0
    for x, y in loader:
        loss = criterion(model(x), y)
        loss.backward()
        total += loss
    return total.item()
"""


def cell(source: str | list[str], kind: str = "code", **metadata: object) -> dict[str, object]:
    found: dict[str, object] = {"cell_type": kind, "metadata": metadata, "source": source}
    return found if kind == "markdown" else {**found, "execution_count": None, "outputs": []}


def notebook(*cells: dict[str, object], **metadata: object) -> bytes:
    """As Jupyter writes it: an indentation of one space, sources as lists of lines."""
    document = {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    return (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode()


def lines(source: str) -> list[str]:
    return source.splitlines(keepends=True)


BOOK = notebook(cell("# Title", "markdown"), cell(lines(SETUP)), cell(lines(f"%matplotlib inline\n{TRAIN}")))


def found(raw: bytes) -> list[Finding]:
    return list(Report.of([lint("book.ipynb", raw, POLICY)]).findings)


def places(raw: bytes) -> list[tuple[str, int | None, int]]:
    return [(finding.code, finding.cell, finding.start.line) for finding in found(raw)]


def sources(raw: bytes) -> list[str]:
    return ["".join(cell["source"]) for cell in json.loads(raw)["cells"]]


def fixed(raw: bytes) -> bytes:
    return fix("book.ipynb", raw, POLICY, unsafe=False).after


# --- findings ---


def test_cells_are_one_program_and_findings_are_placed_in_their_cell() -> None:
    [finding] = found(BOOK)
    assert (finding.code, finding.cell, finding.start.line, finding.start.column) == ("MEM101", 3, 7, 9)
    assert (finding.related[0].cell, finding.related[0].position.line) == (3, 5)


def test_a_report_names_the_line_of_the_file_too() -> None:
    result = lint("book.ipynb", BOOK, POLICY)
    report = Report.of([result])
    assert "total += loss" in BOOK.decode().splitlines()[report.file_line(report.findings[0]) - 1]


@pytest.mark.parametrize(
    "magic",
    [
        "%%time",
        "%%capture out",
        "%load_ext autoreload",
        "!pip install torch",
        "!echo \\\n  two",
        "torch.cat?",
        "?torch",
        "files = !ls",
    ],
)
def test_magics_and_shell_lines_are_no_syntax_errors(magic: str) -> None:
    raw = notebook(cell(lines(SETUP)), cell(lines(f"{magic}\n{TRAIN}")))
    assert places(raw) == [("MEM101", 2, 7 + magic.count("\n"))]


@pytest.mark.parametrize("magic", ["%%bash", "%%html", "%%writefile train.py", "%%javascript", "%%!", "%%R -i df"])
def test_cells_of_other_languages_are_left_alone(magic: str) -> None:
    raw = notebook(cell(f"{magic}\nif [ 1 ]; then\n  done\n"), cell(lines(SETUP)), cell(lines(TRAIN)))
    assert places(raw) == [("MEM101", 3, 6)]


def test_a_cell_that_another_language_is_declared_for_is_left_alone() -> None:
    raw = notebook(cell("SELECT * FROM x", vscode={"languageId": "sql"}), cell(lines(SETUP)), cell(lines(TRAIN)))
    assert places(raw) == [("MEM101", 3, 6)]


@pytest.mark.parametrize("metadata", [{"kernelspec": {"language": "julia"}}, {"language_info": {"name": "R"}}])
def test_notebooks_of_other_languages_are_left_alone(metadata: dict[str, Any]) -> None:
    assert found(notebook(cell("function f(x) end"), **metadata)) == []


def test_percent_and_exclamation_marks_within_python_are_pythons() -> None:
    program = program_of([Cell(1, 's = """\n!no\n%no\n"""\nx = (7\n  % 2)\n%yes\n')])
    assert program.text.splitlines()[1:] == ['s = """', "!no", "%no", '"""', "x = (7", "  % 2)", "pass  # memlint0 0"]


def test_code_in_a_magic_may_change_anything() -> None:
    program = program_of([Cell(1, "%time x.mul_(2)\n%%timeit\n")])
    assert program.text.splitlines()[1].startswith('exec("")')


def test_a_syntax_error_is_placed_in_its_cell() -> None:
    raw = notebook(cell(lines(SETUP)), cell(["x = 1\n", "def f(:\n"]))
    assert places(raw) == [("MEM001", 2, 2)]


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"\xff", b'{"cells": [1,]}', b'{"cells": []} x'])
def test_what_is_no_notebook_is_a_finding(raw: bytes) -> None:
    assert [code for code, _, _ in places(raw)] == ["MEM002"]


@pytest.mark.parametrize(
    "raw",
    [
        b"{}",
        b'{"cells": 3}',
        b'{"cells": [1, {}, {"cell_type": "code"}, {"cell_type": "code", "source": 3}]}',
        notebook(),
    ],
)
def test_a_notebook_without_python_has_no_findings(raw: bytes) -> None:
    assert found(raw) == []


# --- fixes ---


def test_a_fix_changes_only_the_lines_that_it_edits() -> None:
    after = fixed(BOOK)
    assert after == BOOK.replace(b'"        total += loss\\n"', b'"        total += loss.detach()\\n"')
    assert fixed(after) == after


def test_a_source_in_one_string_stays_one_string() -> None:
    raw = notebook(cell(SETUP), cell(TRAIN))
    assert fixed(raw) == raw.replace(b"total += loss\\n", b"total += loss.detach()\\n")


@pytest.mark.parametrize(("indent", "ascii_only"), [(None, True), (2, False), (4, True)])
def test_the_files_own_style_is_kept(indent: int | None, ascii_only: bool) -> None:
    cells = [cell(lines(SETUP)), cell(lines(TRAIN.replace("loss)", "loss)  # é")))]
    raw = json.dumps(
        {"nbformat": 4, "cells": cells, "metadata": {"author": "Zoë"}}, indent=indent, ensure_ascii=ascii_only
    )
    after = fixed(raw.encode()).decode()
    assert after == raw.replace("total += loss\\n", "total += loss.detach()\\n")


def test_a_byte_order_mark_and_escaped_slashes_stay() -> None:
    raw = b"\xef\xbb\xbf" + BOOK.replace(b'"# Title"', b'"# a\\/b"')
    assert fixed(raw) == raw.replace(b"total += loss\\n", b"total += loss.detach()\\n")


def test_suppressions_work_in_cells() -> None:
    raw = notebook(cell(lines(SETUP)), cell(lines(TRAIN.replace("+= loss", "+= loss  # noqa: MEM101"))))
    assert found(raw) == []


def test_an_edited_program_without_the_marks_is_refused() -> None:
    book = Notebook.decode("book.ipynb", BOOK)
    marks = [line for line in book.text.splitlines() if "memlint0" in line]
    assert len(marks) == 3
    for mark in marks:
        with pytest.raises(CellsChanged):
            book.encode(book.text.replace(f"{mark}\n", ""))
        with pytest.raises(CellsChanged):
            book.encode(book.text.replace(mark, f"{mark}\n{mark}"))


def test_a_masked_line_takes_the_indentation_that_an_edit_gives_it() -> None:
    program = program_of([Cell(1, "if x:\n    !ls\n    y = 1\n")])
    edited = program.text.replace("    ", "        ")
    assert program.sources(edited) == ["if x:\n        !ls\n        y = 1\n"]


# --- any notebook ---

_TEXTS = st.lists(
    st.sampled_from(
        [
            "x = 1",
            "%magic",
            "!ls",
            "if x:",
            "    y = 2",
            "'''",
            "%%bash",
            "é = '\\u2028'",
            "",
            "z?",
            "# memlint0 cell 1",
        ]
    ),
    max_size=6,
).map("\n".join)


@given(st.lists(_TEXTS | st.text(max_size=20), max_size=5), st.booleans())
def test_what_is_not_edited_stays_byte_for_byte(texts: list[str], as_lines: bool) -> None:
    raw = notebook(*(cell(lines(text) if as_lines else text) for text in texts))
    try:
        book = Notebook.decode("book.ipynb", raw)
    except UndecodableFile:
        return
    assert book.encode(book.text) == raw


# --- on the command line ---


def test_check_and_fix_read_notebooks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("book.ipynb").write_bytes(BOOK)
    checked = CliRunner().invoke(command, ["check", "--output-format", "concise"])
    assert checked.output.splitlines()[0].startswith("book.ipynb:cell 3:7:9: MEM101 ")
    assert checked.exit_code == 1
    assert CliRunner().invoke(command, ["fix", "--apply"]).exit_code == 0
    assert Path("book.ipynb").read_bytes() == fixed(BOOK)


def test_the_text_report_shows_the_lines_of_the_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("book.ipynb").write_bytes(BOOK)
    output = CliRunner().invoke(command, ["check"]).output.splitlines()
    assert "7 |         total += loss" in output
    assert "5 |         loss = criterion(model(x), y)" in output


def test_percent_scripts_are_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("book.py").write_text(f"# %%\n{SETUP}\n\n# %% [markdown]\n# words\n\n# %%\n{TRAIN}")
    output = CliRunner().invoke(command, ["check", "--output-format", "concise"]).output
    assert output.startswith("book.py:17:9: MEM101 ")
