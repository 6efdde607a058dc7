"""MEM701."""

from __future__ import annotations

from collections.abc import Iterator

from memlint.linting.edits import RemoveStatement
from memlint.linting.finding import Confidence, Cost, CostClass
from memlint.linting.rule import Draft, FixDraft, Rule, unsafe_fix
from memlint.semantics.cache_flushes import CacheFlush, cache_flushes
from memlint.semantics.module import Module


class EmptyCacheInLoop(Rule):
    """The allocator's cache is emptied at every step.

    ## What it does
    Flags `torch.cuda.empty_cache()` (also that of `torch.accelerator`, `torch.mps` and `torch.xpu`) where it runs in
    every iteration of a loop over batches (or over slices of the data, or that runs the same model in each iteration),
    in a function that such loops call for each batch, in the `forward` of a module, in a step method or per-batch
    callback of Lightning or Transformers, or in the `__getitem__` of a data set; also through a function of the same
    file.

    ## What it costs
    Time, hardly ever memory: `empty_cache()` cannot free a live tensor. It waits for the device, hands unused blocks
    back to the driver, and the next step has to ask for them again. Measured in PEFT (pull request 2894): 108 s for a
    run with `gc.collect()` and `empty_cache()` in every step, 65 s without the former, 50 s with the latter in every
    tenth step only, the same memory allocated each time. It does limit fragmentation: without it the *reserved*
    memory rose there from 19.3 to 23.5 GB.

    ## Example
    ```python
    import torch
    from torch.utils.data import DataLoader


    def train(step, loader: DataLoader):
        for batch in loader:
            step(batch)
            torch.cuda.empty_cache()
    ```

    ## Use instead
    ```python
    import torch
    from torch.utils.data import DataLoader


    def train(step, loader: DataLoader):
        for batch in loader:
            step(batch)
        torch.cuda.empty_cache()
    ```

    Against fragmentation set `PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True`, or empty the cache every hundred
    steps.

    ## Fix safety
    Removing the call is unsafe: it changes no value, but the reserved memory, and with it how close a run comes to
    the device's limit.

    ## When it stays silent
    When the call stands behind a condition that changes from step to step (`if step % 100 == 0`, memory that is
    short, a user's option), in an `except` clause, after the loop, or in a loop over epochs, models or layers; when
    the loop ends after one batch; where a peak is measured (`reset_peak_memory_stats()`); for DeepSpeed's
    `get_accelerator().empty_cache()`, which its documentation asks for.

    ## References
    - `torch.cuda.empty_cache` documentation
    - PyTorch notes, "CUDA semantics", section on memory management
    - huggingface/peft#2894
    """

    code = "MEM701"
    name = "empty-cache-in-loop"
    since = "0.1"
    triggers = frozenset({"empty_cache"})

    def check(self, module: Module) -> Iterator[Draft]:
        for flush in cache_flushes(module):
            call = module.text(flush.call.call)
            does = f"`{call}`" if flush.through is None else f"`{call}` empties the allocator's cache: it"
            where = "in every iteration of this loop" if flush.method is None else f"in every call of `{flush.method}`"
            related = [] if flush.loop is None else [(flush.loop.node, "the loop")]
            yield self.finding(
                flush.call.node,
                f"{does} costs time {where} and frees nothing that is in use",
                cost=Cost(CostClass.CONSTANT),
                confidence=Confidence.HIGH if flush.certain else Confidence.MEDIUM,
                related=related,
                fix=_fix(flush),
            )


def _fix(flush: CacheFlush) -> FixDraft | None:
    if flush.through is not None or not flush.call.is_statement:
        return None  # the function may do more than that
    return unsafe_fix("remove it", RemoveStatement(flush.call.statement))
