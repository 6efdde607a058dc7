"""MEM306."""

from __future__ import annotations

from collections.abc import Iterator

from memlint.linting.edits import InsertAfter
from memlint.linting.finding import Confidence, Cost, CostClass
from memlint.linting.rule import Draft, FixDraft, Rule, unsafe_fix
from memlint.semantics.handlers import Kept, KeptException, kept_exceptions
from memlint.semantics.module import Module

_STORIES = {
    Kept.CONTAINER: "`{target}` keeps the exception, its traceback keeps every tensor of the failed call",
    Kept.ATTRIBUTE: "`{target}` keeps the exception, its traceback keeps every tensor of the failed call",
    Kept.FUTURE: "`{target}` keeps the exception, its traceback keeps every tensor of the failed call until the future "
    "is dropped",
    Kept.NAME: "`{target}` keeps the exception beyond its clause: while the model runs again, the traceback still "
    "keeps every tensor of the failed call",
}


class ExceptionKeptAlive(Rule):
    """An exception of model code is kept, and with its traceback all tensors of the failed call.

    ## What it does
    Flags an exception that outlives its `except` clause, where the `try` runs a model or the clause is there for memory
    that ran out: `errors.append(e)`, `results[key] = e`, `self.error = e`, `future.set_exception(e)`, the same with
    `sys.exc_info()`, and, after running out of memory, a variable that holds it while the model runs again.

    ## What it costs
    The traceback holds the frame of every function that the exception came through, each frame its locals: the inputs
    and activations of one failed step, for each exception that is kept. Measured on a small network: 20.5 MB for each
    (103.7 MB after five `errors.append(e)`), nothing with `e.with_traceback(None)` or `repr(e)`.

    ## Example
    ```python
    import torch
    from torch import nn


    @torch.no_grad()
    def evaluate(model: nn.Module, loader, metric):
        errors = []
        for index, (x, y) in enumerate(loader):
            try:
                metric.update(model(x), y)
            except Exception as e:
                errors.append((index, e))
        return errors
    ```

    ## Use instead
    ```python
    import torch
    from torch import nn


    @torch.no_grad()
    def evaluate(model: nn.Module, loader, metric):
        errors = []
        for index, (x, y) in enumerate(loader):
            try:
                metric.update(model(x), y)
            except Exception as e:
                errors.append((index, e.with_traceback(None)))
        return errors
    ```

    Where only a report is wanted, keep `repr(e)`, or `traceback.format_exc()` for the lines.

    ## Fix safety
    Unsafe: `e.with_traceback(None)` is the same exception without the lines that say where it was raised.

    ## When it stays silent
    When text is kept (`str(e)`, `repr(e)`, `traceback.format_exc()`); when the clause takes the traceback or the frames
    away; when the file raises again what it has kept; when the `try` runs nothing that is known to be a model (or that
    is given a tensor where grad mode is off) and nothing says that memory ran out.

    ## References
    - PyTorch FAQ, "My out of memory exception handler can't allocate memory"
    - Python documentation, `traceback.clear_frames`
    - pytorch/pytorch#18853
    """

    code = "MEM306"
    name = "exception-kept-alive"
    since = "0.1"
    triggers = frozenset({"Exception", "BaseException", "RuntimeError", "OutOfMemoryError", "exc_info"})

    def check(self, module: Module) -> Iterator[Draft]:
        for found in kept_exceptions(module):
            yield self.finding(
                found.node,
                _STORIES[found.kept].format(target=module.text(found.target)),
                cost=Cost(
                    CostClass.RAISES_PEAK if found.kept is Kept.NAME else CostClass.GROWS_ON_DEVICE,
                    "A of each failed call",
                ),
                # Of a future its reader may want the whole traceback.
                confidence=Confidence.HIGH if found.certain and found.kept is not Kept.FUTURE else Confidence.MEDIUM,
                related=[(found.handler.statement, "what failed")],
                fix=_fix(found),
            )


def _fix(found: KeptException) -> FixDraft | None:
    if not found.is_exception:
        return None
    return unsafe_fix("keep it without its traceback", InsertAfter(found.node, ".with_traceback(None)"))
