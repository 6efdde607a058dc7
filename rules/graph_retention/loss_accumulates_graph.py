"""MEM101."""

from __future__ import annotations

from collections.abc import Iterator

from memlint.linting.rule import Draft, Rule
from memlint.semantics.module import Module
from memlint.semantics.retention import retentions
from memlint.semantics.step_outputs import step_sums

from ._retained import retained_confidence, retained_cost, retained_fix, retained_names, retained_story


class LossAccumulatesGraph(Rule):
    """A running total keeps the autograd graph of every batch.

    ## What it does
    Flags `total += loss` (also `total = total + loss`, `totals[key] += loss`, `self.total += loss`,
    `total.add_(loss)`, `losses[i] = loss` where `losses` is a tensor, and `outs = torch.cat((outs, out))`) in a loop
    over batches when `loss` still carries its autograd graph and nothing computed from the total is ever
    differentiated. The total is then the last node of a graph that grows with every batch. Also `self.total += loss`
    in a training step, a method that differentiates `loss` and steps the optimizer: it is called for each batch; and
    in Lightning's `training_step`, of the loss that it returns.

    ## What it costs
    It depends on the backward pass, and the message says which it is:

    - `loss.backward()` has run on it: backward frees the saved activations, so what stays is the chain of graph nodes,
      in *host* memory, about 0.7 kB a node (measured: 222 kB a step for a network of 201 modules; 10,000 steps are 2.2
      GB).
    - no backward has run (evaluation without `no_grad`), it ran with `retain_graph=True`, or it ran on another branch:
      every activation of every step stays on the *device*. Measured: 4.7 MB a step for a small network, linear in the
      steps.

    ## Example
    ```python
    def train(net, loader, criterion, optimizer):
        total = 0.0
        for x, y in loader:
            loss = criterion(net(x), y)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            total += loss
        print(total / len(loader))
    ```

    ## Use instead
    ```python
    def train(net, loader, criterion, optimizer):
        total = 0.0
        for x, y in loader:
            loss = criterion(net(x), y)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            total += loss.detach()
        print(total / len(loader))
    ```

    `.detach()` needs no synchronisation with the device; `loss.item()` does, and gives a Python number.

    ## Fix safety
    Inserting `.detach()` is safe when everything that reaches the addition is proven to be a tensor (a torch operation,
    or `.backward()` is called on it in every iteration) and the total stays in the function. Otherwise it is unsafe: a
    `loss` that is a Python number on some path, or an object of an imported class, has no `detach`. It is unsafe, too,
    where the function could notice: `requires_grad`, `retain_grad`, `exec`.

    ## When it stays silent
    When the total, or anything computed from it, reaches `backward()` or code out of view that might call it; when the
    total is reset in the same loop body; when the value is a number (`loss.item()`), detached, or made with grad mode
    off, by a decorator, a caller or a framework; when nothing proves that the value carries a graph.

    ## References
    - PyTorch FAQ, "My model reports cuda runtime error(2): out of memory": "Don't accumulate history across your
      training loop"
    - `torch.Tensor.detach` documentation
    """

    code = "MEM101"
    name = "loss-accumulates-graph"
    since = "0.1"
    triggers = frozenset({"for", "while", "step", "training_step", "compute_loss"})

    def check(self, module: Module) -> Iterator[Draft]:
        for retention in (*retentions(module), *step_sums(module)):
            store = retention.store
            if store.how != "accumulate":
                continue  # MEM102
            value = retained_names(module, retention)
            target = module.text(store.target)
            what, related = retained_story(module, retention)
            yield self.finding(
                store.node,
                f"`{target}` keeps the autograd graph of {value} of every batch: {what}",
                cost=retained_cost(retention),
                confidence=retained_confidence(retention),
                related=related,
                fix=retained_fix(retention),
                questions=retention.questions,
            )
