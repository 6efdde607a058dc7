"""MEM302."""

from __future__ import annotations

from collections.abc import Iterator

from memlint.linting.edits import InsertAfter
from memlint.linting.finding import Confidence, Cost, CostClass
from memlint.linting.rule import Draft, FixDraft, Rule, unsafe_fix
from memlint.semantics.module import Module
from memlint.semantics.tensor_hooks import SelfReference, self_references


class TensorHookSelfReference(Rule):
    """A hook of a tensor holds the tensor itself: neither is ever freed.

    ## What it does
    Flags `y.register_hook(hook)` where the hook (a lambda, a nested function, a `functools.partial`, or the closure
    that a function of this file returns) holds `y`, or a tensor computed from it, and `y` is no leaf.

    ## What it costs
    The tensor, its graph and all activations that the graph still holds, once for each registration, for the life of
    the process: the circle goes through the graph node that made the tensor, where Python's garbage collector does
    not see it. Backward does not break it. Measured: 3.6 MB a step for a layer with an output of 4 MB, against 0.3 MB
    with a detached copy; five of five tensors were alive after `gc.collect()`.

    ## Example
    ```python
    def step(layer, x):
        y = layer(x)
        y.register_hook(lambda grad: grad * y.abs())
        y.sum().backward()
    ```

    ## Use instead
    ```python
    def step(layer, x):
        y = layer(x)
        magnitude = y.detach().abs()
        y.register_hook(lambda grad: grad * magnitude)
        y.sum().backward()
    ```

    Or keep the handle and call `handle.remove()` after backward. For a shape take the shape: `n = y.shape[0]`.

    ## Fix safety
    Giving a lambda a detached copy (`lambda grad, y=y.detach(): ...`) is unsafe: with `create_graph=True` the hook's
    result is differentiated, and then the graph of `y` is wanted. There is no fix for other hooks.

    ## When it stays silent
    For leaf tensors, whose hooks are freed with them; when the hook holds a detached copy, a number, or only tensors
    from which `y` was computed; when the name is deleted or bound to something else afterwards (a closure holds what
    the name is bound to in the end), be it by the next iteration of a loop in the same function: measured, only the
    last of six tensors stays; when the handle is kept; for names at the top level of a file, which no closure
    holds; for a hook that is a method: its object holds the tensor only until it gets the next one.

    ## References
    - `torch.Tensor.register_hook` documentation
    - pytorch#82528, pytorch#46386
    """

    code = "MEM302"
    name = "tensor-hook-self-reference"
    since = "0.1"
    triggers = frozenset({"register_hook"})

    def check(self, module: Module) -> Iterator[Draft]:
        for reference in self_references(module):
            assert reference.call.receiver_node is not None
            tensor = module.text(reference.call.receiver_node)
            holds = "it" if reference.is_itself else f"`{reference.captured}`, which was computed from it"
            yield self.finding(
                reference.call.node,
                f"the hook of `{tensor}` holds {holds}: the tensor and its graph are never freed",
                cost=Cost(CostClass.GROWS_ON_DEVICE, "N x (bytes of the tensor + its graph)"),
                confidence=Confidence.HIGH if reference.certain else Confidence.MEDIUM,
                fix=_fix(reference),
            )


def _fix(reference: SelfReference) -> FixDraft | None:
    hook = reference.hook
    if hook is None or hook.params.kwonly_params or hook.params.star_kwarg is not None or not hook.params.params:
        return None
    name = reference.captured
    return unsafe_fix("give it a detached copy", InsertAfter(hook.params.params[-1], f", {name}={name}.detach()"))
