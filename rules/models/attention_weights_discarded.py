"""MEM801."""

from __future__ import annotations

from collections.abc import Iterator

from memlint.linting.edits import AddArgument, Replace
from memlint.linting.finding import Confidence, Cost, CostClass
from memlint.linting.rule import Draft, FixDraft, Rule, unsafe_fix
from memlint.semantics.attention import DiscardedWeights, discarded_weights
from memlint.semantics.knowledge.attention import TRIGGERS
from memlint.semantics.module import Module


class AttentionWeightsDiscarded(Rule):
    """`nn.MultiheadAttention` computes attention weights that nobody reads.

    ## What it does
    Flags a call of `nn.MultiheadAttention` without `need_weights=False` whose second result is dropped:
    `out, _ = attn(q, k, v)`, `attn(q, k, v)[0]`, or a name that is never read. The same for
    `torch.nn.functional.multi_head_attention_forward`, and for the attention of a class that derives from torch's
    transformer layers.

    ## What it costs
    With `need_weights=True`, the default, the module cannot use the fused kernels of `scaled_dot_product_attention`:
    it writes out the scores and their softmax, B x H x T^2 numbers each, keeps them for the backward pass, and then
    averages them over the heads. Measured with batch 4, 256 positions, width 64, 8 heads: 9.5 MB saved for backward
    instead of 1.3 MB, peak 17.3 MB instead of 1.8 MB. It grows with the square of the length.

    ## Example
    ```python
    from torch import nn


    class Block(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.norm = nn.LayerNorm(width)
            self.attn = nn.MultiheadAttention(width, 8, batch_first=True)

        def forward(self, x):
            y = self.norm(x)
            h, _ = self.attn(y, y, y)
            return x + h
    ```

    ## Use instead
    ```python
    from torch import nn


    class Block(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.norm = nn.LayerNorm(width)
            self.attn = nn.MultiheadAttention(width, 8, batch_first=True)

        def forward(self, x):
            y = self.norm(x)
            h, _ = self.attn(y, y, y, need_weights=False)
            return x + h
    ```

    ## Fix safety
    Adding `need_weights=False` is unsafe: another kernel rounds differently, and a row that is masked throughout gives
    NaN on one path and not on the other. There is no fix where `is_causal` is given (a mask that is not causal would be
    ignored without the weights) or `average_attn_weights`.

    ## When it stays silent
    When the weights are read, returned, stored or unpacked later; when `need_weights` is given by a variable, or may
    come with `**kwargs`; when the file registers forward hooks, which may read them, or another file of the project
    does that speaks of the attribute (`block.attn`); when the module is not known to be
    torch's: a class of the same name, a subclass with its own `forward`, an argument without an annotation. Where a
    learned query pools the sequence (`self.probe.repeat(batch, 1, 1)`) the weights are small, and it speaks with low
    confidence, which is not shown by default.

    ## References
    - `torch.nn.MultiheadAttention` documentation, parameter `need_weights`: "Set need_weights=False to use the
      optimized scaled_dot_product_attention and achieve the best performance for MHA"
    - pytorch/pytorch#99282
    """

    code = "MEM801"
    name = "attention-weights-discarded"
    since = "0.1"
    triggers = TRIGGERS

    def check(self, module: Module) -> Iterator[Draft]:
        for found in discarded_weights(module):
            code = module.text(found.call.call.func)
            asked = " (`need_weights` is on by default)" if found.asked is None else ""
            yield self.finding(
                found.call.node,
                f"`{code}(...)` computes and saves attention weights that nobody reads{asked}: "
                "no fused kernel can be used",
                cost=Cost(CostClass.RAISES_PEAK, "2 x B x H x T^2 x the bytes of a number"),
                confidence=Confidence.LOW if found.few_queries else Confidence.HIGH,
                fix=_fix(found),
            )


def _fix(found: DiscardedWeights) -> FixDraft | None:
    if not found.replaceable:
        return None
    if found.asked is not None:
        return unsafe_fix("do not compute them", Replace(found.asked.expression, "False"))
    return unsafe_fix("do not compute them", AddArgument(found.call.call, "need_weights=False"))
