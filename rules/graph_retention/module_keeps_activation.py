"""MEM109."""

from __future__ import annotations

from collections.abc import Iterator

from memlint.linting.edits import InsertAfter
from memlint.linting.finding import Confidence, Cost, CostClass
from memlint.linting.rule import Draft, FixDraft, Rule, unsafe_fix
from memlint.semantics.activations import KeptActivation, kept_activations
from memlint.semantics.hooked_activations import HookedActivation, Left, hooked_activations
from memlint.semantics.module import Module


class ModuleKeepsActivation(Rule):
    """The forward pass leaves a value with its autograd graph in an attribute of the module.

    ## What it does
    Flags, in `forward` of a module and the methods that it calls, `self.kept.append(value)` where the value carries
    its graph and nobody empties the list, and `self.kept = value` where everything that reads the attribute takes it
    out of the graph (`self.kept.detach()`), or where nothing in the whole project reads it. Also what a forward hook
    leaves on its module after it was removed, and what it appends to a list that nobody empties: one of its object,
    where the object runs the model, or a variable of which nobody takes more than one item.

    ## What it costs
    - A list grows by the value, its graph nodes and, without a backward pass, all activations A in each forward pass.
      Measured, with a layer whose output has 4 MB: 10.7 MB of resident memory a forward pass without backward, 6.7 MB
      with it.
    - A single slot holds the value until the next forward pass, so that old and new overlap, and without a backward
      pass the whole graph with it (measured: 8 MB between calls where nothing should be; 4 MB after backward). It also
      makes `copy.deepcopy(model)` raise.

    ## Example
    ```python
    import torch
    from torch import nn


    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.query = nn.Linear(64, 64)
            self.maps = []

        def forward(self, x):
            attention = self.query(x).softmax(-1)
            self.maps.append(attention)
            return attention @ x
    ```

    ## Use instead
    ```python
    import torch
    from torch import nn


    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.query = nn.Linear(64, 64)
            self.map = None

        def forward(self, x):
            attention = self.query(x).softmax(-1)
            self.map = attention.detach()
            return attention @ x
    ```

    Or return the value, and let the caller decide.

    ## Fix safety
    Inserting `.detach()` is unsafe: code that is not in view may read the attribute and differentiate through it.

    ## When it stays silent
    When the attribute is read in any other way, in this file or, where the project is in view, in another one: an
    auxiliary loss, deep supervision, features for a criterion; when the list is emptied, returned or handed on; behind
    a condition (a switch for debugging); for the state that the next forward pass reads; for dictionaries, whose slots
    are mostly overwritten; when the value carries no graph. A single slot that nobody reads has low confidence where
    nothing in view runs the module: its training script, which may read it, is out of view.

    ## References
    - PyTorch FAQ, "Don't hold onto tensors and variables you don't need"
    - opacus#176, jmschrei/tangermeme#84, jacobgil/pytorch-grad-cam#88
    """

    code = "MEM109"
    name = "module-keeps-activation"
    since = "0.1"
    triggers = frozenset({"forward", "register_forward_hook", "register_forward_pre_hook"})

    def check(self, module: Module) -> Iterator[Draft]:
        for kept in kept_activations(module):
            yield self.finding(
                kept.node,
                _story(module, kept),
                cost=Cost(CostClass.GROWS_ON_DEVICE, "N x A") if kept.grows else Cost(CostClass.RAISES_PEAK, "A"),
                confidence=_confidence(kept),
                fix=_fix(kept),
                questions=kept.questions,
            )
        for left in hooked_activations(module):
            yield self.finding(
                left.node,
                _HOOK_STORIES[left.left].format(path=left.path, what=module.text(left.source)),
                cost=_COST_OF_ALL if left.left is Left.PILED_UP else _COST_OF_ONE,
                confidence=Confidence.MEDIUM,
                fix=_fix(left) if left.left is Left.WITH_GRAPH else None,
            )


def _confidence(kept: KeptActivation) -> Confidence:
    if not kept.is_run:
        return Confidence.LOW  # a training script out of view may read it
    return Confidence.HIGH if kept.certain else Confidence.MEDIUM


def _story(module: Module, kept: KeptActivation) -> str:
    what = f"`{module.text(kept.source)}`"
    if kept.grows:
        return (
            f"`self.{kept.attribute}` keeps {what} and its autograd graph of every forward pass, and is never emptied"
        )
    return (
        f"`self.{kept.attribute}` keeps the autograd graph of {what} until the next forward pass, and nobody wants it"
    )


_COST_OF_ALL = Cost(CostClass.GROWS_ON_DEVICE, "N x bytes(activation) for each module hooked")
_COST_OF_ONE = Cost(CostClass.RAISES_PEAK, "bytes(activation) for each module hooked")
_HOOK_STORIES = {
    Left.AFTER_REMOVAL: "`{path}` keeps `{what}` after the hook has been removed: nobody takes it off the module again",
    Left.PILED_UP: "`{path}` keeps `{what}` of every forward pass, and is never emptied",
    Left.WITH_GRAPH: "`{path}` keeps `{what}`, a copy on the host that keeps the autograd graph on the device",
}


def _fix(kept: KeptActivation | HookedActivation) -> FixDraft | None:
    return unsafe_fix("detach it from its graph", InsertAfter(kept.source, ".detach()"))
