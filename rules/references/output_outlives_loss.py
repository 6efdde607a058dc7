"""MEM307."""

from __future__ import annotations

from collections.abc import Iterator

from memlint.linting.edits import AddLineBelow
from memlint.linting.finding import Confidence, Cost, CostClass
from memlint.linting.rule import Draft, FixDraft, Rule, unsafe_fix
from memlint.semantics.knowledge.torch import BACKWARD_WORDS
from memlint.semantics.module import Module
from memlint.semantics.outputs import LingeringOutput, lingering_outputs


class OutputOutlivesLoss(Rule):
    """A language model's logits are held through the backward pass.

    ## What it does
    Flags, in a training loop or step, a name that still holds the logits of a language model (one number for each
    token and each entry of the vocabulary) when `backward()` starts, although only the loss needed them. The name
    keeps them until the next forward pass has made new ones.

    ## What it costs
    The logits, batch x tokens x vocabulary x bytes, at the peak of the backward pass and again of the next forward
    pass. Measured with logits of 32.8 MB: a peak of 131.3 MB, with `del logits` before the backward pass 98.6 MB; the
    same share in bfloat16. 4,096 tokens and a vocabulary of 128,000 make 1 GiB in bfloat16 for one sequence;
    torchtitan saved 3.9 GB so (pull request 391).

    ## Example
    ```python
    from transformers import AutoModelForCausalLM


    def train(path, loader, optimizer):
        model = AutoModelForCausalLM.from_pretrained(path)
        for batch in loader:
            outputs = model(**batch)
            loss = outputs.loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    ```

    ## Use instead
    ```python
    from transformers import AutoModelForCausalLM


    def train(path, loader, optimizer):
        model = AutoModelForCausalLM.from_pretrained(path)
        for batch in loader:
            loss = model(**batch).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    ```

    Or `del outputs` (and every other name that holds them) between the loss and the backward pass.

    ## Fix safety
    `del` is unsafe: a name that code out of view reads, in a notebook's next cell say, would be missing.

    ## When it stays silent
    When the name is read after the backward pass, in the next round or after the loop, caught by a function, deleted
    or bound anew; when nothing says that the output goes over a vocabulary: the model's class, a
    `view(-1, vocab_size)`, a shift by one token, or the name `logits` in a script that knows a `vocab_size`;
    in a file that speaks of an `action_space` or of a number of actions: there it goes over those.

    ## References
    - PyTorch FAQ, "Don't hold onto tensors and variables you don't need"
    - pytorch/torchtitan#391, pytorch/torchtune#1235
    """

    code = "MEM307"
    name = "output-outlives-loss"
    since = "0.2"
    triggers = BACKWARD_WORDS

    def check(self, module: Module) -> Iterator[Draft]:
        for output in lingering_outputs(module):
            names = " and ".join(f"`{name}`" for name in output.names)
            verb = "holds" if len(output.names) == 1 else "hold"
            until = ", and the next forward pass" if output.forward.loop is not None else ""
            yield self.finding(
                output.forward.node,
                f"{names} {verb} the logits of every token through the backward pass{until}, and nobody reads them",
                cost=Cost(CostClass.RAISES_PEAK, "B x T x V x bytes"),
                confidence=Confidence.HIGH if output.certain else Confidence.MEDIUM,
                related=[(output.backward.node, "backward runs here")],
                fix=_fix(output),
            )


def _fix(output: LingeringOutput) -> FixDraft | None:
    if output.above is None:
        return None
    names = ", ".join(output.names)
    return unsafe_fix(f"delete {names} before the backward pass", AddLineBelow(output.above, f"del {names}"))
