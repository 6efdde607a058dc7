"""MEM106."""

from __future__ import annotations

from collections.abc import Iterator

from memlint.linting.edits import InsertAfter
from memlint.linting.finding import Confidence, Cost, CostClass
from memlint.linting.rule import Draft, Rule, unsafe_fix
from memlint.semantics.module import Module
from memlint.semantics.running_stats import running_stats


class RunningStatKeepsGraph(Rule):
    """A running statistic is updated with a value that still carries its autograd graph.

    ## What it does
    Flags `self.mean = 0.9 * self.mean + 0.1 * x.mean(0)`, also written as `self.mean[:] = ...`,
    `self.mean.mul_(0.9).add_(batch_mean)`, `self.mean.lerp_(batch_mean, 0.1)`, `self.mean += 0.1 * (e - self.mean)`,
    averages that a function of the file returns (`y, self.mean = batch_norm(x, self.mean)`), and moving averages of
    weights, `shadow[name] = d * shadow[name] + (1 - d) * p`, with grad mode on. Each new value is computed from the
    last one, so the statistic is the end of a chain of graphs that no update ever cuts. Also `self.bank[index] = z`,
    rows of a memory bank, a queue or prototypes that are detached wherever they are read, and such a queue that is
    joined to what is left of itself, `self.bank = torch.cat([self.bank[n:], z])`.

    ## What it costs
    With a backward pass in each step, graph nodes in *host* memory, for ever: at least three nodes of about 0.7 kB for
    each tensor and update (the size of a node was measured; 300 tensors averaged over 10,000 steps would come to 6 GB).
    Without one, as in evaluation with grad mode on, the activations of each step, on the *device*.

    ## Example
    ```python
    import torch
    from torch import nn


    class Norm(nn.Module):
        def __init__(self, size):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(size))
            self.register_buffer("running_mean", torch.zeros(size))

        def forward(self, x):
            mean = x.mean(0)
            if self.training:
                self.running_mean = 0.9 * self.running_mean + 0.1 * mean
            return (x - mean) * self.weight
    ```

    ## Use instead
    ```python
    import torch
    from torch import nn


    class Norm(nn.Module):
        def __init__(self, size):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(size))
            self.register_buffer("running_mean", torch.zeros(size))

        def forward(self, x):
            mean = x.mean(0)
            if self.training:
                self.running_mean = 0.9 * self.running_mean + 0.1 * mean.detach()
            return (x - mean) * self.weight
    ```

    For a whole block of updates, `with torch.no_grad():` around it.

    ## Fix safety
    Inserting `.detach()` is unsafe: other code may read the statistic and differentiate through it.

    ## When it stays silent
    With grad mode off; when the new value is detached (`.data`, `.item()`, `nn.Parameter(...)`) or carries no graph
    (counts, one-hot codes); when the statistic itself goes into what the method returns (a recurrent state, a
    differentiable average) or is ever differentiated; for rows of a tensor that is read with its graph, or made anew;
    in a class without parameters or layers, whose input may be data, unless it is called a batch norm, a codebook or a
    loss or works on the channels of feature maps; for the rewards of an environment, whatever they are multiplied with
    before `backward()`; for plain sums and for variables of a training loop, which MEM101
    reports.

    ## References
    - PyTorch issue 20275, custom batch normalisation
    - `torch.optim.swa_utils.AveragedModel`, which updates under `torch.no_grad()`
    """

    code = "MEM106"
    name = "running-stat-keeps-graph"
    since = "0.1"
    triggers = frozenset({"self", "named_parameters", "parameters"})

    def check(self, module: Module) -> Iterator[Draft]:
        for stat in running_stats(module):
            what = "parameter" if stat.of_weights else "graph"
            names = ", ".join(f"`{module.text(node)}`" for node in stat.added)
            story = (
                f"each update adds the graph of {names} to the one before it, and nothing ever cuts the chain"
                if what == "graph"
                else f"{names} requires grad, so each update adds graph nodes to those of the one before it"
            )
            how = "written into, row by row," if stat.by_rows else "updated from its own last value"
            yield self.finding(
                stat.node,
                f"`{module.text(stat.statistic)}` is {how} with grad mode on: {story}",
                cost=Cost(CostClass.GROWS_ON_HOST, "N x graph nodes x about 0.7 kB"),
                confidence=Confidence.HIGH if stat.certain else Confidence.MEDIUM,
                fix=unsafe_fix("detach it from its graph", *(InsertAfter(node, ".detach()") for node in stat.added)),
                questions=stat.questions,
            )
