"""MEM103."""

from __future__ import annotations

from collections.abc import Iterator

from memlint.linting.finding import Confidence
from memlint.linting.rule import Draft, Rule
from memlint.semantics.keepers import KeptArgument
from memlint.semantics.module import Module
from memlint.semantics.rollouts import kept_by_meters

from ._retained import retained_confidence, retained_cost, retained_names, retained_story, unsafe_retained_fix


class MeterKeepsGraph(Rule):
    """A meter is given a tensor with its autograd graph, and keeps the graph of every batch.

    ## What it does
    Flags `meter.update(loss)`, `history.add(loss)`, `tracker(loss)` and the like in a loop over batches, or in a
    training step, when `loss` still carries its autograd graph and the method sums or stores its argument as it is.
    What a class or function of the same file stores is read; a class that is imported from elsewhere counts when it is
    named like the well-known ones (`AverageMeter`, `AverageValueMeter`, `RunningAverage`, `SmoothedValue`, ...), with
    medium confidence. A meter that gets each item of a dictionary gets the one that was differentiated, too.

    ## What it costs
    The meter's sum is the last node of a graph that grows with every batch:

    - after `loss.backward()` graph nodes stay, in *host* memory, about 0.7 kB a node (measured: 222 kB a step for a
      network of 201 modules);
    - without a backward pass (validation without `torch.no_grad()`) every activation of every step stays on the
      *device* (measured: 4.7 MB a step for a small network, 84.8 MB after 20).

    ## Example
    ```python
    class AverageMeter:
        def __init__(self):
            self.sum = 0.0
            self.count = 0

        def update(self, value, n=1):
            self.sum += value * n
            self.count += n


    def train(net, loader, criterion, optimizer):
        losses = AverageMeter()
        for x, y in loader:
            loss = criterion(net(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.update(loss, x.size(0))
        print(losses.sum / losses.count)
    ```

    ## Use instead
    ```python
    class AverageMeter:
        def __init__(self):
            self.sum = 0.0
            self.count = 0

        def update(self, value, n=1):
            self.sum += value * n
            self.count += n


    def train(net, loader, criterion, optimizer):
        losses = AverageMeter()
        for x, y in loader:
            loss = criterion(net(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.update(loss.detach(), x.size(0))
        print(losses.sum / losses.count)
    ```

    `loss.item()` gives the meter a number, and waits for the device at every step. Where many places use the meter,
    detach inside it: `value = value.detach()` when it is a tensor.

    ## Fix safety
    Inserting `.detach()` at the call is unsafe: the meter is an object, and other code may ask it for what it holds.

    ## When it stays silent
    When the method converts or detaches (`.item()`, `float()`), asks what it was given (`isinstance`,
    `torch.is_tensor`), keeps only the last value, or the last few (`deque(maxlen=...)`); when the meter is made anew
    or reset in the same loop; when what it holds is ever differentiated; when the value is a number, detached, or
    made with grad mode off; for loggers (`wandb.log`, `add_scalar`, `self.log`), progress bars, torchmetrics and
    other libraries that convert; when the class is out of view and its name says nothing (a class of another file of
    the project is read).

    ## References
    - PyTorch FAQ, "Don't accumulate history across your training loop"
    - pytorch/examples, `imagenet/main.py`: `losses.update(loss.item(), images.size(0))`
    """

    code = "MEM103"
    name = "meter-keeps-graph"
    since = "0.1"
    triggers = frozenset({"for", "while", "step"})

    def check(self, module: Module) -> Iterator[Draft]:
        for kept in kept_by_meters(module):
            retention = kept.retention
            what, related = retained_story(module, retention)
            yield self.finding(
                retention.store.node,
                f"{_keeper(module, kept)} keeps the autograd graph of {retained_names(module, retention)} of every "
                f"batch: {what}",
                cost=retained_cost(retention),
                confidence=retained_confidence(retention) if kept.keeping.certain else Confidence.MEDIUM,
                related=related,
                # `.detach()` is a tensor's: not of a dictionary of losses, nor of each of its items.
                fix=None if kept.argument.value.boxes or kept.argument.value.partly else unsafe_retained_fix(retention),
                questions=retention.questions,
            )


def _keeper(module: Module, kept: KeptArgument) -> str:
    called = f"`{module.text(kept.call.call.func)}()`"
    if kept.keeping.certain and kept.keeping.attribute is not None and kept.call.method is not None:
        return f"{called} puts it into `{module.text(kept.keeper)}.{kept.keeping.attribute}`, which"
    return called
