"""What a file shows to the others is told alike from LibCST's tree and from Python's."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import memlint
from memlint.project import surface
from memlint.semantics import own_surface
from memlint.semantics.parsing import parse

MANY_SHAPES = '''
"""A module."""
import os, torch.nn as nn, torch.cuda
from . import part
from .. import other as another
from ..pkg.deep import *
from torch import *
from torch import no_grad as off, float32
alias = nn.Module
nothing = None
truth = True
deep = True.real
a = b = nn.Linear
call = nn.Linear(1, 1)
x: int = alias
first = 1; second = nn.ReLU
if os.name:
    import one
    class A(nn.Module, base[int], metaclass=type): pass
elif truth:
    import two
else:
    import three; small = nn.GELU
try:
    import four
    def f(a, /, b=1, *args, c, **kwargs): "docstring"; raise NotImplementedError
except (ImportError, ValueError):
    import five
except OSError:
    five = None
else:
    import six
finally:
    import seven
with open("x") as stream:
    import eight
async def g(a): return a
while True:
    import nine
class B(*bases, (nn).Module, make()):
    kind = nn.ReLU
    if truth:
        def hidden(self): ...
    @staticmethod
    def s(a, b): raise ValueError
    @off()
    @property
    def p(self):
        """Only raises."""
        raise NotImplementedError
    @decorators[0]
    async def q(self, x, *, y):
        x()
        raise NotImplementedError
    def r(self):
        pass
        raise NotImplementedError
class B(nn.Module): ...
if truth: import ten
@lambda f: f
def f(): pass
'''


def test_of_every_shape() -> None:
    assert own_surface.surface_of(parse(MANY_SHAPES)) == surface.surface_of(ast.parse(MANY_SHAPES))


@pytest.mark.parametrize("folder", ["semantics", "linting", "cli"])
def test_of_our_own_files(folder: str) -> None:
    for path in Path(memlint.__file__).with_name(folder).glob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert repr(own_surface.surface_of(parse(text))) == repr(surface.surface_of(ast.parse(text))), path


def test_of_an_async_with() -> None:
    text = "async with a:\n    import b\nwith c:\n    import d\n"
    tree = compile(text, "", "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    assert isinstance(tree, ast.Module)
    assert own_surface.surface_of(parse(text)) == surface.surface_of(tree)
