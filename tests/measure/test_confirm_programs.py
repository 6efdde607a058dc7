"""Confirmations of programs that really run, each in processes of its own."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import jsonschema
import pytest

from memlint.linting.finding import Applicability, Edit, Finding, Fix
from memlint.measure.confirm import as_json
from memlint.measure.confirm.confirmation import Confirmation, Priced
from memlint.measure.confirm.engine import Engine, layers_of
from memlint.measure.confirm.verdicts import Grade, Verdict
from memlint.measure.job import Job, Target
from memlint.measure.launch import run
from memlint.measure.outcome import Status
from memlint.source.lines import Position

ROOT = Path(__file__).resolve().parent.parent.parent

PROGRAM = """\
import torch
from torch import nn

device = "cuda"
model = nn.Linear(256, 256).to(device)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
kept, total = [], 0.0
for step in range(8):
    x = torch.randn(256, 256, device=device)
    y = model(x).relu()
    wide = torch.cat([y] * 8)
    kept.append(y.detach())
    loss = y.square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    total += loss
    noise = x + 1
    if step > 100:
        kept.append(noise)
"""

UNSTEADY = """\
import os
import time

import torch

model = torch.nn.Linear(8, 8).to("cuda")
optimizer, total = torch.optim.SGD(model.parameters(), lr=0.01), 0.0
for x in torch.randn(8, 4, 8).to("cuda"):
    loss = model(x).square().mean()
    (loss * (CHANCE)).backward()
    optimizer.step()
    total += loss
    optimizer.zero_grad()
"""
"""What it computes depends on what nobody can seed."""

# Line -> what a fix makes of it -> the verdict on that.
FIXES = [
    (11, "wide = y", Verdict.CONFIRMED, Grade.IDENTICAL),
    (12, "pass", Verdict.GROWTH_CONFIRMED, Grade.IDENTICAL),
    (17, "total += loss.detach()", Verdict.HOST_ONLY, Grade.IDENTICAL),
    (18, "noise = torch.cat([x] * 99)", Verdict.WORSE, Grade.IDENTICAL),
    (13, "loss = y.square().mean(0).mean()", Verdict.NO_EFFECT, Grade.WITHIN_TOLERANCE),
    (13, "loss = 2 * y.square().mean()", Verdict.RESULTS_DIFFER, Grade.DIFFERENT),
    (13, "loss = y.squared().mean()", Verdict.COULD_NOT_RUN, Grade.NOT_CHECKED),
    (20, "pass", Verdict.NOT_REACHED, Grade.NOT_CHECKED),
    (12, None, Verdict.NO_FIX, Grade.NOT_CHECKED),
]


Fixes = Sequence[tuple[int, "str | None", Verdict, Grade]]


class Linter:
    """Says what the test wants of the program."""

    def __init__(self, path: Path, fixes: Fixes) -> None:
        self._path = path
        self._fixes = fixes

    def findings(self, paths: Sequence[Path]) -> list[tuple[Path, Finding]]:
        assert list(paths) == [self._path]
        return [(self._path, self._finding(line, fixed)) for line, fixed, _, _ in self._fixes]

    def fixed(self, path: Path, only: frozenset[tuple[str, int]]) -> str:
        """All fixes of these lines that save device memory."""
        assert path == self._path
        lines = self._path.read_text("utf-8").splitlines()
        for line, fixed, verdict, _ in self._fixes:
            if ("MEM101", line) in only and verdict in {Verdict.CONFIRMED, Verdict.GROWTH_CONFIRMED}:
                lines[line - 1] = f"    {fixed}"
        return "\n".join(lines) + "\n"

    def _finding(self, line: int, fixed: str | None) -> Finding:
        text = self._path.read_text("utf-8").splitlines()[line - 1]
        start, end = Position(line, len(text) - len(text.lstrip()) + 1), Position(line, len(text) + 1)
        fix = None if fixed is None else Fix(Applicability.UNSAFE, "as the test says", (Edit(start, end, fixed),))
        return Finding("MEM101", "loss-accumulates-graph", "it grows", "program.py", start, end, fix=fix)


def confirmed(path: Path, program: str, fixes: Fixes) -> Confirmation:
    path.write_text(program, "utf-8")
    job = Job(Target("script", path.name), "cpu", str(path.parent), layers=layers_of("cpu"))
    first = run(job, "discard")
    assert first.status is Status.OK and first.recording is not None, first
    made = Engine(job, first.recording, Linter(path, fixes), lambda job: run(job, "discard"), lambda _: None).confirm()
    assert path.read_text("utf-8") == program
    return made


@pytest.fixture(scope="module")
def confirmation(tmp_path_factory: pytest.TempPathFactory) -> Confirmation:
    return confirmed(tmp_path_factory.mktemp("programs") / "program.py", PROGRAM, FIXES)


def priced(confirmation: Confirmation, line: int, fixed: str | None) -> Priced:
    return confirmation.priced[[fix[:2] for fix in FIXES].index((line, fixed))]


@pytest.mark.parametrize(("line", "fixed", "verdict", "grade"), FIXES)
def test_every_verdict_of_a_program(
    confirmation: Confirmation, line: int, fixed: str | None, verdict: Verdict, grade: Grade
) -> None:
    one = priced(confirmation, line, fixed)
    assert (one.verdict, one.results.grade) == (verdict, grade), one


def test_the_bytes_of_a_program(confirmation: Confirmation) -> None:
    block = 256 * 256 * 4
    assert confirmation.before.growth_bytes_per_step == block
    assert priced(confirmation, 12, None).grows_bytes_per_step == block
    assert confirmation.noise_bytes == 0 and confirmation.deterministic.grade is Grade.IDENTICAL


def test_all_fixes_together_leave_what_they_do_not_mend(confirmation: Confirmation) -> None:
    together = confirmation.together
    assert together is not None and together.after is not None
    assert together.after.growth_bytes_per_step == 0 and together.remaining == ()


@pytest.mark.parametrize(
    ("chance", "fixes"),
    [
        (
            "1 + 1e-6 * os.urandom(1)[0] / 255",
            [
                (12, "total += loss.detach()", Verdict.HOST_ONLY, Grade.WITHIN_TOLERANCE),
                (9, "loss = 2 * model(x).square().mean()", Verdict.RESULTS_DIFFER, Grade.DIFFERENT),
            ],
        ),
        (
            "1 + time.time() % 1",
            [(12, "total += loss.detach()", Verdict.HOST_ONLY, Grade.NOT_CHECKED)],
        ),
    ],
    ids=["a little", "too much"],
)
def test_a_program_whose_results_are_others_each_time(tmp_path: Path, chance: str, fixes: Fixes) -> None:
    program = UNSTEADY.replace("CHANCE", chance)
    made = confirmed(tmp_path / "unsteady.py", program, fixes)
    assert made.deterministic.grade is not Grade.IDENTICAL
    assert [(one.verdict, one.results.grade) for one in made.priced] == [fix[2:] for fix in fixes]
    assert all("two runs of the original" in one.results.detail for one in made.priced)


def test_the_json_is_that_of_the_schema_and_of_the_page(confirmation: Confirmation, tmp_path: Path) -> None:
    schema = json.loads((ROOT / "docs" / "confirm-json.schema.json").read_text("utf-8"))
    made = json.loads(as_json.render(confirmation, tmp_path))
    jsonschema.validate(made, schema, jsonschema.Draft202012Validator)
    assert set(made) == set(schema["required"])
    page = (ROOT / "docs" / "confirm.md").read_text("utf-8")
    objects = [made, made["baseline"], made["deterministic"], *made["findings"], made["together"]]
    assert [key for one in objects for key in one if f"`{key}`" not in page] == []
    assert schema["$defs"]["finding"]["properties"]["verdict"]["enum"] == [verdict.value for verdict in Verdict]
    assert [verdict.value for verdict in Verdict if f"| `{verdict.value}` |" not in page] == []


@pytest.mark.parametrize(
    ("block", "status"),
    [
        (r"\$ (memlint measure fixtures/small/score.py --backend cpu)\n(.*?)\n\.\.\.\n", 0),
        (r"\$ (memlint confirm fixtures/small/score.py --backend cpu) --output prices.json\n(.*?)\n\n\$ ", 1),
    ],
)
def test_the_readme_shows_today_s_output(block: str, status: int) -> None:
    shown = re.search(block, (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    assert shown is not None
    command, expected = shown.groups()
    printed = subprocess.run(
        [sys.executable, "-m", *command.split()], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert printed.returncode == status, printed.stderr
    same = without_machine(printed.stdout)
    assert same.startswith(without_machine(expected)) if status == 0 else same == without_machine(expected)


def without_machine(text: str) -> str:
    return re.sub(r"torch [^;\s]+|CPU \(\w+\)", "", text.strip())
