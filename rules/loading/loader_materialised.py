"""MEM603."""

from __future__ import annotations

from collections.abc import Iterator

from memlint.linting.edits import KeepOnly
from memlint.linting.finding import Confidence, Cost, CostClass
from memlint.linting.rule import Draft, FixDraft, Rule, unsafe_fix
from memlint.semantics.materialised import HeldBatches, held_batches
from memlint.semantics.module import Module


class LoaderMaterialised(Rule):
    """All batches of a data loader are held in memory at once.

    ## What it does
    Flags `list(loader)`, `tuple(loader)`, `sorted(loader)` and the like, and `[batch for batch in loader]` where the
    elements keep the batches or their inputs, also moved to the device: `[(x.cuda(), y.cuda()) for x, y in loader]`.

    ## What it costs
    All the bytes that a pass over the data set gives, at once, where one batch (and what the workers prefetch) would
    do: in host memory, or on the device beside the activations. Measured: `for x, y in list(loader)` over 64 batches
    of 256 x 3 x 32 x 32 floats raises the peak of the process by 190 MiB, `for x, y in loader` by 7 MiB.

    ## Example
    ```python
    from torch.utils.data import DataLoader


    def run(net, dataset):
        loader = DataLoader(dataset, batch_size=32)
        batches = [(x.cuda(), y.cuda()) for x, y in loader]
        for x, y in batches:
            net.step(x, y)
    ```

    ## Use instead
    ```python
    from torch.utils.data import DataLoader


    def run(net, dataset):
        loader = DataLoader(dataset, batch_size=32, pin_memory=True)
        for x, y in loader:
            net.step(x.cuda(non_blocking=True), y.cuda(non_blocking=True))
    ```

    The number of batches is `len(loader)`, one batch `next(iter(loader))`, the first few
    `itertools.islice(loader, n)`.

    ## Fix safety
    Looping over the loader instead of a list of it is unsafe: the random numbers of its transforms and those of the
    loop's body are then drawn in turns, and a body that changes the data or starts the loader again sees something
    else. For everything else there is no fix: what the list was for is not known.

    ## When it stays silent
    When only numbers, targets, predictions or reductions of the batches are kept; when a condition selects, or
    `islice` takes the first few; when one batch is the whole data set; when the data set is a `TensorDataset`, in
    memory anyway, or a `Subset`, or a name says that it is small; when nothing is collated (`batch_size=None`,
    `collate_fn=list`: the workers run a function), or a class of loader in the project decides what is. A name alone
    says it only where it names a role of data (`train_loader`, not `yaml_loader`) or batches are taken from it
    elsewhere in the file. Where only the name says that something is a loader, or only the inputs are kept, the
    confidence is medium; where a loop in a loop reads the list again in every round, or a nested function at each call,
    or the function is called `prefetch` or `cache`, it is low, and not shown by default: a cache, made on purpose.

    ## References
    - `torch.utils.data.DataLoader` documentation
    """

    code = "MEM603"
    name = "loader-materialised"
    since = "0.1"
    triggers = frozenset({"list", "tuple", "sorted", "dict", "set", "deque", "for"})

    def check(self, module: Module) -> Iterator[Draft]:
        for found in held_batches(module):
            where = "on the device" if found.on_device else "in host memory"
            yield self.finding(
                found.node,
                f"this holds every batch of `{module.text(found.iterable)}` at once {where}",
                cost=Cost(
                    CostClass.GROWS_ON_DEVICE if found.on_device else CostClass.GROWS_ON_HOST,
                    "N x the bytes of a batch",
                ),
                confidence=_confidence(found),
                fix=_fix(found),
            )


def _confidence(found: HeldBatches) -> Confidence:
    if found.is_cache:
        return Confidence.LOW
    return Confidence.HIGH if found.certain else Confidence.MEDIUM


def _fix(found: HeldBatches) -> FixDraft | None:
    if not found.looped_over or found.call is None or not found.call.names({"list", "tuple"}) or found.on_device:
        return None
    if found.call.positional[0].expression is not found.iterable:
        return None
    return unsafe_fix("loop over the loader", KeepOnly(found.call.call, found.iterable))
