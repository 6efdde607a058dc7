"""MEM602."""

from __future__ import annotations

from collections.abc import Iterator

from memlint.linting.finding import Confidence, Cost, CostClass
from memlint.linting.rule import Draft, Rule
from memlint.semantics.module import Module
from memlint.semantics.repeats import RememberedBatches, remembered_batches


class CycleCachesBatches(Rule):
    """`itertools.cycle` keeps every batch of the first pass over a data loader.

    ## What it does
    Flags `itertools.cycle(loader)` and `itertools.tee(loader)` over a data loader or a data set, also through
    `enumerate`, `zip`, `iter`, a progress bar or `accelerator.prepare`. To repeat the items, `cycle` remembers all of
    them; `tee` remembers what one of its readers has not taken yet.

    ## What it costs
    All batches of an epoch, N x the bytes of a batch, in host memory, or on the device if the loader yields device
    tensors. Measured: 30 of 30 batches alive after the first pass. And from the second pass on the same batches come
    back in the same order: no new shuffling, no new augmentation.

    ## Example
    ```python
    from itertools import cycle

    from torch.utils.data import DataLoader


    def batches(dataset):
        return cycle(DataLoader(dataset, batch_size=32, shuffle=True))
    ```

    ## Use instead
    ```python
    from torch.utils.data import DataLoader


    def forever(loader):
        while True:
            yield from loader


    def batches(dataset):
        return forever(DataLoader(dataset, batch_size=32, shuffle=True))
    ```

    ## Fix safety
    There is no fix: the generator that replaces `cycle` shuffles anew in every pass, which is most likely meant, but
    changes the batches that the program sees.

    ## When it stays silent
    When `cycle` is not that of `itertools`; when it repeats a list, a range, names, a list of loaders, a batch
    sampler, or the first few batches (`islice`); when one batch is the whole data set. Where only a name says that
    something is a loader the confidence is medium; that of `tee` is low, but for a `cycle` made by hand:
    `it, copy = tee(it)` in an endless loop that reads each copy to its end.

    ## References
    - `itertools.cycle` and `itertools.tee` documentation
    - pytorch/pytorch#23900, "Memory leak when using itertools.cycle"
    """

    code = "MEM602"
    name = "cycle-caches-batches"
    since = "0.1"
    triggers = frozenset({"cycle", "tee"})

    def check(self, module: Module) -> Iterator[Draft]:
        for found in remembered_batches(module):
            function, iterable = module.text(found.call.call.func), module.text(found.iterable)
            keeps = "remembers every item" if found.every_item else "keeps what one of its readers has not taken yet"
            yield self.finding(
                found.call.node,
                f"`{function}` {keeps} of `{iterable}`: up to a whole epoch of batches stays in host memory",
                cost=Cost(CostClass.GROWS_ON_HOST, "N x the bytes of a batch"),
                confidence=_confidence(found),
            )


def _confidence(found: RememberedBatches) -> Confidence:
    if not found.every_item and not found.again:
        return Confidence.LOW  # `tee` is often meant: the items are read again
    return Confidence.MEDIUM if found.by_name else Confidence.HIGH
