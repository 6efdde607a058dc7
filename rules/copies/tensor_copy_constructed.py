"""MEM502."""

from __future__ import annotations

from collections.abc import Iterator

from memlint.linting.edits import InsertAfter, KeepOnly
from memlint.linting.finding import Confidence, Cost, CostClass
from memlint.linting.rule import Draft, FixDraft, Rule, safe_fix, unsafe_fix
from memlint.semantics.copies import ConstructedCopy, constructed_copies
from memlint.semantics.module import Module


class TensorCopyConstructed(Rule):
    """`torch.tensor(t)` of a tensor always copies it.

    ## What it does
    Flags `torch.tensor(t)` where `t` is proven to be a tensor, or is a parameter that a call in the same file gives a
    tensor that it computes. torch warns about it at run time.

    ## What it costs
    A second tensor of the same size, also where dtype and device are right already. Where no second tensor is
    needed, `t.detach()` costs nothing; where it is, `t.detach().clone()` says so. With another dtype or device,
    `t.to(...)` copies once and only if needed.

    ## Example
    ```python
    import torch


    def targets(labels: torch.Tensor):
        return torch.tensor(labels)
    ```

    ## Use instead
    ```python
    import torch


    def targets(labels: torch.Tensor):
        return labels.detach().clone()
    ```

    ## Fix safety
    Safe for a proven tensor and no other argument. Unsafe where the file sets a default device or enters one:
    `torch.tensor` then moves the values too. With `dtype`, `device` or `requires_grad` there is no fix: no
    replacement is always right; nor for a parameter, which other calls may give something else.

    ## When it stays silent
    When the kind of the argument is unknown on any path, for lists of tensors, numbers, NumPy arrays and values
    taken out of a tensor; for what arrays can do as well (`x.nonzero()`), unless `x` is known to be a tensor; for
    `torch.as_tensor` and `torch.asarray`, which share memory where they can; for a parameter that the function asks
    something of, or copies on a condition, and where what the call gives is only annotated as a tensor.

    ## References
    - `torch.tensor` documentation: "torch.tensor() always copies data"; its UserWarning
    """

    code = "MEM502"
    name = "tensor-copy-constructed"
    since = "0.1"
    triggers = frozenset({"tensor"})

    def check(self, module: Module) -> Iterator[Draft]:
        for found in constructed_copies(module):
            source, caller = module.text(found.source, 30), found.given_by
            related = [] if caller is None else [(caller.node, "this call gives it a tensor")]
            yield self.finding(
                found.call.node,
                f"`torch.tensor` always copies, and `{source}` is a tensor already" + (" at times" if related else ""),
                cost=Cost(CostClass.RAISES_PEAK, "bytes of the tensor"),
                confidence=_confidence(found),
                related=related,
                fix=_fix(found),
            )


def _confidence(found: ConstructedCopy) -> Confidence:
    if found.is_written:
        return Confidence.LOW
    return Confidence.HIGH if found.given_by is None else Confidence.MEDIUM


def _fix(found: ConstructedCopy) -> FixDraft | None:
    if not found.is_plain or found.given_by is not None:
        return None  # a dtype or a device changes more than a copy does; other calls may give no tensor
    make = unsafe_fix if found.default_device else safe_fix
    edits = KeepOnly(found.call.call, found.source), InsertAfter(found.source, ".detach().clone()")
    return make("say what happens: `.detach().clone()`", *edits)
