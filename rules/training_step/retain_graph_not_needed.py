"""MEM401."""

from __future__ import annotations

from collections.abc import Iterator

from memlint.linting.edits import RemoveArgument
from memlint.linting.finding import Confidence, Cost, CostClass
from memlint.linting.rule import Draft, Rule, unsafe_fix
from memlint.semantics.backwards import needless_retains
from memlint.semantics.module import Module


class RetainGraphNotNeeded(Rule):
    """`retain_graph=True` keeps a graph that no later backward pass uses.

    ## What it does
    Flags `loss.backward(retain_graph=True)` in a loop when nothing in the same iteration differentiates the graph
    again, no part of it was built before the loop, and no variable carries it into the next iteration. Also in a
    function without such a loop that has built all of the graph itself (medium confidence).

    ## What it costs
    All activations stay alive until the last name that holds the graph is bound anew, which is after the next forward
    pass: the peak grows by one set of activations (measured: 4.74 MB held where backward would have freed all of it).
    In a function that returns after it, they stay while the gradients and the optimizer's step take theirs.
    If a total or a list keeps the loss too, every iteration's activations stay (measured: 84.8 MB after 20 steps).

    ## Example
    ```python
    def train(net, loader, criterion, optimizer):
        for x, y in loader:
            loss = criterion(net(x), y)
            loss.backward(retain_graph=True)
            optimizer.step()
            optimizer.zero_grad()
    ```

    ## Use instead
    ```python
    def train(net, loader, criterion, optimizer):
        for x, y in loader:
            loss = criterion(net(x), y)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    ```

    ## Fix safety
    Never safe: if a graph out of view is shared between iterations, the next backward raises "Trying to backward
    through the graph a second time". Run one step after applying it.

    ## When it stays silent
    When another backward pass or `autograd.grad` follows on the same graph (GAN steps, per-task gradients, gradient
    penalties); when the graph, or a part of it, comes from outside the loop or is carried from iteration to iteration,
    as where a loop goes through the outputs of a model:
    a parameter that some caller gives something with a graph, or whose callers are out of view and whose name does not
    say that it is data, an attribute that other methods set; when it is returned to a caller that may differentiate it,
    stored on an object or handed to code out of view, unless an optimizer's step has followed (it changes the
    parameters in place, so that nobody can differentiate the loss again); when the model is given, and one of the
    file's goes on from what its last forward pass left in it; when the argument is no literal `True`.

    ## References
    - `torch.Tensor.backward` documentation: "in nearly all cases setting this option to True is not needed"
    """

    code = "MEM401"
    name = "retain-graph-not-needed"
    since = "0.1"
    triggers = frozenset({"retain_graph"})

    def check(self, module: Module) -> Iterator[Draft]:
        for found in needless_retains(module):
            which = "the last backward pass" if found.is_last else "the only backward pass"
            loss = module.text(found.differentiated)
            until = (
                "until the next iteration has built its own" if found.backward.loop else "until the function returns"
            )
            yield self.finding(
                found.backward.node,
                f"`retain_graph=True` is not needed: this is {which} over the graph of `{loss}`, whose activations now "
                f"stay on the device {until}",
                cost=Cost(CostClass.RAISES_PEAK, "A"),
                confidence=Confidence.HIGH if found.certain else Confidence.MEDIUM,
                questions=found.questions,
                fix=unsafe_fix(
                    "let the backward pass free the graph", RemoveArgument(found.backward.call.call, found.argument)
                ),
            )
