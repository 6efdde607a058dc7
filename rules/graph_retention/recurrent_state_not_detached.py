"""MEM105."""

from __future__ import annotations

from collections.abc import Iterator

from memlint.linting.finding import Confidence, Cost, CostClass
from memlint.linting.rule import Draft, Rule
from memlint.semantics.module import Module
from memlint.semantics.recurrent import carried_states


class RecurrentStateNotDetached(Rule):
    """A recurrent state is carried from batch to batch with the graph of all earlier batches.

    ## What it does
    Flags `out, h = rnn(x, h)` in a loop over batches when `h` is handed to the next iteration with its graph, and
    either `backward(retain_graph=True)` silences the error that this would raise, or no backward pass runs in the
    loop at all. Also `out, self.h = self.rnn(x, self.h)` in the `forward` of a model of the same file that is trained
    with `retain_graph=True`.

    ## What it costs
    One set of activations more in each iteration, on the *device*, for as long as the loop runs, and a backward pass
    through all of them: quadratic time (measured on a small GRU: 36 kB held after the first iteration, 72 after the
    second, 108 after the third). Without `retain_graph=True` torch raises in the second iteration.

    ## Example
    ```python
    def train(model, loader, criterion, optimizer):
        model.train()
        hidden = None
        for x, y in loader:
            optimizer.zero_grad()
            output, hidden = model(x, hidden)
            loss = criterion(output, y)
            loss.backward(retain_graph=True)
            optimizer.step()
    ```

    ## Use instead
    ```python
    def train(model, loader, criterion, optimizer):
        model.train()
        hidden = None
        for x, y in loader:
            optimizer.zero_grad()
            output, hidden = model(x, hidden)
            loss = criterion(output, y)
            loss.backward()
            optimizer.step()
            hidden = hidden.detach()
    ```

    The state of an `nn.LSTM` is a tuple: `hidden = tuple(part.detach() for part in hidden)`. If the batches do not
    continue each other, start each one with a fresh state.

    ## Fix safety
    There is no fix: it changes how far the gradients reach, and the first state may be `None`.

    ## When it stays silent
    When the state is detached, made anew or handed through code out of view anywhere in the loop; when the loop runs
    over the steps of one sequence and the backward pass, or the optimizer's step, comes after it (backpropagation
    through time); with grad mode off; when no `retain_graph=True` is there and a backward pass runs: that raises. An
    evaluation loop that MEM201 reports is left to it.

    ## References
    - PyTorch FAQ, "Don't use RNNs on sequences that are too large"
    - pytorch/examples, `word_language_model/main.py`: `repackage_hidden`
    """

    code = "MEM105"
    name = "recurrent-state-not-detached"
    since = "0.1"
    triggers = frozenset({"for", "while"})

    def check(self, module: Module) -> Iterator[Draft]:
        for state in carried_states(module):
            called = module.text(state.call.call.func)
            story = "no backward pass frees them"
            related = []
            if state.backward is not None:
                story = "`retain_graph=True` keeps the activations of all of them, and each backward pass walks through"
                related = [(state.backward.node, "this backward pass needs `retain_graph=True` only for that")]
            yield self.finding(
                state.call.node,
                f"`{state.path}` brings the graph of all earlier iterations back into `{called}`: {story}",
                cost=Cost(CostClass.GROWS_ON_DEVICE, "N x A"),
                confidence=Confidence.HIGH if state.certain else Confidence.MEDIUM,
                related=related,
                questions=state.questions,
            )
