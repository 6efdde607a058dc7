"""MEM202."""

from __future__ import annotations

from collections.abc import Iterator

from memlint.linting.edits import InsertAfter, InsertBefore, MakeHeader
from memlint.linting.finding import Cost, CostClass
from memlint.linting.rule import Draft, FixDraft, Rule, safe_fix, unsafe_fix
from memlint.semantics.contexts import Idle, IdleContext, idle_contexts
from memlint.semantics.module import Module

_STORIES = {
    Idle.STATEMENT: "`{code}` does nothing as a statement: it acts only where `with` enters it or where it decorates",
    Idle.NAME: "`{code}` does nothing as a statement: it is neither called nor entered by `with`",
    Idle.NOT_CALLED: "`{code}` is not called: a class is no context manager, this `with` raises an exception",
    Idle.NEVER_ENTERED: "`{code}` is kept in a variable and never entered: it does nothing",
    Idle.DECORATES_UNCALLED: "`@{code}` is not called: as a decorator it needs `()` before torch 2.0",
    Idle.DECORATES_CLASS: "`@{code}` decorates a class: only its constructor runs without grad, no other method does",
}
_NO_AT = (
    "`{code}` does nothing as a statement: is the `@` missing that would make it a decorator of the function below?"
)


class NoGradHasNoEffect(Rule):
    """A grad-mode or autocast context is made but never entered.

    ## What it does
    Flags `torch.no_grad()`, `torch.inference_mode()`, `torch.enable_grad()`, `torch.autocast(...)` and
    `torch.autograd.graph.save_on_cpu()` where they cannot act: as a statement of their own, as `with torch.no_grad:`
    without the call (which raises), or kept in a variable that nobody enters; `@torch.no_grad()` and
    `@torch.inference_mode()` on a class, which cover its constructor alone. With a `target-torch` below 2.0 also
    `@torch.no_grad` without parentheses.

    ## What it costs
    All that the author meant to save: without `no_grad` every forward pass keeps its activations until its output is
    released, and twice that while the previous output is still bound (measured on a small network: 48 MB against 0).

    ## Example
    ```python
    import torch


    def embed(model, images):
        torch.no_grad()
        features = model(images)
        return features.flatten(1)
    ```

    ## Use instead
    ```python
    import torch


    def embed(model, images):
        with torch.no_grad():
            features = model(images)
            return features.flatten(1)
    ```

    ## Fix safety
    Adding the `()` to `with torch.no_grad:` is safe: the line raises without it. Turning a bare `torch.no_grad()` into
    a `with` around the statements below it, or into a decorator of the function on the next line, is unsafe: it changes
    what the code does today, to what was most likely meant.

    ## When it stays silent
    When the context may be entered: by an `ExitStack`, by `__enter__()`, by code that is handed the context, by a
    caller that is returned it, or by another module that imports it. `torch.set_grad_enabled(False)` and
    `torch.autograd.set_detect_anomaly(True)` act as statements. `@torch.no_grad` works without parentheses since
    torch 2.0.

    ## References
    - `torch.no_grad`, `torch.inference_mode` and `torch.autocast` documentation
    - PyTorch notes, "Autograd mechanics", section on locally disabling gradient computation
    """

    code = "MEM202"
    name = "no-grad-has-no-effect"
    since = "0.1"
    triggers = frozenset({"no_grad", "inference_mode", "enable_grad", "autocast", "save_on_cpu"})

    def check(self, module: Module) -> Iterator[Draft]:
        for context in idle_contexts(module):
            story = _STORIES[context.why] if context.function is None else _NO_AT
            yield self.finding(
                context.node,
                story.format(code=module.text(context.node)),
                cost=Cost(CostClass.RAISES_PEAK, "A"),
                fix=_fix(context),
            )


def _fix(context: IdleContext) -> FixDraft | None:
    if not context.callable_as_is:
        return None  # `torch.autocast()` would lack its device type
    if context.function is not None:
        return unsafe_fix("make it a decorator", InsertBefore(context.node, "@"))
    if context.statement is None:
        return safe_fix("call it", InsertAfter(context.node, "()")) if not context.is_called else None
    if not context.followers:
        return None  # nothing below it to enter it for
    after = ":" if context.is_called else "():"
    return unsafe_fix(
        "enter it for the statements below", MakeHeader(context.statement, context.followers, "with ", after)
    )
