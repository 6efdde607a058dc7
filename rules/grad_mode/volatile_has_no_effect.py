"""MEM203."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from memlint.linting.edits import AddDecorator, AddImport, EditDraft, RemoveArgument, WrapStatements
from memlint.linting.finding import Confidence, Cost, CostClass
from memlint.linting.rule import Draft, FixDraft, Rule, unsafe_fix
from memlint.semantics.module import Module
from memlint.semantics.volatile import Volatile, ignored_volatiles

if TYPE_CHECKING:
    import libcst as cst


class VolatileHasNoEffect(Rule):
    """`volatile=True` switched autograd off before torch 0.4; today it is ignored.

    ## What it does
    Flags `Variable(x, volatile=True)` (or any value but `False`) and `x.volatile = True` where `x` then goes through a
    model, is returned, or is handed on, with grad mode on: the author wanted no graph, and there is one.

    ## What it costs
    Every forward pass saves its activations for a backward pass that never comes. Measured on torch 2.13: the output of
    a layer of a volatile variable requires grad, and torch only warns. An evaluation with grad mode on peaked at 48 MB
    where the same with grad mode off kept nothing.

    ## Example
    ```python
    from torch.autograd import Variable


    def embed(net, images):
        x = Variable(images, volatile=True)
        return net(x)
    ```

    ## Use instead
    ```python
    import torch


    def embed(net, images):
        with torch.no_grad():
            return net(images)
    ```

    ## Fix safety
    Unsafe: the fix takes the keyword out and switches grad off, for the function where nothing in it is differentiated,
    else for the statement that runs the model. This is what the code says, not what it has done since torch 0.4. The
    keyword is never taken out alone: nothing would change, but for the last trace of what was meant.

    ## When it stays silent
    When the forward pass runs with grad off; for a target that is only compared with a model's output; where a
    condition on torch's version is around it; for `volatile=False`; for a `Variable` of another library; with a
    `target-torch` below 0.4.

    ## References
    - PyTorch 0.4.0 migration guide, "What about .volatile?"
    - `torch.autograd.Variable` documentation (deprecated)
    """

    code = "MEM203"
    name = "volatile-has-no-effect"
    since = "0.1"
    triggers = frozenset({"volatile"})

    def check(self, module: Module) -> Iterator[Draft]:
        repaired: set[int] = set()
        found = list(ignored_volatiles(module))
        for volatile in found:
            fix = None
            if _place(volatile) not in repaired:
                repaired.add(_place(volatile))
                fix = _fix(module, [other for other in found if _place(other) == _place(volatile)])
            where = f": `{module.text(volatile.forwards[0].node)}` builds a graph" if volatile.forwards else ""
            yield self.finding(
                volatile.node,
                f"`volatile` is ignored since torch 0.4{where}, and its activations stay on the device for a backward "
                "pass that never comes"
                if where
                else "`volatile` is ignored since torch 0.4: what a model computes from this has a graph, whose "
                "activations stay on the device; switch grad off where the model runs",
                cost=Cost(CostClass.RAISES_PEAK, "A"),
                confidence=Confidence.HIGH if volatile.always and volatile.forwards else Confidence.MEDIUM,
                fix=fix,
                questions=volatile.questions,
            )


def _place(volatile: Volatile) -> int:
    """What would be run with grad off."""
    if volatile.function is not None:
        return id(volatile.function)
    return id(volatile.forwards[0].statement) if volatile.forwards else id(volatile.node)


def _fix(module: Module, found: list[Volatile]) -> FixDraft | None:
    """Switch grad off for all of them, which share the function or the statement."""
    first = found[0]
    if any(volatile.keyword is None for volatile in found):
        return None
    if first.function is None and len({call.statement for volatile in found for call in volatile.forwards}) != 1:
        return None
    if not all(volatile.always for volatile in found):
        return None  # grad is off on a condition only
    name, needs_import = module.torch_name("no_grad")
    edits: list[EditDraft] = [AddImport("import torch")] if needs_import else []
    edits += [RemoveArgument(volatile.variable.call, volatile.keyword) for volatile in found if volatile.keyword]
    if first.function is not None:
        edits.append(AddDecorator(first.function, f"{name}()"))
        return unsafe_fix("run the function with grad mode off", *edits)
    statement: cst.CSTNode = first.forwards[0].statement
    edits.append(WrapStatements((statement,), f"with {name}():"))  # type: ignore[arg-type]
    return unsafe_fix("run the model with grad mode off", *edits)
