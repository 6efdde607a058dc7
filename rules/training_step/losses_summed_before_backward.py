"""MEM402."""

from __future__ import annotations

from collections.abc import Iterator

from memlint.linting.finding import Confidence, Cost, CostClass
from memlint.linting.rule import Draft, Rule
from memlint.semantics.knowledge.torch import BACKWARD_WORDS
from memlint.semantics.module import Module
from memlint.semantics.summed_losses import SummedLosses, summed_losses


class LossesSummedBeforeBackward(Rule):
    """The losses of several forward passes are summed and differentiated at once: all their graphs live together.

    ## What it does
    Flags a loop that runs a model in each iteration and adds the loss to a total (or puts it into a list) that one
    `backward()` differentiates afterwards, where the iterations share nothing but parameters.

    ## What it costs
    The activations of all k forward passes at once instead of one after the other. Measured for an MLP: a peak of
    14.0 MB with 8 micro-batches summed, 4.25 MB with a `backward()` for each. It is what gradient accumulation is
    meant to avoid; the gradients are the same, since those of a sum are the sum of the gradients.

    ## Example
    ```python
    def step(net, criterion, optimizer, batches):
        net.train()
        total = 0
        for x, y in batches:
            total = total + criterion(net(x), y)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    ```

    ## Use instead
    ```python
    def step(net, criterion, optimizer, batches):
        net.train()
        optimizer.zero_grad()
        for x, y in batches:
            criterion(net(x), y).backward()
        optimizer.step()
    ```

    With `DistributedDataParallel`, do all but the last backward pass under `model.no_sync()`.

    ## Fix safety
    There is no fix: `zero_grad()` has to come before the loop, and whatever reads the total has to be given a number.

    ## When it stays silent
    When the terms share a graph (a feature extractor that ran before the loop, a hidden state that is carried on, the
    heads of one network); when something else than scaling is done to the total (a square root, a maximum, a division
    by the number of tokens or by anything else that grows in the loop, or by the total itself); when the total's value
    decides whether or how it is differentiated (`if torch.isnan(total): return`); when each iteration runs another
    model, which may be on another device; when another backward pass walks the terms; when the total is handed to code
    out of view.
    With `DistributedDataParallel` in the file the confidence is low: one backward pass exchanges the gradients once.

    ## References
    - PyTorch FAQ, "My model reports cuda runtime error(2): out of memory"
    - `torch.nn.parallel.DistributedDataParallel.no_sync` documentation
    """

    code = "MEM402"
    name = "losses-summed-before-backward"
    since = "0.1"
    triggers = BACKWARD_WORDS

    def check(self, module: Module) -> Iterator[Draft]:
        for summed in summed_losses(module):
            total = module.text(summed.store.target)
            yield self.finding(
                summed.store.node,
                f"`{total}` keeps the graph of every iteration until `{module.text(summed.backward.call.node)}`: the "
                f"activations of all calls of `{module.text(summed.forward.call.func)}` are alive at once; "
                "differentiate each loss in its iteration, the gradients add up",
                cost=Cost(CostClass.RAISES_PEAK, "k x A"),
                confidence=_confidence(summed),
                related=[(summed.backward.call.node, "the backward pass over all of them")],
            )


def _confidence(summed: SummedLosses) -> Confidence:
    if summed.reduces:
        return Confidence.LOW
    return Confidence.MEDIUM
