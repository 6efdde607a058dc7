"""Looks for code on which memlint's work grows faster than the code.

    python benchmarks/fuzz_growth.py [--seed N] [--programs N] [--seconds N]

Programs are made of the statement forms below, one to three of them repeated in one of the frames, or nested in each
other; shapes are whole files (`growth_shapes.md`); projects are a file for each repetition. Each is read at four sizes,
and the work is counted, not timed (`steps.py`). Where the work grows as the code does, doubling the code doubles what
is added to it. Prints what adds more than `TOLERATED` times as much, twice in a row; the exit status is 1 where there
is such a program.
"""

from __future__ import annotations

import argparse
import random
import re
import string
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from steps import EVERY_RULE, steps, steps_of

from memlint.linting.lint import forget_projects

TOLERATED = 2.6
"""Linear is 2, quadratic is 4."""
SIZES = (64, 128, 256)
DEPTHS = (4, 8, 16)
FILES = (10, 20, 40)

HEAD = """import torch
from torch import nn


def helper(model, x):
    return model(x).sum()


"""

# {i}: which repetition; {p}: the one before it.
FORMS = (
    "loss = loss + criterion(model(x), y)",
    "total += model(x).sum()",
    "total = total + helper(model, x)",
    "v{i} = model(v{p})",
    "x = model.layer(x)",
    "a{i}, b{i} = model(x)",
    "out = model(x)\nloss = out.loss + out['aux']",
    "losses.append(loss)",
    "losses[{i}] = loss",
    "kept['k{i}'] = loss",
    "kept = {{'a': loss, 'b': kept}}",
    "pair = (pair, loss)",
    "kept = [loss, kept]",
    "self.a{i} = loss",
    "self.total += loss",
    "self.history.append(loss.detach())",
    "state = model(x, state)",
    "hidden = hidden.detach()",
    "loss.backward()",
    "loss.backward(retain_graph=True)",
    "gradients = torch.autograd.grad(loss, model.parameters())",
    "optimizer.zero_grad()\nloss.backward()\noptimizer.step()",
    "if flags[{i}]:\n    loss = loss + model(x)",
    "if flags[{i}]:\n    loss = model(x)\nelse:\n    loss = other(x)",
    "if flags[{i}]:\n    return loss",
    "for x in loader:\n    total += model(x)",
    "for x in loader:\n    if flags[{i}]:\n        continue\n    losses.append(model(x))",
    "while flags[{i}]:\n    loss = loss + model(x)\n    if loss > 3:\n        break",
    "with torch.no_grad():\n    y = model(x)",
    "with torch.set_grad_enabled(flags[{i}]):\n    loss = loss + model(x)",
    "with open(x) as stream{i}:\n    loss = model(stream{i})",
    "try:\n    loss = model(x)\nexcept RuntimeError as error:\n    torch.cuda.empty_cache()",
    "match x:\n    case [first, second]:\n        loss = model(first)\n    case _:\n        loss = model(x)",
    "loss = model(x) if flags[{i}] else loss",
    "outputs = [model(z) for z in loader]",
    "kept = {{k: v.detach() for k, v in kept.items()}}",
    "f{i} = lambda z: model(z) + loss",
    "def inner{i}(z):\n    return model(z) + loss",
    "def inner{i}(z):\n    nonlocal total\n    total += model(z)",
    "class Inner{i}(nn.Module):\n    def forward(self, z):\n        return self.layer(z) + loss",
    "x{i}: torch.Tensor = model(x)",
    "model.register_forward_hook(lambda m, i, o: losses.append(o))",
    "loss.register_hook(lambda g: g)",
    "print(f'{{loss}} {{model(x)}}')",
    "y = x.to('cuda').clone().detach().cpu()",
    "del loss",
    "loss = model(x)\nassert loss > {i}",
    "torch.save(model.state_dict(), path)",
    "model.eval()",
    "out = step(model, x, loss)",
    "yield loss",
    "global counter{i}\ncounter{i} = loss",
    "import torch as torch{i}",
    "total{i} = 0\nfor x, y in loader:\n    loss = criterion(model(x), y)\n    loss.backward()\n    total{i} += loss",
    "total += criterion(model(x), y)  # noqa: MEM101",
    "# memlint: ignore[MEM101]\nv{i} = {i}",
    "for x in loader:\n    v{i} = model(x)\n    if flags[{i}]:\n        break",
    "outputs{i} = []\nfor x in loader:\n    outputs{i}.append(model(x))\ny{i} = torch.cat(outputs{i}).cpu()",
    "hook{i} = model.layer{i}.register_forward_hook(lambda m, i, o: losses.append(o))",
    "model.load_state_dict(torch.load(path))",
    "v{i} = x.clone().detach()",
    "v{i} = torch.tensor(x)",
    "self.mean = 0.9 * self.mean + 0.1 * x.mean(0)",
    "self.mean += 0.1 * model(x)",
    "if (v{i} := model(x)) is not None:\n    v{i}.backward()",
    "y = helper(model, x)",
    "optimizer{i} = torch.optim.SGD(model.layer{i}.parameters(), 0.1)",
    "from elsewhere import step{i}\nloss = step{i}(model, x)",
    "model.eval()\nfor x in loader:\n    out = model(x)\nmodel.train()",
    "best = copy.deepcopy(model.state_dict())",
    "logits{i} = model(x).logits\nloss = F.cross_entropy(logits{i}[..., :-1, :].contiguous().float(), y)",
)

BLOCKS = (
    "for x{i} in loader:\n",
    "while flags[{i}]:\n",
    "if flags[{i}]:\n",
    "with torch.no_grad():\n",
    "with manager{i}:\n",
    "try:\n",
    "def inner{i}(x{i}):\n",
    "class Inner{i}(nn.Module):\n",
)

EXPRESSIONS = (
    ("model(", "x", ")"),
    ("model(x) + (", "loss", ")"),
    ("(", "loss", ").relu()"),
    ("[", "loss", "]"),
    ("(", "loss", ", x)"),
    ("{'k': ", "loss", "}"),
    ("(lambda z: ", "loss", ")"),
    ("(", "loss", " if x else model(x))"),
    ("(", "loss", ")[0]"),
    ("(", "loss", ").loss"),
    ("[z for z in ", "losses", "]"),
    ("(x and ", "loss", ")"),
    ("torch.stack([", "loss", "])"),
)


def _body(forms: tuple[str, ...], size: int) -> str:
    return "\n".join(form.format(i=i, p=max(0, i - 1)) for i in range(size) for form in forms) + "\n"


def _indent(text: str, depth: int = 1) -> str:
    return textwrap.indent(text, "    " * depth)


_GIVEN = "model, other, criterion, optimizer, loader, flags, path, x, y, v0, state, hidden, manager"
_BEGINNING = "loss = total = 0\nlosses = []\nkept = {}\npair = ()\n"


def in_function(body: str) -> str:
    return f"{HEAD}def train({_GIVEN}):\n{_indent(_BEGINNING + body)}    loss.backward()\n    return loss\n"


def in_loop(body: str) -> str:
    inner = f"for x, y in loader:\n{_indent(body)}    loss.backward()\n"
    return f"{HEAD}def train({_GIVEN}):\n{_indent(_BEGINNING + inner)}    return total\n"


def in_method(body: str) -> str:
    method = f"def training_step(self, {_GIVEN}):\n{_indent(_BEGINNING + body)}    return loss\n"
    return f"{HEAD}class Net(nn.Module):\n{_indent(method)}"


def at_top(body: str) -> str:
    return HEAD + _BEGINNING + body


FRAMES: tuple[Callable[[str], str], ...] = (in_function, in_loop, in_method, at_top)


@dataclass(frozen=True)
class Program:
    """What is repeated or nested, and how it is written at one size."""

    name: str
    sizes: tuple[int, ...]
    write: Callable[[int], str]

    def steps(self, size: int) -> int:
        return steps(self.write(size))


@dataclass(frozen=True)
class Project:
    """Files by their names, for each number of them."""

    name: str
    sizes: tuple[int, ...]
    write: Callable[[int], dict[str, str]]

    def steps(self, size: int) -> int:
        with TemporaryDirectory() as folder:
            root = Path(folder)
            (root / "pyproject.toml").touch()
            files = {root / name: text for name, text in self.write(size).items()}
            for path, text in files.items():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
            policies = {path: EVERY_RULE._replace(project=folder, file=path) for path in files}
            forget_projects()
            return steps_of((str(path), text.encode(), policies[path]) for path, text in files.items())


def repeated(forms: tuple[str, ...], frame: Callable[[str], str], sizes: tuple[int, ...] = SIZES) -> Program:
    return Program(f"{frame.__name__}: {forms}", sizes, lambda size: frame(_body(forms, size)))


def functions(forms: tuple[str, ...], sizes: tuple[int, ...] = SIZES) -> Program:
    """A function for each repetition, which calls the one before it."""

    def write(size: int) -> str:
        call = "loss = loss + step{0}({1})\n"
        bodies = (_BEGINNING + call.format(max(0, i - 1), _GIVEN) + _body(forms, 1) for i in range(size))
        return HEAD + "".join(
            f"def step{i}({_GIVEN}):\n{_indent(body)}    return loss\n\n\n" for i, body in enumerate(bodies)
        )

    return Program(f"functions: {forms}", sizes, write)


def methods(forms: tuple[str, ...], sizes: tuple[int, ...] = SIZES) -> Program:
    """A method of one class for each repetition, which calls the one before it."""

    def write(size: int) -> str:
        call = "loss = loss + self.step{0}({1})\n"
        bodies = (_BEGINNING + call.format(max(0, i - 1), _GIVEN) + _body(forms, 1) for i in range(size))
        parts = (f"def step{i}(self, {_GIVEN}):\n{_indent(body)}    return loss\n" for i, body in enumerate(bodies))
        return f"{HEAD}class Net(nn.Module):\n{_indent(''.join(parts))}"

    return Program(f"methods: {forms}", sizes, write)


def classes(forms: tuple[str, ...], sizes: tuple[int, ...] = SIZES) -> Program:
    """A class of modules for each repetition, all with methods of the same names."""

    def write(size: int) -> str:
        body = f"{_BEGINNING}{_body(forms, 1)}return self.inner.forward(loss)\n"
        method = f"def forward(self, {_GIVEN}):\n{_indent(body)}"
        return HEAD + "".join(f"class Net{i}(nn.Module):\n{_indent(method)}\n\n" for i in range(size))

    return Program(f"classes: {forms}", sizes, write)


# --- projects ---

_EVALUATION = """{head}def evaluate{i}(model, loader):
    model.eval()
    total = 0
    for x in loader:
        total += model(x).sum()
    return total


class Trainer{i}:
    def validate{i}(self, other, model, loader):
        evaluate{i}(model, loader)
        return other.validate{i}(self, model, loader)
"""


def _evaluating(i: int) -> str:
    return _EVALUATION.format(head=HEAD, i=i)


def apart(files: int) -> dict[str, str]:
    """Files that have nothing to do with each other."""
    return {f"file{i}.py": _evaluating(i) for i in range(files)}


def chained(files: int) -> dict[str, str]:
    """Files of which each calls the one before it."""
    call = "from file{0} import evaluate{0}\n{1}\n\ndef run(model, loader):\n    return evaluate{0}(model, loader)\n"
    return {f"file{i}.py": call.format(max(0, i - 1), _evaluating(i)) for i in range(files)}


def in_a_ring(files: int) -> dict[str, str]:
    """Files that import each other."""
    step = "from file{1} import step{1}\n{2}def step{0}(model, x):\n    return step{1}(model, x) + model(x)\n"
    return {f"file{i}.py": step.format(i, (i + 1) % files, HEAD) for i in range(files)}


def of_one_helper(files: int) -> dict[str, str]:
    """Files that all call one function."""
    run = "def run(model, loader):\n    for x in loader:\n        helper(model, x).backward()\n"
    return {f"file{i}.py": f"from file0 import helper\n\n\n{run}" for i in range(1, files)} | {"file0.py": HEAD}


PROJECTS = tuple(Project(write.__name__, FILES, write) for write in (apart, chained, in_a_ring, of_one_helper))


# --- files as people and generators write them ---

# What comes before them.
_SHAPE_HEAD = """import torch
from torch import nn
import torch.nn.functional as F


def differentiate(loss):
    loss.backward()


"""


def shapes(sizes: tuple[int, ...] = SIZES) -> Iterator[Program]:
    """Those of growth_shapes.md."""
    for name, code in _blocks("##", _beside("growth_shapes.md")):
        yield Program(f"shape: {name}", sizes, partial(_shaped, code))


def shapes_of_projects(sizes: tuple[int, ...] = FILES) -> Iterator[Project]:
    """Those of growth_projects.md."""
    for section in _beside("growth_projects.md").split("\n## ")[1:]:
        name, _, files = section.partition("\n")
        yield Project(f"project: {name}", sizes, partial(_shaped_project, list(_blocks("###", files))))


def _beside(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _blocks(heading: str, text: str) -> list[tuple[str, str]]:
    """What the headings say, and the code below each."""
    return re.findall(rf"^{heading} (.+?)\n+```python\n(.*?\n)```$", text, re.MULTILINE | re.DOTALL)


def _shaped(code: str, size: int) -> str:
    head, _, rest = code.partition("«")
    item, _, tail = rest.partition("»")
    return f"{_SHAPE_HEAD}{head}{''.join(_repeated(item, size))}{tail}"


def _repeated(text: str, size: int) -> Iterator[str]:
    fill = string.Template(text).substitute
    return (fill(i=i, p=max(0, i - 1), n=min(size - 1, i + 1), h=i // 2) for i in range(size))


def _shaped_project(files: Iterable[tuple[str, str]], size: int) -> dict[str, str]:
    written: dict[str, str] = {}
    for name, code in files:
        if "$i" in name:
            texts = (_SHAPE_HEAD + text for text in _repeated(code, size))
            written.update(zip(_repeated(name, size), texts, strict=True))
        else:
            written[name] = _shaped(code, size)
    return written


def nested(blocks: tuple[str, ...], form: str) -> Program:
    def write(depth: int) -> str:
        text = ""
        for level in range(depth):
            block = blocks[level % len(blocks)].format(i=level)
            text += _indent(block, level)
        text += _indent(form.format(i=0, p=0) + "\n", depth)
        for level in reversed(range(depth)):
            if blocks[level % len(blocks)].startswith("try"):
                text += _indent("except RuntimeError:\n    loss = model(x)\n", level)
        return in_function(text)

    return Program(f"nested: {blocks} around {form!r}", DEPTHS, write)


def expression(parts: tuple[tuple[str, str, str], ...]) -> Program:
    def write(depth: int) -> str:
        text = parts[0][1]
        for level in range(depth):
            before, _, after = parts[level % len(parts)]
            text = before + text + after
        return in_loop(f"losses.append({text})\ntotal += {text}\n")

    return Program(f"expression: {tuple(before + '...' + after for before, _, after in parts)}", DEPTHS, write)


def programs(random_: random.Random) -> Iterator[Program | Project]:
    """Each form alone in each frame first, then combinations without end."""
    for form in FORMS:
        yield from (repeated((form,), frame) for frame in FRAMES)
        yield from (each((form,)) for each in (functions, methods, classes))
    yield from shapes()
    yield from PROJECTS
    yield from shapes_of_projects()
    for block in BLOCKS:
        yield from (nested((block,), form) for form in FORMS[:6])
    yield from (expression((parts,)) for parts in EXPRESSIONS)
    while True:
        kind = random_.random()
        if kind < 0.6:
            yield repeated(tuple(random_.sample(FORMS, random_.randint(2, 3))), random_.choice(FRAMES))
        elif kind < 0.75:
            each = random_.choice((functions, methods, classes))
            yield each(tuple(random_.sample(FORMS, random_.randint(2, 3))))
        elif kind < 0.9:
            yield nested((random_.choice(BLOCKS), random_.choice(BLOCKS)), random_.choice(FORMS))
        else:
            yield expression(tuple(random_.choices(EXPRESSIONS, k=2)))


# --- growth ---


def growth(program: Program | Project) -> float:
    """What is added when the code is doubled, by what is added when it was doubled before.

    Or by all that the code took before that, if that was more: where a limit was met on the way, growth is slower. Of
    two doublings the one that adds less: from some size on there may be more to do for each line.
    """
    grown = _doubled(program, 1)
    return grown if grown <= TOLERATED else min(grown, _doubled(program, 2))


def _doubled(program: Program | Project, scale: int) -> float:
    one, least, middle, most = (program.steps(size) for size in (1, *(scale * size for size in program.sizes)))
    return (most - middle) / max(1, middle - least, least - one)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--programs", type=int, default=1_000)
    parser.add_argument("--seconds", type=float, default=3_600)
    options = parser.parse_args()
    until = time.monotonic() + options.seconds
    tried = found = 0
    for program in programs(random.Random(options.seed)):
        if tried == options.programs or time.monotonic() > until:
            break
        tried += 1
        grown = growth(program)
        if grown > TOLERATED:
            found += 1
            print(f"{grown:5.2f}  {program.name}", flush=True)
    print(f"{found} of {tried} programs grow faster than their code")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
