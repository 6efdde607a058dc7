"""The fixture harness itself: what it reads, and that it fails when it must."""

from __future__ import annotations

from pathlib import Path

import pytest

import mdtest
from mdtest import FixtureError, Mark, take_marks, wrong_findings
from memlint.linting.finding import Finding
from memlint.source.lines import Position


def finding(line: int, code: str = "MEM101", message: str = "grows in host memory") -> Finding:
    return Finding(code, "some-rule", message, "module.py", Position(line, 1), Position(line, 2))


def write(folder: Path, body: str) -> Path:
    path = folder / "some-rule.md"
    path.write_text(body, encoding="utf-8")
    return path


def test_marks_are_taken_off_with_the_spaces_before_them() -> None:
    code, marks = take_marks('a = 1\nb = 2  # note  # error: MEM101 "host" # error: MEM501\n', "here")
    assert code == "a = 1\nb = 2  # note\n"
    assert marks == (Mark(2, "error", "MEM101", "host"), Mark(2, "error", "MEM501", None))


@pytest.mark.parametrize("line", ["x  # error: mem101", "x  # error: MEM101 host", "x  # todo-error:"])
def test_a_mark_that_cannot_be_read_is_an_error(line: str) -> None:
    with pytest.raises(FixtureError, match="here: cannot read"):
        take_marks(line, "here")


def test_a_file_gives_one_case_a_heading(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "# `some-rule`\n\n## First\n\nWhy.\n\n```toml\ntarget-torch = '1.13'\n```\n\n"
        "```python\nx  # error: MEM101\n```\n\n"
        "```python fixed\ny\n```\n\n```python run\nresult = 1\n```\n\n## Second\n\n```python\nz\n```\n",
    )
    first, second = mdtest.read_cases(path)
    assert (first.heading, first.code, first.fixed, first.run) == ("First", "x\n", "y\n", "result = 1\n")
    assert first.settings == {"target-torch": "1.13"}
    assert first.code_line == 12
    assert first.expects("MEM101")
    assert (second.heading, second.code, second.marks, second.fixed) == ("Second", "z\n", (), None)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("## A\n\nNothing.\n", "no ```python block"),
        ("## A\n```python\nx\n", "never ends"),
        ("## A\n```pyhton\nx\n```\n", "'pyhton' is none of"),
        ("```python\nx\n```\n", "before the first"),
        ("## A\n```python\nx\n```\n```python\ny\n```\n", "second ```python block"),
        ("## A\n```python\nx\n```\n```python run\ny\n```\n", "compares with a `fixed` block"),
        ("## A\n```python\nx\n```\n## A\n```python\nx\n```\n", "twice"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, body: str, message: str) -> None:
    with pytest.raises(FixtureError, match=message):
        mdtest.read_cases(write(tmp_path, body))


@pytest.mark.parametrize(
    ("mark", "findings", "wrong"),
    [
        (Mark(1, "error", "MEM101", None), (finding(1),), None),
        (Mark(1, "error", "MEM101", "host"), (finding(1),), None),
        (Mark(1, "error", "MEM101", "device"), (finding(1),), "its message is"),
        (Mark(1, "error", "MEM101", None), (), "is not found"),
        (Mark(1, "error", "MEM101", None), (finding(2),), "is not found"),
        (Mark(1, "error", "MEM102", None), (finding(1),), "is not found"),
        (Mark(1, "todo-error", "MEM101", None), (), None),
        (Mark(1, "todo-error", "MEM101", None), (finding(1),), "is found now"),
        (Mark(1, "todo-silent", "MEM101", None), (finding(1),), None),
        (Mark(1, "todo-silent", "MEM101", None), (), "is silent now"),
    ],
)
def test_marks_and_findings_are_compared(mark: Mark, findings: tuple[Finding, ...], wrong: str | None) -> None:
    differences = wrong_findings((mark,), findings)
    assert (differences == []) if wrong is None else (wrong in differences[0])


def test_a_finding_without_a_mark_is_reported() -> None:
    assert wrong_findings((), (finding(3),)) == ["line 3: unexpected MEM101 'grows in host memory'"]


def test_two_findings_on_a_line_need_two_marks() -> None:
    mark = Mark(1, "error", "MEM101", None)
    assert wrong_findings((mark,), (finding(1), finding(1))) == ["line 1: unexpected MEM101 'grows in host memory'"]
    assert wrong_findings((mark, mark), (finding(1), finding(1))) == []
