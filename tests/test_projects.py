"""Small projects in Markdown: under each `##` heading the files, each a `###` heading and a block with marks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from mdtest import policy, take_marks, wrong_findings
from memlint.linting.lint import lint
from memlint.linting.policy import Policy

PROJECTS = Path(__file__).parent / "projects"
_FILE = re.compile(r"^### (?P<name>\S+)\n```python\n(?P<text>.*?)```", re.MULTILINE | re.DOTALL)


def projects() -> Iterator[tuple[str, dict[str, str]]]:
    for path in sorted(PROJECTS.glob("*.md")):
        for section in re.split(r"^## ", path.read_text(), flags=re.MULTILINE)[1:]:
            title, _, body = section.partition("\n")
            yield title, {match["name"]: match["text"] for match in _FILE.finditer(body)}


ALL = dict(projects())


@pytest.mark.parametrize("files", ALL.values(), ids=ALL.keys())
@pytest.mark.parametrize("backwards", [False, True], ids=["in order", "backwards"])
def test_findings_of_each_file(tmp_path: Path, files: dict[str, str], backwards: bool) -> None:
    (tmp_path / "pyproject.toml").write_text("")
    taken = {name: take_marks(text, name) for name, text in files.items()}
    for name, (code, _) in taken.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(code)
    base, wrong = policy({}), list[str]()
    for name in sorted(taken, reverse=backwards):
        code, marks = taken[name]
        of_file = Policy(base.codes, base.confidence, None, str(tmp_path), tmp_path / name)
        found = lint(name, code.encode(), of_file).findings
        wrong += [f"{name}: {item}" for item in wrong_findings(marks, found)]
    assert not wrong, "\n".join(wrong)
