"""The rules of the house that a machine can check. CONTRIBUTING.md says why they are there."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import memlint
from memlint.linting.registry import RuleInfo, all_rules

ROOT = Path(__file__).resolve().parent.parent
HEAVY = {"torch", "pynvml", "pygls"}
RULES = [rule for rule in all_rules() if not rule.code.startswith("MEM0")]


def texts() -> Iterator[tuple[Path, str]]:
    """The text files a contributor writes."""
    tops = ["memlint", "rules", "tests", "fixtures", "benchmarks", "docs"]
    paths = [path for top in tops for path in sorted((ROOT / top).rglob("*"))]
    paths += [path for path in sorted(ROOT.iterdir()) if path.name != ".git" and path.is_file()]
    for path in paths:
        if path.suffix in {".py", ".md", ".toml", ".yaml", ""} and path.is_file():
            yield path, path.read_text(encoding="utf-8")


def modules_after(code: str) -> set[str]:
    """The top-level modules that a fresh interpreter holds after running `code`."""
    report = "; import sys; print('\\n' + ' '.join({name.partition('.')[0] for name in sys.modules}))"
    ran = subprocess.run(
        [sys.executable, "-c", code + report], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    return set(ran.splitlines()[-1].split())


def test_no_file_names_a_path_of_somebody_s_machine() -> None:
    machine = re.compile(r"/(?:home|root|work|opt|Users)/[A-Za-z.]")
    named = [
        f"{path.relative_to(ROOT)}:{number}"
        for path, text in texts()
        for number, line in enumerate(text.splitlines(), start=1)
        if machine.search(line)
    ]
    assert named == []


def test_the_static_half_imports_no_torch() -> None:
    code = (
        "import memlint.cli.main, memlint.linting.lint; "
        "from memlint.linting.registry import all_rules; assert len(all_rules()) > 5"
    )
    assert modules_after(code) & HEAVY == set()


def test_the_version_is_printed_without_the_parser_and_without_rich() -> None:
    code = (
        "import os, sys; os._exit = sys.exit; sys.argv = ['memlint', '--version']\n"
        "from memlint.cli.main import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code\n"
        "pass"
    )
    assert modules_after(code) & (HEAVY | {"libcst", "rich"}) == set()


def test_the_command_runs_as_a_module() -> None:
    printed = subprocess.run(
        [sys.executable, "-m", "memlint", "--version"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    assert memlint.__version__ in printed


def test_codes_and_names_are_given_once() -> None:
    rules = all_rules()
    assert len({rule.code for rule in rules}) == len(rules)
    assert len({rule.name for rule in rules}) == len(rules)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_rule_stands_alone_in_a_file_of_its_name_in_its_family(rule: RuleInfo) -> None:
    family, name = rule.family.replace("-", "_"), rule.name.replace("-", "_")
    path = ROOT / "rules" / family / f"{name}.py"
    assert path.is_file(), f"{rule.code} {rule.name} belongs in {path.relative_to(ROOT)}"
    module = importlib.import_module(f"memlint.rules.{family}.{name}")
    assert [thing for thing in vars(module).values() if getattr(thing, "code", None) == rule.code]


def test_a_family_is_a_hundred() -> None:
    hundreds: dict[str, set[str]] = {}
    for rule in RULES:
        hundreds.setdefault(rule.family, set()).add(rule.code[3])
    assert {family: codes for family, codes in hundreds.items() if len(codes) > 1} == {}


@pytest.mark.parametrize("rule", all_rules(), ids=lambda rule: rule.name)
def test_the_readme_s_table_has_every_rule(rule: RuleInfo) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert re.search(rf"^\| `?{rule.code}`? \| `{rule.name}` \|", readme, flags=re.MULTILINE)


def test_the_changelog_has_this_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## {re.escape(memlint.__version__)}\b", changelog, flags=re.MULTILINE)


def test_every_module_of_the_program_says_what_it_is_for() -> None:
    paths = [*(ROOT / "memlint").rglob("*.py"), *(ROOT / "rules").rglob("*.py")]
    silent = [path for path in paths if path.name != "__init__.py" and '"""' not in path.read_text("utf-8")[:200]]
    assert [str(path.relative_to(ROOT)) for path in silent] == []
