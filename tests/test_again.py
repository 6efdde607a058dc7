"""A run that finds all as it was plans nothing, and says what a run without the cache says."""

from __future__ import annotations

import ast
import json
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

import memlint.cli.run
from memlint.cache import snapshot
from memlint.cache.store import Store, Unusable
from memlint.cli.main import memlint as command

LEAK = """import torch


def train(model, loader, optimizer, criterion):
    total = 0
    for x, y in loader:
        optimizer.zero_grad()
        loss = criterion(model(x), y)
        loss.backward()
        optimizer.step()
        total += loss
    return total
"""
CLEAN = LEAK.replace("+= loss", "+= loss.item()")

NOTEBOOK = json.dumps(
    {
        "cells": [{"cell_type": "code", "source": LEAK, "metadata": {}, "outputs": [], "execution_count": None}],
        "metadata": {"kernelspec": {"language": "python", "name": "python3"}},
        "nbformat": 4,
        "nbformat_minor": 4,
    }
)
# Longer than any tick of the clock by which a file system counts.
STEP_SECONDS = 0.02


class Place:
    """A repository with a project in it; runs begin in a package of the project."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.planned = 0
        (root / ".git").mkdir()
        self.write("project/pyproject.toml", "")
        self.write("project/package/__init__.py", "")
        self.write("project/package/clean.py", CLEAN)
        self.write("project/package/leak.py", LEAK)
        self.write("project/package/part/deep.py", LEAK)
        self.write("project/package/data", "")
        (root / "project/package/link.ipynb").symlink_to(root / "gone.ipynb")
        monkeypatch.chdir(root / "project" / "package")
        monkeypatch.setenv("XDG_CONFIG_HOME", str(root))
        monkeypatch.setattr(snapshot, "_STEP_NANOSECONDS", STEP_SECONDS * 10**9)
        plan = memlint.cli.run.plan

        def planning(*given: object, **named: object) -> object:
            self.planned += 1
            return plan(*given, **named)  # type: ignore[arg-type]

        monkeypatch.setattr(memlint.cli.run, "plan", planning)
        self.check()  # makes the folder of the cache, and so changes the project's own: no run but the next is stored

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def replace_by_folder(self, name: str) -> None:
        """In place of a file."""
        (self.root / name).unlink()
        self.write(f"{name}/more.py", LEAK)

    def check(self, *options: str) -> str:
        """What a check prints, and how it ends."""
        time.sleep(2 * STEP_SECONDS)
        result = CliRunner().invoke(command, ["check", "--jobs=1", "--output-format=concise", *options])
        return f"{result.output}{result.exit_code}"

    def plans(self, *options: str) -> bool:
        """Whether a check plans anew. What it prints must be what a check without the cache prints."""
        before = self.planned
        printed = self.check(*options)
        planned = self.planned > before
        assert printed == self.check("--no-cache", *options)
        return planned


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    return Place(tmp_path, monkeypatch)


def test_an_unchanged_run_plans_nothing(place: Place) -> None:
    assert place.plans()
    assert not place.plans()
    assert "leak.py:11:9" in place.check()


CHANGES: dict[str, Callable[[Place], object]] = {
    "a file": lambda place: place.write("project/package/clean.py", LEAK),
    "a new file": lambda place: place.write("project/package/part/new.py", LEAK),
    "a new file in a new folder": lambda place: place.write("project/package/other/new.py", LEAK),
    "a file that is gone": lambda place: (place.root / "project/package/leak.py").unlink(),
    "a file that is renamed": lambda place: (place.root / "project/package/leak.py").rename("other.py"),
    "a file elsewhere in the project": lambda place: place.write("project/tools.py", "import package"),
    "what is no file any more": lambda place: place.replace_by_folder("project/package/data"),
    "settings beside": lambda place: place.write("project/package/memlint.toml", 'ignore = ["MEM101"]'),
    "settings below": lambda place: place.write("project/package/part/memlint.toml", 'ignore = ["MEM101"]'),
    "settings of the project": lambda place: place.write("project/pyproject.toml", '[tool.memlint]\nignore = ["MEM1"]'),
    "settings above": lambda place: place.write("memlint.toml", 'exclude = ["leak.py"]'),
    "what git ignores above": lambda place: place.write("project/.gitignore", "leak.py\n"),
    "what git ignores here": lambda place: place.write("project/package/.gitignore", "deep.py\n"),
    "what git ignores in this clone": lambda place: place.write(".git/info/exclude", "leak.py\n"),
    "a repository": lambda place: (place.root / "project/package/.git").mkdir(),
    "the lowest torch": lambda place: place.write("project/requirements.txt", "torch>=1.4\n"),
    "the lowest torch, by a new marker": lambda place: place.write("project/package/setup.py", ""),
}


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_has_changed_is_seen(place: Place, change: str) -> None:
    assert place.plans()
    assert not place.plans()
    CHANGES[change](place)
    assert place.plans()
    place.check()  # a new project gets a cache of its own, and so is changed once more
    assert not place.plans()


def test_settings_that_others_extend_are_looked_at(place: Place) -> None:
    place.write("base.toml", 'ignore = ["MEM101"]')
    place.write("project/memlint.toml", 'extend = "../base.toml"')
    assert place.plans() and not place.plans()
    place.write("base.toml", 'ignore = ["MEM102"]')
    assert place.plans()
    assert "MEM101" in place.check()


def test_a_file_that_a_link_leads_to(place: Place) -> None:
    place.write("elsewhere.py", CLEAN)
    Path("link.py").symlink_to(place.root / "elsewhere.py")
    assert place.plans() and not place.plans()
    place.write("elsewhere.py", LEAK)
    assert place.plans()
    assert "link.py" in place.check()


def test_a_notebook_that_a_link_leads_to_by_now(place: Place) -> None:
    assert place.plans() and not place.plans()
    place.write("gone.ipynb", NOTEBOOK)
    assert place.plans()
    assert "link.ipynb" in place.check()


OTHERWISE = (
    "part",
    "part .",
    "--select=MEM1",
    "--confidence=high",
    "--statistics",
    "--exit-zero",
    "--output-format=text",
)


@pytest.mark.parametrize("options", [one.split() for one in OTHERWISE])
def test_what_is_told_otherwise_is_another_run(place: Place, options: list[str]) -> None:
    assert place.plans()
    assert place.plans(*options)
    assert not place.plans(*options)
    assert not place.plans()


@pytest.mark.parametrize("variable", ["FORCE_COLOR", "GITHUB_ACTIONS"])
def test_where_it_is_read_otherwise_it_is_another_run(
    place: Place, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    assert place.plans("--output-format=text")
    plain = place.check("--output-format=text")
    monkeypatch.setenv(variable, "true")
    assert place.plans("--output-format=text") and not place.plans("--output-format=text")
    assert place.check("--output-format=text") != plain


def test_a_file_is_written_again(place: Place) -> None:
    report = place.root / "report.txt"
    printed = place.check(f"--output-file={report}")
    written = report.read_text()
    report.unlink()
    before = place.planned
    assert place.check(f"--output-file={report}") == printed
    assert "leak.py:11:9" in written and report.read_text() == written
    assert place.planned == before


def test_a_cache_that_cannot_be_written_is_not_spoken_of(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise Unusable("attempt to write a readonly database")

    monkeypatch.setattr(Store, "put_run", refuse)
    assert place.plans()
    assert place.plans()


def test_where_files_are_named_the_run_is_planned(place: Place) -> None:
    assert place.plans("leak.py")
    assert place.plans("leak.py")


def test_a_run_from_another_folder_is_another_run(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    assert place.plans()
    monkeypatch.chdir("part")
    assert place.plans()


def test_what_may_have_been_written_since_the_run_began_is_not_relied_on(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "_STEP_NANOSECONDS", 3_600 * 10**9)
    assert place.plans()
    assert place.plans()


def test_what_is_not_only_a_report_is_planned(place: Place) -> None:
    baseline = place.root / "known.json"
    CliRunner().invoke(command, ["baseline", str(baseline)])
    assert place.plans() and not place.plans()
    before = place.planned
    place.check(f"--baseline={baseline}")
    place.check("--since=HEAD")
    assert place.planned == before + 2


def test_a_baseline_of_the_project_is_planned(place: Place) -> None:
    place.write("project/memlint.toml", 'baseline = "known.json"')
    place.write("project/known.json", "{}")
    before = place.planned
    place.check()
    place.check()
    assert place.planned == before + 2


FILES = ("clean.py", "leak.py", "part/deep.py", "part/more.py", "other/one.py", "../tools.py")
SETTINGS = {
    "memlint.toml": ('ignore = ["MEM101"]', 'select = ["MEM1"]', 'exclude = ["part"]'),
    ".gitignore": ("leak.py\n", "part/\n", "*.py\n!clean.py\n"),
    "requirements.txt": ("torch>=1.4\n", "torch\n"),
    "setup.cfg": ("", "[options]\ninstall_requires = torch>=1.8\n"),
}


@pytest.mark.parametrize("seed", range(3))
def test_whatever_is_edited_a_run_says_what_one_without_the_cache_says(place: Place, seed: int) -> None:
    chosen = random.Random(seed)
    for _ in range(12):
        for _ in range(chosen.randint(0, 2)):
            _edit(place, chosen)
        place.plans()


def _edit(place: Place, chosen: random.Random) -> None:
    if chosen.random() < 0.5:
        name, text = f"project/package/{chosen.choice(FILES)}", chosen.choice((CLEAN, LEAK, "import torch\n"))
    else:
        kind = chosen.choice(list(SETTINGS))
        folder = chosen.choice(("", "project/", "project/package/", "project/package/part/"))
        name, text = folder + kind, chosen.choice(SETTINGS[kind])
    path = place.root / name
    if path.exists() and chosen.random() < 0.4:
        path.unlink()
    elif chosen.random() < 0.1:
        shutil.rmtree(place.root / "project/package/part", ignore_errors=True)
    else:
        place.write(name, text)


@pytest.mark.parametrize("module", ["ignoring", "load", "target", "toml_files"])
def test_settings_are_looked_for_where_it_is_noted(module: str) -> None:
    text = Path(memlint.cli.run.__file__).parents[1].joinpath("config", f"{module}.py").read_text(encoding="utf-8")
    asked = {node.attr for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Attribute)}
    assert not asked & {"exists", "is_file", "is_dir", "isfile", "isdir", "stat", "listdir", "scandir", "iterdir"}
