"""The command line: arguments in, output and exit status out.

Most tests put a small core in place of the real one (`core`), whose findings they choose by what they write into
the files; the real one is tested by the fixtures. The tests at the end run the command as users do.
"""

from __future__ import annotations

import ctypes
import faulthandler
import inspect
import io
import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import memlint
from memlint.cli import run
from memlint.cli.main import memlint as command
from memlint.cli.progress import with_progress
from memlint.config.options import Options
from memlint.linting.earlier import Earlier, Examined
from memlint.linting.finding import Applicability, Edit, FileResult, Finding, Fix, FixResult
from memlint.linting.policy import ALWAYS_ON, Policy
from memlint.linting.registry import RuleInfo
from memlint.project.reads import digest_of
from memlint.source.lines import Position

PAGE = """A word too many.

## What it does
Reports the word.

```python
x = waste
```
"""

RULES = (
    RuleInfo("MEM001", "syntax-error", "memlint", "The file is not valid Python.", "0.1", True),
    RuleInfo("MEM004", "internal-error", "memlint", "A rule crashed.", "0.1", True),
    RuleInfo("MEM101", "first-sin", "graph-retention", PAGE, "0.1", True),
    RuleInfo("MEM201", "second-sin", "grad-mode", "Another page.", "0.1", True),
    RuleInfo("MEM901", "only-a-hint", "hints", "A hint.", "0.2", False),
)

# A file that says `waste` has a sin with a safe fix, `junk` one with an unsafe fix, `hopeless` one without;
# `crash` makes a rule crash, `hang`, `die`, `kill` and `overflow` end the worker, `raise` breaks the core itself.
_WORDS = re.compile(r"\b(waste|junk|hopeless|hint|crash)\b")
_CODES = {
    "waste": ("MEM101", "first-sin"),
    "junk": ("MEM201", "second-sin"),
    "hopeless": ("MEM101", "first-sin"),
    "hint": ("MEM901", "only-a-hint"),
    "crash": ("MEM004", "internal-error"),
}
_FIXES = {"waste": Applicability.SAFE, "junk": Applicability.UNSAFE}

# Before click 8.2 its runner mixes the two outputs unless told otherwise; from 8.2 on there is nothing to tell.
APART: dict[str, Any] = {"mix_stderr": False} if "mix_stderr" in inspect.signature(CliRunner).parameters else {}


def fake_lint(path: str, raw: bytes, policy: Policy) -> FileResult:
    text = raw.decode()
    while "hang" in text:
        pass
    if "die" in text:
        os._exit(3)
    if "kill" in text:
        os.kill(os.getpid(), signal.SIGKILL)
    if "overflow" in text:
        faulthandler.disable()  # it would write a traceback to the terminal
        ctypes.string_at(0)
    if "raise" in text:
        raise ZeroDivisionError("the core broke")
    lines = text.splitlines()
    findings = []
    for number, line in enumerate(lines, start=1):
        for word in _WORDS.finditer(line):
            code, name = _CODES[word[0]]
            if code not in policy.codes:
                continue
            start, end = Position(number, word.start() + 1), Position(number, word.end() + 1)
            applicability = _FIXES.get(word[0])
            fix = Fix(applicability, "say `good`", (Edit(start, end, "good"),)) if applicability else None
            findings.append(Finding(code, name, f"`{word[0]}` is too much", path, start, end, fix=fix))
    return FileResult(path, tuple(findings), dict(enumerate(lines, start=1)))


def fake_examine(path: str, raw: bytes, policy: Policy, earlier: Earlier | None) -> Examined:
    return Examined(digest_of(raw), fake_lint(path, raw, policy))


def fake_fix(
    path: str, raw: bytes, policy: Policy, *, unsafe: bool, only: frozenset[tuple[str, int]] | None = None
) -> FixResult:
    wasted, junk = raw.count(b"waste"), raw.count(b"junk") if unsafe else 0
    after = raw.replace(b"waste", b"good")
    after = after.replace(b"junk", b"good") if unsafe else after
    applied = {code: count for code, count in (("MEM101", wasted), ("MEM201", junk)) if count}
    return FixResult(path, raw, after, applied, fake_lint(path, after, policy))


@pytest.fixture
def core(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder, which is the current one, checked by the small core."""
    if sys.platform != "linux":
        pytest.skip("the small core reaches the worker by forking")
    fake = types.ModuleType("memlint.linting.lint")
    fake.__dict__.update(lint=fake_lint, fix=fake_fix)
    monkeypatch.setitem(sys.modules, "memlint.linting.lint", fake)
    examining = types.ModuleType("memlint.linting.examine")
    examining.__dict__.update(examine=fake_examine)
    monkeypatch.setitem(sys.modules, "memlint.linting.examine", examining)
    monkeypatch.setattr("memlint.linting.registry.all_rules", lambda *_: RULES)
    (tmp_path / ".git").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder: Path, **files: str) -> None:
    """`a="..."` writes a.py."""
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text, "utf-8")


def memlint_run(*arguments: str, stdin: str | None = None) -> Result:
    result = CliRunner(**APART).invoke(command, arguments, input=stdin)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


# --- check ---


def test_check_reports_findings_and_exits_with_1(core: Path) -> None:
    write(core, b="x = waste\n", a="fine\ny = junk\n")
    result = memlint_run("check")
    assert result.exit_code == 1
    assert result.stdout == (
        "a.py:2:5: MEM201 [second-sin] `junk` is too much\n"
        "  |\n"
        "2 | y = junk\n"
        "  |     ^^^^\n"
        "  |\n"
        "  = help (unsafe fix): say `good`\n"
        "\n"
        "b.py:1:5: MEM101 [first-sin] `waste` is too much\n"
        "  |\n"
        "1 | x = waste\n"
        "  |     ^^^^^\n"
        "  |\n"
        "  = help (safe fix): say `good`\n"
        "\n"
        "Found 2 findings in 2 files (1 fixable with `memlint fix --apply`, 1 more with `--unsafe-fixes`).\n"
    )
    assert result.stderr == ""


def test_check_of_clean_files_exits_with_0(core: Path) -> None:
    write(core, a="fine")
    result = memlint_run("check", ".")
    assert (result.exit_code, result.stdout) == (0, "No findings in 1 file.\n")


def test_no_files_are_no_error_but_are_said(core: Path) -> None:
    result = memlint_run("check")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "note: no Python files were found\n"
    as_json = memlint_run("check", "--output-format", "json")
    assert json.loads(as_json.stdout) == []


def test_formats_for_programs_hold_nothing_else(core: Path) -> None:
    write(core, a="waste")
    (finding,) = json.loads(memlint_run("check", "--output-format", "json").stdout)
    assert (finding["code"], finding["line"], finding["column"], finding["end_column"]) == ("MEM101", 1, 1, 6)
    github = memlint_run("check", "--output-format", "github").stdout
    assert github.splitlines() == [
        (
            "::error title=memlint (MEM101),file=a.py,line=1,col=1,endLine=1,endColumn=6::"
            "a.py:1:1: MEM101 [first-sin] `waste` is too much"
        )
    ]
    concise = memlint_run("check", "--output-format", "concise").stdout
    assert concise.splitlines() == [
        "a.py:1:1: MEM101 [first-sin] `waste` is too much",
        "Found 1 finding in 1 file (1 fixable with `memlint fix --apply`).",
    ]


def test_rules_can_be_chosen(core: Path) -> None:
    write(core, a="waste junk hint")

    def codes(*arguments: str) -> list[str]:
        output = memlint_run("check", "--output-format", "json", *arguments).stdout
        return [finding["code"] for finding in json.loads(output)]

    assert codes() == ["MEM101", "MEM201"]
    assert codes("--select", "MEM101,only-a-hint") == ["MEM101", "MEM901"]
    assert codes("--select", "MEM101", "--select", "MEM9") == ["MEM101", "MEM901"]
    assert codes("--ignore", "graph-retention") == ["MEM201"]
    assert codes("--extend-select", "MEM901") == ["MEM101", "MEM201", "MEM901"]


def test_per_file_ignores_reach_the_core(core: Path) -> None:
    write(core, a="waste", b="waste")
    (core / "memlint.toml").write_text('per-file-ignores = {"a.py" = ["first-sin"]}\n', "utf-8")
    assert [finding["path"] for finding in json.loads(memlint_run("check", "--output-format=json").stdout)] == ["b.py"]


def test_the_policy_of_a_file_holds_what_was_configured(core: Path) -> None:
    write(core, a="fine")
    (core / "requirements.txt").write_text("torch>=1.13\n", "utf-8")
    (core / "memlint.toml").write_text('confidence = "low"\nselect = ["MEM2"]\ntimeout-per-file = 3\n', "utf-8")
    (job,) = run.plan([], None, Options("the command line")).jobs
    assert job.policy.codes - ALWAYS_ON == {"MEM201"}
    assert job.policy.confidence.value == "low"
    assert job.policy.target_torch == (1, 13)
    assert job.timeout_seconds == 3


def test_the_output_format_can_be_configured(core: Path) -> None:
    write(core, a="waste")
    (core / "memlint.toml").write_text('output-format = "json"\n', "utf-8")
    assert json.loads(memlint_run("check").stdout)[0]["code"] == "MEM101"
    assert memlint_run("check", "--output-format", "concise").stdout.startswith("a.py:1:1: ")


def test_statistics_take_the_place_of_the_findings(core: Path) -> None:
    write(core, a="waste waste junk")
    result = memlint_run("check", "--statistics")
    assert result.exit_code == 1
    assert result.stdout.splitlines()[:2] == [
        "2  MEM101  first-sin   fixable: 2 safe",
        "1  MEM201  second-sin  fixable: 1 unsafe",
    ]


def test_exit_zero_forgives_findings_but_not_trouble(core: Path) -> None:
    write(core, a="waste")
    assert memlint_run("check", "--exit-zero").exit_code == 0
    write(core, b="crash")
    assert memlint_run("check", "--exit-zero").exit_code == 2


def test_standard_input(core: Path) -> None:
    (core / "memlint.toml").write_text('per-file-ignores = {"tests/**" = ["MEM101"]}\n', "utf-8")
    result = memlint_run("check", "-", "--stdin-filename", "src/a.py", stdin="waste")
    assert result.exit_code == 1
    assert result.stdout.startswith("src/a.py:1:1: MEM101")
    assert memlint_run("check", "-", "--stdin-filename", "tests/a.py", stdin="waste").exit_code == 0
    assert memlint_run("check", "-", stdin="waste").stdout.startswith("-:1:1: MEM101")


def test_an_excluded_name_of_standard_input_counts_when_forced(core: Path) -> None:
    arguments = ("check", "-", "--stdin-filename", "build/a.py")
    assert memlint_run(*arguments, stdin="waste").exit_code == 1
    assert memlint_run(*arguments, "--force-exclude", stdin="waste").exit_code == 0


# --- trouble: exit status 2 ---


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("check", "srcc"), "error: `srcc` does not exist\n"),
        (("check", "-", "a.py"), "error: `-` (standard input) goes with no other path\n"),
        (("check", "--stdin-filename", "a.py"), "error: `--stdin-filename` goes with `-`"),
        (
            ("check", "--select", "MEM105"),
            'error: the command line: "MEM105" in `select` names no rule; did you mean "MEM10',
        ),
        (("check", "--ignore", "MEM001"), 'error: the command line: "MEM001" in `ignore` cannot be turned off'),
        (("rule", "first-sins"), 'error: there is no rule "first-sins"; did you mean "first-sin"?\n'),
    ],
)
def test_what_cannot_be_done_is_said_and_exits_with_2(core: Path, arguments: tuple[str, ...], message: str) -> None:
    result = memlint_run(*arguments, stdin="")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith(message)


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "--selekt", "MEM1"),
        ("check", "--confidence", "hi"),
        ("check", "--timeout-per-file", "0"),
        ("check", "--target-torch", "two"),
        ("rule",),
        ("rule", "MEM101", "--all"),
        ("chek",),
    ],
)
def test_wrong_usage_exits_with_2(core: Path, arguments: tuple[str, ...]) -> None:
    result = memlint_run(*arguments)
    assert result.exit_code == 2
    assert "Error: " in result.stderr


def test_a_wrong_configuration_names_file_and_key(core: Path) -> None:
    (core / "pyproject.toml").write_text("[tool.memlint]\nselct = []\n", "utf-8")
    result = memlint_run("check")
    assert result.exit_code == 2
    assert result.stderr == (
        'error: pyproject.toml [tool.memlint]: there is no option "selct"; did you mean "select"?\n'
    )


def test_a_crashed_rule_is_a_finding_and_exits_with_2(core: Path) -> None:
    write(core, a="crash", b="waste")
    result = memlint_run("check", "--output-format", "concise")
    assert result.exit_code == 2
    assert [line.split()[1] for line in result.stdout.splitlines()[:2]] == ["MEM004", "MEM101"]


def test_a_file_that_cannot_be_opened_exits_with_2_and_the_others_are_checked(core: Path) -> None:
    write(core, a="waste")
    (core / "loop.py").symlink_to(core / "loop.py")
    result = memlint_run("check", "a.py", "loop.py")
    assert result.exit_code == 2
    assert "a.py:1:1: MEM101" in result.stdout
    assert result.stderr.startswith("error: loop.py: cannot be opened: ")


def test_a_file_that_takes_too_long_is_a_finding_and_the_others_are_checked(core: Path) -> None:
    write(core, a="hang", b="waste")
    result = memlint_run("check", "--timeout-per-file", "0.5", "--output-format", "concise")
    assert result.exit_code == 1
    slow, waste, _ = result.stdout.splitlines()
    assert slow.startswith("a.py:1:1: MEM005 [file-timeout] checking this file takes more than 0.5 s of CPU time")
    assert waste.startswith("b.py:1:1: MEM101")


@pytest.mark.parametrize("command_line", [("check",), ("fix", "--apply")])
def test_a_file_on_which_the_parser_crashes_is_a_finding_and_the_others_are_checked(
    core: Path, command_line: tuple[str, ...]
) -> None:
    write(core, a="overflow", b="hopeless")
    result = memlint_run(*command_line, "--output-format", "concise")
    assert result.exit_code == 1
    crashed, other, *_ = result.stdout.splitlines()
    assert crashed.startswith("a.py:1:1: MEM006 [too-deeply-nested] the parser crashed on this file")
    assert "SIGSEGV" in crashed
    assert other.startswith("b.py:1:1: MEM101")
    assert (core / "a.py").read_text() == "overflow"


def test_a_file_that_ends_the_worker_exits_with_2_and_the_others_are_checked(core: Path) -> None:
    write(core, a="die", b="kill", c="raise", d="waste")
    result = memlint_run("check", "--output-format", "concise")
    assert result.exit_code == 2
    assert result.stdout.startswith("d.py:1:1: MEM101")
    died, killed, raised = result.stderr.split("error: ")[1:]
    assert died.startswith("a.py: the check broke off: ")
    assert killed.startswith("b.py: the check broke off: the worker process was ended by SIGKILL")
    assert raised.startswith("c.py: internal error; please report it")
    assert "ZeroDivisionError: the core broke" in raised


# --- fix ---


def test_fix_prints_a_diff_that_git_applies_and_writes_nothing(core: Path) -> None:
    write(core, a="x = waste\ny = junk", b="fine\n")
    result = memlint_run("fix")
    assert result.exit_code == 1
    assert (core / "a.py").read_text() == "x = waste\ny = junk"
    assert "Would fix 1 finding in 1 file (MEM101: 1)." in result.stderr
    assert "a.py:2:5: MEM201" in result.stderr
    (core / ".git").rmdir()
    subprocess.run(["git", "init", "-q"], cwd=core, check=True)
    subprocess.run(["git", "apply"], input=result.stdout_bytes, cwd=core, check=True)
    assert (core / "a.py").read_text() == "x = good\ny = junk"


def test_the_diff_of_a_folder_of_a_repository_applies_in_that_folder(
    core: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (core / ".git").rmdir()
    subprocess.run(["git", "init", "-q"], cwd=core, check=True)
    package = core / "package"
    package.mkdir()
    write(package, a="x = waste\n")
    monkeypatch.chdir(package)
    result = memlint_run("fix", str(package))
    subprocess.run(["git", "apply"], input=result.stdout_bytes, cwd=package, check=True)
    assert (package / "a.py").read_text() == "x = good\n"


def test_fix_applies(core: Path) -> None:
    write(core, a="x = waste\ny = junk\n", b="fine\n")
    result = memlint_run("fix", "--apply", "--output-format", "concise")
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        "a.py:2:5: MEM201 [second-sin] `junk` is too much",
        "Fixed 1 finding in 1 file (MEM101: 1).",
        "1 finding remains (1 fixable with `memlint fix --apply --unsafe-fixes`).",
    ]
    assert (core / "a.py").read_text() == "x = good\ny = junk\n"
    result = memlint_run("fix", "--apply", "--unsafe-fixes")
    assert result.exit_code == 0
    assert result.stdout == "Fixed 1 finding in 1 file (MEM201: 1).\nNo findings remain.\n"
    assert (core / "a.py").read_text() == "x = good\ny = good\n"


def test_fix_with_nothing_to_do(core: Path) -> None:
    write(core, a="fine\n")
    result = memlint_run("fix")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "Nothing to fix.\nNo findings remain.\n"


def test_fix_exits_with_1_when_only_findings_without_a_fix_are_left(core: Path) -> None:
    write(core, a="hopeless")
    assert memlint_run("fix").exit_code == 1
    assert memlint_run("fix", "--apply").exit_code == 1
    assert memlint_run("fix", "--apply", "--exit-zero").exit_code == 0


def test_fix_obeys_the_selection(core: Path) -> None:
    write(core, a="junk")
    assert memlint_run("fix", "--apply", "--unsafe-fixes", "--select", "MEM2", "--exclude", "a.py").exit_code == 0
    assert (core / "a.py").read_text() == "junk"


def test_fix_keeps_mode_and_links(core: Path) -> None:
    write(core, a="waste")
    (core / "a.py").chmod(0o754)
    (core / "link.py").symlink_to("a.py")
    assert memlint_run("fix", "--apply", "link.py").exit_code == 0
    assert (core / "link.py").is_symlink()
    assert (core / "a.py").read_text() == "good"
    assert stat.S_IMODE((core / "a.py").stat().st_mode) == 0o754


def test_check_fix_is_fix_apply(core: Path) -> None:
    write(core, a="waste junk")
    result = memlint_run("check", "--fix")
    assert result.exit_code == 1
    assert "MEM201" in result.stdout
    assert "MEM101 [" not in result.stdout
    assert (core / "a.py").read_text() == "good junk"


def test_a_file_that_cannot_be_written_exits_with_2_and_counts_as_not_fixed(
    core: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    write(core, a="waste")
    monkeypatch.setattr("memlint.source.file.write_atomically", no_space)
    result = memlint_run("fix", "--apply")
    assert result.exit_code == 2
    assert "error: a.py: cannot be written: No space left on device" in result.stderr
    assert "Nothing to fix." in result.stdout


def test_a_file_that_changed_meanwhile_is_left_alone(core: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(core, a="waste")
    original = run.fix_all

    def changed_meanwhile(jobs: tuple[run.Job, ...], means: run.Means) -> Iterator[FixResult]:
        for result in original(jobs, means):
            write(core, a="somebody else's")
            yield result

    monkeypatch.setattr(run, "fix_all", changed_meanwhile)
    result = memlint_run("fix", "--apply")
    assert result.exit_code == 2
    assert "a.py: not fixed: it changed while memlint read it" in result.stderr
    assert (core / "a.py").read_text() == "somebody else's"


def test_fix_of_standard_input_prints_the_diff_or_the_fixed_file(core: Path) -> None:
    arguments = ("fix", "-", "--stdin-filename", "a.py")
    result = memlint_run(*arguments, stdin="x = waste\n")
    assert result.exit_code == 1
    assert result.stdout.splitlines() == ["--- a/a.py", "+++ b/a.py", "@@ -1 +1 @@", "-x = waste", "+x = good"]
    result = memlint_run(*arguments, "--apply", stdin="x = waste\n")
    assert (result.exit_code, result.stdout) == (0, "x = good\n")
    assert result.stderr == "Fixed 1 finding in 1 file (MEM101: 1).\nNo findings remain.\n"


# --- rule and config ---


def test_rule_prints_the_page_by_code_or_name(core: Path) -> None:
    page = f"# first-sin (MEM101)\n\n*graph-retention, on by default, since 0.1*\n\n{PAGE}"
    assert memlint_run("rule", "MEM101").stdout == page
    assert memlint_run("rule", "mem101").stdout == page
    assert memlint_run("rule", "first-sin").stdout == page


def test_rule_prints_all_pages(core: Path) -> None:
    headings = re.findall(r"^# .*", memlint_run("rule", "--all").stdout, re.MULTILINE)
    assert headings == [f"# {rule.name} ({rule.code})" for rule in RULES]


def test_rule_prints_json(core: Path) -> None:
    one = json.loads(memlint_run("rule", "MEM901", "--output-format", "json").stdout)
    assert one == {
        "code": "MEM901",
        "name": "only-a-hint",
        "family": "hints",
        "summary": "A hint.",
        "since": "0.2",
        "on_by_default": False,
        "page": "A hint.",
        "url": None,
    }
    every = json.loads(memlint_run("rule", "--all", "--output-format", "json").stdout)
    assert [entry["code"] for entry in every] == [rule.code for rule in RULES]


def test_config_says_what_applies_to_a_file_and_why(core: Path) -> None:
    (core / "requirements.txt").write_text("torch>=2.1\n", "utf-8")
    (core / "base.toml").write_text('confidence = "high"\n', "utf-8")
    (core / "memlint.toml").write_text(
        'extend = "base.toml"\nignore = ["grad-mode"]\nper-file-ignores = {"tests/**" = ["MEM101"]}\n', "utf-8"
    )
    result = memlint_run("config", "tests/test_a.py", "--timeout-per-file", "3")
    assert result.exit_code == 0
    assert result.stdout == (
        "tests/test_a.py (does not exist)\n"
        "\n"
        "  configured by  memlint.toml, which extends base.toml\n"
        "  project root   .\n"
        "  checked        yes\n"
        "\n"
        "Settings\n"
        "  ignore            grad-mode         memlint.toml\n"
        "  per-file-ignores  tests/**: MEM101  memlint.toml\n"
        "  exclude           the default ones  default\n"
        "  force-exclude     false             default\n"
        "  confidence        high              base.toml\n"
        "  output-format     text              default\n"
        "  target-torch      2.1               requirements.txt: torch>=2.1\n"
        "  baseline          none              default\n"
        "  local-rules       none              default\n"
        "  timeout-per-file  3 s               the command line\n"
        "\n"
        "Rules: 2 on, 3 off\n"
        "  on   MEM001  syntax-error    always on\n"
        "  on   MEM004  internal-error  always on\n"
        '  off  MEM101  first-sin       per-file-ignores of "tests/**" in memlint.toml\n'
        '  off  MEM201  second-sin      ignore "grad-mode" of memlint.toml\n'
        "  off  MEM901  only-a-hint     off by default\n"
    )


@pytest.mark.parametrize(
    ("file", "arguments", "answer"),
    [
        ("a.py", (), "yes"),
        ("build/a.py", (), 'only when it is named itself: excluded by "build" (default)'),
        ("gen/deep/a.py", (), "only when it is named itself: excluded by a .gitignore file"),
        ("build/a.py", ("--force-exclude",), 'no: excluded by "build" (default)'),
        ("b/a.py", ("--extend-exclude", "b"), 'only when it is named itself: excluded by "b" (the command line)'),
    ],
)
def test_config_says_whether_a_file_is_checked(core: Path, file: str, arguments: tuple[str, ...], answer: str) -> None:
    (core / ".gitignore").write_text("gen/\n", "utf-8")
    output = memlint_run("config", file, *arguments).stdout
    assert f"  checked        {answer}\n" in output


# --- the command as users run it ---


def test_version_and_help_import_neither_libcst_nor_rich(tmp_path: Path) -> None:
    program = (
        "import os, sys\n"
        "sys.argv = ['memlint', *sys.argv[1:]]\n"
        "heavy = ('libcst', 'rich', 'torch', 'multiprocessing')\n"
        "os._exit = lambda status: sys.exit(print([name for name in heavy if name in sys.modules]) or status)\n"
        "from memlint.cli.main import main\n"
        "main()\n"
    )
    for argument, expected in (("--version", f"memlint {memlint.__version__}"), ("--help", "Usage: memlint")):
        ran = subprocess.run(
            [sys.executable, "-c", program, argument], capture_output=True, text=True, check=False, timeout=60
        )
        assert ran.returncode == 0
        assert ran.stdout.startswith(expected)
        assert ran.stdout.splitlines()[-1] == "[]"


def test_a_check_that_has_nothing_to_do_imports_no_libcst(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("")
    write(tmp_path, a="import torch\nfrom b import f\n", b="def f():\n    pass\n")
    program = (
        "import os, sys\n"
        "sys.argv = ['memlint', 'check']\n"
        "heavy = ('libcst', 'rich', 'torch', 'multiprocessing', 'memlint.semantics', 'memlint.rules')\n"
        "os._exit = lambda status: sys.exit(print([name for name in heavy if name in sys.modules]) or status)\n"
        "from memlint.cli.main import main\n"
        "main()\n"
    )
    outputs = [
        subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    ]
    assert "libcst" in outputs[0]
    assert outputs[1] == "No findings in 2 files.\n[]\n"


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    writer = subprocess.Popen(
        [sys.executable, "-m", "memlint", "rule", "--all"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert writer.stdout is not None
    assert writer.stderr is not None
    writer.stdout.close()
    assert writer.stderr.read() == b""
    writer.stderr.close()
    writer.wait(timeout=60)


@pytest.mark.skipif(sys.platform == "win32", reason="sends a signal")
def test_ctrl_c_ends_without_a_traceback() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", "from memlint.cli.main import main; print(flush=True); main()", "check", "-"],
        stdin=subprocess.PIPE,  # says nothing, so that the command waits for it
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert b"Traceback" not in stderr


def test_a_syntax_error_is_a_finding_of_the_real_core(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("import torch\nx = (\n", "utf-8")
    ran = subprocess.run(
        [sys.executable, "-m", "memlint", "check", "--output-format", "json", "."],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ran.returncode == 1, ran.stderr
    (finding,) = json.loads(ran.stdout)
    assert (finding["code"], finding["path"]) == ("MEM001", "a.py")


@pytest.mark.skipif(sys.platform != "linux", reason="needs file names that are no text")
def test_a_name_that_the_terminal_cannot_show_is_shown_all_the_same(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.py")).write_text("x = 1  # memlint: ignore[MEM101]\n", "utf-8")
    (tmp_path / "\u6a21.py").write_text("x = (\n", "utf-8")

    def ran(*arguments: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, "-m", "memlint", *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONIOENCODING": "ascii"},
            capture_output=True,
            check=False,
            timeout=60,
        )

    checked = ran("check", "--output-format", "concise")
    assert checked.returncode == 1, checked.stderr
    assert [line.split(b":")[0] for line in checked.stdout.splitlines()[:2]] == [b"caf\\udce9.py", b"\\u6a21.py"]
    assert ran("fix").stdout.startswith(b"--- a/caf\xe9.py\n")


# --- the progress bar ---


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_long_run_shows_its_progress_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("memlint.cli.progress._SHOW_AFTER_SECONDS", 0.0)
    assert list(with_progress(iter("abc"), 3)) == ["a", "b", "c"]
    assert "2/3" in terminal.getvalue()


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()])
def test_a_short_run_or_one_without_a_terminal_shows_none(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    if not stream.isatty():
        monkeypatch.setattr("memlint.cli.progress._SHOW_AFTER_SECONDS", 0.0)
    assert list(with_progress(iter("abc"), 3)) == ["a", "b", "c"]
    assert stream.getvalue() == ""


# --- the cache, and several processes ---


def test_a_second_check_says_the_same(core: Path) -> None:
    write(core, a="waste\n", b="good\n", c="hopeless\n")
    first = memlint_run("check")
    again = memlint_run("check")
    assert (again.stdout, again.exit_code) == (first.stdout, 1)
    write(core, a="good\n")
    assert "a.py" not in memlint_run("check").stdout


def test_files_without_fixes_are_not_fixed_again(core: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(core, a="waste\n", b="hopeless\n")
    memlint_run("check")
    first = memlint_run("fix", "--no-cache")
    fixed: list[str] = []

    def noted(jobs: Sequence[run.Job], *others: Any) -> Iterator[Any]:
        fixed.extend(job.shown for job in jobs)
        return outcomes(jobs, *others)

    outcomes = run._outcomes
    monkeypatch.setattr(run, "_outcomes", noted)
    second = memlint_run("fix")
    assert fixed == ["a.py"]
    assert (second.stdout, second.stderr, second.exit_code) == (first.stdout, first.stderr, first.exit_code)


def test_without_the_cache_nothing_is_left_behind(core: Path) -> None:
    write(core, a="waste\n")
    memlint_run("check", "--no-cache")
    assert sorted(path.name for path in core.iterdir()) == [".git", "a.py"]


def test_clean_removes_the_cache_and_nothing_else(core: Path) -> None:
    write(core, a="waste\n")
    memlint_run("check")
    assert (core / ".memlint_cache").is_dir()
    assert memlint_run("clean").stdout == "Removed .memlint_cache.\n"
    assert memlint_run("clean").stdout == ".memlint_cache: there is no cache.\n"
    (core / ".memlint_cache").mkdir()
    (core / ".memlint_cache" / "CACHEDIR.TAG").write_text("somebody else's")
    memlint_run("clean")
    assert (core / ".memlint_cache").is_dir()


@pytest.mark.parametrize("command", [("check",), ("check", "--output-format=json"), ("fix", "--unsafe-fixes")], ids=str)
def test_several_processes_print_what_one_prints(
    core: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.setattr(run, "_BYTES_FOR_A_PROCESS", 1)
    write(core, **{f"file{number}": "waste\njunk\n" if number % 3 else "hopeless\n" for number in range(60)}, z="die\n")
    one, two, cached = (
        memlint_run(*command, *how) for how in (("--no-cache", "--jobs=1"), ("--jobs=3",), ("--jobs=3",))
    )
    assert (two.stdout, two.stderr, two.exit_code) == (one.stdout, one.stderr, one.exit_code)
    assert (cached.stdout, cached.stderr, cached.exit_code) == (one.stdout, one.stderr, one.exit_code)
    assert "z.py: the check broke off" in one.stderr
