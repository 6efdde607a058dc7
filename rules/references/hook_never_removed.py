"""MEM305."""

from __future__ import annotations

from collections.abc import Iterator

from memlint.linting.finding import Confidence, Cost, CostClass
from memlint.linting.rule import Draft, Rule
from memlint.semantics.hooks import LostHook, lost_hooks
from memlint.semantics.module import Module


class HookNeverRemoved(Rule):
    """A hook is registered again and again, and none of them is ever removed.

    ## What it does
    Flags `register_forward_hook`, `register_full_backward_hook` and their kin on a module (and `register_hook` on a
    parameter) whose handle is thrown away, where the same module gets the hook again and again: in a loop, in
    `forward`, in a function that also runs the model it was given, in a function or constructor that this file
    calls in a loop; and the hooks for activations and gradients that an object (Grad-CAM and the like) puts on a model
    that it was given, without a way to take them away (medium confidence).

    ## What it costs
    Each call adds one more hook, each forward pass runs all of them, and each keeps what its closure holds: memory and
    time grow with the number of calls. Measured: the function below, with a layer whose output has 4 MB, holds 132 MB
    more after 20 calls; with the handle removed, nothing.

    ## Example
    ```python
    def features(net, x):
        kept = []
        net.layer4.register_forward_hook(lambda module, args, out: kept.append(out.detach()))
        net(x)
        return kept
    ```

    ## Use instead
    ```python
    def features(net, x):
        kept = []
        handle = net.layer4.register_forward_hook(lambda module, args, out: kept.append(out.detach()))
        try:
            net(x)
        finally:
            handle.remove()
        return kept
    ```

    The handle is a context manager too: `with net.layer4.register_forward_hook(hook): net(x)`.

    ## Fix safety
    There is no fix: how long the hook should live is a decision.

    ## When it stays silent
    When the handle is kept (in a variable that is read, an attribute, a container, an argument); for a hook that a
    constructor or a setup function registers once, and for an object that a script makes once; when the model was made
    or copied in the same function, or in the loop that hooks it; when the hook is registered once and the model then
    runs in a loop; behind a condition that may hold only once; for hooks of activations, which die with their graph;
    when the file empties the tables of hooks itself.

    ## References
    - `torch.nn.Module.register_forward_hook` documentation
    - opacus#176, pytorch#46386, jacobgil/pytorch-grad-cam#133
    """

    code = "MEM305"
    name = "hook-never-removed"
    since = "0.1"
    triggers = frozenset(
        """register_forward_hook register_forward_pre_hook register_full_backward_hook register_full_backward_pre_hook
        register_backward_hook register_hook register_post_accumulate_grad_hook""".split()
    )

    def check(self, module: Module) -> Iterator[Draft]:
        for hook in lost_hooks(module):
            assert hook.call.receiver_node is not None
            owner = module.text(hook.call.receiver_node)
            yield self.finding(
                hook.call.node,
                f"{_when(hook)} adds one more hook to `{owner}`, and nobody can remove it",
                cost=Cost(CostClass.GROWS_ON_DEVICE, "calls x what the hook keeps"),
                confidence=Confidence.HIGH if hook.certain else Confidence.MEDIUM,
                related=[(hook.repeats, _why(hook))] if not hook.in_forward else [],
            )


def _when(hook: LostHook) -> str:
    if hook.in_forward:
        return "each forward pass"
    if hook.loop is not None and hook.loop.node is hook.repeats:
        return "each iteration"
    if hook.is_left_behind:
        return f"each `{hook.call.scope.parent.name}`" if hook.call.scope.parent is not None else "each object"
    return f"each call of `{hook.call.scope.name}`"


def _why(hook: LostHook) -> str:
    if hook.loop is not None and hook.loop.node is hook.repeats:
        return "the loop"
    if hook.is_left_behind:
        return "the object and its hooks stay with the model"
    return "called in a loop" if hook.loop is not None else "the model runs here, with all hooks of earlier calls"
