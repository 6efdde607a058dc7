"""MEM503."""

from __future__ import annotations

from collections.abc import Iterator

from memlint.linting.edits import AddArgument, EditDraft, KeepOnly, Replace
from memlint.linting.finding import Confidence, Cost, CostClass
from memlint.linting.rule import Draft, FixDraft, Rule, safe_fix, unsafe_fix
from memlint.semantics.copies import FreshCopy, fresh_copies
from memlint.semantics.module import Module


class FreshTensorCopied(Rule):
    """A tensor is allocated and copied by the same expression.

    ## What it does
    Flags `torch.zeros(n).clone()` and `torch.tensor(torch.zeros(n))`, `(a + b).clone()`, and factories whose result
    is made on the host and moved at once: `torch.zeros(n).to(device)`, `torch.ones(n).cuda()`, also with a shape, a
    type or a filling in between (`torch.arange(n).unsqueeze(0).to(device)`). The legacy constructors count as such
    where they are given sizes (`torch.FloatTensor(n, m).fill_(1).cuda()`). And `torch.tensor(array).to(device)` of a
    NumPy array, which is copied on the host first.

    ## What it costs
    Two allocations for one value: the peak is higher by the size of the tensor for a moment. Built on the host the
    second one is host memory; it also costs the transfer, and time in which the device waits.

    ## Example
    ```python
    import torch


    def padding(n: int, device: torch.device):
        return torch.zeros(n, n).to(device)
    ```

    ## Use instead
    ```python
    import torch


    def padding(n: int, device: torch.device):
        return torch.zeros(n, n, device=device)
    ```

    ## Fix safety
    Dropping the copy of a factory's result is safe: nobody else can hold the original. So is dropping the copy of
    an operation's result if it is only read afterwards; a caller that gets it might write to it, then the fix is
    unsafe. Passing `device=` is safe for factories whose values are the same on every device when the argument
    surely is a device; unsafe for random numbers (each device draws its own), for computed floating-point ranges, for
    NumPy arrays, for legacy constructors (which become `torch.empty`) and where calls stand in between. There is no
    fix where the same call also changes the type.

    ## When it stays silent
    For views and for operations that may return their argument (`.float()`, `.reshape()`, `.contiguous()`): there
    the clone has a purpose. For operations that save their result for the backward pass (`sigmoid`, `exp`,
    `softmax`). For leaves that require grad, pinned memory, values from Python, arrays that change their type, `out=`,
    a handful of elements, and random numbers in a file that seeds a generator. When a default device is set. With low
    confidence, not shown by default: a vector that a constructor moves, once, and as many numbers as there are classes
    or heads.

    ## References
    - PyTorch performance tuning guide, "Create tensors directly on the target device"
    """

    code = "MEM503"
    name = "fresh-tensor-copied"
    since = "0.1"
    triggers = frozenset({"clone", "to", "cuda", "tensor"})

    def check(self, module: Module) -> Iterator[Draft]:
        for found in fresh_copies(module):
            source = module.text(found.source, 40)
            if found.device is None:
                message = f"the value is allocated twice: nobody but this copy can see `{source}`"
            elif found.is_array:
                message = f"`{source}` copies the array on the host before it is copied to the device: pass `device=`"
            elif found.legacy_type is not None:
                message = f"`{source}` is built on the host and copied to the device: make it there, by `torch.empty`"
            else:
                message = f"`{source}` is built on the host and copied to the device: make it there with `device=`"
            yield self.finding(
                found.call.node,
                message,
                cost=_cost(found),
                confidence=_confidence(found),
                fix=_fix(module, found) if found.fixable else None,
            )


def _cost(found: FreshCopy) -> Cost:
    if found.device is None:
        return Cost(CostClass.RAISES_PEAK, "bytes of the tensor")
    return Cost(CostClass.CONSTANT, "bytes of the tensor on the host, and the transfer")


def _confidence(found: FreshCopy) -> Confidence:
    if found.is_negligible:
        return Confidence.LOW
    return Confidence.MEDIUM if found.is_array or found.made is not None else Confidence.HIGH


def _fix(module: Module, found: FreshCopy) -> FixDraft:
    make = safe_fix if found.safe else unsafe_fix
    edits: list[EditDraft] = [KeepOnly(found.call.call, found.source)]
    if found.device is None:
        return make("drop the copy", *edits)
    arguments = f"device={found.device}"
    if found.legacy_type is not None:
        torch = module.text(found.factory.func).rpartition(".")[0]
        edits.append(Replace(found.factory.func, f"{torch}.empty"))
        arguments = f"dtype={torch}.{found.legacy_type}, {arguments}" if found.legacy_type else arguments
    return make("make it on the device", *edits, AddArgument(found.factory, arguments))
