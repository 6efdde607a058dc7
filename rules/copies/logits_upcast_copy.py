"""MEM507."""

from __future__ import annotations

from collections.abc import Iterator

from memlint.linting.finding import Confidence, Cost, CostClass
from memlint.linting.rule import Draft, Rule
from memlint.semantics.knowledge.vocabulary import HEADS
from memlint.semantics.logits import Copy, logits_copies
from memlint.semantics.module import Module

_STORIES = {
    Copy.SHIFTED: "copies the logits of all tokens but the last; shift the labels instead, they are as many times "
    "smaller as the vocabulary is large",
    Copy.UPCAST: "makes a float32 copy of the logits of every token; the cross entropy computes in float32 by itself",
    Copy.LOG_SOFTMAX: "takes one entry for each token of the log-probabilities of the whole vocabulary; the entry of "
    "the logits minus their `logsumexp`, row by row, needs no second tensor of that size",
    Copy.ALL_POSITIONS: "computes the logits of every token, and only those of the last are used; give it the last "
    "hidden state alone",
    Copy.FORWARD: "computes the logits of every token, and only those of the last are used; without labels, the head "
    "needs the last hidden state alone",
}


class LogitsUpcastCopy(Rule):
    """The logits of a language model are copied.

    ## What it does
    Flags copies of tensors with a number for each token and each entry of the vocabulary: `logits[..., :-1,
    :].contiguous()` (or `reshape`, `flatten`) to compare with shifted labels; `logits.float()` before a cross entropy;
    `log_softmax` over the vocabulary of which `gather` takes one entry a token; and a language-model head that runs on
    all tokens when only `[:, -1]` is used, by the function itself or by a method that samples with the model's forward.

    ## What it costs
    Batch x tokens x vocabulary x 2 or 4 bytes for each copy: 4.2 GB in bfloat16 for 8 x 2,048 tokens and a vocabulary
    of 128,000. Measured for logits of 8 MB in bfloat16: a peak of 47.9 MB in the forward pass with `.float()` and a
    shifted copy, 32.0 MB with `.float()` and shifted labels, 16.0 MB with shifted labels alone. For 4 rows of logits
    (117 MiB in float32) `log_softmax(...).gather(...)` allocated 120 MiB more, the entry minus `logsumexp` of one row
    after the other 36 MiB, with and without grad. The head on all tokens costs as many times too much as there are
    tokens.

    ## Example
    ```python
    import torch.nn.functional as F


    def loss_of(logits, labels, vocab_size):
        shift_logits = logits[..., :-1, :].contiguous()
        shift_labels = labels[..., 1:].contiguous()
        return F.cross_entropy(shift_logits.view(-1, vocab_size), shift_labels.view(-1))
    ```

    ## Use instead
    ```python
    import torch.nn.functional as F


    def loss_of(logits, labels, vocab_size):
        shift_labels = F.pad(labels, (0, 1), value=-100)[..., 1:]
        return F.cross_entropy(logits.view(-1, vocab_size), shift_labels.reshape(-1))
    ```

    The value is the same: the padded label is ignored, and the mean counts the others. Without `.float()` it is not
    bit for bit. A fused or chunked linear cross entropy (Liger kernels, torchtune's `CEWithChunkedOutputLoss`) never
    holds all logits at all.

    ## Fix safety
    There is no fix: shifting the labels changes several lines, and leaving out `.float()` the rounding.

    ## When it stays silent
    When nothing says that the tensor goes over a vocabulary; when the slice is none of all but the last token, or is
    not copied; for `.float()` behind a condition on labels (in the `else` branch of one it is flagged if that branch
    computes a loss, too), and when the function needs the probabilities too (softmax, sampling, a KL divergence); for
    `gather` over classes or actions; when the head is given the last token alone; for sampling with a forward that
    carries a cache or a state.

    ## References
    - huggingface/transformers#35646, #30860 and #38452
    - huggingface/trl#6046
    """

    code = "MEM507"
    name = "logits-upcast-copy"
    since = "0.2"
    triggers = HEADS | {
        "vocab_size",
        "n_vocab",
        "Embedding",
        "contiguous",
        "reshape",
        "flatten",
        "float",
        "float32",
        "gather",
    }

    def check(self, module: Module) -> Iterator[Draft]:
        for copy in logits_copies(module):
            yield self.finding(
                copy.call.node,
                f"`{module.text(copy.call.call)}` {_STORIES[copy.kind]}",
                cost=Cost(CostClass.RAISES_PEAK, "B x T x V x bytes"),
                confidence=Confidence.MEDIUM,
            )
