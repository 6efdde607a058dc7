"""MEM110."""

from __future__ import annotations

from collections.abc import Iterator

from memlint.linting.edits import InsertAfter
from memlint.linting.finding import Confidence, Cost, CostClass
from memlint.linting.rule import Draft, Rule, unsafe_fix
from memlint.semantics.module import Module
from memlint.semantics.rollouts import rollout_stores


class RolloutBufferKeepsGraph(Rule):
    """A replay or rollout buffer stores what a policy computed, together with its autograd graph.

    ## What it does
    Flags `memory.push(state, policy(state), reward)` in a loop that steps through an environment, when the value still
    carries its autograd graph and nothing that comes out of the buffer is differentiated; and
    `memory.logprobs.append(dist.log_prob(action))` when all that the list holds is detached where it is used:
    `torch.stack(memory.logprobs).detach()`. The list may also be one of the function that plays the episode.

    ## What it costs
    The activations of one forward pass for each stored transition, on the *device*: capacity x A, for replay memories
    of 100,000 and more transitions. Measured for stored outputs of a small network: 4.7 MB a step, 84.8 MB after 20;
    with `.detach()` nothing but the values.

    ## Example
    ```python
    import torch
    from torch.distributions import Categorical


    class Agent:
        def __init__(self, policy):
            self.policy = policy.train()
            self.logprobs = []

        def act(self, state):
            dist = Categorical(self.policy(state))
            action = dist.sample()
            self.logprobs.append(dist.log_prob(action))
            return action.item()

        def update(self):
            old_logprobs = torch.stack(self.logprobs).detach()
            self.logprobs.clear()
            return old_logprobs
    ```

    ## Use instead
    ```python
    import torch
    from torch.distributions import Categorical


    class Agent:
        def __init__(self, policy):
            self.policy = policy.train()
            self.logprobs = []

        def act(self, state):
            with torch.no_grad():
                dist = Categorical(self.policy(state))
                action = dist.sample()
                self.logprobs.append(dist.log_prob(action))
            return action.item()

        def update(self):
            old_logprobs = torch.stack(self.logprobs).detach()
            self.logprobs.clear()
            return old_logprobs
    ```

    ## Fix safety
    Inserting `.detach()` is unsafe: code out of view may differentiate what the buffer holds. `torch.no_grad()` around
    the whole step saves the forward pass's activations too.

    ## When it stays silent
    When what the buffer holds is differentiated (REINFORCE, A2C: `log_probs`, `values`, `entropies`), or read by code
    that does not detach it; when the class of the buffer is out of view, and its name says nothing or what is stored
    is called a log-probability, an entropy or a value; with grad mode off; when the value carries no graph (`argmax`,
    `dist.sample()`, `.item()`); when the buffer is emptied in the same loop.

    ## References
    - PyTorch FAQ, "Don't hold onto tensors and variables you don't need"
    - PPO-PyTorch, whose `select_action` runs the old policy under `torch.no_grad()`
    """

    code = "MEM110"
    name = "rollout-buffer-keeps-graph"
    since = "0.1"
    triggers = frozenset({"push", "add", "store", "append", "insert", "remember", "put"})

    def check(self, module: Module) -> Iterator[Draft]:
        for store in rollout_stores(module):
            related = []
            why = "nothing that comes out of it is differentiated"
            if store.detached is not None:
                why = "all of it is detached where it is used"
                related.append((store.detached, "detached here"))
            names = ", ".join(f"`{module.text(node)}`" for node in store.stored)
            yield self.finding(
                store.call.node,
                f"`{module.text(store.buffer)}` keeps {names} together with the autograd graph: {why}, so the "
                "activations of each stored step stay on the device for nothing",
                cost=Cost(CostClass.GROWS_ON_DEVICE, "N x A"),
                confidence=Confidence.HIGH if store.detached is not None and store.certain else Confidence.MEDIUM,
                related=related,
                fix=unsafe_fix("detach it from its graph", *(InsertAfter(node, ".detach()") for node in store.stored)),
                questions=store.questions,
            )
