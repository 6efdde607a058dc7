"""Safe fixes change nothing: the original and the fixed code of a fixture are run on torch and compared.

A fixture's `run` block is executed after the module's code, in its namespace, and leaves `result`. Where the code
raises, the block says so in its first line: `# raises: ValueError` when both must raise, `# original raises: TypeError`
when the fix repairs code that could not run at all.
"""

from __future__ import annotations

import math
import random
import re
import sys
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

import mdtest
from memlint.linting.finding import Applicability

CASES = [case for case in mdtest.all_cases() if case.run is not None]


@dataclass(frozen=True)
class Outcome:
    """What running the code left behind."""

    result: object
    error: BaseException | None
    torch_random_state: object
    python_random_state: object
    grad_enabled: bool


@pytest.fixture(autouse=True)
def _torch_as_it_was() -> Iterator[None]:
    """One thread, so that sums have one order; and no case leaves its settings to the next."""
    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.set_default_dtype(dtype)
    torch.set_grad_enabled(True)


def execute(code: str, driver: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Outcome:
    """Run `code` as a module and then `driver` in its namespace, in an empty folder, from fixed seeds."""
    folder.mkdir()
    monkeypatch.chdir(folder)
    module = types.ModuleType("fixture_module")
    monkeypatch.setitem(sys.modules, module.__name__, module)  # pickles of its classes look here
    torch.manual_seed(0)
    random.seed(0)
    torch.set_grad_enabled(True)
    error: BaseException | None = None
    try:
        exec(compile(code, "module.py", "exec"), module.__dict__)
        exec(compile(driver, "run block", "exec"), module.__dict__)
    except Exception as raised:  # noqa: BLE001 - whatever the code raises is an outcome
        error = raised
    return Outcome(
        result=module.__dict__.get("result"),
        error=error,
        torch_random_state=torch.get_rng_state(),
        python_random_state=random.getstate(),
        grad_enabled=torch.is_grad_enabled(),
    )


def difference(a: object, b: object, place: str = "result") -> str | None:
    """Where two results differ in kind, dtype, shape, device or any bit of their values; None if nowhere."""
    if type(a) is not type(b):
        return f"{place}: {type(a).__name__} became {type(b).__name__}"
    if isinstance(a, torch.Tensor):
        return _tensor_difference(a, b, place)
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        if list(a) != list(b):
            return f"{place}: keys {list(a)} became {list(b)}"
        return next((d for key in a if (d := difference(a[key], b[key], f"{place}[{key!r}]"))), None)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        if len(a) != len(b):
            return f"{place}: {len(a)} items became {len(b)}"
        pairs = enumerate(zip(a, b, strict=True))
        return next((d for i, (x, y) in pairs if (d := difference(x, y, f"{place}[{i}]"))), None)
    if isinstance(a, float) and isinstance(b, float) and math.isnan(a) and math.isnan(b):
        return None
    return None if a == b else f"{place}: {a!r} became {b!r}"


def _tensor_difference(a: torch.Tensor, b: torch.Tensor, place: str) -> str | None:
    for what in ("dtype", "shape", "device", "layout"):
        if getattr(a, what) != getattr(b, what):
            return f"{place}: {what} {getattr(a, what)} became {getattr(b, what)}"
    same = torch.allclose(a.detach(), b.detach(), rtol=0, atol=0, equal_nan=True)
    return None if same else f"{place}: {a} became {b}"


def expected_error(driver: str) -> tuple[bool, list[str]]:
    """(the original alone raises, the names its exception may have: they can change from Python to Python)."""
    first = re.match(r"# (original )?raises: (\w+(?: or \w+)*)\n", driver)
    return (bool(first and first[1]), first[2].split(" or ") if first else [])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_safe_fix_changes_nothing(case: mdtest.Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert case.run is not None
    assert case.fixed is not None
    original = execute(case.code, case.run, tmp_path / "original", monkeypatch)
    fixed = execute(case.fixed, case.run, tmp_path / "fixed", monkeypatch)

    original_alone, expected = expected_error(case.run)
    if not expected and original.error is not None:
        raise AssertionError("the run block fails on the original code") from original.error
    if expected:
        assert type(original.error).__name__ in expected
    if original_alone:
        assert fixed.error is None, f"the fixed code still raises {fixed.error!r}"
        return

    if not expected and fixed.error is not None:
        raise AssertionError("the fixed code raises, the original does not") from fixed.error
    assert (type(fixed.error), str(fixed.error)) == (type(original.error), str(original.error))
    assert expected or original.result is not None, "the run block leaves no `result`: nothing is compared"
    assert difference(original.result, fixed.result) is None
    assert torch.equal(original.torch_random_state, fixed.torch_random_state), "another number of random draws"
    assert original.python_random_state == fixed.python_random_state
    assert original.grad_enabled == fixed.grad_enabled


def test_every_rule_with_a_safe_fix_has_one_that_is_run() -> None:
    def safe_codes(case: mdtest.Case) -> set[str]:
        fixes = [(finding.code, finding.fix) for finding in mdtest.findings_of(case)]
        return {code for code, fix in fixes if fix is not None and fix.applicability is Applicability.SAFE}

    offered = {code for case in mdtest.all_cases() for code in safe_codes(case) if not code.startswith("MEM0")}
    was_run = {code for case in CASES for code in safe_codes(case)}
    assert offered - was_run == set(), "these rules offer safe fixes, and no fixture of theirs has a `run` block"


@pytest.mark.parametrize(
    ("a", "b", "where"),
    [
        ([torch.ones(2)], [torch.ones(2)], None),
        (torch.tensor(float("nan")), torch.tensor(float("nan")), None),
        ({"loss": 1.0}, {"loss": 2.0}, "result['loss']: 1.0 became 2.0"),
        (torch.ones(2), torch.ones(2, dtype=torch.float64), "result: dtype torch.float32 became torch.float64"),
        (torch.ones(2), torch.ones(1), "result: shape torch.Size([2]) became torch.Size([1])"),
        (torch.zeros(1), torch.full((1,), 1e-30), "result: tensor([0.]) became tensor([1.0000e-30])"),
        (torch.ones(1), 1.0, "result: Tensor became float"),
        ((1, 2), (1,), "result: 2 items became 1"),
    ],
)
def test_the_comparison_sees_differences(a: object, b: object, where: str | None) -> None:
    assert difference(a, b) == where
