"""MEM506."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from memlint.linting.edits import Replace
from memlint.linting.finding import Confidence, Cost, CostClass
from memlint.linting.rule import Draft, FixDraft, Rule, unsafe_fix
from memlint.semantics.knowledge.snapshots import TRIGGERS
from memlint.semantics.module import Module
from memlint.semantics.snapshots import Copied, Snapshot, snapshots

if TYPE_CHECKING:
    import libcst as cst

_WHAT = {
    Copied.WEIGHTS: "the best weights are",
    Copied.OPTIMIZER: "the optimizer's state is",
    Copied.MODEL: "the best model is",
}
_SIZES = {
    Copied.WEIGHTS: "the bytes of the model once more",
    Copied.OPTIMIZER: "twice the bytes of the model (Adam)",
    Copied.MODEL: "the bytes of the model once more",
}
_BYTES = {Copied.WEIGHTS: "P", Copied.OPTIMIZER: "2 P with Adam", Copied.MODEL: "P"}


class DeepcopyStateOnDevice(Rule):
    """The best weights so far are copied on the device, beside the model that is trained.

    ## What it does
    Flags `copy.deepcopy(model.state_dict())`, `{k: v.clone() for k, v in model.state_dict().items()}`,
    `copy.deepcopy(optimizer.state_dict())` and `copy.deepcopy(model)` that are kept where a condition says that the
    model is the best so far, and the first copy that such a one replaces. The copy is on the model's device, and nobody
    needs it there before training is over.

    ## What it costs
    P bytes of parameters and buffers on the device for the whole training, 2 P for the state of Adam, and once more
    while a copy is replaced: the old one lives until the new one is complete. Measured with parameters of 64 MiB:
    64 MiB for the copy, another 64 MiB while it is made anew, 128 MiB for the state of Adam.

    ## Example
    ```python
    import copy

    import torch


    def fit(model, loader, epochs, device, train_epoch, evaluate):
        best, best_weights = 0.0, None
        model.to(device)
        for _ in range(epochs):
            train_epoch(model, loader)
            score = evaluate(model)
            if score > best:
                best = score
                best_weights = copy.deepcopy(model.state_dict())
        model.load_state_dict(best_weights)
    ```

    ## Use instead
    ```python
    import torch


    def fit(model, loader, epochs, device, train_epoch, evaluate):
        best, best_weights = 0.0, None
        model.to(device)
        for _ in range(epochs):
            train_epoch(model, loader)
            score = evaluate(model)
            if score > best:
                best = score
                best_weights = {k: v.detach().to("cpu", copy=True) for k, v in model.state_dict().items()}
        model.load_state_dict(best_weights)
    ```

    `copy=True` matters where the model may be on the CPU: `.cpu()` would return the live weights themselves. And
    `best = model.state_dict()` without any copy is no snapshot: it follows the training.

    ## Fix safety
    Copying to the host is unsafe: the tensors are on another device then, and what else reads them may need them on
    the first. There is no fix for a whole model and for the state of an optimizer, which is nested.

    ## When it stays silent
    When no condition compares scores: copies for target networks, moving averages, meta learning, or to start again
    from; when the copy is taken apart, averaged or run while training goes on; when it is moved to the host at once;
    when the file trains and names no device; when the copy only goes to a function.

    ## References
    - PyTorch tutorial "Saving and Loading Models": "`best_model_state = deepcopy(model.state_dict())`"
    - `torch.Tensor.to` documentation, parameter `copy`
    """

    code = "MEM506"
    name = "deepcopy-state-on-device"
    since = "0.1"
    triggers = TRIGGERS

    def check(self, module: Module) -> Iterator[Draft]:
        for found in snapshots(module):
            yield self.finding(
                found.node,
                f"{_WHAT[found.what]} kept on the device: `{module.text(found.node, 50)}` takes "
                f"{_SIZES[found.what]} there, twice that while it is replaced",
                cost=Cost(CostClass.RAISES_PEAK, _BYTES[found.what]),
                confidence=_confidence(found),
                fix=_fix(module, found),
            )


def _confidence(found: Snapshot) -> Confidence:
    return Confidence.HIGH if found.on_device and found.what is not Copied.MODEL else Confidence.MEDIUM


def _fix(module: Module, found: Snapshot) -> FixDraft | None:
    if found.what is not Copied.WEIGHTS:
        return None
    message = "copy it to the host"
    if found.cloned is not None:
        return unsafe_fix(message, Replace(found.cloned, _host_copy(module, found.cloned)))
    source = module.text(found.source, 10_000)
    return unsafe_fix(message, Replace(found.node, f"{{k: {_ON_HOST.format('v')} for k, v in {source}.items()}}"))


_ON_HOST = '{}.detach().to("cpu", copy=True)'


def _host_copy(module: Module, cloned: cst.BaseExpression) -> str:
    return _ON_HOST.format(module.text(cloned, 10_000).partition(".")[0])
