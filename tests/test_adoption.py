"""Baselines, findings on changed lines, suppressions with a reason, watching."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from memlint.adoption.suppressing import with_suppressions
from memlint.cli.main import memlint as command
from memlint.linting.finding import Finding
from memlint.source.file import SourceFile
from memlint.source.lines import Position

HEAD = "import torch\n"
TRAIN = """\

def train(model, loader, criterion):
    total = 0.0
    for x, y in loader:
        loss = criterion(model(x), y)
        loss.backward()
        total += loss
    return total.item()
"""
MORE = TRAIN.replace("def train", "def train_more").replace("total += loss", "total = total + loss")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CI", raising=False)
    (tmp_path / "train.py").write_text(HEAD + TRAIN)
    (tmp_path / "pyproject.toml").write_text('[tool.memlint]\nbaseline = "known.json"\n')
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(command, arguments)


def found(*arguments: str) -> list[tuple[str, int]]:
    output = run("check", "--output-format", "json", *arguments).stdout
    return [(finding["path"], finding["line"]) for finding in json.loads(output[output.index("[") :])]


def known(project: Path) -> list[tuple[str, str, int]]:
    findings = json.loads((project / "known.json").read_text())["findings"]
    return [(entry["path"], entry["line"], entry["count"]) for entry in findings]


# --- baseline ---


def test_a_baseline_hides_what_it_knows_and_nothing_new(project: Path) -> None:
    assert "known.json knows 1 finding." in run("baseline").output
    assert run("check").exit_code == 0
    (project / "train.py").write_text(HEAD + "\n\n\n" + TRAIN + MORE)
    assert found() == [("train.py", 19)]


def test_a_second_line_of_the_same_text_is_new(project: Path) -> None:
    run("baseline")
    (project / "train.py").write_text(HEAD + TRAIN + TRAIN.replace("def train", "def again"))
    assert found() == [("train.py", 16)]


def test_a_baseline_shrinks_by_itself(project: Path) -> None:
    (project / "train.py").write_text(HEAD + TRAIN + MORE)
    run("baseline")
    assert known(project) == [("train.py", "total += loss", 1), ("train.py", "total = total + loss", 1)]
    (project / "train.py").write_text(HEAD + TRAIN)
    assert "note: 1 entry of known.json is gone, and taken out of it" in run("check").output
    assert known(project) == [("train.py", "total += loss", 1)]
    (project / "train.py").write_text(HEAD + TRAIN + MORE)
    assert run("check").exit_code == 1
    assert known(project) == [("train.py", "total += loss", 1)]


@pytest.mark.parametrize("arguments", [["--select", "MEM6"], ["--confidence", "high"], ["other.py"]])
def test_what_was_not_looked_for_stays_in_the_baseline(project: Path, arguments: list[str]) -> None:
    (project / "other.py").write_text(HEAD)
    run("baseline")
    before = (project / "known.json").read_bytes()
    run("check", *arguments)
    assert (project / "known.json").read_bytes() == before


def test_a_file_that_cannot_be_read_keeps_its_entries(project: Path) -> None:
    run("baseline")
    (project / "train.py").write_text("def f(:\n")
    assert found() == [("train.py", 1)]
    assert known(project) == [("train.py", "total += loss", 1)]


def test_entries_of_deleted_files_go(project: Path) -> None:
    run("baseline")
    (project / "train.py").unlink()
    run("check")
    assert known(project) == []


def test_in_ci_the_baseline_is_not_written(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("baseline")
    (project / "train.py").write_text(HEAD)
    monkeypatch.setenv("CI", "true")
    assert "note: 1 entry of known.json is gone; a check outside of CI takes them out" in run("check").output
    assert known(project) == [("train.py", "total += loss", 1)]


def test_a_baseline_of_some_files_keeps_the_others_entries(project: Path) -> None:
    (project / "other.py").write_text(HEAD + MORE)
    run("baseline")
    (project / "train.py").write_text(HEAD)
    run("baseline", "train.py")
    assert known(project) == [("other.py", "total = total + loss", 1)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "known.json: cannot read the baseline: No such file or directory; `memlint baseline` writes one"),
        ("{", "known.json: not a baseline of memlint (JSONDecodeError: "),
        ("[]", "known.json: not a baseline of memlint (TypeError: "),
        ('{"version": 2}', "known.json: a baseline of version 2, which this memlint cannot read"),
    ],
)
def test_an_unusable_baseline_is_trouble(project: Path, content: str | None, message: str) -> None:
    if content is not None:
        (project / "known.json").write_text(content)
    result = run("check")
    assert result.exit_code == 2
    assert message in result.output


def test_a_baseline_is_the_same_from_every_folder(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("baseline")
    (project / "sub").mkdir()
    monkeypatch.chdir(project / "sub")
    assert run("check", "..").exit_code == 0


# --- --since ---


def git(*arguments: str) -> None:
    identity = ("-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *identity, *arguments], check=True, capture_output=True)


@pytest.fixture
def checkout(project: Path) -> Path:
    (project / "pyproject.toml").write_text("")
    git("init", "-b", "main")
    git("add", ".")
    git("commit", "-m", "first")
    return project


def test_since_reports_only_findings_on_changed_lines(checkout: Path) -> None:
    assert found("--since", "HEAD") == []
    (checkout / "train.py").write_text(HEAD + "\n" + TRAIN + MORE)
    assert found("--since", "HEAD") == [("train.py", 17)]


def test_since_counts_files_that_git_does_not_know(checkout: Path) -> None:
    (checkout / "other.py").write_text(HEAD + TRAIN)
    assert found("--since", "HEAD") == [("other.py", 8)]


def test_since_a_branch_leaves_out_what_happened_on_it(checkout: Path) -> None:
    git("switch", "-c", "work")
    (checkout / "work.py").write_text(HEAD + TRAIN)
    git("add", ".")
    git("commit", "-m", "work")
    git("switch", "main")
    (checkout / "train.py").write_text(HEAD)
    git("commit", "-am", "main went on")
    git("switch", "work")
    assert found("--since", "main") == [("work.py", 8)]


def test_a_changed_line_that_looks_like_a_header_is_a_line(checkout: Path) -> None:
    (checkout / "train.py").write_text(HEAD + "'''\n++ b/other.py\n@@ -1 +1,99 @@\n'''\n" + TRAIN)
    assert found("--since", "HEAD") == []


def test_since_finds_renamed_files_and_names_with_blanks(checkout: Path) -> None:
    git("mv", "train.py", 'a "b".py')
    (checkout / 'a "b".py').write_text(HEAD + TRAIN + MORE)
    assert found("--since", "HEAD") == [('a "b".py', 16)]


@pytest.mark.parametrize("revision", ["nowhere", "--all", ""])
def test_an_unknown_revision_is_trouble(checkout: Path, revision: str) -> None:
    result = run("check", f"--since={revision}")
    assert result.exit_code == 2
    assert f'cannot tell what has changed since "{revision}": ' in result.output


# --- --add-noqa ---


def test_add_noqa_writes_the_reason(project: Path) -> None:
    (project / "pyproject.toml").write_text("")
    result = run("check", "--add-noqa", "short runs only")
    assert result.exit_code == 0
    assert "Suppressed 1 finding." in result.output
    assert "        total += loss  # noqa: MEM101 short runs only\n" in (project / "train.py").read_text()
    assert run("check").exit_code == 0


def marked(text: str, start: int, end: int | None = None) -> str:
    finding = Finding("MEM101", "x", "y", "a.py", Position(start, 1), Position(end or start, 2))
    return with_suppressions(SourceFile.decode("a.py", text.encode()), [finding, finding], "why")


def test_codes_are_added_to_a_noqa_that_is_there() -> None:
    assert marked("x = 1  # noqa: E501, F401 long\n", 1) == "x = 1  # noqa: E501, F401, MEM101 long\n"


def test_other_comments_stay() -> None:
    assert marked("x = 1  # one\r\n", 1) == "x = 1  # one  # noqa: MEM101 why\r\n"


@pytest.mark.parametrize("text", ['x = """\n1\n"""\n', "x = \\\n  1 + \\\n  1\n"])
def test_the_comment_goes_to_the_first_line_that_can_hold_it(text: str) -> None:
    assert marked(text, 1, 3) == text[:-1] + "  # noqa: MEM101 why\n"


def test_where_no_line_can_hold_a_comment_nothing_changes() -> None:
    text = "x = \\\n  1\n"
    assert marked(text, 1) == text


def test_form_feeds_and_separators_move_no_comment() -> None:
    text = "y = '\u2028'\n\x0c\nx = 1\n"
    assert marked(text, 3) == "y = '\u2028'\n\x0c\nx = 1  # noqa: MEM101 why\n"


# --- --watch ---


def keep_writing(file: Path, stop: threading.Event) -> None:
    """A watcher does not say when it has begun."""
    while not stop.wait(0.2):
        file.write_text(HEAD)


@pytest.mark.skipif(sys.platform == "win32", reason="ends the process by a signal")
def test_watch_checks_again_when_a_file_changes(project: Path) -> None:
    (project / "pyproject.toml").write_text("")
    arguments = [
        sys.executable,
        "-c",
        "from memlint.cli.main import main; main()",
        "check",
        "--watch",
        "--output-format",
        "concise",
    ]
    process = subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ, "PYTHONUNBUFFERED": "1"}
    )
    assert process.stdout is not None
    stop = threading.Event()
    try:
        lines = iter(process.stdout.readline, b"")
        assert any(b"MEM101" in line for line in lines)
        assert any(b"Watching for changes" in line for line in lines)
        threading.Thread(target=keep_writing, args=(project / "train.py", stop), daemon=True).start()
        assert any(b"No findings in 1 file." in line for line in lines)
    finally:
        stop.set()
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        process.stdout.close()


# --- what the documentation says ---

ROOT = Path(__file__).resolve().parent.parent


def test_the_action_runs_a_command_that_exists(project: Path) -> None:
    script = yaml.safe_load((ROOT / "action.yml").read_text())["runs"]["steps"][0]["run"]
    (project / "bin").mkdir()
    pipx = project / "bin" / "pipx"
    pipx.write_text(f'#!/bin/sh\nshift 4\nexec {sys.executable} -c "from memlint.cli.main import main; main()" "$@"\n')
    pipx.chmod(0o755)
    (project / "pyproject.toml").write_text("")
    environment = {
        **os.environ,
        "PATH": f"{pipx.parent}:{os.environ['PATH']}",
        "GITHUB_ACTION_PATH": str(ROOT),
        "MEMLINT_PATHS": "train.py",
        "MEMLINT_ARGS": "--exit-zero",
        "MEMLINT_SARIF": "out.sarif",
    }
    done = subprocess.run(["bash", "-e", "-c", script], check=False, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads((project / "out.sarif").read_text())["runs"][0]["results"][0]["ruleId"] == "MEM101"
