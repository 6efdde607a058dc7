"""MEM102."""

from __future__ import annotations

from collections.abc import Iterator

from memlint.linting.rule import Draft, Rule
from memlint.semantics.module import Module
from memlint.semantics.retention import retentions
from memlint.semantics.step_outputs import step_sums

from ._retained import (
    retained_confidence,
    retained_cost,
    retained_fix,
    retained_names,
    retained_story,
)


class ContainerKeepsGraph(Rule):
    """A list or dictionary keeps the autograd graph of every batch.

    ## What it does
    Flags `losses.append(loss)`, `outputs.extend(...)`, `history[step] = loss` and the like in a loop over batches
    when the value still carries its autograd graph, the container outlives the iteration, and nothing computed from
    the container is ever differentiated. Also `self.losses.append(loss)` in a training step, a method that
    differentiates `loss` and steps the optimizer: it is called for each batch. Dataclasses, named tuples and
    dictionaries of such values count like the values.

    ## What it costs
    The stored tensors themselves (a stored 0-dim CUDA tensor still occupies a 512-byte block), and their graphs:

    - after `loss.backward()` only graph nodes, in *host* memory, about 0.7 kB a node (measured: 221 kB a step for a
      network of 201 modules);
    - without a backward pass every activation of every step, on the *device*, linear in the steps (measured: 4.7 MB a
      step for a small network, 84.8 MB after 20).

    ## Example
    ```python
    def train(net, loader, criterion, optimizer):
        losses = []
        for x, y in loader:
            loss = criterion(net(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss)
        print(len(losses), losses[-1])
    ```

    ## Use instead
    ```python
    def train(net, loader, criterion, optimizer):
        losses = []
        for x, y in loader:
            loss = criterion(net(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        print(len(losses), losses[-1])
    ```

    `loss.item()` stores a number and no tensor, but synchronises with the device at every step. An evaluation loop
    belongs under `torch.no_grad()` as a whole (MEM201).

    ## Fix safety
    Inserting `.detach()` is safe when everything that reaches the store is proven to be a tensor and the container
    stays in the function. The call of an unknown model may return a dictionary or a tuple, which has no `detach`:
    there it is unsafe, and where the function could notice (`retain_grad`, `requires_grad`, `deepcopy`).

    ## When it stays silent
    When the container, or anything computed from it, reaches `backward()` (policy gradients, sums of losses) or code
    out of view; when it is cleared or made anew in the same loop, or bounded (`deque(maxlen=...)`); when the value
    carries no graph (`argmax`, comparisons, detached, numbers, grad mode off); when it is no container that memlint
    knows; when it is returned to callers that may differentiate it, unless the loop trains the very model that it came
    out of (each step changes the parameters in place, so that nobody can differentiate what was computed before).

    ## References
    - PyTorch FAQ, "Don't accumulate history across your training loop" and "Don't hold onto tensors and variables you
      don't need"
    """

    code = "MEM102"
    name = "container-keeps-graph"
    since = "0.1"
    triggers = frozenset({"for", "while", "step", "compute_loss"})

    def check(self, module: Module) -> Iterator[Draft]:
        for retention in (*retentions(module), *step_sums(module)):
            if retention.store.how == "accumulate" or retention.copied_by is not None:
                continue  # MEM101, MEM104
            what, related = retained_story(module, retention)
            yield self.finding(
                retention.store.node,
                f"`{module.text(retention.store.target)}` keeps the autograd graph of "
                f"{retained_names(module, retention)} of every batch: {what}",
                cost=retained_cost(retention),
                confidence=retained_confidence(retention),
                related=related,
                fix=retained_fix(retention),
                questions=retention.questions,
            )
