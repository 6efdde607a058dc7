"""MEM403."""

from __future__ import annotations

from collections.abc import Iterator

from memlint.linting.edits import AddArgument
from memlint.linting.finding import Confidence, Cost, CostClass
from memlint.linting.rule import Draft, FixDraft, Rule, unsafe_fix
from memlint.semantics.events import Call
from memlint.semantics.knowledge.training import CHECKPOINTS
from memlint.semantics.module import Module
from memlint.semantics.recomputation import reentrant_by_default


class CheckpointReentrantDefault(Rule):
    """Without `use_reentrant`, `checkpoint` runs the old, reentrant variant.

    ## What it does
    Flags `torch.utils.checkpoint.checkpoint(...)` and `checkpoint_sequential(...)` without the argument
    `use_reentrant`. In torch 2.13 that still means the reentrant variant, and a warning.

    ## What it costs
    The reentrant variant recomputes the whole segment, with all that it saves, where the other one stops as soon as it
    has what the backward pass needs: measured on a segment that ends with a wide layer, a peak of 38 MB against 22 MB
    (the recomputed output of that layer). And where no input of the segment requires grad (pixels, frozen embeddings)
    its output does not either: the segment's parameters get no gradients, and people switch checkpointing off, at the
    price of all activations (measured for 8 small blocks: 39.5 MB without, 22.0 MB with it).

    ## Example
    ```python
    from torch.utils.checkpoint import checkpoint


    def run(blocks, x):
        for block in blocks:
            x = checkpoint(block, x)
        return x
    ```

    ## Use instead
    ```python
    from torch.utils.checkpoint import checkpoint


    def run(blocks, x):
        for block in blocks:
            x = checkpoint(block, x, use_reentrant=False)
        return x
    ```

    ## Fix safety
    Unsafe: the values are the same, but a segment that was cut from the graph gets gradients, and a segment that
    computes something else the second time raises. Reentrant checkpoints nested in others, and layers that count their
    calls, are to be tried out.

    ## When it stays silent
    When `use_reentrant` is given, also as `True`, or may be among `**kwargs` that the checkpointed function
    does not get elsewhere in the function, too; with grad off; where a condition chooses
    between a call with the option and one without, for an older torch; for the functions of the same name in
    DeepSpeed, FairScale or a file of your own; with a `target-torch` below 1.11.

    ## References
    - `torch.utils.checkpoint` documentation: differences between the two variants
    - pytorch/pytorch#124725, mlfoundations/open_clip#573, huggingface/peft#1142
    """

    code = "MEM403"
    name = "checkpoint-reentrant-default"
    since = "0.1"
    triggers = frozenset({"checkpoint", "checkpoint_sequential"})

    def check(self, module: Module) -> Iterator[Draft]:
        for call in reentrant_by_default(module):
            yield self.finding(
                call.node,
                f"`{module.text(call.call.func)}` without `use_reentrant` is the reentrant variant: it recomputes the "
                "whole segment, and cuts it from the graph where no input requires grad; pass `use_reentrant=False`",
                cost=Cost(CostClass.RAISES_PEAK, "up to A of one segment"),
                confidence=Confidence.MEDIUM,
                fix=_fix(call),
            )


def _fix(call: Call) -> FixDraft | None:
    if not call.names(CHECKPOINTS) or any(argument.star == "**" for argument in call.call.args):
        return None  # a function of another library may not know the option
    return unsafe_fix("use the variant that is not reentrant", AddArgument(call.call, "use_reentrant=False"))
