"""MEM504."""

from __future__ import annotations

from collections.abc import Iterator

from memlint.linting.edits import Replace
from memlint.linting.finding import Confidence, Cost, CostClass
from memlint.linting.rule import Draft, Rule, safe_fix, unsafe_fix
from memlint.semantics.copies import unwritten_clones
from memlint.semantics.module import Module
from memlint.semantics.operand_clones import operand_clones


class CloneNeverWritten(Rule):
    """A clone protects a tensor that nobody writes to.

    ## What it does
    Flags `y = x.clone()` in a function in which `x`, `y` and everything that may share memory with them are only
    read, by operations known to read, and never leave the function; and `x.clone() + y`.

    ## What it costs
    The bytes of the tensor for as long as the clone lives: two tensors hold the same values.

    ## Example
    ```python
    import torch


    def dispersion(n: int):
        x = torch.linspace(0, 1, n)
        y = x.clone()
        return ((y - y.mean()) ** 2).sum() / x.sum()
    ```

    ## Use instead
    ```python
    import torch


    def dispersion(n: int):
        x = torch.linspace(0, 1, n)
        return ((x - x.mean()) ** 2).sum() / x.sum()
    ```

    ## Fix safety
    Safe when the source was allocated in the function and carries no graph. Unsafe for a tensor of the caller (an
    expanded or strided one is laid out in another way when cloned, and sums round differently) and for values that
    may carry a graph (gradients are added up in another order).

    ## When it stays silent
    When either tensor, or a view of one, is written to (`F.relu(x, flag)` and `F.embedding(max_norm=...)` may),
    returned, stored, captured, compared by identity, handed to code that is not known to read only, or used after a
    view was cloned to free its base; when unknown code runs in a function that clones its caller's tensor; for another
    memory format and across a change of grad mode.

    ## References
    - `torch.Tensor.clone` documentation; "View ops" for what shares memory
    """

    code = "MEM504"
    name = "clone-never-written"
    since = "0.1"
    triggers = frozenset({"clone"})

    def check(self, module: Module) -> Iterator[Draft]:
        for found in unwritten_clones(module):
            source = found.source.value
            make = safe_fix if found.safe else unsafe_fix
            yield self.finding(
                found.call.node,
                f"`{source}` and its clone `{found.copy}` are never written to: nothing needs the copy",
                cost=Cost(CostClass.RAISES_PEAK, "bytes of the tensor"),
                fix=make("use the tensor itself", Replace(found.call.node, source)),
            )
        for operand in operand_clones(module):
            source = module.text(operand.source)
            yield self.finding(
                operand.call.node,
                f"the clone of `{source}` is only an operand: the operator writes to a tensor of its own",
                cost=Cost(CostClass.RAISES_PEAK, "bytes of the tensor"),
                confidence=Confidence.MEDIUM,
                fix=unsafe_fix("use the tensor itself", Replace(operand.call.node, source)),
            )
