"""MEM204."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from memlint.linting.edits import InsertAfter
from memlint.linting.finding import Confidence, Cost, CostClass
from memlint.linting.rule import Draft, FixDraft, Rule, unsafe_fix
from memlint.semantics.detached_outputs import detached_forwards
from memlint.semantics.knowledge.torch import BACKWARD_WORDS
from memlint.semantics.module import Module
from memlint.semantics.target_networks import target_forwards
from memlint.semantics.untrained import UntrainedForward, averaged_copies, untrained_forwards

if TYPE_CHECKING:
    import libcst as cst


class FrozenModelTracksGrad(Rule):
    """A model that nobody trains (a teacher, a target network, a loss network) runs as if it were trained.

    ## What it does
    Flags the forward pass, in a training step with grad mode on, of a model that is built in view, whose parameters
    are given to no optimizer and which nobody freezes, where the backward pass goes through its output. Also the
    forward pass of a teacher, or of a target network, whose every output, or all that is computed from it, is detached
    later: while the student runs, the backward pass does, or the loss of the network that learns is returned; the copy
    that a class averages the weights in (`self.ema_model = copy.deepcopy(model)`), runs for its callers and never
    freezes; and a target network, into which the weights of the network that is trained are copied again and
    again (`load_state_dict`, `copy_` in a loop over the parameters, `soft_update(target, net)`), in a function that
    trains and has it or is given it, whether the loss goes through its output or the output is detached later; and the
    reference model of a preference loss, which a function is given beside the policy, for the same inputs, where only
    the policy is put into training mode.

    ## What it costs
    The activations that gradients of its parameters need (A of that model), and gradients for all its parameters (P),
    which no optimizer ever uses or clears. Measured for an MLP as teacher: a peak of 7.5 MB for a step, of which 2 MB
    were the teacher's gradients; 4.0 MB with the teacher frozen, and the same with `no_grad`.

    ## Example
    ```python
    import copy

    import torch
    import torch.nn.functional as F


    def distill(student: torch.nn.Module, loader):
        teacher = copy.deepcopy(student)
        teacher.eval()
        optimizer = torch.optim.Adam(student.parameters())
        for x, _ in loader:
            loss = F.mse_loss(student(x), teacher(x))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    ```

    ## Use instead
    ```python
    import copy

    import torch
    import torch.nn.functional as F


    def distill(student: torch.nn.Module, loader):
        teacher = copy.deepcopy(student)
        teacher.eval().requires_grad_(False)
        optimizer = torch.optim.Adam(student.parameters())
        for x, _ in loader:
            loss = F.mse_loss(student(x), teacher(x))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    ```

    `with torch.no_grad():` around the forward pass does as well where no gradient has to pass through the model to its
    input, as it has in perceptual losses, in the generator's step of a GAN, and in guidance.

    ## Fix safety
    Unsafe: `.requires_grad_(False)` freezes what the model shares with another one, makes `DistributedDataParallel`
    raise when nothing is left to train, and is inherited by `copy.deepcopy`.

    ## When it stays silent
    When not everything that is done with the model is in view: its parameters are given to an optimizer, a list or a
    function; it is returned, kept in a container or handed to unknown code; it comes from a caller out of view, or from
    a function that may freeze it; it is a part of a module whose optimizer is made elsewhere. When its output is
    detached at once, or its forward pass runs with grad off. What is detached later, averaged copies, target networks
    and reference models are left alone where the file, or one of the project that mentions the class, speaks of
    `requires_grad` or of freezing; a target network also where a network that is trained gives it its input, where
    its own gradients are used, and where an optimizer with its name steps (`proxy_optim` of `proxy`); a reference
    model also where a second optimizer steps, or where a model gives it its input.

    ## References
    - PyTorch notes, "Autograd mechanics", section on setting `requires_grad`
    - lightly-ai/lightly-train#434, clovaai/overhaul-distillation#34
    """

    code = "MEM204"
    name = "frozen-model-tracks-grad"
    since = "0.1"
    triggers = BACKWARD_WORDS | {"training_step", "compute_loss", "detach", "deepcopy"}

    def check(self, module: Module) -> Iterator[Draft]:
        told: set[int] = set()
        for draft in self._untrained(module):
            told.add(id(draft.node))
            yield draft
        for target in target_forwards(module):
            if id(target.call.node) not in told:
                yield self.finding(
                    target.call.node,
                    f"`{target.path}` takes over the weights of `{target.sync.source}` and no optimizer trains it, but "
                    "it runs with grad on: its activations are kept for gradients that nobody uses; run it under "
                    "`torch.no_grad()`",
                    cost=Cost(CostClass.RAISES_PEAK, "A + P of that model"),
                    confidence=Confidence.MEDIUM,
                    related=[(target.sync.node, "it takes them over here")],
                )

    def _untrained(self, module: Module) -> Iterator[Draft]:
        for detached in detached_forwards(module):
            yield self.finding(
                detached.call.node,
                f"every output of `{detached.path}` is detached, but it runs with grad on: its activations are kept "
                "for a backward pass that never reaches them; run it under `torch.no_grad()`",
                cost=Cost(CostClass.RAISES_PEAK, "A of that model"),
                confidence=Confidence.MEDIUM,
                related=[(detached.detached, "its output is detached here")],
            )
        for copy in averaged_copies(module):
            yield self.finding(
                copy.built.node,
                f"`{copy.path}` is averaged, not trained, but nobody freezes it: whoever runs it keeps activations "
                f"for gradients that nobody uses; freeze it, once: `{copy.path}.requires_grad_(False)`",
                cost=Cost(CostClass.RAISES_PEAK, "A + P of that model"),
                confidence=Confidence.MEDIUM,
                related=[(copy.forward.node, "it runs here")],
                fix=unsafe_fix("freeze it", InsertAfter(copy.built.call, ".requires_grad_(False)")),
            )
        for forward in untrained_forwards(module):
            confidence = _confidence(forward)
            if confidence is None:
                continue
            why = "is in eval mode" if forward.standing.is_meant_frozen else "is not trained"
            way = (
                f"freeze it, once: `{forward.path}.requires_grad_(False)`"
                if forward.passes_gradient
                else f"freeze it, once (`{forward.path}.requires_grad_(False)`), or run it under `torch.no_grad()`"
            )
            seen = " in view" if forward.standing.unseen else ""
            yield self.finding(
                forward.call.node,
                f"`{forward.path}` {why} and no optimizer{seen} owns its parameters, but they are not frozen{seen}: "
                f"its activations are kept for gradients that nobody uses; {way}",
                cost=Cost(CostClass.RAISES_PEAK, "A + P of that model"),
                confidence=confidence,
                related=[(node, "where it is built") for node in forward.standing.built[:1]],
                fix=_fix(forward),
            )


def _confidence(forward: UntrainedForward) -> Confidence | None:
    standing = forward.standing
    if standing.is_untrained:
        sure = standing.is_meant_frozen or standing.is_copy or forward.has_role
        return Confidence.HIGH if sure else Confidence.MEDIUM
    if forward.is_reference:
        return Confidence.MEDIUM
    if standing.unseen and standing.is_meant_frozen and forward.has_role:
        return Confidence.LOW  # a caller out of view may have frozen it
    return None


def _fix(forward: UntrainedForward) -> FixDraft | None:
    standing = forward.standing
    if standing.unseen:
        return None
    where: list[cst.Call] = [*standing.evals, *standing.built]
    if not where or len(standing.built) > 1:
        return None
    return unsafe_fix("freeze it", InsertAfter(where[0], ".requires_grad_(False)"))
