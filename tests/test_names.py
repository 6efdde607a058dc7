"""Which definition a name in a project denotes."""

from __future__ import annotations

import tempfile
import textwrap
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memlint.project.names import Names

FILES = {
    "train.py": "import torch\n",
    "utils.py": "def helper(): ...\nclass Meter: ...\nalias = helper\n",
    "pkg/__init__.py": "from .engine import run as start\nfrom .compat import no_grad\nfrom .nets import *\n",
    "pkg/engine.py": "from .nets import Net\ndef run(): ...\n",
    "pkg/compat.py": """
        try:
            from torch import inference_mode as no_grad
        except ImportError:
            from torch import no_grad
    """,
    "pkg/nets.py": """
        import torch.nn as nn
        class Base(nn.Module): ...
        class Net(Base):
            def forward(self, x): ...
    """,
    "pkg/sub/__init__.py": "",
    "pkg/sub/deep.py": "from ..nets import Net\nfrom .. import engine\n",
    "tools/plot.py": "def draw(): ...\n",
    "torch/export.py": "import torch\n",
    "src/lib/__init__.py": "VALUE = 1\n",
    "src/lib/core.py": "def work(): ...\n",
}
NAMES = [
    ("train.py", "utils.helper", "@utils.py:helper"),
    ("train.py", "torch.load", "torch.load"),
    ("train.py", "utils.alias", "@utils.py:helper"),
    ("train.py", "utils", "@utils.py:"),
    ("train.py", "pkg.start", "@pkg/engine.py:run"),
    ("train.py", "pkg.Net.forward", "@pkg/nets.py:Net.forward"),
    ("train.py", "pkg.no_grad", "torch.inference_mode"),
    ("train.py", "pkg.engine.Net", "@pkg/nets.py:Net"),
    ("train.py", "tools.plot.draw", "@tools/plot.py:draw"),
    ("train.py", "lib.core.work", "@src/lib/core.py:work"),
    ("pkg/sub/deep.py", "..nets.Net", "@pkg/nets.py:Net"),
    ("pkg/sub/deep.py", "..engine.run", "@pkg/engine.py:run"),
    ("pkg/sub/deep.py", "pkg.nets.Net", "@pkg/nets.py:Net"),
    ("train.py", "torch.no_grad", "torch.no_grad"),
    ("train.py", "json.loads", "json.loads"),
    ("train.py", "utils.missing", "utils.missing"),
    ("train.py", "....too.far", "....too.far"),
]


@pytest.fixture
def names(tmp_path: Path) -> Names:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(textwrap.dedent(text))
    return Names(str(tmp_path))


@pytest.mark.parametrize(("file", "name", "expected"), NAMES)
def test_canonical(names: Names, file: str, name: str, expected: str) -> None:
    assert names.canonical(file, name) == expected


def test_bases_are_followed_to_the_library(names: Names) -> None:
    assert names.bases("@pkg/nets.py:Net") == ("@pkg/nets.py:Base", "torch.nn.Module")


def test_a_method_is_looked_up_through_the_bases(names: Names) -> None:
    assert names.method("@pkg/nets.py:Net", "forward") == "@pkg/nets.py:Net.forward"
    assert names.method("@pkg/nets.py:Base", "forward") is None


MODULES = ("a", "b", "c", "d")
LINES = st.sampled_from(
    [
        *(f"from {module} import *" for module in MODULES),
        *(f"from {module} import {name}" for module in MODULES for name in "xy"),
        *(f"from {module} import x as y" for module in MODULES),
        *(f"import {module}" for module in MODULES),
        "x = y",
        "y = x",
        "y = a.x",
        "class x(y): ...",
        "def y(): ...",
    ]
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(LINES, max_size=4), min_size=4, max_size=4), st.randoms(use_true_random=False))
def test_any_tangle_of_imports_has_one_answer_in_any_order(bodies: list[list[str]], random: object) -> None:
    questions = [(f"{module}.py", f"{other}.{name}") for module in MODULES for other in MODULES for name in "xy"]
    with tempfile.TemporaryDirectory() as folder:
        for module, body in zip(MODULES, bodies, strict=True):
            Path(folder, f"{module}.py").write_text("\n".join(body))
        first = Names(folder)
        forwards = {question: first.canonical(*question) for question in questions}
        second = Names(folder)
        random.shuffle(questions)  # type: ignore[attr-defined]
        assert {question: second.canonical(*question) for question in questions} == forwards
        for answer in forwards.values():
            if answer.startswith("@") and not answer.endswith(":"):
                second.bases(answer)
                second.method(answer, "forward")
