"""memlint's work grows as the code does: its steps are counted, so that no clock is asked."""

from __future__ import annotations

from collections.abc import Iterator

import fuzz_growth as fuzz
import pytest

from memlint.linting.lint import lint
from memlint.linting.policy import Policy

SIZES = (2, 4, 8)


def every_form() -> Iterator[fuzz.Program]:
    """All statement forms one after the other, again and again: what one of them adds to another shows too."""
    for frame in fuzz.FRAMES:
        yield fuzz.repeated(fuzz.FORMS, frame, SIZES)
    yield fuzz.functions(fuzz.FORMS, SIZES)


def every_nesting() -> Iterator[fuzz.Program]:
    yield from (fuzz.expression((parts,)) for parts in fuzz.EXPRESSIONS)
    yield from (fuzz.nested((block,), fuzz.FORMS[0]) for block in fuzz.BLOCKS)


@pytest.mark.parametrize("program", [*every_form(), *every_nesting()], ids=lambda program: program.name[:40])
def test_twice_the_code_is_twice_the_work(program: fuzz.Program) -> None:
    assert fuzz.growth(program) < fuzz.TOLERATED


def test_what_grows_faster_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def reads_again_for_each_call(path: str, raw: bytes, policy: Policy) -> None:
        for _ in range(raw.count(b"model(x)")):
            lint(path, raw, policy)

    monkeypatch.setattr(fuzz, "lint", reads_again_for_each_call)
    assert fuzz.growth(fuzz.repeated(("v{i} = model(x)",), fuzz.in_function, SIZES)) > fuzz.TOLERATED
