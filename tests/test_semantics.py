"""What the semantic model knows of a file: grad mode, autograd state, loops, stores, backward passes.

Every case is a small module with a `print(...)` in it. `print` neither keeps nor differentiates what it is given, so it
changes nothing; it marks the point, and the value, that a test asks about.
"""

from __future__ import annotations

import pickle
import sysconfig
from collections import Counter
from dataclasses import is_dataclass
from pathlib import Path
from textwrap import dedent, indent

import libcst as cst
import pytest

from memlint.linting.finding import Confidence
from memlint.linting.lint import analyse, conclude
from memlint.linting.policy import Policy
from memlint.semantics.events import Call, Loop, Store
from memlint.semantics.module import Module
from memlint.semantics.questions import GradOnEntry, ModuleFacts, ResultNotDifferentiated, answer
from memlint.semantics.scopes import walk
from memlint.semantics.values import Grad, Kind, Mode, Value

IMPORTS = """\
import contextlib
import lightning
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import DataLoader
from tqdm import tqdm

"""


def read(code: str) -> Module:
    text = IMPORTS + dedent(code)
    return Module("module.py", cst.parse_module(text), text)


def marks(module: Module) -> list[Call]:
    """The `print(...)` calls, in the order in which they stand in the file."""
    return [call for call in module.calls if call.names({"print"})]


def marked_value(code: str) -> tuple[Module, Value]:
    module = read(code)
    (mark,) = marks(module)
    return module, mark.positional[0].value


def grad_mode(code: str) -> str:
    """Grad mode at the `print`: "on", "off", "unknown", or the caller's, answered from the file's facts."""
    module = read(code)
    (mark,) = marks(module)
    mode = module.grad_mode(mark)
    if mode is not Mode.ENTRY:
        return str(mode.value)
    return "on" if answer(GradOnEntry(mark.scope.qualname), module.facts) else "not proven on"


def graph(code: str) -> str:
    """Whether the printed value carries an autograd graph: "yes", "no", or "not proven"."""
    module, value = marked_value(code)
    if value.grad is Grad.NO:
        return "no"
    questions = module.questions(value.conditions) if value.grad is Grad.YES else None
    proven = questions is not None and all(answer(question, module.facts) for question in questions)
    return "yes" if proven else "not proven"


def only_loop(code: str) -> Loop:
    (loop,) = read(code).loops
    return loop


def only_store(code: str) -> tuple[Module, Store]:
    module = read(code)
    (store,) = module.stores
    return module, store


def cases(**codes: tuple[str, str]) -> pytest.MarkDecorator:
    """A table: what the case shows -> the expected answer and the code."""
    rows = [pytest.param(code, expected, id=name.replace("_", " ")) for name, (expected, code) in codes.items()]
    return pytest.mark.parametrize(("code", "expected"), rows)


# --- grad mode of a point ---


@cases(
    a_script=("on", "print()"),
    with_no_grad=("off", "with torch.no_grad():\n    print()"),
    with_inference_mode=("off", "with torch.inference_mode():\n    print()"),
    inference_mode_by_a_flag=("unknown", "def f(flag):\n    with torch.inference_mode(flag):\n        print()"),
    behind_the_with=("on", "with torch.no_grad():\n    pass\nprint()"),
    enable_grad_in_no_grad=("on", "with torch.no_grad():\n    with torch.enable_grad():\n        print()"),
    two_in_one_with=("on", "with torch.no_grad(), torch.enable_grad():\n    print()"),
    behind_the_inner_with=("off", "with torch.no_grad():\n    with torch.enable_grad():\n        pass\n    print()"),
    autocast_changes_nothing=("off", "with torch.no_grad(), torch.autocast('cuda'):\n    print()"),
    a_context_of_nobody_known=("unknown", "from project import ctx\nwith ctx():\n    print()"),
    a_context_in_a_variable=("off", "ctx = torch.no_grad()\nwith ctx:\n    print()"),
    one_of_two_contexts=(
        "unknown",
        """
        def f(flag):
            ctx = torch.no_grad() if flag else contextlib.nullcontext()
            with ctx:
                print()
        """,
    ),
    an_exit_stack=(
        "off",
        "with contextlib.ExitStack() as stack:\n    stack.enter_context(torch.no_grad())\n    print()",
    ),
    a_forgotten_parenthesis=("on", "with torch.no_grad:\n    print()"),
    a_bare_no_grad_does_nothing=("on", "torch.no_grad()\nprint()"),
    set_grad_enabled_false=("off", "torch.set_grad_enabled(False)\nprint()"),
    set_grad_enabled_true_again=("on", "torch.set_grad_enabled(False)\ntorch.set_grad_enabled(True)\nprint()"),
    set_grad_enabled_by_a_flag=("unknown", "def f(train):\n    torch.set_grad_enabled(train)\n    print()"),
    set_grad_enabled_as_context=("off", "with torch.set_grad_enabled(False):\n    print()"),
    set_grad_enabled_by_a_flag_as_context=(
        "unknown",
        "def f(train):\n    with torch.set_grad_enabled(train):\n        print()",
    ),
    off_on_one_branch=("unknown", "if input():\n    torch.set_grad_enabled(False)\nprint()"),
    imported_under_another_name=("off", "from torch import no_grad as ng\nwith ng():\n    print()"),
    one_of_two_imports=(
        "off",
        """
        try:
            from torch import inference_mode as quiet
        except ImportError:
            from torch import no_grad as quiet
        with quiet():
            print()
        """,
    ),
)
def test_grad_mode_by_context(code: str, expected: str) -> None:
    assert grad_mode(code) == expected


@cases(
    no_grad=("off", "@torch.no_grad()\ndef f():\n    print()"),
    no_grad_uncalled=("off", "@torch.no_grad\ndef f():\n    print()"),
    inference_mode_switched_off=("unknown", "@torch.inference_mode(False)\ndef f():\n    print()"),
    enable_grad=("on", "@torch.enable_grad()\ndef f():\n    print()"),
    set_grad_enabled=("off", "@torch.set_grad_enabled(False)\ndef f():\n    print()"),
    a_coroutine_runs_after_the_decorator=("unknown", "@torch.no_grad()\nasync def f():\n    print()"),
    a_decorator_that_says_nothing=("unknown", "from project import wrapped\n@wrapped\ndef f():\n    print()"),
    a_decorator_that_says_something_else=("on", "from project import logged\n@logged\ndef f():\n    print()"),
    one_of_the_standard_library=("on", "import functools\n@functools.cache\ndef f():\n    print()"),
    one_of_the_file=("on", "def log(g):\n    return g\n\n@log\ndef f():\n    print()"),
    one_of_the_file_about_grad_mode=(
        "off",
        """
        def quiet(g):
            def inner(*args):
                with torch.no_grad():
                    return g(*args)
            return inner

        @quiet
        def f():
            print()
        """,
    ),
)
def test_grad_mode_by_decorator(code: str, expected: str) -> None:
    assert grad_mode(code) == expected


@cases(
    nobody_calls_it=("on", "def f():\n    print()"),
    all_off=("not proven on", "def f():\n    print()\n\ndef main():\n    with torch.no_grad():\n        f()"),
    one_of_two_off=("not proven on", "def f():\n    print()\n\nf()\nwith torch.no_grad():\n    f()"),
    all_on=("on", "def f():\n    print()\n\nf()\nf()"),
    through_a_caller_s_caller=(
        "not proven on",
        """
        def f():
            print()

        def g():
            f()

        @torch.no_grad()
        def main():
            g()
        """,
    ),
    recursion=("on", "def f(n):\n    print()\n    if n:\n        f(n - 1)"),
    handed_over_as_a_callback=("not proven on", "from project import register\ndef f():\n    print()\n\nregister(f)"),
    kept_in_a_list=("not proven on", "def f():\n    print()\n\ncallbacks = [f]"),
    kept_in_a_table=("not proven on", "def f():\n    print()\n\ncallbacks = {'f': f}"),
    an_attribute_of_an_object=("not proven on", "def f(app):\n    def g():\n        print()\n    app.hook = g"),
    grad_switched_off_for_the_process=("not proven on", "def f():\n    print()\n\ntorch.set_grad_enabled(False)"),
    a_method_that_somebody_calls_off=(
        "not proven on",
        """
        class Trainer:
            def step(self):
                print()

        def main(trainer):
            with torch.no_grad():
                trainer.step()
        """,
    ),
    its_own_method_calls_it_off=(
        "not proven on",
        """
        class Trainer:
            def step(self):
                print()

            @torch.no_grad()
            def run(self):
                self.step()
        """,
    ),
)
def test_grad_mode_by_callers(code: str, expected: str) -> None:
    assert grad_mode(code) == expected


@cases(
    a_module=("on", "class A(nn.Module):\n    def step(self):\n        print()"),
    a_base_of_the_file=("on", "class A:\n    pass\n\nclass B(A):\n    def step(self):\n        print()"),
    an_unresolved_base=("unknown", "from project import A\nclass B(A):\n    def step(self):\n        print()"),
    an_unresolved_base_further_up=(
        "unknown",
        "from project import A\nclass B(A):\n    pass\n\nclass C(B):\n    def step(self):\n        print()",
    ),
    lightning_validation=(
        "off",
        "class A(lightning.LightningModule):\n    def validation_step(self, batch):\n        print()",
    ),
    lightning_end_of_an_epoch=(
        "off",
        "class A(lightning.LightningModule):\n    def on_test_epoch_end(self):\n        print()",
    ),
    lightning_training=(
        "on",
        "class A(lightning.LightningModule):\n    def training_step(self, batch):\n        print()",
    ),
)
def test_grad_mode_by_class(code: str, expected: str) -> None:
    assert grad_mode(code) == expected


# --- who carries a graph ---


def in_function(lines: str) -> str:
    """A function with a model, a batch and whatever else a case mentions."""
    return "def f(net: nn.Module, x: torch.Tensor, y: torch.Tensor, flag, other):\n" + indent(dedent(lines), "    ")


def graphs(**lines: tuple[str, str]) -> pytest.MarkDecorator:
    return cases(**{name: (expected, in_function(code)) for name, (expected, code) in lines.items()})


@graphs(
    a_module=("yes", "print(net(x))"),
    a_module_by_its_methods=("yes", "other.train()\nprint(other(x))"),
    something_unknown=("not proven", "print(other(x))"),
    a_parameter_that_may_need_none=("not proven", "print(x)"),
    a_loss_function=("yes", "print(F.cross_entropy(net(x), y))"),
    a_loss_class=("yes", "criterion = nn.MSELoss()\nprint(criterion(net(x), y))"),
    a_loss_of_a_frozen_value=("no", "print(F.mse_loss(torch.zeros(3), torch.ones(3)))"),
    a_frozen_module=("not proven", "net.requires_grad_(False)\nprint(net(x))"),
    item=("no", "print(net(x).sum().item())"),
    detach=("no", "print(net(x).detach())"),
    detach_and_a_copy=("no", "print(net(x).detach().cpu())"),
    a_copy=("yes", "print(net(x).cpu())"),
    a_clone=("yes", "print(net(x).clone())"),
    data=("no", "out: torch.Tensor = net(x)\nprint(out.data)"),
    tolist=("no", "print(net(x).tolist())"),
    numpy=("no", "print(net(x).detach().cpu().numpy())"),
    float_=("no", "print(float(net(x).sum()))"),
    argmax=("no", "print(net(x).argmax(1))"),
    torch_argmax=("no", "print(torch.argmax(net(x), 1))"),
    comparison=("no", "print(net(x).sum() == y)"),
    max_of_all=("yes", "print(net(x).max())"),
    values_of_a_maximum=("yes", "values, places = net(x).max(1)\nprint(values)"),
    places_of_a_maximum=("no", "values, places = net(x).max(1)\nprint(places)"),
    long=("no", "print(net(x).long())"),
    a_sum=("yes", "print(net(x).sum() * 0.5 + 1)"),
    a_sum_with_a_number_first=("yes", "print(1 - net(x).mean())"),
    a_shape=("no", "print(net(x).shape)"),
    a_factory=("no", "print(torch.randn(3))"),
    a_factory_that_requires_grad=("yes", "print(torch.randn(3, requires_grad=True) * 2)"),
    a_parameter=("yes", "print(nn.Parameter(torch.zeros(3)).sum())"),
    a_tensor_made_to_require_grad=("yes", "x.requires_grad_()\nz = x.requires_grad_()\nprint(z * 2)"),
    generate=("no", "print(net.generate(x))"),
    in_no_grad=("no", "with torch.no_grad():\n    out = net(x)\nprint(out)"),
    computed_in_no_grad_from_a_graph=("no", "out = net(x)\nwith torch.no_grad():\n    print(out.sum())"),
    only_read_in_no_grad=("yes", "out = net(x)\nwith torch.no_grad():\n    print(out)"),
    in_a_context_that_says_nothing=("not proven", "with context:\n    out = net(x)\nprint(out)"),
    in_a_context_that_says_something_else=("yes", "with timer.measured():\n    out = net(x)\nprint(out)"),
    proven_by_a_backward=("yes", "loss = other(x)\nloss.backward()\nprint(loss)"),
    proven_through_an_accelerator=("yes", "loss = other(x)\nflag.backward(loss)\nprint(loss)"),
    the_loss_of_a_model_output=("yes", "print(net(x).loss)"),
    a_comprehension_of_losses=("yes", "print([net(item).sum() for item in x][0])"),
    a_stack_of_losses=("yes", "losses = []\nlosses.append(net(x).sum())\nprint(torch.stack(losses))"),
    two_outputs_in_one=("yes", "print(torch.cat((net(x), y)))"),
    two_detached_outputs_in_one=("no", "print(torch.cat([net(x).detach(), torch.zeros(2)]))"),
    an_item_of_a_dict=("yes", "out = {'loss': net(x).sum()}\nprint(out['loss'])"),
    a_key_that_was_assigned=("yes", "out = {}\nout['loss'] = net(x).sum()\nprint(out['loss'])"),
)
def test_graph_of_an_expression(code: str, expected: str) -> None:
    assert graph(code) == expected


@graphs(
    on_both=("yes", "if flag:\n    out = net(x)\nelse:\n    out = net(y)\nprint(out)"),
    on_one=("not proven", "if flag:\n    out = net(x)\nelse:\n    out = 0.0\nprint(out)"),
    detached_on_one=("not proven", "out = net(x)\nif flag:\n    out = out.detach()\nprint(out)"),
    left_on_the_other=("no", "out = net(x).detach()\nif flag:\n    out = net(x)\n    return out\nprint(out)"),
    a_literal_condition=("no", "out = net(x)\nif True:\n    out = 0.0\nprint(out)"),
    raised_on_the_other=("yes", "if flag:\n    out = net(x)\nelse:\n    raise ValueError\nprint(out)"),
    a_conditional_expression=("not proven", "print(net(x) if flag else 0.0)"),
    a_handler=("not proven", "try:\n    out = net(x)\nexcept RuntimeError:\n    out = None\nprint(out)"),
    a_handler_that_leaves=("yes", "try:\n    out = net(x)\nexcept RuntimeError:\n    return\nprint(out)"),
    a_match=("not proven", "out = 0.0\nmatch flag:\n    case 1:\n        out = net(x)\nprint(out)"),
    a_loop_that_may_not_run=("not proven", "out = 0.0\nfor item in x:\n    out = net(item)\nprint(out)"),
    carried_into_the_next_iteration=("not proven", "h = 0.0\nfor item in x:\n    print(h)\n    h = net(item)"),
    carried_and_always_there=("yes", "h = net(x)\nfor item in x:\n    print(h)\n    h = net(item)"),
    detached_before_it_is_carried=("no", "h = x.detach()\nfor item in x:\n    print(h)\n    h = net(item).detach()"),
    carried_past_a_continue=(
        "not proven",
        """
        h = x.detach()
        for item in x:
            print(h)
            h = net(item)
            if flag:
                continue
            h = h.detach()
        """,
    ),
)
def test_graph_over_branches(code: str, expected: str) -> None:
    assert graph(code) == expected


@cases(
    a_function_of_the_file=(
        "yes",
        """
        net = nn.Linear(2, 2)

        def loss_of(x):
            return net(x).sum()

        print(loss_of(torch.zeros(2)))
        """,
    ),
    called_in_no_grad=(
        "no",
        """
        def loss_of(net: nn.Module, x):
            return net(x).sum()

        def main(net: nn.Module, x):
            with torch.no_grad():
                print(loss_of(net, x))
        """,
    ),
    one_that_detaches=("no", "def f(net: nn.Module, x):\n    return net(x).detach()\n\nprint(f(nn.Linear(2, 2), 1))"),
    one_that_returns_its_parameter=(
        "yes",
        "def same(x):\n    return x\n\ndef f(net: nn.Module, x):\n    print(same(net(x)))",
    ),
    one_that_returns_what_it_is_given_detached=(
        "no",
        "def same(x):\n    return x\n\ndef f(net: nn.Module, x):\n    print(same(net(x).detach()))",
    ),
    one_that_scales_its_parameter=(
        "yes",
        "def half(x):\n    return x * 0.5\n\ndef f(net: nn.Module, x):\n    print(half(net(x).sum()))",
    ),
    one_of_a_pair=(
        "yes",
        (
            "def f(net: nn.Module, x):\n    out = net(x)\n    return out.sum(), out.detach()\n\n"
            "def g(net: nn.Module, x):\n    loss, out = f(net, x)\n    print(loss)"
        ),
    ),
    the_other_of_a_pair=(
        "no",
        (
            "def f(net: nn.Module, x):\n    out = net(x)\n    return out.sum(), out.detach()\n\n"
            "def g(net: nn.Module, x):\n    loss, out = f(net, x)\n    print(out)"
        ),
    ),
    recursion=("not proven", "def f(x, n):\n    return f(x, n - 1)\n\nprint(f(1, 2))"),
    a_generator=("not proven", "def f(net: nn.Module, x):\n    yield net(x)\n\nprint(f(nn.Linear(2, 2), 1))"),
    a_module_of_the_file=(
        "yes",
        """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.fc = nn.Linear(2, 2)

            def forward(self, x):
                return self.fc(x)

        print(Net()(torch.zeros(2)))
        """,
    ),
    a_module_of_the_file_that_detaches=(
        "no",
        """
        class Net(nn.Module):
            def forward(self, x):
                return x.detach()

        print(Net()(torch.zeros(2)))
        """,
    ),
    a_method=(
        "yes",
        """
        class Trainer:
            def __init__(self):
                self.net = nn.Linear(2, 2)

            def loss(self, x):
                return self.net(x).sum()

            def run(self, x):
                print(self.loss(x))
        """,
    ),
    an_attribute_from_another_method=(
        "yes",
        """
        class Trainer:
            def build(self):
                self.net = nn.Linear(2, 2)

            def run(self, x):
                print(self.net(x))
        """,
    ),
    a_buffer=(
        "no",
        """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.register_buffer("mean", torch.zeros(2))

            def forward(self, x):
                print(self.mean * 2)
        """,
    ),
    an_attribute_that_holds_a_loss_in_some_method=(
        "not proven",
        """
        class Trainer:
            def reset(self):
                self.loss = 0.0

            def step(self, net: nn.Module, x):
                self.loss = net(x).sum()

            def show(self):
                print(self.loss)
        """,
    ),
    a_frozen_attribute=(
        "not proven",
        """
        class Trainer:
            def __init__(self):
                self.net = nn.Linear(2, 2)
                for p in self.net.parameters():
                    p.requires_grad = False

            def run(self, x):
                print(self.net(x))
        """,
    ),
    a_closure_that_is_called_here=(
        "yes",
        """
        def outer(net: nn.Module, x):
            def inner():
                print(net(x))
            inner()
        """,
    ),
    a_closure_that_somebody_else_calls=(
        "not proven",
        """
        def outer(net: nn.Module, x):
            def inner():
                print(net(x))
            return inner
        """,
    ),
    a_variable_of_the_script=("yes", "net = nn.Linear(2, 2)\n\ndef f(x):\n    print(net(x))"),
    what_a_call_with_grad_off_returned_before_one_that_is_differentiated=(
        "not proven",
        """
        class Agent(nn.Module):
            def __init__(self):
                super().__init__()
                self.actor, self.critic = nn.Linear(4, 2), nn.Linear(4, 1)

            def evaluate(self, x, action):
                dist = Categorical(logits=self.actor(x))
                return dist.log_prob(action), self.critic(x)

        def train(agent: Agent, xs, action):
            for x in xs:
                with torch.no_grad():
                    old, _ = agent.evaluate(x, action)
                print(old)
                new, value = agent.evaluate(x, action)
                (value.mean() - new.mean()).backward()
        """,
    ),
    what_a_call_with_grad_off_computed_by_unknown_code=(
        "not proven",
        """
        def draw(policy: nn.Module, x):
            return lookup(policy(x)).draw()

        def rollout(policy: nn.Module, x):
            with torch.no_grad():
                action = draw(policy, x)
            print(action)
            draw(policy, x).backward()
        """,
    ),
)
def test_graph_across_functions(code: str, expected: str) -> None:
    assert graph(code) == expected


@pytest.mark.parametrize(
    ("end", "kind"),
    [("", Kind.UNKNOWN), ("    return None", Kind.UNKNOWN), ("    raise ValueError", Kind.TENSOR)],
    ids=["the end", "None", "an error"],
)
def test_only_what_is_returned_on_every_path_is_proven_a_tensor(end: str, kind: Kind) -> None:
    function = f"def f(net: nn.Module, x):\n    if x:\n        return F.mse_loss(net(x), x)\n{end}\n\n"
    _, value = marked_value(function + "def g(net: nn.Module, x):\n    print(f(net, x))")
    assert value.kind is kind


# --- loops ---


def loop_kinds(loop: Loop) -> set[str]:
    kinds = {"batches": loop.is_batch_loop, "training": loop.is_training_loop, "layers": loop.runs_layers}
    return {name for name, holds in kinds.items() if holds}


LOADER = "loader = DataLoader([])\n"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        pytest.param(code, set(expected.split()), id=name)
        for name, expected, code in (
            ("over a loader", "batches", LOADER + "for batch in loader:\n    pass"),
            ("enumerated", "batches", LOADER + "for i, batch in enumerate(loader):\n    pass"),
            ("with a progress bar", "batches", LOADER + "for batch in tqdm(loader):\n    pass"),
            ("both", "batches", LOADER + "for i, batch in enumerate(tqdm(loader, desc='x')):\n    pass"),
            ("two loaders at once", "batches", LOADER + "for a, b in zip(loader, DataLoader([])):\n    pass"),
            ("a range over its length", "", LOADER + "for i in range(len(loader)):\n    pass"),
            (
                "a while that draws",
                "batches",
                LOADER + "batches = iter(loader)\nwhile True:\n    batch = next(batches)",
            ),
            (
                "anything fed to a model",
                "batches",
                "def f(net: nn.Module, data):\n    for x, y in data:\n        net(x)",
            ),
            (
                "fed to a model by a function",
                "batches",
                """
                def step(net: nn.Module, x):
                    return net(x)

                def f(net: nn.Module, data):
                    for x in data:
                        step(net, x)
                """,
            ),
            (
                "computed before it is fed",
                "batches",
                "def f(net: nn.Module, data):\n    for x in data:\n        z = x * 2\n        net(z)",
            ),
            ("numbers", "", "def f(net: nn.Module, x):\n    for i in range(3):\n        x = net(x)"),
            (
                "layers",
                "layers",
                (
                    "class A(nn.Module):\n    def forward(self, x):\n        for layer in nn.ModuleList():"
                    "\n            x = layer(x)\n        return x"
                ),
            ),
            (
                "training",
                "batches training",
                "def f(net: nn.Module, data):\n    for x in data:\n        net(x).sum().backward()",
            ),
            (
                "training without data",
                "batches training",
                "def f(net: nn.Module, x):\n    for i in range(9):\n        net(x).sum().backward()",
            ),
            (
                "training by a function of the file",
                "batches training",
                """
                def step(net: nn.Module, x):
                    net(x).sum().backward()

                def f(net: nn.Module, data):
                    for x in data:
                        step(net, x)
                """,
            ),
            (
                "an optimizer's step",
                "training",
                "def f(optimizer: torch.optim.Optimizer, data):\n    for x in data:\n        optimizer.step()",
            ),
            ("a list comprehension", "batches", "def f(net: nn.Module, data):\n    return [net(x) for x in data]"),
            ("a generator", "batches", "def f(net: nn.Module, data):\n    return sum(net(x) for x in data)"),
        )
    ],
)
def test_what_a_loop_goes_over(code: str, expected: set[str]) -> None:
    assert loop_kinds(only_loop(code)) == expected


def test_an_epoch_loop_trains_when_the_loop_inside_it_does() -> None:
    module = read(
        """
        def f(net: nn.Module, data):
            for epoch in range(9):
                for x in data:
                    net(x).sum().backward()
        """
    )
    epochs, batches = module.loops
    assert batches.outer() == [batches, epochs]
    assert epochs.is_training_loop
    assert batches.is_training_loop


def evidence(code: str) -> str | None:
    """What says that the last loop of the code evaluates."""
    module = read(code)
    loop = module.loops[-1]
    return module.evaluation_evidence(loop.scope, loop)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        pytest.param(
            "def f(net: nn.Module, data):\n    net.eval()\n    for x in data:\n        net(x)",
            "`net.eval()` was called",
            id="eval before it",
        ),
        pytest.param(
            "def f(net: nn.Module, data):\n    net.train(False)\n    for x in data:\n        net(x)",
            "`net.eval()` was called",
            id="train switched off",
        ),
        pytest.param(
            "def f(net: nn.Module, data):\n    net.eval()\n    net.train()\n    for x in data:\n        net(x)",
            None,
            id="train after eval",
        ),
        pytest.param(
            "def f(net: nn.Module, val_loader):\n    for x in val_loader:\n        net(x)",
            "it loops over `val_loader`",
            id="the name of the data",
        ),
        pytest.param(
            "def f(net: nn.Module, loaders):\n    for x in loaders['valid']:\n        net(x)",
            "it loops over `valid`",
            id="the key of the data",
        ),
        pytest.param(
            "def validate(net: nn.Module, data):\n    for x in data:\n        net(x)",
            "it stands in `validate`",
            id="the name of the function",
        ),
        pytest.param(
            "def latest(net: nn.Module, contest):\n    for x in contest:\n        net(x)", None, id="a part of a word"
        ),
        pytest.param(
            "def validate(net: nn.Module, data):\n    net.eval()\n    for x in data:\n        net(x).backward()",
            None,
            id="it trains",
        ),
        pytest.param(
            "class Net(nn.Module):\n    def predict(self, data):\n        for x in data:\n            self(x)",
            None,
            id="a model's own method",
        ),
    ],
)
def test_what_says_that_a_loop_evaluates(code: str, expected: str | None) -> None:
    assert evidence(code) == expected


# --- stores ---


def carrying_loops(code: str) -> list[str]:
    """The loops, innermost first, from whose iterations the stored value stays for the next one."""
    module, store = only_store(code)
    return [module.text(loop.iterable) for loop in store.carried_by if loop.iterable is not None]


EPOCHS = """
def f(net: nn.Module, batches, epochs):
    {before_epochs}
    for epoch in epochs:
        {before_batches}
        for batch in batches:
            {in_batch}
            loss = net(batch).sum()
            {store}
"""


@pytest.mark.parametrize(
    ("before_epochs", "before_batches", "in_batch", "store", "expected"),
    [
        pytest.param("total = 0.0", "pass", "pass", "total += loss", ["batches", "epochs"], id="a total of the run"),
        pytest.param("pass", "total = 0.0", "pass", "total += loss", ["batches"], id="a total of each epoch"),
        pytest.param("total = 0.0", "total = 0.0", "pass", "total += loss", ["batches"], id="reset in each epoch"),
        pytest.param("pass", "pass", "total = 0.0", "total += loss", [], id="a total of each batch"),
        pytest.param("total = 0.0", "pass", "pass", "total = total + loss", ["batches", "epochs"], id="written out"),
        pytest.param("total = 0.0", "pass", "pass", "total = loss + total", ["batches", "epochs"], id="the other way"),
        pytest.param(
            "total = 0.0", "pass", "pass", "total = total * 0.9 + loss", ["batches", "epochs"], id="a running mean"
        ),
        pytest.param(
            "losses = []", "pass", "pass", "losses.append(loss)", ["batches", "epochs"], id="a list of the run"
        ),
        pytest.param("pass", "losses = []", "pass", "losses.append(loss)", ["batches"], id="a list of each epoch"),
        pytest.param("logs = {'a': 0}", "pass", "pass", "logs['a'] += loss", ["batches", "epochs"], id="an item"),
        pytest.param("logs = {'a': 0}", "logs['a'] = 0", "pass", "logs['a'] += loss", ["batches"], id="a reset item"),
        pytest.param("logs = {'a': 0}", "pass", "logs['a'] = 0", "logs['a'] += loss", [], id="an item of each batch"),
        pytest.param("pass", "pass", "losses = []", "losses.append(loss)", [], id="a list of each batch"),
        pytest.param(
            "logs = {}", "pass", "pass", "logs[epoch] = loss", ["batches", "epochs"], id="a key of each epoch"
        ),
        pytest.param(
            "losses = []", "pass", "pass", "losses += [loss]", ["batches", "epochs"], id="a list that is extended"
        ),
        pytest.param(
            "logs = {'a': []}", "pass", "pass", "logs['a'].append(loss)", ["batches", "epochs"], id="a list in a dict"
        ),
    ],
)
def test_from_which_loops_a_store_is_carried(
    before_epochs: str, before_batches: str, in_batch: str, store: str, expected: list[str]
) -> None:
    code = EPOCHS.format(before_epochs=before_epochs, before_batches=before_batches, in_batch=in_batch, store=store)
    assert carrying_loops(code) == expected


def test_a_total_that_the_first_iteration_binds() -> None:
    code = """
    def f(net: nn.Module, data):
        for i, x in enumerate(data):
            if i == 0:
                total = F.mse_loss(net(x), x)
            else:
                total += F.mse_loss(net(x), x)
    """
    module = read(code)
    assert [len(store.carried_by) for store in module.stores] == [1]


def test_one_fixed_key_keeps_one_value() -> None:
    code = EPOCHS.format(before_epochs="logs = {}", before_batches="pass", in_batch="pass", store="logs['loss'] = loss")
    assert read(code).stores == []


def test_what_is_stored_says_whether_a_backward_has_freed_it() -> None:
    loop = "def f(net: nn.Module, data):\n    total = 0.0\n    for x in data:\n        loss = net(x).sum()\n"
    _, freed = only_store(loop + "        loss.backward()\n        total += loss")
    _, retained = only_store(loop + "        loss.backward(retain_graph=True)\n        total += loss")
    _, guarded = only_store(loop + "        if x:\n            loss.backward()\n        total += loss")
    assert freed.value.idents <= freed.backed
    assert not retained.value.idents & retained.backed
    assert not guarded.value.idents & guarded.backed


def test_the_carrier_is_the_part_where_a_detach_belongs() -> None:
    module, store = only_store(
        """
        def f(net: nn.Module, data):
            total = 0.0
            for x in data:
                total += net(x).sum().cpu() * len(x)
        """
    )
    assert [module.text(node) for node, _ in store.carriers] == ["net(x)"]


@pytest.mark.parametrize(
    ("setup", "in_loop", "emptied"),
    [
        ("losses = []", "losses.clear()", True),
        ("losses = []", "losses.pop(0)", True),
        ("losses = []", "del losses[0]", True),
        ("losses = []", "pass", False),
    ],
)
def test_a_container_that_the_loop_empties(setup: str, in_loop: str, emptied: bool) -> None:
    code = f"""
    def f(net: nn.Module, data):
        {setup}
        for x in data:
            losses.append(net(x))
            {in_loop}
    """
    module, store = only_store(code)
    assert [store.loop is not None and store.loop.node in module.box(box).emptied_in for box in store.boxes] == [
        emptied
    ]


@pytest.mark.parametrize(("made", "bounded"), [("deque(maxlen=9)", True), ("deque([], 9)", True), ("deque()", False)])
def test_a_container_that_holds_so_many_at_most(made: str, bounded: bool) -> None:
    code = f"""
    from collections import deque

    def f(net: nn.Module, data):
        latest = {made}
        for x in data:
            latest.append(net(x))
    """
    module, store = only_store(code)
    assert [module.box(box).bounded for box in store.boxes] == [bounded]


@pytest.mark.parametrize(
    ("code", "in_object"),
    [
        ("def f(net: nn.Module, data):\n    total = 0.0\n    for x in data:\n        total += net(x)", False),
        (
            "total = 0.0\ndef f(net: nn.Module, data):\n    global total\n    for x in data:\n        total += net(x)",
            True,
        ),
        ("def f(net: nn.Module, data, out: list):\n    for x in data:\n        out.append(net(x))", True),
        ("def f(net: nn.Module, data, out=[]):\n    for x in data:\n        out.append(net(x))", True),
        ("def f(net: nn.Module, data):\n    out = []\n    for x in data:\n        out.append(net(x))", False),
        (
            (
                "class A:\n    def f(self, net: nn.Module, data):\n        self.out = []\n        for x in data:"
                "\n            self.out.append(net(x))"
            ),
            True,
        ),
    ],
    ids=["a local total", "a global total", "a parameter", "a mutable default", "a local list", "an attribute"],
)
def test_a_store_in_something_that_others_see(code: str, in_object: bool) -> None:
    module, store = only_store(code)
    assert (store.in_object or any(module.box(box).in_object for box in store.boxes)) is in_object


# --- backward passes ---


@pytest.mark.parametrize(
    ("backward", "frees"),
    [
        ("loss.backward()", True),
        ("loss.backward(retain_graph=False)", True),
        ("loss.backward(retain_graph=True)", False),
        ("loss.backward(create_graph=True)", False),
        ("loss.backward(retain_graph=flag)", False),
        ("loss.backward(**options)", False),
        ("torch.autograd.backward(loss)", True),
        ("torch.autograd.grad(loss, x)", True),
        ("torch.autograd.grad(loss, x, create_graph=True)", False),
        ("torch.autograd.grad(outputs=loss, inputs=x, retain_graph=True)", False),
        ("accelerator.backward(loss)", True),
        ("scaler.scale(loss).backward()", True),
        ("torch.amp.GradScaler().scale(loss).backward()", True),
        ("self.manual_backward(loss)", True),
        ("engine.backward(loss)", True),
    ],
)
def test_backward_passes(backward: str, frees: bool) -> None:
    module = read(
        f"""
        def f(self, net: nn.Module, x, flag, options, accelerator, scaler, engine):
            loss = net(x).sum()
            {backward}
        """
    )
    (found,) = module.backwards
    (forward,) = [call for call in module.calls if call.is_forward]
    assert forward.root in found.differentiated.roots
    assert found.frees is frees


@pytest.mark.parametrize(
    "code",
    [
        "class A(nn.Module):\n    def forward(self, x):\n        return super().forward(x)",
        "class A(nn.Module):\n    def backward(self, g):\n        return super().backward(g)",
        "def f(net: nn.Module, x):\n    return net(x).sum()",
    ],
    ids=["a forward", "a method's own base", "a loss"],
)
def test_no_backward_pass(code: str) -> None:
    assert read(code).backwards == []


# --- two steps ---

LEAKY = b"""\
import torch
from torch import nn
import torch.nn.functional as F


def run(net: nn.Module, loader):
    total = 0.0
    for x, y in loader:
        total += F.mse_loss(net(x), y)
    print(total)


def main(net: nn.Module, loader):
    run(net, loader)
"""
POLICY = Policy(frozenset({"MEM101"}), Confidence.LOW)


def is_plain(value: object) -> bool:
    """Data alone: no tree, no analysis, nothing that a process or a file could not hold."""
    if isinstance(value, (str, int, type(None))):
        return True
    if isinstance(value, (tuple, frozenset)):
        return all(is_plain(item) for item in value)
    if isinstance(value, dict):
        return all(is_plain(item) for pair in value.items() for item in pair)
    return is_dataclass(value) and all(is_plain(item) for item in vars(value).values())


def test_facts_are_plain_and_can_be_pickled() -> None:
    facts = Module("a.py", cst.parse_module(LEAKY), LEAKY.decode()).facts
    assert facts.functions
    assert facts.calls
    assert is_plain(facts)
    assert pickle.loads(pickle.dumps(facts)) == facts


def test_the_second_step_needs_nothing_but_what_the_first_one_yields() -> None:
    analysed = pickle.loads(pickle.dumps(analyse("a.py", LEAKY, POLICY)))
    assert [finding.code for finding in conclude(analysed, POLICY).findings] == ["MEM101"]


def test_a_caller_decides_in_the_second_step() -> None:
    """The candidate is there before anything is known of the callers."""
    quiet = LEAKY.replace(b"    run(net, loader)", b"    with torch.no_grad():\n        run(net, loader)")
    analysed = analyse("a.py", quiet, POLICY)
    assert [candidate.finding.code for candidate in analysed.candidates] == ["MEM101"]
    assert GradOnEntry(":run") in analysed.candidates[0].questions
    assert conclude(analysed, POLICY).findings == ()


LOSSES = """
def losses(net: nn.Module, data):
    found = []
    for x in data:
        found.append(net(x))
    return found

"""


@pytest.mark.parametrize(
    ("caller", "expected"),
    [
        ("", False),
        ("def main(net: nn.Module, x):\n    losses(net, x)", True),
        ("def main(net: nn.Module, x):\n    print(losses(net, x))", True),
        ("def main(net: nn.Module, x):\n    losses(net, x)[0].backward()", False),
        ("def main(net: nn.Module, x):\n    return losses(net, x)", False),
        ("def main(net: nn.Module, x, keep):\n    keep(losses(net, x))", False),
        ("def main(net: nn.Module, x, keep):\n    keep.result = losses(net, x)", False),
    ],
    ids=["nobody", "thrown away", "printed", "differentiated", "returned", "handed on", "stored"],
)
def test_who_differentiates_what_a_function_returns(caller: str, expected: bool) -> None:
    assert answer(ResultNotDifferentiated(":losses"), read(LOSSES + caller).facts) is expected


def test_of_nothing_nothing_is_proven() -> None:
    assert not answer(GradOnEntry(":f"), ModuleFacts())
    assert not answer(ResultNotDifferentiated(":f"), ModuleFacts())


# --- the walk ---


class Collected(cst.CSTVisitor):
    """What LibCST's own visitor meets, apart from what holds no code."""

    def __init__(self) -> None:
        super().__init__()
        self.nodes: list[cst.CSTNode] = []

    def on_visit(self, node: cst.CSTNode) -> bool:
        if isinstance(node, cst.TypeParameters):
            return False  # PEP 695: names of types, which no rule asks about
        if not isinstance(node, WITHOUT_CODE):
            self.nodes.append(node)
        return True


WITHOUT_CODE = (
    cst.BaseParenthesizableWhitespace,
    cst.EmptyLine,
    cst.TrailingWhitespace,
    cst.Comment,
    cst.Newline,
    cst.BaseUnaryOp,
    cst.BaseBinaryOp,
    cst.BaseBooleanOp,
    cst.BaseCompOp,
    cst.BaseAugOp,
    cst.Comma,
    cst.Colon,
    cst.Dot,
    cst.Semicolon,
    cst.AssignEqual,
    cst.LeftParen,
    cst.RightParen,
    cst.LeftSquareBracket,
    cst.RightSquareBracket,
    cst.LeftCurlyBrace,
    cst.RightCurlyBrace,
    cst.Asynchronous,
    cst.ParamSlash,
    cst.BitOr,
)
STDLIB = Path(sysconfig.get_path("stdlib"))
RARE = """
@decorator(1)
async def f(a, /, b: int = c, *args: d, e=(yield), **kwargs) -> g[h:i:j, ...]:
    global k
    async with l as (m, n), o:
        async for p in q:
            await r
        else:
            del s, t[u]
    assert (v := not w), f"{x!r:>{y}} {z=}" "and" r"or"
    return [*aa, -bb @ cc][dd] if ee or ff < gg is not hh else {**ii, jj: kk}
try:
    ll = lambda mm, *, nn=oo: {pp for qq in rr if ss for tt in uu}
except* (vv, ww) as xx:
    raise yy from zz
finally:
    ab: "ac" = ad
match ae:
    case af(ag, ah=ai) | [aj, *ak] if al:
        am += an
    case {"ao": ap, **aq} as ar:
        from .at import av as au
class aw(ax, metaclass=ay[az]):
    def bc(self):
        nonlocal bd
        yield from be
while bf:
    break
"""


def assert_the_walk_misses_nothing(tree: cst.Module) -> None:
    collected = Collected()
    tree.visit(collected)
    missed = Counter(type(node).__name__ for node in {*collected.nodes} - {*walk(tree)})
    assert collected.nodes
    assert missed == Counter()


@pytest.mark.parametrize("name", ["ast.py", "asyncio/base_events.py", "dataclasses.py", "shlex.py", "textwrap.py"])
def test_the_walk_meets_all_code_that_libcst_s_own_visitor_meets(name: str) -> None:
    assert_the_walk_misses_nothing(cst.parse_module((STDLIB / name).read_bytes()))


def test_the_walk_meets_rare_code_too() -> None:
    assert_the_walk_misses_nothing(cst.parse_module(RARE))
