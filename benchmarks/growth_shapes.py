"""Whole files and projects as people and generators write them, in any size: for `fuzz_growth.py`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

HEAD = """import torch
from torch import nn
import torch.nn.functional as F


def differentiate(loss):
    loss.backward()


"""


@dataclass(frozen=True)
class Repeated:
    """A line or more, again and again, between a head and a tail.

    In it, {i} is which repetition, {p} the one before it, {n} the one after, {h} half as far.
    """

    item: str
    head: str = ""
    tail: str = ""
    between: str = ""

    def write(self, size: int) -> str:
        numbers = ({"i": i, "p": max(0, i - 1), "n": min(size - 1, i + 1), "h": i // 2} for i in range(size))
        items = (self.item.format(**each) for each in numbers)
        return HEAD + self.head + self.between.join(items) + self.tail


_FUNCTION = (
    "def run(model, other, loader, optimizer, criterion, flags, kind, x, y):\n    loss = total = 0\n    kept = []\n"
)
_LOOP = _FUNCTION + "    for x, y in loader:\n"
_BACK = "    loss.backward()\n    return loss\n"
_NET = "class Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n"

FILES: dict[str, Repeated] = {
    # branches
    "elif that assigns one name": Repeated(
        "    elif kind == {i}:\n        loss = model(x) * {i}\n",
        _FUNCTION + "    if kind is None:\n        loss = 0\n",
        _BACK,
    ),
    "elif that assigns its own name": Repeated(
        "    elif kind == {i}:\n        v{i} = model(x) * {i}\n        loss = loss + v{i}\n",
        _FUNCTION + "    if kind is None:\n        loss = 0\n",
        _BACK,
    ),
    "elif that returns": Repeated(
        "    elif kind == 'k{i}':\n        return model(x)\n", _FUNCTION + "    if kind is None:\n        loss = 0\n", _BACK
    ),
    "if that returns": Repeated("    if kind == 'k{i}':\n        return model(x)\n", _FUNCTION, _BACK),
    "if that raises": Repeated("    if kind == 'k{i}':\n        raise ValueError(x)\n", _FUNCTION, _BACK),
    "elif that builds a model": Repeated(
        "    elif kind == 'k{i}':\n        net = nn.Linear({i}, 2)\n",
        _FUNCTION + "    if kind is None:\n        net = None\n",
        "    loss = net(x)\n" + _BACK,
    ),
    "else if": Repeated("    if flags[{i}]:\n        a{i} = model(x)\n    else:\n        a{i} = other(x)\n", _FUNCTION, _BACK),
    "case": Repeated(
        "        case 'k{i}':\n            loss = model(x) * {i}\n", _FUNCTION + "    match kind:\n", "    loss.backward()\n"
    ),
    "case that binds": Repeated(
        "        case [{i}, a{i}]:\n            v{i} = model(a{i})\n", _FUNCTION + "    match kind:\n", "    loss.backward()\n"
    ),
    "except": Repeated(
        "    except Error{i}:\n        a{i} = model(x)\n", _FUNCTION + "    try:\n        loss = model(x)\n", _BACK
    ),
    "try": Repeated(
        "    try:\n        a{i} = model(x)\n    except KeyError:\n        a{i} = None\n    finally:\n        b{i} = x\n",
        _FUNCTION,
        _BACK,
    ),
    "conditional expression": Repeated(
        "model(x) if kind == {i} else ", _FUNCTION + "    loss = (", "loss)\n" + _BACK
    ),
    "walrus": Repeated("    if (v{i} := model(x)) is not None:\n        v{i}.backward()\n", _FUNCTION, _BACK),
    "while walrus": Repeated("    while (v{i} := model(x)) is not None:\n        v{i}.backward()\n", _FUNCTION, _BACK),
    "break": Repeated("        v{i} = model(x)\n        if flags[{i}]:\n            break\n", _LOOP, _BACK),
    "continue": Repeated("        v{i} = model(x)\n        if flags[{i}]:\n            continue\n", _LOOP, _BACK),
    "loop with a break": Repeated(
        "    for x in loader:\n        v{i} = model(x)\n        if flags[{i}]:\n            break\n    else:\n        v{i} = 0\n",
        _FUNCTION,
        _BACK,
    ),
    "assert": Repeated("    assert model(x).shape[{i}] == {i}, f'{{x}}'\n", _FUNCTION, _BACK),
    "and": Repeated("model(x) and ", _FUNCTION + "    if (", "x):\n        loss = model(x)\n" + _BACK),
    "comparison": Repeated("model(x) < ", _FUNCTION + "    if (", "x):\n        loss = model(x)\n" + _BACK),
    # statements
    "argument of a parser": Repeated(
        "    parser.add_argument('--a{i}', type=int, default={i}, help='the value')\n",
        "import argparse\n\ndef parse():\n    parser = argparse.ArgumentParser()\n",
        "    return parser.parse_args()\n",
    ),
    "argument of a parser at the top": Repeated(
        "parser.add_argument('--a{i}', type=int, default={i}, help='the value')\n",
        "import argparse\nparser = argparse.ArgumentParser()\n",
        "args = parser.parse_args()\n",
    ),
    "log": Repeated(
        "        self.log('k{i}', loss, prog_bar=True)\n",
        "class Net(nn.Module):\n    def training_step(self, x):\n        loss = self.model(x)\n",
        "        return loss\n",
    ),
    "kept under a key": Repeated("        logs['k{i}'] = model.part{i}(x)\n", _LOOP.replace("kept = []", "logs = {}"), "        sum(logs.values()).backward()\n"),
    "kept under a key, one by one": Repeated(
        "        logs['k{i}'].append(model.part{i}(x))\n", _LOOP.replace("kept = []", "logs = {}"), "        loss.backward()\n"
    ),
    "added under a key": Repeated("        logs['k{i}'] += model.part{i}(x)\n", _LOOP.replace("kept = []", "logs = {}"), "        loss.backward()\n"),
    "list appended": Repeated("        kept{i}.append(model(x))\n", _LOOP, "        loss.backward()\n"),
    "sums apart": Repeated("        total{i} += model(x)\n", _LOOP, "        loss.backward()\n"),
    "backward": Repeated("    l{i} = model(x)\n    l{i}.backward(retain_graph=True)\n", _FUNCTION, _BACK),
    "backward of one graph": Repeated("    loss.backward(retain_graph=True)\n", _FUNCTION + "    loss = model(x)\n", _BACK),
    "recurrent state": Repeated(
        "    state = model(x, state)\n    state.sum().backward()\n", _FUNCTION + "    state = None\n", _BACK
    ),
    "train and evaluate": Repeated(
        "    model.train()\n    for x, y in loader:\n        loss = criterion(model(x), y)\n        loss.backward()\n"
        "    model.eval()\n    for x, y in loader:\n        acc{i} = criterion(model(x), y)\n",
        _FUNCTION,
        _BACK,
    ),
    "model evaluated": Repeated(
        "    m{i} = nn.Linear({i}, 2)\n    m{i}.eval()\n    out{i} = m{i}(x)\n    print(out{i})\n", _FUNCTION, _BACK
    ),
    "model evaluated at the top": Repeated(
        "m{i} = nn.Linear({i}, 2)\nm{i}.eval()\nout{i} = m{i}(x)\nprint(out{i})\n", "x = torch.zeros(2)\n"
    ),
    "model trained at the top": Repeated(
        "m{i} = nn.Linear({i}, 2)\nopt{i} = torch.optim.SGD(m{i}.parameters(), 0.1)\nfor x in loader:\n    opt{i}.zero_grad()\n"
        "    loss = m{i}(x).sum()\n    loss.backward()\n    opt{i}.step()\n    total{i} = loss\n",
        "loader = []\n",
    ),
    "target": Repeated("a{i} = ", _FUNCTION + "    ", "model(x)\n" + _BACK),
    "unpacked target": Repeated("a{i}, ", _FUNCTION + "    ", "*rest = model(x)\n    loss = model(x)\n" + _BACK),
    "del": Repeated("    a{i} = model(x)\n    del a{i}\n", _FUNCTION, _BACK),
    "with item": Repeated("open('f{i}') as s{i}, ", _FUNCTION + "    with ", "torch.no_grad():\n        loss = model(x)\n" + _BACK),
    "global": Repeated("    global g{i}\n    g{i} = model(x)\n", _FUNCTION, _BACK),
    "global set at the top": Repeated("G{i} = {i}\n", "", "\ndef f(x):\n    return G0 + G1\n"),
    "global read": Repeated("G{i} = torch.zeros({i})\n\n\ndef f{i}(x):\n    return x + G{i} + G{p}\n\n\n"),
    "global changed": Repeated("G{i} = 0\n\n\ndef f{i}(model, x):\n    global G{i}\n    G{i} += model(x)\n\n\n"),
    "one global changed": Repeated("def f{i}(model, x):\n    global total\n    total += model(x)\n\n\n", "total = 0\n\n\n"),
    "import": Repeated("import a{i}.b{i} as c{i}\n"),
    "import that may fail": Repeated("try:\n    import a{i}\nexcept ImportError:\n    a{i} = None\n"),
    "imported name": Repeated("a{i}, ", "from elsewhere import (", ")\n"),
    "annotation": Repeated("    a{i}: torch.Tensor = model(x)\n", _FUNCTION, _BACK),
    "comment": Repeated("    # one line\n    loss = model(x)  # and {i}\n", _FUNCTION, _BACK),
    "suppression": Repeated("    loss = model(x)  # noqa: MEM101, MEM102\n", _FUNCTION, _BACK),
    "suppressions in one comment": Repeated("# memlint: ignore[MEM101] ", "", "\nx = 1\n"),
    "codes in one comment": Repeated("MEM10{i}, ", "x = 1  # noqa: ", "MEM101\n"),
    "noqa in one comment": Repeated("# noqa: MEM101 ", "x = 1  ", "\n"),
    # expressions
    "entry of a dict": Repeated("    'k{i}': torch.zeros({i}),\n", "table = {\n", "}\n"),
    "entry of a dict of plain values": Repeated("    'k{i}': ({i}, 'x', [{i}, 1]),\n", "table = {\n", "}\n"),
    "entry of a dict of outputs": Repeated(
        "        'k{i}': model(x),\n", _FUNCTION + "    table = {\n", "    }\n    sum(table.values()).backward()\n"
    ),
    "entry of a list of outputs": Repeated("        model(x),\n", _FUNCTION + "    table = [\n", "    ]\n    sum(table).backward()\n"),
    "argument": Repeated("        model(x),\n", _FUNCTION + "    loss = combine(\n", "    )\n" + _BACK),
    "keyword argument": Repeated("        a{i}=model(x),\n", _FUNCTION + "    loss = combine(\n", "    )\n" + _BACK),
    "parameter": Repeated("a{i}=None, ", "def f(", "x=0):\n    return x\n\n\ndef g(model, x):\n    f(model(x)).backward()\n"),
    "part of an f-string": Repeated("{{model(x)}} {i} ", _FUNCTION + "    print(f'", "')\n" + _BACK),
    "joined strings": Repeated("        'a{i}'\n", _FUNCTION + "    text = (\n", "    )\n" + _BACK),
    "level of a comprehension": Repeated(
        " for a{i} in a{p}", _FUNCTION + "    kept = [model(x) for a0 in loader", "]\n" + _BACK
    ),
    "comprehension": Repeated("    k{i} = [model(z) for z in loader if z > {i}]\n", _FUNCTION, _BACK),
    "nested attribute": Repeated(".a{i}", _FUNCTION + "    loss = model", "(x)\n" + _BACK),
    "method in a chain": Repeated(".view({i}, -1)", _FUNCTION + "    loss = model(x)", "\n" + _BACK),
    "lambda": Repeated("    f{i} = lambda z: model(z) + loss\n    loss = f{p}(x)\n", _FUNCTION, _BACK),
    "subscripts": Repeated("[{i}]", _FUNCTION + "    loss = model(x)", "\n" + _BACK),
    "slice": Repeated("    v{i} = out[:, {i}, ...]\n", _FUNCTION + "    out = model(x)\n", _BACK),
    "shape": Repeated("    n{i} = x.shape[{i}] * x.size({i})\n", _FUNCTION, _BACK),
    "device": Repeated("    x{i} = x{p}.to('cuda').float()\n", _FUNCTION + "    x0 = x\n", _BACK),
    "item": Repeated("    n{i} = model(x).item()\n    kept.append(n{i})\n", _FUNCTION, _BACK),
    "numpy": Repeated("    n{i} = model(x).detach().cpu().numpy()\n    kept.append(n{i})\n", _FUNCTION, _BACK),
    # functions
    "function": Repeated("def f{i}(x):\n    return x + {i}\n\n\n"),
    "function that calls the next": Repeated("def f{i}(model, x):\n    return model(x) + f{n}(model, x)\n\n\n"),
    "function that calls both neighbours": Repeated(
        "def f{i}(model, x):\n    return model(x) + f{n}(model, x) + f{p}(model, x)\n\n\n"
    ),
    "function that calls half": Repeated("def f{i}(model, x):\n    return model(x) + f{h}(model, x)\n\n\n"),
    "function that calls the next, ring": Repeated(
        "def f{i}(model, x):\n    return f{n}(model, x) + f0(model, x)\n\n\n", "", "def f(x):\n    f0(x, x).backward()\n"
    ),
    "function that one calls": Repeated(
        "    loss = loss + f{i}(model, x)\n", "def helper(model, x):\n    return model(x)\n\n\n" + _FUNCTION, _BACK
    ),
    "function called from one": Repeated(
        "def f{i}(model, x):\n    return model(x)\n\n\ndef g{i}(model, x):\n    f{i}(model, x).backward()\n\n\n"
    ),
    "function that all call": Repeated(
        "def f{i}(model, x):\n    helper(model, x).backward()\n\n\n", "def helper(model, x):\n    return model(x)\n\n\n"
    ),
    "function with a callback": Repeated(
        "def f{i}(model, x, done):\n    done(model(x))\n\n\ndef g{i}(model, x):\n    f{i}(model, x, f{p})\n\n\n"
    ),
    "registered function": Repeated(
        "@register_model\ndef net_{i}(pretrained=False, **kwargs):\n    return _create('net_{i}', pretrained, **kwargs)\n\n\n",
        "def _create(name, pretrained, **kwargs):\n    model = nn.Linear(**kwargs)\n    if pretrained:\n        model.load_state_dict(torch.load(name))\n    return model\n\n\n",
    ),
    "decorator": Repeated("@decorate{i}({i})\n", "", "def f(model, x):\n    model(x).backward()\n"),
    "decorated function": Repeated(
        "@decorate{p}\ndef decorate{i}(f):\n    return f\n\n\n", "", "def f(model, x):\n    model(x).backward()\n"
    ),
    "no_grad function": Repeated("@torch.no_grad()\ndef f{i}(model, x):\n    return model(x) + f{p}(model, x)\n\n\n"),
    "nested function": Repeated("    def f{i}(z):\n        return model(z) + loss\n\n    loss = f{i}(x)\n", _FUNCTION, _BACK),
    "overload": Repeated("@overload\ndef f(model, x: A{i}) -> B{i}: ...\n", "from typing import overload\n", "def f(model, x):\n    return model(x)\n"),
    "function of one name": Repeated("def f(model, x):\n    return model(x) + {i}\n\n\n", "", "def g(model, x):\n    f(model, x).backward()\n"),
    "generator": Repeated("def f{i}(model, x):\n    for y in f{p}(model, x):\n        yield model(y)\n\n\n"),
    "coroutine": Repeated("async def f{i}(model, x):\n    y = await f{p}(model, x)\n    return model(y)\n\n\n"),
    "test": Repeated(
        "def test_{i}():\n    model = nn.Linear({i}, 2)\n    out = model(torch.zeros(2, {i}))\n    assert out.shape == (2, 2)\n    out.sum().backward()\n\n\n"
    ),
    "test method": Repeated(
        "    def test_{i}(self):\n        model = self.make({i})\n        out = model(torch.zeros(2, {i}))\n        self.assertEqual(out.shape, (2, 2))\n\n",
        "class TestNet:\n    def make(self, n):\n        return nn.Linear(n, 2)\n\n",
    ),
    "stacked parametrize": Repeated("@pytest.mark.parametrize('a{i}', [1, 2])\n", "import pytest\n", "def test(model, x):\n    model(x).backward()\n"),
    # classes
    "class attribute": Repeated("    a{i} = {i}\n", "class Settings:\n", "\n\ndef f(x):\n    return Settings.a0\n"),
    "annotated attribute": Repeated(
        "    a{i}: int = {i}\n", "from dataclasses import dataclass\n\n\n@dataclass\nclass Settings:\n"
    ),
    "layer": Repeated("        self.layer{i} = nn.Linear({i}, 2)\n", _NET, "\n    def forward(self, x):\n        return self.layer0(x)\n"),
    "layer called": Repeated(
        "        x = self.layer{i}(x)\n",
        "class Net(nn.Module):\n    def __init__(self, layer):\n        super().__init__()\n        self.layer0 = layer\n\n    def forward(self, x):\n",
        "        return x\n",
    ),
    "entry of Sequential": Repeated(
        "            nn.Linear({i}, 2),\n            nn.ReLU(),\n",
        _NET + "        self.layers = nn.Sequential(\n",
        "        )\n\n    def forward(self, x):\n        return self.layers(x)\n",
    ),
    "entry of ModuleList": Repeated(
        "            nn.Linear({i}, 2),\n",
        _NET + "        self.layers = nn.ModuleList([\n",
        "        ])\n\n    def forward(self, x):\n        for layer in self.layers:\n            x = layer(x)\n        return x\n",
    ),
    "entry of Sequential called": Repeated(
        "    nn.Linear({i}, 2),\n", "net = nn.Sequential(\n", ")\nfor x in []:\n    net(x).sum().backward()\n"
    ),
    "buffer": Repeated("        self.register_buffer('b{i}', torch.zeros({i}))\n", _NET, "\n    def forward(self, x):\n        self.b0 = self.b0 + x\n        return x\n"),
    "buffer changed": Repeated("        self.b{i} = 0.9 * self.b{i} + 0.1 * x.mean()\n", "class Net(nn.Module):\n    def forward(self, x):\n", "        return x\n"),
    "hook": Repeated("        self.layer{i}.register_forward_hook(self.hook)\n", _NET, "\n    def hook(self, m, i, o):\n        self.kept.append(o)\n"),
    "hook method": Repeated("    def hook{i}(self, m, i, o):\n        self.kept{i}.append(o)\n\n    def add{i}(self, m):\n        m.register_forward_hook(self.hook{i})\n\n", _NET + "\n"),
    "method": Repeated("    def f{i}(self, x):\n        return x + {i}\n\n", "class Net(nn.Module):\n"),
    "method that calls the next": Repeated("    def f{i}(self, x):\n        return self.f{n}(x) + self.f{p}(x)\n\n", "class Net(nn.Module):\n"),
    "method that sets the same attribute": Repeated("    def f{i}(self, x):\n        self.total = self.total + self.model(x)\n\n", "class Net(nn.Module):\n"),
    "method that appends to one list": Repeated("    def f{i}(self, x):\n        self.kept.append(self.model(x))\n\n", _NET + "        self.kept = []\n\n"),
    "method that keeps its own list": Repeated("    def f{i}(self, x):\n        self.kept{i}.append(self.model(x))\n        return torch.cat(self.kept{p})\n\n", _NET + "        self.kept = []\n\n"),
    "property": Repeated("    @property\n    def p{i}(self):\n        return self.p{p} + {i}\n\n", "class Net(nn.Module):\n", "    def f(self, x):\n        (self.p0 * self.model(x)).backward()\n"),
    "assignment to one attribute": Repeated("        self.a = self.model(x) + {i}\n", "class Net(nn.Module):\n    def forward(self, x):\n", "        return self.a\n"),
    "class": Repeated("class A{i}:\n    def f(self, x):\n        return x\n\n\n"),
    "class of one base": Repeated("class A{i}(Base):\n    def forward(self, x):\n        return super().forward(x) + self.step(x)\n\n\n", "class Base(nn.Module):\n    def step(self, x):\n        return self.layer(x)\n\n    def forward(self, x):\n        return self.step(x)\n\n\n"),
    "class of the one before": Repeated("class A{i}(A{p}):\n    def forward(self, x):\n        return super().forward(x) + self.layer{i}(x)\n\n\n", "class A0(nn.Module):\n    pass\n\n\n"),
    "class derived without methods": Repeated("class A{i}(A{p}):\n    pass\n\n\n", "class A0(nn.Module):\n    def forward(self, x):\n        return self.layer(x)\n\n\n"),
    "base": Repeated("B{i}, ", "".join(f"class B{i}:\n    pass\n\n\n" for i in range(3)) + "class A(", "nn.Module):\n    def forward(self, x):\n        return self.step(x)\n"),
    "class of two before": Repeated("class A{i}(A{p}, A{h}):\n    def f{i}(self, x):\n        return self.f{p}(x)\n\n\n", "class A0(nn.Module):\n    pass\n\n\n"),
    "class with a step": Repeated(
        "class Net{i}(nn.Module):\n    def training_step(self, x):\n        loss = self.model(x)\n        self.losses.append(loss)\n        return loss\n\n\n"
    ),
    "class that has the one before": Repeated(
        "class A{i}(nn.Module):\n    def __init__(self):\n        super().__init__()\n        self.inner = A{p}()\n\n    def forward(self, x):\n        return self.inner(x)\n\n\n",
        "class A0(nn.Module):\n    def forward(self, x):\n        return x\n\n\n",
    ),
    "class with a trainer": Repeated(
        "class Trainer{i}:\n    def train(self, loader):\n        for x in loader:\n            loss = self.step(x)\n            loss.backward()\n            self.total += loss\n\n"
        "    def step(self, x):\n        return self.model(x)\n\n    def evaluate(self, loader):\n        self.model.eval()\n        for x in loader:\n            self.outputs.append(self.model(x))\n\n\n"
    ),
    "nested class": Repeated("    class A{i}(nn.Module):\n        def forward(self, x):\n            return self.layer(x)\n\n", "class Outer:\n"),
    "autograd function": Repeated(
        "class F{i}(torch.autograd.Function):\n    @staticmethod\n    def forward(ctx, x):\n        ctx.x = x\n        return x\n\n    @staticmethod\n    def backward(ctx, g):\n        return g * ctx.x\n\n\n"
        "def f{i}(x):\n    return F{i}.apply(x)\n\n\n"
    ),
    "object made": Repeated("    n{i} = Net()\n    loss = loss + n{i}(x)\n", "class Net(nn.Module):\n    def forward(self, x):\n        return self.layer(x)\n\n\n" + _FUNCTION, _BACK),
    "object's method called": Repeated("    loss = loss + net.step(x)\n", "class Net(nn.Module):\n    def step(self, x):\n        return self.layer(x)\n\n\n" + _FUNCTION + "    net = Net()\n", _BACK),
}  # fmt: skip
