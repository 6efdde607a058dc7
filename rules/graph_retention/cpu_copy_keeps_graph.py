"""MEM104."""

from __future__ import annotations

from collections.abc import Iterator

from memlint.linting.rule import Draft, Rule
from memlint.semantics.module import Module
from memlint.semantics.retention import retentions

from ._retained import (
    retained_confidence,
    retained_cost,
    retained_fix,
    retained_names,
    retained_story,
)


class CpuCopyKeepsGraph(Rule):
    """A stored copy keeps the autograd graph that it was meant to leave behind.

    ## What it does
    Flags `features.append(net(x).cpu())` (also `.to("cpu")`, `.clone()`, `.half()`, ...) in a loop over batches:
    copying a tensor is a differentiable operation, so the copy holds on to the graph, and the graph to every
    activation on the device.

    ## What it costs
    Device memory, although the results seem to have moved to the host: all activations of every batch when no
    backward pass frees them (measured: 84.4 MB after 20 batches with `.cpu()`, flat with `.detach().cpu()`); after a
    backward pass graph nodes in host memory.

    ## Example
    ```python
    import torch.nn.functional as F


    def train(net, loader, optimizer):
        predictions = []
        for x, y in loader:
            logits = net(x)
            loss = F.cross_entropy(logits, y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            predictions.append(logits.cpu())
        print(len(predictions))
    ```

    ## Use instead
    ```python
    import torch.nn.functional as F


    def train(net, loader, optimizer):
        predictions = []
        for x, y in loader:
            logits = net(x)
            loss = F.cross_entropy(logits, y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            predictions.append(logits.detach().cpu())
        print(len(predictions))
    ```

    Where the loop needs no gradients at all (evaluation, extraction of features), put it under `torch.no_grad()`.

    ## Fix safety
    Inserting `.detach()` before the copy is safe when everything that reaches it is proven to be a tensor and the
    container stays in the function; unsafe otherwise (the call of an unknown model may return a dictionary).

    ## When it stays silent
    With grad mode off; when the container, or anything computed from it, reaches `backward()` or code out of view;
    when it is cleared in the same loop; on `.cpu().numpy()`, which would raise if there were a graph.

    ## References
    - PyTorch issue 13613
    - PyTorch FAQ, "Don't hold onto tensors and variables you don't need"
    """

    code = "MEM104"
    name = "cpu-copy-keeps-graph"
    since = "0.1"
    triggers = frozenset({"cpu", "cuda", "clone", "to", "half", "float", "double", "bfloat16"})

    def check(self, module: Module) -> Iterator[Draft]:
        for retention in retentions(module):
            if retention.store.how == "accumulate" or retention.copied_by is None:
                continue  # MEM101, MEM102
            what, related = retained_story(module, retention)
            yield self.finding(
                retention.store.node,
                f"`.{retention.copied_by}()` copies {retained_names(module, retention)} together with its autograd "
                f"graph, and `{module.text(retention.store.target)}` keeps that of every batch: {what}",
                cost=retained_cost(retention),
                confidence=retained_confidence(retention),
                related=related,
                fix=retained_fix(retention),
                questions=retention.questions,
            )
