"""How memlint's own time grows with a file's length, and with how its code is nested, LibCST's parse taken off.

    python benchmarks/growth.py

Each shape is written at several sizes; what is printed is the work per unit of size, which stays level where the growth
is linear: the steps that were counted (`steps.py`), and beside them the CPU time, the best of two.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import libcst
from steps import EVERY_RULE, steps

from memlint.linting import lint as core
from memlint.semantics import slices
from memlint.semantics.parsing import parse

ROUNDS = 2
# A file in which nothing is differentiated is not parsed.
HEAD = "import torch\nfrom torch import nn\n\n\ndef step(loss):\n    loss.backward()\n\n\n"
STEP = """    for x, y in loader:
        optimizer.zero_grad()
        out = model(x)
        loss = criterion(out, y)
        loss.backward()
        optimizer.step()
        total += loss
        outputs.append(out)
"""


def functions(size: int) -> str:
    """Training loops, one a function, 12 lines each."""
    head = "def train_{0}(model, loader, optimizer, criterion):\n    total = 0\n    outputs = []\n"
    return HEAD + "".join(f"{head.format(number)}{STEP}    return total, outputs\n" for number in range(size // 12))


def calling_functions(size: int) -> str:
    """Functions of which each calls the one before it, in a loop."""
    first = "def f0(model, x):\n    return model(x).sum()\n"
    body = """def f{0}(model, loader):
    for x in loader:
        loss = f{1}(model, x)
        loss.backward()
    return loss
"""
    return HEAD + first + "".join(body.format(number, number - 1) for number in range(1, size // 5))


def one_function(size: int) -> str:
    """One function whose body is that long."""
    head = "def train(model, loader, optimizer, criterion):\n    total = 0\n    outputs = []\n"
    return HEAD + head + STEP * (size // 8)


def one_loop(size: int) -> str:
    """One training loop whose body is that long."""
    line = "        loss = loss + criterion(model.layer(x), y)\n"
    return (
        HEAD
        + "def train(model, loader, optimizer, criterion):\n    for x, y in loader:\n        loss = 0\n"
        + line * size
        + "        loss.backward()\n"
    )


def names(size: int) -> str:
    """As many variables, each computed from the one before it."""
    lines = (f"    v{number} = model(v{number - 1})\n" for number in range(1, size))
    return HEAD + "def f(model, v0):\n" + "".join(lines) + f"    v{size - 1}.sum().backward()\n"


def methods(size: int) -> str:
    """A class of modules with methods that call each other and keep what they get."""
    body = "    def m{0}(self, x):\n        self.a{0} = self.m{1}(x)\n        return self.a{0}\n"
    lines = (body.format(number, max(0, number - 1)) for number in range(size // 3))
    return HEAD + "class Net(nn.Module):\n" + "".join(lines)


def branches(size: int) -> str:
    """Ifs one after the other, each of which may change the loss."""
    head = "def train(model, loader, flags):\n    for x in loader:\n        loss = model(x)\n"
    body = "        if flags[{0}]:\n            loss = loss + model(x) * {0}\n"
    return HEAD + head + "".join(map(body.format, range(size // 2))) + "        loss.backward()\n"


def elifs(size: int) -> str:
    lines = (f"    elif kind == {number}:\n        loss = model(x) * {number}\n" for number in range(size // 2))
    return HEAD + "def f(model, x, kind):\n    if kind:\n        loss = 0\n" + "".join(lines) + "    loss.backward()\n"


def nested_loops(size: int) -> str:
    """Loops within loops."""
    lines = [f"{'    ' * (depth + 1)}for x{depth} in loader:\n" for depth in range(size)]
    inner = "    " * (size + 1)
    return (
        HEAD + f"def f(model, loader):\n    total = 0\n{''.join(lines)}{inner}loss = model(x0)\n{inner}total += loss\n"
    )


def nested_ifs(size: int) -> str:
    lines = [f"{'    ' * (depth + 1)}if a{depth}:\n" for depth in range(size)]
    inner = "    " * (size + 1)
    return HEAD + f"def f(model, x):\n    loss = 0\n{''.join(lines)}{inner}loss = loss + model(x)\n    return loss\n"


def nested_calls(size: int) -> str:
    return HEAD + "def f(g, x):\n    return " + "g(" * size + "x" + ")" * size + "\n"


def long_sum(size: int) -> str:
    return HEAD + "def f(model, x):\n    loss = " + " + ".join(["model(x)"] * size) + "\n    loss.backward()\n"


def chained_methods(size: int) -> str:
    return HEAD + "def f(model, x):\n    return model(x)" + ".relu()" * size + "\n"


def nested_functions(size: int) -> str:
    lines = [f"{'    ' * depth}def f{depth}(x{depth}):\n" for depth in range(size)]
    return HEAD + "".join(lines) + "    " * size + "return model(x0)\n"


def long_list(size: int) -> str:
    return HEAD + "table = [" + ", ".join(f"torch.zeros({number})" for number in range(size)) + "]\n"


@dataclass(frozen=True)
class Shape:
    write: Callable[[int], str]
    sizes: tuple[int, ...]


_LINES = (100, 1_000, 5_000, 20_000)
_DEPTHS = (5, 10, 20)
_WIDTHS = (50, 100, 200, 400)
SHAPES = (
    *(Shape(write, _LINES) for write in (functions, calling_functions, methods)),
    *(Shape(write, (100, 400, 1_600)) for write in (one_function, one_loop, names, branches, long_list)),
    *(Shape(write, _WIDTHS) for write in (elifs, nested_calls, long_sum, chained_methods)),
    *(Shape(write, _DEPTHS) for write in (nested_loops, nested_ifs, nested_functions)),
)


class Parses:
    """The CPU seconds of memlint's own parses."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def _parse(self, text: str) -> libcst.Module:
        start = time.process_time()
        try:
            return parse(text)
        finally:
            self.seconds += time.process_time() - start

    @contextmanager
    def timed(self) -> Iterator[None]:
        with patch.object(core, "parse", self._parse), patch.object(slices, "parse", self._parse):
            yield


def own_seconds(text: str) -> float:
    """Of a lint, less those of the parses."""
    parses = Parses()
    start = time.process_time()
    with parses.timed():
        core.lint("module.py", text.encode(), EVERY_RULE)
    return time.process_time() - start - parses.seconds


class Grown(NamedTuple):
    """The work on a shape of one size, per unit of the size."""

    size: int
    steps: float
    microseconds: float


def rows(shapes: Iterable[Shape] = SHAPES) -> Iterator[tuple[str, list[Grown]]]:
    """Name of each shape, and the work for each size."""
    for shape in shapes:
        texts = {size: shape.write(size) for size in shape.sizes}
        yield (
            shape.write.__name__,
            [Grown(size, steps(text) / size, _time(text) / size) for size, text in texts.items()],
        )


def _time(text: str) -> float:
    """Microseconds."""
    return 1e6 * min(own_seconds(text) for _ in range(ROUNDS))


# --- projects ---

LINES_OF_A_FILE = 250
FILES_OF_A_PACKAGE = 50

_TRAINING = """def train_{0}(model, loader, optimizer, criterion):
    for x, y in loader:
        optimizer.zero_grad()
        loss = criterion(model(x), y)
        loss.backward()
        optimizer.step()
    return model


"""
_RUN = """
def run(model, loader, optimizer, criterion):
    return {0}(model, loader, optimizer, criterion)
"""


def write_project(root: Path, files: range) -> None:
    """More files of a project of packages of training loops; in one file of a package the loops waste memory."""
    (root / "pyproject.toml").touch()
    for index in files:
        package, number = divmod(index, FILES_OF_A_PACKAGE)
        path = root / f"package_{package}" / f"file_{number}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(_file_of_a_project(package, number), encoding="utf-8")


def _file_of_a_project(package: int, number: int) -> str:
    """Training loops, and a function that calls one of the file before."""
    if number == 0:
        return functions(LINES_OF_A_FILE).replace("train_", f"train_{package}_0_")
    loops = "".join(map(_TRAINING.format, range((LINES_OF_A_FILE - 12) // 9)))
    before = f"train_{package}_{number - 1}_0"
    text = f"from package_{package}.file_{number - 1} import {before}\n{HEAD}{loops}{_RUN.format(before)}"
    return text.replace("def train_", f"def train_{package}_{number}_")


def parse_seconds(texts: Sequence[str]) -> float:
    """Of memlint's parse of them: as in its worker no garbage is collected, and the first time does not count."""
    gc.disable()
    try:
        return min(_parse_seconds(texts) for _ in range(1 + ROUNDS))
    finally:
        gc.enable()


def _parse_seconds(texts: Sequence[str]) -> float:
    start = time.process_time()
    for text in texts:
        parse(text)
    return time.process_time() - start


def main() -> None:
    for name, measured in rows():
        cells = (f"{size:6,}: {steps:6.0f} steps {taken:6.0f} us" for size, steps, taken in measured)
        print(f"{name:20}", "   ".join(cells), flush=True)


if __name__ == "__main__":
    main()
