"""MEM505."""

from __future__ import annotations

from collections.abc import Iterator

from memlint.linting.edits import InsertAfter
from memlint.linting.finding import Confidence, Cost, CostClass
from memlint.linting.rule import Draft, FixDraft, Rule, unsafe_fix
from memlint.semantics.knowledge import predictions as known
from memlint.semantics.module import Module
from memlint.semantics.predictions import PiledPredictions, piled_predictions


class PredictionsPileUpOnDevice(Rule):
    """The outputs of every batch are collected on the device, and moved to the host when the loop is over.

    ## What it does
    Flags `outputs.append(model(x))` in a loop over batches whose list is joined and moved to the host as a whole
    afterwards, as by `torch.cat(outputs).cpu()`, or whose items are, `[o.cpu() for o in outputs]`, or which is saved as
    it is, `torch.save(outputs, path)`; by every caller in view where the function returns it. So too the rows of each
    batch, `results[name] = row`, tuples and dictionaries, `outputs.append({"logits": model(x)})`, a list that the
    evaluation hooks of Lightning fill (what `on_predict_batch_end` collects also where nothing moves it: Lightning
    itself moves each prediction that it keeps) or, before 2.0, what its steps return to an epoch's end, and a tensor
    that grows, `preds = torch.cat((preds, model(x)))`, which copies all that there is for each batch. The outputs carry
    no graph (grad mode is off, or they are detached); if they do, MEM102 speaks.

    ## What it costs
    N x the bytes of an output on the device, and twice that while `torch.cat` makes one tensor of them (measured: a
    peak of 2.0 x the result). Logits over a vocabulary, masks and feature maps are large: 1000 sequences of 512
    tokens with 32,000 logits each are 67 GB.

    ## Example
    ```python
    import torch


    @torch.no_grad()
    def predict(model, loader, device):
        model.eval()
        outputs = []
        for x, _ in loader:
            outputs.append(model(x.to(device)))
        return torch.cat(outputs).cpu()
    ```

    ## Use instead
    ```python
    import torch


    @torch.no_grad()
    def predict(model, loader, device):
        model.eval()
        outputs = []
        for x, _ in loader:
            outputs.append(model(x.to(device)).cpu())
        return torch.cat(outputs)
    ```

    Where only classes or scores are needed, reduce first: `model(x).argmax(1).cpu()`.

    ## Fix safety
    Adding `.cpu()` is unsafe: what the model returns may be no tensor, later code may need it on the device, and each
    batch then waits for the device. A tensor that grows gets no fix: what it starts with has to go to the host as well.

    ## When it stays silent
    When the list holds numbers, classes or other reductions, or is on the host already; when the joined tensor is
    computed with on the device (retrieval, metrics, gathering); when nothing in view goes to the host; when the list is
    emptied in the loop, or each batch fills the same slots; when the file names no device.
    The pieces of one tensor that no iteration moves to the device (`net(rays[i : i + 1024])`) are there already, and
    their outputs may be meant to be: low confidence, not shown by default.

    ## References
    - huggingface/transformers#7232 and its fix, `eval_accumulation_steps` (#7767)
    - `torch.Tensor.cpu` documentation
    """

    code = "MEM505"
    name = "predictions-pile-up-on-device"
    since = "0.1"
    triggers = known.TRIGGERS

    def check(self, module: Module) -> Iterator[Draft]:
        for found in piled_predictions(module):
            yield self.finding(
                found.node,
                f"`{module.text(found.output)}` of every batch stays on the device; {_fate(found)}",
                cost=Cost(CostClass.GROWS_ON_DEVICE, "N x the bytes of an output, twice that while they are joined"),
                confidence=_confidence(found),
                related=[] if found.moved is None else [(found.moved.node, "it is moved to the host here")],
                fix=_fix(found),
            )


def _fate(found: PiledPredictions) -> str:
    if found.moved is None:
        return "until the run is over, nothing moves it to the host"
    return "all of it goes to the host later"


def _confidence(found: PiledPredictions) -> Confidence:
    if found.of_one_input:
        return Confidence.LOW
    return Confidence.HIGH if found.certain else Confidence.MEDIUM


def _fix(found: PiledPredictions) -> FixDraft | None:
    if found.grows:
        return None  # what it starts with has to go to the host as well
    return unsafe_fix("move each batch to the host", InsertAfter(found.tensor, ".cpu()"))
