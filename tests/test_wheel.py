"""The wheel, in an empty environment with its declared dependencies alone, is the whole of memlint."""

from __future__ import annotations

import json
import subprocess
import sys
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

import memlint
from memlint.linting.registry import all_rules

LEAKY = """\
import torch
from torch import nn


def train(net: nn.Module, loader, optimizer):
    criterion = nn.CrossEntropyLoss()
    total = 0.0
    for images, labels in loader:
        loss = criterion(net(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss
    print(total / len(loader))
"""


@dataclass(frozen=True)
class Installed:
    """A built wheel and the environment that holds it."""

    wheel: Path
    python: Path

    def memlint(self, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        command = [str(self.python.with_name("memlint")), *arguments]
        return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def installed(source_copy: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("wheel")
    # Without a choice, `build` makes the source distribution and the wheel from that: both are tested.
    subprocess.run([sys.executable, "-m", "build", "--outdir", str(folder), str(source_copy)], check=True)
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv" / "bin" / "python"
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", str(wheel)], check=True)
    return Installed(wheel, python)


def test_the_wheel_is_named_and_versioned(installed: Installed) -> None:
    assert installed.wheel.name == f"memlint_torch-{memlint.__version__}-py3-none-any.whl"


def test_the_wheel_holds_every_module_and_rule_of_the_tree(installed: Installed, source_copy: Path) -> None:
    tree = {str(path.relative_to(source_copy)) for path in (source_copy / "memlint").rglob("*.py")}
    tree |= {"memlint/" + str(path.relative_to(source_copy)) for path in (source_copy / "rules").rglob("*.py")}
    assert any(path.startswith("memlint/rules/graph_retention/") for path in tree)
    tree.add("memlint/py.typed")
    tree |= {str(path.relative_to(source_copy)) for path in (source_copy / "memlint").rglob("page.*")}
    assert "memlint/measure/report/page.html.jinja" in tree
    with zipfile.ZipFile(installed.wheel) as wheel:
        assert {name for name in wheel.namelist() if ".dist-info/" not in name} == tree


def test_the_version_is_printed(installed: Installed, tmp_path: Path) -> None:
    printed = installed.memlint("--version", cwd=tmp_path)
    assert printed.returncode == 0, printed.stderr
    assert memlint.__version__ in printed.stdout


def test_all_rules_are_there(installed: Installed, tmp_path: Path) -> None:
    printed = installed.memlint("rule", "--all", cwd=tmp_path)
    assert printed.returncode == 0, printed.stderr
    assert [rule.code for rule in all_rules() if rule.code not in printed.stdout] == []


def test_it_finds_what_there_is_to_find(installed: Installed, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(LEAKY, encoding="utf-8")
    printed = installed.memlint("check", "--output-format", "json", ".", cwd=tmp_path)
    assert printed.returncode == 1, printed.stderr
    found = [(finding["code"], finding["path"], finding["line"]) for finding in json.loads(printed.stdout)]
    assert found == [("MEM101", "train.py", 13)]


def test_it_runs_as_a_module_and_without_torch(installed: Installed, tmp_path: Path) -> None:
    printed = subprocess.run(
        [str(installed.python), "-m", "memlint", "--version"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert printed.returncode == 0, printed.stderr
    without_torch = subprocess.run([str(installed.python), "-c", "import torch"], capture_output=True, check=False)
    assert without_torch.returncode != 0
