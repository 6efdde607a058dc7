"""MEM108."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from memlint.linting.edits import RemoveStatement, Replace
from memlint.linting.finding import Confidence, Cost, CostClass
from memlint.linting.rule import Draft, FixDraft, Rule, unsafe_fix
from memlint.semantics.function_contexts import ContextTensor, Kept, context_tensors, is_simple
from memlint.semantics.module import Module

_STORIES = {
    Kept.OUTPUT: "`{target}` keeps the output, whose graph keeps this context: a reference cycle, which only the "
    "garbage collector can free",
    Kept.TENSOR: "`{target}` keeps a tensor until the whole graph is dropped: backward frees only what "
    "`save_for_backward` has saved",
    Kept.SEVERAL: "`{target}` keeps the tensors in it until the whole graph is dropped: backward frees only what "
    "`save_for_backward` has saved",
}
_CLEARED = (
    "`{target}` keeps the output, whose graph keeps this context: where backward does not run (evaluation, an output "
    "without part in the loss), only the garbage collector can free the cycle"
)
_COSTS = {
    Kept.OUTPUT: Cost(CostClass.GROWS_ON_DEVICE, "the output's bytes for each call"),
    Kept.TENSOR: Cost(CostClass.RAISES_PEAK, "the tensor's bytes for each call"),
    Kept.SEVERAL: Cost(CostClass.RAISES_PEAK, "the tensors' bytes for each call"),
}


class CtxAttributeKeepsTensor(Rule):
    """A custom autograd Function keeps tensors as attributes of its context.

    ## What it does
    Flags `ctx.name = tensor` in the `forward` (or `setup_context`) of a `torch.autograd.Function`: an input for which
    backward returns a gradient, the output, the result of a tensor operation, or a tuple with one of them.

    ## What it costs
    - An attribute stays until the last reference to the graph is gone; what `save_for_backward` saves is freed by the
      backward pass. Measured with a tensor of 4 MB and ten losses kept in a list: 44 MB after their backward passes,
      4 MB with `save_for_backward`. In a plain training loop it is one more set of these tensors at the peak, because
      the next forward pass runs before `loss` is bound anew.
    - The output as an attribute makes a reference cycle (output, graph, context, output): measured 44 MB after ten
      iterations that kept nothing, until Python's cyclic garbage collector ran.
    - Checkpointing, `save_on_cpu` and other hooks on saved tensors do not see the attribute.

    ## Example
    ```python
    import torch


    class Scale(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, weight):
            ctx.x = x
            ctx.weight = weight
            return x * weight

        @staticmethod
        def backward(ctx, grad):
            return grad * ctx.weight, grad * ctx.x
    ```

    ## Use instead
    ```python
    import torch


    class Scale(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, weight):
            ctx.save_for_backward(x, weight)
            return x * weight

        @staticmethod
        def backward(ctx, grad):
            x, weight = ctx.saved_tensors
            return grad * weight, grad * x
    ```

    Intermediate results may be saved so too, not only inputs and outputs.

    ## Fix safety
    Unsafe: a saved tensor that is changed in place afterwards makes backward raise, an attribute gives the changed
    values; and `save_for_backward` takes nothing but tensors and None. The first finding in a class has the fix for
    all of them. There is none where the class calls `save_for_backward` already, or where the attribute is set on
    some paths only.

    ## When it stays silent
    For numbers, shapes, dtypes, devices, groups, callables and random number states; for tensors of a single number;
    for inputs that nothing proves to be tensors; when a method deletes the attribute or sets it to None (of an output:
    medium confidence, for a backward pass that never comes frees nothing). With low confidence, not shown by default,
    for the Functions inside reversible layers, which compute their forward pass anew in the backward pass and drop the
    graph at once.

    ## References
    - PyTorch notes, "Extending PyTorch", section on `torch.autograd.Function`
    - pytorch/pytorch#25340, pytorch/pytorch#5569
    - asappresearch/sru#171, pyro-ppl/pyro#1049, RobinBruegger/RevTorch#1, getkeops/keops#353
    """

    code = "MEM108"
    name = "ctx-attribute-keeps-tensor"
    since = "0.1"
    triggers = frozenset({"Function", "InplaceFunction", "NestedIOFunction"})

    def check(self, module: Module) -> Iterator[Draft]:
        for _, group in groupby(context_tensors(module), key=lambda found: found.function):
            together = list(group)
            for index, found in enumerate(together):
                yield self.finding(
                    found.store.node,
                    (_CLEARED if found.is_cleared else _STORIES[found.kept]).format(
                        target=module.text(found.store.node)
                    ),
                    cost=_COSTS[found.kept],
                    confidence=_confidence(found),
                    fix=_fix(module, together) if index == 0 else None,
                )


def _confidence(found: ContextTensor) -> Confidence:
    if found.is_short_lived:
        return Confidence.LOW
    return Confidence.MEDIUM if found.is_cleared else Confidence.HIGH


def _fix(module: Module, together: list[ContextTensor]) -> FixDraft | None:
    if not all(is_simple(found) and found.store.scope is together[0].store.scope for found in together):
        return None
    *others, last = together
    context = last.store.path.partition(".")[0] if last.store.path is not None else ""
    saved = ", ".join(module.text(found.store.source) for found in together)
    reads = [
        Replace(read, f"{module.text(read.value)}.saved_tensors[{index}]")
        for index, found in enumerate(together)
        for read in found.reads
    ]
    return unsafe_fix(
        "save them for the backward pass",
        *(RemoveStatement(found.store.statement) for found in others),
        Replace(last.store.statement, f"{context}.save_for_backward({saved})"),
        *reads,
    )
