"""MEM107."""

from __future__ import annotations

from collections.abc import Iterator

from memlint.linting.finding import Confidence, Cost, CostClass
from memlint.linting.rule import Draft, Rule
from memlint.semantics.created_graphs import CreatedGraph, Leak, created_graphs
from memlint.semantics.module import Module

_STORIES = {
    Leak.NEVER_RESET: "`create_graph=True` ties each parameter, its `.grad` and the graph into a cycle that no garbage "
    "collector frees, and nothing here resets the gradients",
    Leak.INPUT: "`create_graph=True` ties `{name}`, `{name}.grad` and the graph into a cycle that no garbage collector "
    "frees: `zero_grad()` resets the parameters only",
    Leak.LATE: "`create_graph=True` keeps the graph in every `.grad` until `zero_grad()`, which comes only after the "
    "next forward pass: two graphs at the peak",
    Leak.AFTERWARDS: "`create_graph=True` keeps the graph in every `.grad` after this function has returned, until "
    "somebody resets the gradients",
}
_COSTS = {
    Leak.NEVER_RESET: Cost(CostClass.GROWS_ON_DEVICE, "2-3 x A for each pass"),
    Leak.INPUT: Cost(CostClass.GROWS_ON_DEVICE, "the input, its gradient and what is left of the graph, for each pass"),
    Leak.LATE: Cost(CostClass.RAISES_PEAK, "2-3 x A"),
    Leak.AFTERWARDS: Cost(CostClass.RAISES_PEAK, "2-3 x A"),
}


class BackwardCreateGraph(Rule):
    """`backward(create_graph=True)` makes a reference cycle that nothing breaks.

    ## What it does
    Flags `loss.backward(create_graph=True)`, and `torch.autograd.backward`, `accelerator.backward` and the like with
    a literal `create_graph=True`, where nothing resets the gradients afterwards; where `zero_grad()` resets those of
    the parameters, but an input that requires a gradient, or an inner value with `retain_grad()`, keeps its own; and
    where `zero_grad()` stands between the forward and the backward pass of the next iteration.

    ## What it costs
    The parameter holds its `.grad`, that holds the graph of the gradient, and the graph holds the parameter: a cycle in
    C++, which Python's garbage collector cannot see. Measured on a network of 20 layers: 62 MB more after each of ten
    iterations, and 628 MB left when the model was deleted and the collector had run; nothing with `autograd.grad`, or
    with `zero_grad()` after the step. With `zero_grad()` between forward and backward the peak was 85 MB, before the
    forward pass 64 MB. An input with `requires_grad_()` and its gradient leaked in each iteration (4 MB of 4) in spite
    of `zero_grad()`.

    ## Example
    ```python
    def curvature(net, loader, criterion):
        traces = []
        for x, y in loader:
            loss = criterion(net(x), y)
            loss.backward(create_graph=True)
            traces.append(sum(p.grad.norm() for p in net.parameters()).item())
        return traces
    ```

    ## Use instead
    ```python
    import torch


    def curvature(net, loader, criterion):
        traces = []
        for x, y in loader:
            loss = criterion(net(x), y)
            grads = torch.autograd.grad(loss, list(net.parameters()), create_graph=True)
            traces.append(sum(g.norm() for g in grads).item())
        return traces
    ```

    An optimizer that wants the gradients with their graph (AdaHessian) can have them: call `zero_grad()` directly after
    `step()`, and set the `.grad` of inputs to None.

    ## Fix safety
    There is no fix: with `autograd.grad` the gradients are a tuple, and no longer in `.grad`.

    ## When it stays silent
    For `autograd.grad`, which makes no cycle; for `create_graph=flag`; when `zero_grad()`, `p.grad = None` or
    `p.grad.detach_()` follows, or stands before the forward pass of the same loop or step; when a caller, another
    method of the class or a trainer out of view (the class has bases in other files) resets the gradients. A helper
    that differentiates a loss that it is given, and that nobody in view calls, has low confidence: its callers may
    reset them.

    ## References
    - `torch.Tensor.backward` documentation, and the warning it gives
    - pytorch/pytorch#4661, pytorch/pytorch#7343
    """

    code = "MEM107"
    name = "backward-create-graph"
    since = "0.1"
    triggers = frozenset({"create_graph", "backward"})

    def check(self, module: Module) -> Iterator[Draft]:
        for found in created_graphs(module):
            yield self.finding(
                found.backward.node,
                _STORIES[found.leak].format(name=found.name),
                cost=_COSTS[found.leak],
                confidence=_confidence(found),
            )


def _confidence(found: CreatedGraph) -> Confidence:
    if found.is_script:
        return Confidence.LOW  # a demonstration with a tensor or two
    if found.is_helper:
        return Confidence.LOW  # its callers may reset the gradients
    return Confidence.HIGH if found.certain else Confidence.MEDIUM
