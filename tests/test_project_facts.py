"""What a file's findings take from the other files of its project."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path

import pytest

from memlint.linting.finding import Confidence
from memlint.linting.lint import lint
from memlint.linting.policy import Policy
from memlint.linting.registry import all_rules

TRAIN = """
    import torch
    from torch.utils.data import DataLoader
    {imports}

    def run(model, loader: DataLoader):
        model.eval()
        total = 0
        for x, y in loader:
            {body}
        return total
"""


def project(folder: Path, files: Mapping[str, str]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "pyproject.toml").write_text("")
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    return folder


def codes(root: Path, file: str) -> list[str]:
    """The codes of the findings of one file, in the order of their lines."""
    every = frozenset(rule.code for rule in all_rules())
    path = root / file
    policy = Policy(every, Confidence.MEDIUM, None, str(root), path)
    return [finding.code for finding in lint(file, path.read_bytes(), policy).findings]


EVALUATE = """
    def evaluate(model, loader):
        model.eval()
        for x in loader:
            print(model(x).argmax(1))
"""


def test_without_callers_grad_is_on(tmp_path: Path) -> None:
    root = project(tmp_path, {"engine.py": "import torch\n" + textwrap.dedent(EVALUATE)})
    assert codes(root, "engine.py") == ["MEM201"]


CALLERS = {
    "from a module": "from engine import evaluate\nimport torch\nwith torch.no_grad():\n    evaluate(m, dl)\n",
    "by an alias": "import engine as e\nimport torch\n@torch.no_grad()\ndef main():\n    e.evaluate(m, dl)\n",
    "under another name": (
        "from engine import evaluate as ev\nimport torch\n@torch.inference_mode()\ndef main():\n    ev(m, dl)\n"
    ),
    "two calls away": (
        "from engine import evaluate\nimport torch\ndef inner():\n    evaluate(m, dl)\n"
        "def main():\n    with torch.no_grad():\n        inner()\n"
    ),
    "handed over": "from engine import evaluate\nrun_later(evaluate)\n",
    "from a lambda": "from engine import evaluate\njobs = [lambda: evaluate(m, dl)]\n",
    "through an ExitStack": (
        "from contextlib import ExitStack\nfrom engine import evaluate\nimport torch\n"
        "def main(stack: ExitStack):\n    stack.enter_context(torch.no_grad())\n    evaluate(m, dl)\n"
    ),
    "by a context manager of the project": (
        "from engine import evaluate\nfrom guards import evaluating\nwith evaluating(m):\n    evaluate(m, dl)\n"
    ),
}
GUARDS = """
    import contextlib
    import functools
    import torch

    @contextlib.contextmanager
    def evaluating(model):
        model.eval()
        with torch.no_grad():
            yield model

    @contextlib.contextmanager
    def timing(name):
        yield name

    def smart_inference_mode():
        def decorate(fn):
            return (torch.inference_mode if torch.__version__ > "1.9" else torch.no_grad)()(fn)
        return decorate

    def logged(fn):
        @functools.wraps(fn)
        def wrapper(*args):
            print(fn)
            return fn(*args)
        return wrapper
"""


@pytest.mark.parametrize("caller", CALLERS.values(), ids=CALLERS.keys())
def test_a_caller_in_another_file_switches_grad_off(tmp_path: Path, caller: str) -> None:
    files = {"engine.py": "import torch\n" + textwrap.dedent(EVALUATE), "main.py": caller, "guards.py": GUARDS}
    assert codes(project(tmp_path, files), "engine.py") == []


def test_a_caller_with_grad_on_changes_nothing(tmp_path: Path) -> None:
    files = {
        "engine.py": "import torch\n" + textwrap.dedent(EVALUATE),
        "main.py": "from engine import evaluate\ndef main():\n    evaluate(m, dl)\nmain()\n",
        "other.py": "from elsewhere import evaluate\nimport torch\nwith torch.no_grad():\n    evaluate(m, dl)\n",
    }
    assert codes(project(tmp_path, files), "engine.py") == ["MEM201"]


@pytest.mark.parametrize(
    ("forward", "energy", "found"),
    [
        ("raise NotImplementedError", "torch.autograd.grad(x.sum(), x)", []),
        ("raise NotImplementedError", "x.sum()", ["MEM201"]),
        ("return self.net(x)", "torch.autograd.grad(x.sum(), x)", ["MEM201"]),
    ],
    ids=["open, and one of them differentiates", "open", "its own"],
)
def test_a_model_of_a_class_with_an_open_forward(tmp_path: Path, forward: str, energy: str, found: list[str]) -> None:
    models = f"""
        import torch
        from torch import nn

        class Base(nn.Module):
            def forward(self, x):
                {forward}

        class Hamiltonian(Base):
            def forward(self, x):
                return {energy}
    """
    evaluate = "import torch\nfrom models import Base\n" + textwrap.dedent(EVALUATE).replace("(model,", "(model: Base,")
    assert codes(project(tmp_path, {"models.py": models, "engine.py": evaluate}), "engine.py") == found


@pytest.mark.parametrize(("taken", "found"), [("forces", []), ("penalty", ["MEM201"])])
def test_any_model_of_a_project_that_differentiates_energies_for_forces(
    tmp_path: Path, taken: str, found: list[str]
) -> None:
    models = f"""
        from torch.autograd import grad

        def outputs(energy, x):
            return {{"energy": energy, "{taken}": -grad(energy.sum(), x, create_graph=True)[0]}}
    """
    files = {"models.py": models, "engine.py": "import torch\n" + textwrap.dedent(EVALUATE)}
    assert codes(project(tmp_path, files), "engine.py") == found


def test_a_method_called_by_its_name(tmp_path: Path) -> None:
    trainer = """
        import torch

        class Trainer:
            def validate(self):
                self.model.eval()
                for x in self.val_loader:
                    print(self.model(x).argmax(1))
    """
    off = "import torch\ndef main(trainer: 'Trainer'):\n    with torch.no_grad():\n        trainer.validate()\n"
    root = project(tmp_path, {"trainer.py": trainer})
    assert codes(root, "trainer.py") == ["MEM201"]
    other = project(tmp_path / "other", {"trainer.py": trainer, "main.py": off})
    assert codes(other, "trainer.py") == []


DECORATED = """
    import torch
    from pkg.guards import {name}

    {decorator}
    def evaluate(model, loader):
        model.eval()
        for x in loader:
            print(model(x).argmax(1))
"""


@pytest.mark.parametrize(
    ("decorator", "found"),
    [("@smart_inference_mode()", []), ("@logged", ["MEM201"])],
    ids=["switches grad off", "leaves grad mode alone"],
)
def test_decorators_of_the_project(tmp_path: Path, decorator: str, found: list[str]) -> None:
    name = decorator.strip("@()")
    files = {
        "pkg/__init__.py": "",
        "pkg/guards.py": GUARDS,
        "pkg/evaluation.py": DECORATED.format(name=name, decorator=decorator),
    }
    assert codes(project(tmp_path, files), "pkg/evaluation.py") == found


@pytest.mark.parametrize(
    ("manager", "found"),
    [("evaluating(model)", []), ('timing("eval")', ["MEM201"])],
    ids=["switches grad off", "leaves grad mode alone"],
)
def test_context_managers_of_the_project(tmp_path: Path, manager: str, found: list[str]) -> None:
    code = f"""
        import torch
        from guards import {manager.partition("(")[0]}

        def evaluate(model, loader):
            model.eval()
            with {manager}:
                for x in loader:
                    print(model(x).argmax(1))
    """
    assert codes(project(tmp_path, {"guards.py": GUARDS, "run.py": code}), "run.py") == found


HELPERS = """
    import torch
    import torch.nn.functional as F

    def compute_loss(model, x, y):
        return F.cross_entropy(model(x), y)

    def loss_value(model, x, y):
        return F.cross_entropy(model(x.to(y.device)), y).item()

    def train_step(model, optimizer, x, y):
        optimizer.zero_grad()
        loss = compute_loss(model, x, y)
        loss.backward()
        optimizer.step()
        return loss

    def average(values):
        return sum(values) / len(values)

    def differentiate(values):
        torch.stack(values).mean().backward()
"""
LOOP = """
    import torch
    from {module} import {name}

    def train(model, optimizer, loader):
        model.train()
        total = 0
        for x, y in loader:
            {body}
        return float(total)
"""
STEP_AND_ADD = "total += train_step(model, optimizer, x, y)"
COMPUTE_AND_ADD = """loss = compute_loss(model, x, y)
            loss.backward()
            optimizer.step()
            total += loss"""
STEPS = {
    "the helper differentiates and returns the loss": ("train_step", STEP_AND_ADD, True),
    "the helper returns a number": ("loss_value", "total += loss_value(model, x, y)", False),
    "the helper returns a loss": ("compute_loss", COMPUTE_AND_ADD, True),
}


@pytest.mark.parametrize(("name", "body", "found"), STEPS.values(), ids=STEPS.keys())
def test_what_a_helper_returns(tmp_path: Path, name: str, body: str, found: bool) -> None:
    files = {"helpers.py": HELPERS, "train.py": LOOP.format(module="helpers", name=name, body=body)}
    assert codes(project(tmp_path, files), "train.py") == (["MEM101"] if found else [])


LAYOUTS = {
    "flat scripts": {"helpers.py": HELPERS, "train.py": ("helpers", "train.py")},
    "a package, absolute": {
        "pkg/__init__.py": "",
        "pkg/helpers.py": HELPERS,
        "pkg/train.py": ("pkg.helpers", "pkg/train.py"),
    },
    "a package, relative": {
        "pkg/__init__.py": "",
        "pkg/helpers.py": HELPERS,
        "pkg/train.py": (".helpers", "pkg/train.py"),
    },
    "re-exported": {
        "pkg/__init__.py": "from .helpers import train_step\n",
        "pkg/helpers.py": HELPERS,
        "scripts/train.py": ("pkg", "scripts/train.py"),
    },
    "re-exported by a star": {
        "src/pkg/__init__.py": "from .inner import *\n",
        "src/pkg/inner/__init__.py": "from .helpers import *\n",
        "src/pkg/inner/helpers.py": HELPERS,
        "train.py": ("pkg", "train.py"),
    },
    "a folder without __init__": {"tools/helpers.py": HELPERS, "train.py": ("tools.helpers", "train.py")},
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_ways_to_import(tmp_path: Path, layout: dict[str, str | tuple[str, str]]) -> None:
    files, checked = {}, ""
    for name, text in layout.items():
        if isinstance(text, str):
            files[name] = text
        else:
            module, checked = text
            files[name] = LOOP.format(module=module, name="train_step", body=STEP_AND_ADD)
    assert codes(project(tmp_path, files), checked) == ["MEM101"]


def test_base_classes_of_the_project(tmp_path: Path) -> None:
    files = {
        "base.py": "import lightning as L\nclass Base(L.LightningModule):\n    pass\n",
        "plain.py": "class Plain:\n    def run(self):\n        self.validation_step(None)\n",
        "net.py": """
            import torch
            from base import Base

            class Net(Base):
                def validation_step(self, batch):
                    self.net.eval()
                    for x in batch:
                        print(self.net(x).argmax(1))
        """,
        "other.py": """
            import torch
            from plain import Plain

            class Other(Plain):
                def validation_step(self, batch):
                    self.net.eval()
                    for x in batch:
                        print(self.net(x).argmax(1))
        """,
    }
    root = project(tmp_path, files)
    assert codes(root, "net.py") == []
    assert codes(root, "other.py") == ["MEM201"]


def test_one_file_alone_gives_what_the_whole_project_gives(tmp_path: Path) -> None:
    files = {
        "helpers.py": HELPERS,
        "guards.py": GUARDS,
        "engine.py": "import torch\n" + textwrap.dedent(EVALUATE),
        "a.py": LOOP.format(module="helpers", name="train_step", body=STEP_AND_ADD),
        "b.py": "from engine import evaluate\nimport torch\ndef main():\n    evaluate(m, dl)\nmain()\n",
        "c.py": "import torch\nfrom d import g\ndef f(x):\n    return g(x)\n",
        "d.py": "import torch\nfrom c import f\ndef g(x):\n    return f(x)\n",
    }
    root = project(tmp_path, files)

    def check(*paths: str) -> list[str]:
        command = [sys.executable, "-m", "memlint", "check", "--output-format", "concise", *paths]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
        return sorted(line for line in done.stdout.splitlines() if ": MEM" in line)

    whole = check(".")
    assert len(whole) == 3
    assert check(*reversed(files)) == whole
    assert sorted(line for name in files for line in check(name)) == whole


def test_files_that_import_each_other(tmp_path: Path) -> None:
    files = {
        "a.py": "import torch\nfrom b import g\ndef f(x):\n    return g(x)\n",
        "b.py": "import torch\nfrom a import f\ndef g(x):\n    return f(x)\n",
    }
    root = project(tmp_path, files)
    assert codes(root, "a.py") == codes(root, "b.py") == []


def test_another_class_of_the_same_name_is_not_called(tmp_path: Path) -> None:
    trainer = """
        import torch

        class Trainer:
            def validate(self):
                self.model.eval()
                for x in self.val_loader:
                    print(self.model(x).argmax(1))

        def main(trainer):
            {call}
    """
    off = "with torch.no_grad():\n                trainer.validate()"
    files = {"a.py": trainer.format(call="trainer.validate()"), "b.py": trainer.format(call=off)}
    root = project(tmp_path, files)
    assert codes(root, "a.py") == ["MEM201"]
    assert codes(root, "b.py") == []
