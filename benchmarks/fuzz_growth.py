"""Looks for code on which memlint's work grows faster than the code.

    python benchmarks/fuzz_growth.py [--seed N] [--programs N] [--seconds N]

Programs are made of the statement forms below, one to three of them repeated in one of the frames, or nested in each
other. Each is read at four sizes, and the work is counted, not timed: calls of functions, and the facts that values and
states are made of. Where the work grows as the code does, doubling the code doubles what is added to it. Prints what
adds more than `TOLERATED` times as much; the exit status is 1 where there is such a program.
"""

from __future__ import annotations

import argparse
import cProfile
import random
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from memlint.linting.finding import Confidence
from memlint.linting.lint import lint
from memlint.linting.policy import Policy
from memlint.linting.registry import all_rules
from memlint.semantics.state import State
from memlint.semantics.values import Value

TOLERATED = 2.6
"""Linear is 2, quadratic is 4."""
SIZES = (64, 128, 256)
DEPTHS = (4, 8, 16)

EVERY_RULE = Policy(frozenset(rule.code for rule in all_rules()), Confidence.LOW)

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


def programs(random_: random.Random) -> Iterator[Program]:
    """Each form alone in each frame first, then combinations without end."""
    for form in FORMS:
        yield from (repeated((form,), frame) for frame in FRAMES)
        yield functions((form,))
    for block in BLOCKS:
        yield from (nested((block,), form) for form in FORMS[:6])
    yield from (expression((parts,)) for parts in EXPRESSIONS)
    while True:
        kind = random_.random()
        if kind < 0.6:
            yield repeated(tuple(random_.sample(FORMS, random_.randint(2, 3))), random_.choice(FRAMES))
        elif kind < 0.75:
            yield functions(tuple(random_.sample(FORMS, random_.randint(2, 3))))
        elif kind < 0.9:
            yield nested((random_.choice(BLOCKS), random_.choice(BLOCKS)), random_.choice(FORMS))
        else:
            yield expression(tuple(random_.choices(EXPRESSIONS, k=2)))


# --- counting ---


# To copy so many facts from set to set takes as long as an average call.
_FACTS_A_CALL = 32


class Work:
    """The facts that values and states are made of."""

    def __init__(self) -> None:
        self.facts = 0

    def counting(self) -> ExitStack:
        stack = ExitStack()
        make, copy = Value.__init__, State.copy

        def making(value: Value, *given: Any, **named: Any) -> None:
            make(value, *given, **named)
            self.facts += len(value.roots) + len(value.conditions) + len(value.proves)

        def copying(state: State) -> State:
            self.facts += len(state.vars) + len(state.made) + len(state.backed)
            return copy(state)

        stack.enter_context(patch.object(Value, "__init__", making))
        stack.enter_context(patch.object(State, "copy", copying))
        return stack


def steps(text: str) -> int:
    """How much memlint does for the file: calls of functions, and facts."""
    work, profile = Work(), cProfile.Profile()
    with work.counting():
        profile.enable()
        lint("module.py", text.encode(), EVERY_RULE)
        profile.disable()
    return work.facts // _FACTS_A_CALL + sum(entry.callcount for entry in profile.getstats())


def growth(program: Program) -> float:
    """What is added when the code is doubled, by what is added when it was doubled before.

    Or by all that the code took before that, if that was more: where a limit was met on the way, growth is slower.
    """
    one, least, middle, most = (steps(program.write(size)) for size in (1, *program.sizes))
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
