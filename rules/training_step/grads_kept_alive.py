"""MEM404."""

from __future__ import annotations

from collections.abc import Iterator

from memlint.linting.edits import RemoveArgument
from memlint.linting.finding import Confidence, Cost, CostClass
from memlint.linting.rule import Draft, Rule, unsafe_fix
from memlint.semantics.gradients import kept_gradients
from memlint.semantics.module import Module


class GradsKeptAlive(Rule):
    """`zero_grad(set_to_none=False)` keeps every gradient allocated from one step to the next.

    ## What it does
    Flags `zero_grad(set_to_none=False)` of an optimizer or a module, with a literal `False`. Filled with zeros, the
    gradients stay alive through the next forward pass; without the argument (since torch 2.0) they are freed.

    ## What it costs
    A copy of the trained parameters (P bytes) beside all activations, at the very moment when the peak is reached.
    Measured on an MLP with 8 MB of parameters: a peak of 32.0 MB, 24.0 MB with the default. Filling with zeros and
    reading the old gradient to add to it also costs time.

    ## Example
    ```python
    def train(net, loader, criterion, optimizer):
        for x, y in loader:
            optimizer.zero_grad(set_to_none=False)
            loss = criterion(net(x), y)
            loss.backward()
            optimizer.step()
    ```

    ## Use instead
    ```python
    def train(net, loader, criterion, optimizer):
        for x, y in loader:
            optimizer.zero_grad()
            loss = criterion(net(x), y)
            loss.backward()
            optimizer.step()
    ```

    ## Fix safety
    Unsafe: a parameter that got no gradient in a step has `None` instead of zeros, so that code reading `p.grad` must
    expect it, and an optimizer skips the parameter where zeros made it apply weight decay and momentum.

    ## When it stays silent
    When the argument is no literal; in a method that overrides `zero_grad` and passes on; when the optimizer is given
    single tensors (`Adam([image])`); in files that capture CUDA graphs, in which gradients must stay where they are,
    that make gradients views of the buckets of `DistributedDataParallel`, or that write into `p.grad` in place.

    ## References
    - `torch.optim.Optimizer.zero_grad` documentation
    - PyTorch performance tuning guide, "Use parameter.grad = None instead of model.zero_grad()"
    """

    code = "MEM404"
    name = "grads-kept-alive"
    since = "0.1"
    triggers = frozenset({"zero_grad"})

    def check(self, module: Module) -> Iterator[Draft]:
        for kept in kept_gradients(module):
            yield self.finding(
                kept.call.node,
                f"`{module.text(kept.call.node)}` fills the gradients with zeros instead of freeing them: a copy of "
                "the trained parameters stays on the device through the next forward pass",
                cost=Cost(CostClass.RAISES_PEAK, "P"),
                confidence=Confidence.HIGH if kept.surely_torch else Confidence.MEDIUM,
                fix=unsafe_fix("free the gradients", RemoveArgument(kept.call.call, kept.argument)),
            )
