"""MEM303."""

from __future__ import annotations

from collections.abc import Iterator

from memlint.linting.edits import AddLineBelow, InsertAfter
from memlint.linting.finding import Confidence, Cost, CostClass
from memlint.linting.rule import Draft, FixDraft, Rule, unsafe_fix
from memlint.semantics.knowledge.lightning_hooks import STEPS
from memlint.semantics.module import Module
from memlint.semantics.step_outputs import StepOutputs, step_outputs


class StepOutputsNeverCleared(Rule):
    """A Lightning module collects the outputs of its steps and never empties the list, or keeps their graphs.

    ## What it does
    Flags, in a `LightningModule` or `Callback` (of `lightning` and of `pytorch_lightning`), a list of the object that
    a step or batch hook fills:

    - when a hook at the end of each epoch uses the list and nothing in the file ever empties it;
    - when `training_step` puts a value into it that still carries its autograd graph: one that is known to, the loss
      that Lightning will differentiate, or the very object that the step returns (a dictionary with the loss in it,
      whatever method made it).

    ## What it costs
    - A list that is never emptied holds the outputs of all epochs so far: epochs x N x the bytes of one output, on
      the device where the outputs were not moved. The epoch's metric is computed over all of them, too. Measured, with
      20 epochs of 100 outputs of 64 x 1000 float32: 487 MB of resident memory, against 30 MB with `clear()`.
    - A graph costs its nodes in host memory, about 0.7 kB a node (measured: 221 kB a step for a network of 201
      modules), until the list is emptied: Lightning runs the backward pass, which frees the activations of the loss.

    ## Example
    ```python
    import lightning as L
    import torch
    import torch.nn.functional as F


    class Classifier(L.LightningModule):
        def __init__(self, net):
            super().__init__()
            self.net = net
            self.outputs = []

        def validation_step(self, batch, batch_idx):
            x, y = batch
            self.outputs.append(F.cross_entropy(self.net(x), y, reduction="none"))

        def on_validation_epoch_end(self):
            self.log("val_loss", torch.cat(self.outputs).mean())
    ```

    ## Use instead
    ```python
    import lightning as L
    import torch
    import torch.nn.functional as F


    class Classifier(L.LightningModule):
        def __init__(self, net):
            super().__init__()
            self.net = net
            self.outputs = []

        def validation_step(self, batch, batch_idx):
            x, y = batch
            self.outputs.append(F.cross_entropy(self.net(x), y, reduction="none"))

        def on_validation_epoch_end(self):
            self.log("val_loss", torch.cat(self.outputs).mean())
            self.outputs.clear()
    ```

    For a mean `self.log("val_loss", loss)` in the step is enough; a metric of torchmetrics keeps sums instead of
    outputs.

    ## Fix safety
    Emptying the list at the end of the hook is unsafe: somebody else may read it later. So is `.detach()`: code that
    is not in view may read the list, and want the graph.

    ## When it stays silent
    When the list is emptied, set anew or shortened anywhere in the file; when it holds numbers (`loss.item()`); when
    only the end of the whole run reads it, or nothing (a history that somebody plots): of what nobody in the project
    uses only outputs of validation are reported; for `predict_step`; when the list is bounded; when what is computed
    from the list is differentiated; in evaluation steps about graphs (Lightning runs these with grad mode off); about
    graphs where the returned object is changed after it was put into the list, and with manual optimization; when the
    base class is out of view. A list that only test steps fill, that nobody uses or whose elements were moved to the
    host is reported with medium confidence.

    ## References
    - Lightning pull request 16520, "Remove the epoch end hooks", and its migration note
    - Lightning documentation, "Upgrade from 1.x to 2.0"
    """

    code = "MEM303"
    name = "step-outputs-never-cleared"
    since = "0.1"
    triggers = STEPS

    def check(self, module: Module) -> Iterator[Draft]:
        for outputs in step_outputs(module):
            yield self.finding(
                outputs.store.node,
                _story(module, outputs),
                cost=_cost(outputs),
                confidence=_confidence(outputs),
                related=[] if outputs.epoch_end is None else [(outputs.epoch_end.node, "used here, and not emptied")],
                fix=_fix(module, outputs),
                questions=outputs.questions if outputs.epoch_end is None else (),
            )


def _story(module: Module, outputs: StepOutputs) -> str:
    target = module.text(outputs.store.target)
    if outputs.is_unread:
        return (
            f"`{target}` is filled in `{outputs.step}`, never emptied and never used: the outputs of all epochs pile up"
        )
    if outputs.epoch_end is None:
        what = module.text(outputs.store.value_node)
        return f"`{target}` keeps the autograd graph of `{what}` of every batch until it is emptied"
    where = "in host memory" if outputs.on_host else "on the device"
    if outputs.only_in_tests:
        return f"`{target}` is filled in `{outputs.step}` and never emptied: all outputs of the test stay {where}"
    return f"`{target}` is filled in `{outputs.step}` and never emptied: the outputs of all epochs pile up {where}"


def _cost(outputs: StepOutputs) -> Cost:
    if outputs.epoch_end is None and not outputs.is_unread:
        return Cost(CostClass.GROWS_ON_HOST, "N x graph nodes x about 0.7 kB")
    kind = CostClass.GROWS_ON_HOST if outputs.on_host else CostClass.GROWS_ON_DEVICE
    return Cost(kind, "epochs x N x bytes(output)")


def _confidence(outputs: StepOutputs) -> Confidence:
    if outputs.is_unread:
        return Confidence.MEDIUM  # somebody at a prompt may look at it
    if outputs.epoch_end is not None and (outputs.only_in_tests or outputs.on_host):
        return Confidence.MEDIUM
    return Confidence.HIGH if outputs.certain else Confidence.MEDIUM


def _fix(module: Module, outputs: StepOutputs) -> FixDraft | None:
    if outputs.is_unread:
        return None
    if outputs.epoch_end is None:
        edits = [InsertAfter(node, ".detach()") for node, _ in outputs.store.carriers]
        return unsafe_fix("detach it from its graph", *edits) if edits else None
    last = outputs.last_of_epoch_end
    if last is None or module.text(outputs.store.target) != f"self.{outputs.attribute}":
        return None  # of a dictionary of lists, `clear()` would take the lists out
    return unsafe_fix("empty the list when the epoch ends", AddLineBelow(last, f"self.{outputs.attribute}.clear()"))
