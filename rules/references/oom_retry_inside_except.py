"""MEM304."""

from __future__ import annotations

from collections.abc import Iterator

from memlint.linting.edits import LeaveHandler
from memlint.linting.finding import Confidence, Cost, CostClass
from memlint.linting.rule import Draft, FixDraft, Rule, unsafe_fix
from memlint.semantics.handlers import Retry, movable_body, retries
from memlint.semantics.module import Module

_FLAG = "ran_out_of_memory"


class OomRetryInsideExcept(Rule):
    """A retry after running out of memory stands in the `except` clause, where the failed call is still alive.

    ## What it does
    Flags an `except` clause that catches a failed allocation (`torch.OutOfMemoryError`, a test for "out of memory", or
    a `RuntimeError` after which the clause calls `empty_cache()`) and runs the model again: a forward pass, a function
    that makes one, the function that failed, a variant of it (`decode_tiled` for `decode`), or the function itself with
    a smaller batch.

    ## What it costs
    While the clause runs, the exception's traceback holds every frame of the failed call, and each frame its locals:
    the activations that did not fit are still there, and `empty_cache()` cannot free them. Measured on a small network
    that failed at its end: 21.6 MB held inside the clause, 1 MB after it; with or without `as e`, and after `del e`.
    So the retry starts with the memory of the failed step taken, and often fails, too.

    ## Example
    ```python
    import torch


    def embed(model: torch.nn.Module, batch):
        try:
            return model(batch)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            return torch.cat([model(part) for part in batch.chunk(2)])
    ```

    ## Use instead
    ```python
    import torch


    def embed(model: torch.nn.Module, batch):
        try:
            return model(batch)
        except torch.OutOfMemoryError:
            pass
        torch.cuda.empty_cache()
        return torch.cat([model(part) for part in batch.chunk(2)])
    ```

    ## Fix safety
    Unsafe: it sets a flag in the clause and runs the rest of its body below the `try` statement. The exception is then
    no longer the context of what the body raises. There is no fix where the body uses the exception or raises it again,
    or where the statement has other clauses.

    ## When it stays silent
    When the clause only logs, counts, sets a flag, skips the batch or raises again; when the retry is the next
    iteration of a loop; when it runs on the CPU and its result stays there; when the clause clears the frames or the
    traceback (`traceback.clear_frames`, `e.__traceback__ = None`); when only operations of torch failed, which have no
    frame; when what is called again is out of view and nothing says that memory ran out.

    ## References
    - PyTorch FAQ, "My out of memory exception handler can't allocate memory"
    - pytorch/pytorch#18853
    - Comfy-Org/ComfyUI#10139, Comfy-Org/ComfyUI#11038
    """

    code = "MEM304"
    name = "oom-retry-inside-except"
    since = "0.1"
    triggers = frozenset({"empty_cache", "OutOfMemoryError", "memory", "RuntimeError", "Exception", "oom", "OOM"})

    def check(self, module: Module) -> Iterator[Draft]:
        for retry in retries(module):
            yield self.finding(
                retry.call.node,
                f"`{module.text(retry.call.call.func)}` runs again inside the `except` clause, where the traceback "
                "still keeps every tensor of the failed call alive: leave the clause first",
                cost=Cost(CostClass.RAISES_PEAK, "A of the failed call"),
                confidence=Confidence.HIGH if retry.certain else Confidence.MEDIUM,
                related=[(retry.handler.statement, "what failed")],
                fix=_fix(module, retry),
            )


def _fix(module: Module, retry: Retry) -> FixDraft | None:
    body = movable_body(retry)
    if body is None or _FLAG in module.words:
        return None
    return unsafe_fix("run it after the `try` statement", LeaveHandler(retry.handler.statement, body, _FLAG))
