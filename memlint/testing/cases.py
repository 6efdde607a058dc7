"""Cases written as Markdown: under each `##` heading a Python module with `# error:` marks, and what fixes make of it.

The format is described in docs/custom-rules.md, "Fixtures". memlint's own rules and those of others are tested by it.
"""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from memlint.config.paths import shown
from memlint.linting.finding import Confidence, Finding
from memlint.linting.lint import fix, lint
from memlint.linting.policy import Policy
from memlint.linting.registry import all_rules

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_MARK = re.compile(
    r'#\s*(?P<kind>error|todo-error|todo-silent):\s*(?P<code>[A-Z]{2,8}\d{3,4})(?:\s+"(?P<part>[^"]*)")?\s*'
)
_MARK_START = re.compile(r"\s*#\s*(?:todo-)?(?:error|silent):")
_FENCE = re.compile(r"(?P<ticks>`{3,})(?P<info>.*)")
_BLOCKS = ("toml", "python", "python fixed", "python unsafe-fixed", "python run")


class FixtureError(Exception):
    """A fixture that cannot be read; the message names its file and line."""


@dataclass(frozen=True)
class Mark:
    """What is to be found on a line: `error`, and for what is known to be wrong `todo-error` and `todo-silent`."""

    line: int
    kind: str
    code: str
    part: str | None

    @property
    def expects_finding(self) -> bool:
        return self.kind != "todo-error"

    def __str__(self) -> str:
        return f"# {self.kind}: {self.code}" + (f' "{self.part}"' if self.part is not None else "")


@dataclass(frozen=True)
class Case:
    """One heading of a fixture file. `code` and the fixed codes are without marks."""

    path: Path
    heading: str
    code_line: int  # of the Markdown file, of the code's first line
    code: str
    marks: tuple[Mark, ...]
    settings: dict[str, object] = field(default_factory=dict)
    fixed: str | None = None
    unsafe_fixed: str | None = None
    run: str | None = None
    local_rules: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        return f"{self.path.parent.name}/{self.path.stem} :: {self.heading}"

    @property
    def policy(self) -> Policy:
        return policy(self.settings, self.local_rules)

    def expects(self, code: str) -> bool:
        return any(mark.code == code and mark.expects_finding for mark in self.marks)


def policy(settings: dict[str, object], local_rules: tuple[str, ...] = ()) -> Policy:
    """All rules, at the confidence of the default run, and what `settings` (`[tool.memlint]` keys) says otherwise."""
    unknown = settings.keys() - {"confidence", "target-torch"}
    if unknown:
        raise FixtureError(f"unknown setting in a fixture: {', '.join(sorted(unknown))}")
    target = settings.get("target-torch")
    major, minor = str(target).split(".")[:2] if target is not None else ("0", "0")
    return Policy(
        codes=frozenset(rule.code for rule in all_rules(local_rules)),
        confidence=Confidence(settings.get("confidence", "medium")),
        target_torch=(int(major), int(minor)) if target is not None else None,
        local_rules=local_rules,
    )


def take_marks(marked: str, place: str) -> tuple[str, tuple[Mark, ...]]:
    """The code without its marks, and the marks. Raises FixtureError for a mark that cannot be read."""
    lines, marks = [], []
    for number, line in enumerate(marked.splitlines(), start=1):
        start = _MARK_START.search(line)
        if start is None:
            lines.append(line)
            continue
        at = start.end() - len(start.group().lstrip())
        while at < len(line):
            mark = _MARK.match(line, at)
            if mark is None:
                raise FixtureError(f'{place}: cannot read {line[at:]!r}; write `# error: MEM101 "part of message"`')
            marks.append(Mark(number, mark["kind"], mark["code"], mark["part"]))
            at = mark.end()
        lines.append(line[: start.start()])
    return "".join(f"{line}\n" for line in lines), tuple(marks)


def read_cases(path: Path, local_rules: tuple[str, ...] = ()) -> list[Case]:
    """The cases of one Markdown file. Raises FixtureError where the file breaks the format."""
    cases = []
    for heading, line, blocks in _sections(path):
        place = f"{shown(path)}:{line}: {heading}"
        if "python" not in blocks:
            raise FixtureError(f"{place}: no ```python block")
        if "python run" in blocks and "python fixed" not in blocks:
            raise FixtureError(f"{place}: a `run` block compares with a `fixed` block, and there is none")
        code_line, marked = blocks["python"]
        code, marks = take_marks(marked, place)
        text = {info: content for info, (_, content) in blocks.items()}
        settings = tomllib.loads(text.get("toml", ""))
        cases.append(
            Case(
                path=path,
                heading=heading,
                code_line=code_line,
                code=code,
                marks=marks,
                settings=settings.get("tool", {}).get("memlint", settings),
                fixed=text.get("python fixed"),
                unsafe_fixed=text.get("python unsafe-fixed"),
                run=text.get("python run"),
                local_rules=local_rules,
            )
        )
    headings = [case.heading for case in cases]
    if len(set(headings)) < len(headings):
        raise FixtureError(f"{path}: a heading stands there twice")
    return cases


def _sections(path: Path) -> Iterator[tuple[str, int, dict[str, tuple[int, str]]]]:
    """Each `##` heading with its line and its blocks: info string -> (line of the first code line, content)."""
    heading, heading_line = "", 0
    blocks: dict[str, tuple[int, str]] = {}
    lines = enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
    for number, line in lines:
        if line.startswith("## "):
            if heading:
                yield heading, heading_line, blocks
            heading, heading_line, blocks = line[3:].strip(), number, {}
            continue
        fence = _FENCE.match(line)
        if fence is None:
            continue
        info = fence["info"].strip()
        if not heading:
            raise FixtureError(f"{path}:{number}: a block before the first ## heading")
        if info not in _BLOCKS:
            raise FixtureError(f"{path}:{number}: block {info!r} is none of {', '.join(_BLOCKS)}")
        if info in blocks:
            raise FixtureError(f"{path}:{number}: a second ```{info} block under {heading!r}; one heading is one case")
        content = []
        for _, inner in lines:
            if inner.rstrip() == fence["ticks"]:
                break
            content.append(inner)
        else:
            raise FixtureError(f"{path}:{number}: this block never ends")
        blocks[info] = (number + 1, "".join(f"{inner}\n" for inner in content))
    if heading:
        yield heading, heading_line, blocks


def findings_of(case: Case) -> tuple[Finding, ...]:
    return lint("module.py", case.code.encode(), case.policy).findings


def wrong_findings(marks: tuple[Mark, ...], findings: tuple[Finding, ...]) -> list[str]:
    """What differs between marks and findings, a line each; empty when they agree."""
    wrong = []
    left = list(findings)
    for mark in sorted(marks, key=lambda mark: mark.part is None):  # the choosy ones first
        here = [finding for finding in left if finding.start.line == mark.line and finding.code == mark.code]
        found = next((finding for finding in here if mark.part is None or mark.part in finding.message), None)
        if found is not None:
            left.remove(found)
            if not mark.expects_finding:
                wrong.append(f"line {mark.line}: `{mark}` is found now; make it `# error:`")
            continue
        if mark.kind == "error" and here:
            left.remove(here[0])
            wrong.append(f"line {mark.line}: {mark.code} is found, but its message is {here[0].message!r}, not {mark}")
        elif mark.kind == "error":
            wrong.append(f"line {mark.line}: `{mark}` is not found")
        elif mark.kind == "todo-silent":
            wrong.append(f"line {mark.line}: `{mark}` is silent now; take the mark away")
    wrong += [f"line {finding.start.line}: unexpected {finding.code} {finding.message!r}" for finding in left]
    return wrong


def wrong_fixes(case: Case) -> list[str]:
    """What `memlint fix` makes of the case's code, where it differs from its blocks."""
    wrong = []
    safe = case.fixed
    if safe is None and case.unsafe_fixed is not None:
        safe = case.code  # only `unsafe-fixed` says that no safe fix is there
    for expected, unsafe in ((safe, False), (case.unsafe_fixed, True)):
        if expected is None:
            continue
        made = fix("module.py", case.code.encode(), case.policy, unsafe=unsafe).after.decode()
        if made == expected:
            continue
        diff = difflib.unified_diff(expected.splitlines(True), made.splitlines(True), "expected", "made")
        wrong.append(f"{'safe and unsafe' if unsafe else 'safe'} fixes give something else:\n{''.join(diff)}")
    return wrong


def check(case: Case) -> None:
    """Raises AssertionError with all there is to know when the case does not hold."""
    wrong = wrong_findings(case.marks, findings_of(case)) + wrong_fixes(case)
    if not wrong:
        return
    marks: dict[int, list[str]] = {mark.line: [] for mark in case.marks}
    for mark in case.marks:
        marks[mark.line].append(str(mark))
    listing = "\n".join(
        f"{number:4} | {line}{'  ' if number in marks else ''}{' '.join(marks.get(number, ()))}"
        for number, line in enumerate(case.code.splitlines(), start=1)
    )
    raise AssertionError(
        f"{shown(case.path)}: {case.heading}\n(line 1 is line {case.code_line} of the file)\n{listing}\n\n"
        + "\n".join(wrong)
    )
