"""MEM201."""

from __future__ import annotations

from collections.abc import Iterator

from memlint.linting.edits import AddDecorator, AddImport, EditDraft, WrapStatements
from memlint.linting.finding import Confidence, Cost, CostClass
from memlint.linting.rule import Draft, FixDraft, Rule, safe_fix, unsafe_fix
from memlint.semantics.evaluation import PROJECT_DIFFERENTIATES, EvaluationRegion, evaluation_regions
from memlint.semantics.graph_ends import NUMBER_WORDS
from memlint.semantics.module import Module
from memlint.semantics.threads import unswitched_forwards
from memlint.semantics.unlearned import unlearned_forwards


class EvalWithoutNoGrad(Rule):
    """An evaluation runs the model with grad mode on.

    ## What it does
    Flags a loop over batches, or a function or script without one, that runs a model (itself, by one of its methods, or
    by way of a function of the project) and differentiates nothing, with grad mode on, where something says that it
    evaluates: `.eval()` was called on the model, by the function, by its object's constructor or by all of its callers;
    the loader or the function is named so, also the model's own `evaluate`; something switches training off
    (`run_epoch(..., train=False)`, `optimizer=None`, `phase == "val"`, `model.eval()` where the function asks `if
    model.training:`); or the function takes nothing but numbers or arrays from the output (`.item()`, `argmax`,
    `.detach().cpu()`), itself or by a helper of the file, or returns detached copies of what it samples; or weights are
    loaded into the model, or it is loaded whole, in a file that trains nothing, and what comes out is only saved or
    shown; or the function is
    named for what it gives (`reconstruct`), nobody in view trains with it, and one like it beside it runs its model
    with grad off or its callers, all in view, do not hand on what they get. Of a model in eval mode the output may also
    go anywhere where its input was made of arrays or texts: no gradient flows to those. One finding for each such
    place, at its first forward pass. A model may also be held in a dictionary, `nets["generator"](z)`.
    And in a training step a forward pass from which nothing is learned (of pseudo-labels only the `argmax` is used, of
    generated images a detached copy), where a name holds its graph while the backward pass runs; not
    `model(x).argmax(1)`, whose graph is gone at once.

    ## What it costs
    Every forward pass saves its activations for a backward pass that never comes; the previous output is still bound
    while the next one is computed, so two sets of them overlap (measured: a peak of 48 MB, 24 MB with `del out`, about
    0 with grad off). `eval()` by itself saves nothing: it switches dropout and batch normalisation, not autograd.

    ## Example
    ```python
    def validate(net, loader):
        net.eval()
        hits = 0
        for x, y in loader:
            hits += (net(x).argmax(1) == y).sum().item()
        return hits
    ```

    ## Use instead
    ```python
    @torch.no_grad()
    def validate(net, loader):
        net.eval()
        hits = 0
        for x, y in loader:
            hits += (net(x).argmax(1) == y).sum().item()
        return hits
    ```

    ## Fix safety
    `@torch.no_grad()` (or `with torch.no_grad():` around the loop) is safe when no value that may carry a graph leaves
    to code out of view, nothing in the function or (by its text) the project differentiates inside a forward pass,
    nothing in the file notices the grad mode (`is_grad_enabled`, `requires_grad`, `retain_grad`, hooks) and it names no
    transformer, `MultiheadAttention` or `LSTM`, which compute in another way with grad off. A function that also runs
    unseen code, such as a callback, has only its loop wrapped. Coroutines and lazily evaluated results ignore a
    decorator. Otherwise the fix is unsafe. `inference_mode` is never
    offered: its outputs cannot re-enter autograd.

    ## When it stays silent
    When grad is off or unknown (a decorator or a context manager whose name speaks of grad mode or says nothing, a
    caller, a framework's callback, an unresolved base class of a method that does not itself call `.eval()` and loop,
    a `test_step` that somebody's trainer calls); when nothing but the use of the output says that it is an
    evaluation, and the file names no device; when `.numpy()` is called on the output as it is, which raises
    where there is a graph; when the function differentiates anything (attacks, saliency, forces, test-time training);
    in training loops, where `eval()` freezes batch statistics or a teacher, and where no other pass of the model is
    differentiated, the file speaks of freezing, or what the pass leaves on the model is read (`model.aux_loss`); when
    the model is frozen; in unit tests;
    when a function without a loop, whose name does not say that it evaluates, hands out the output with its graph:
    gradients may flow through the model to its input, unless that was made of arrays or texts; when log-probabilities
    of what is sampled are returned with their graph, for a policy gradient; when the output is kept, or goes to code
    that is not named for measuring, showing or saving it; when the model is told to switch grad off (`no_grad=True`).
    Of a method out of view, such as `model.predict(x)`, when nothing shows that it leaves grad mode alone: its name
    (`encode`, `render`), its definition in the project, or a `.detach()` on what it returns. A single forward pass of a
    script that takes nothing from the output, or beside a conversion of the model, has low confidence, which is not
    shown by default; so has a model of an abstract class of the project, where the project differentiates.

    ## References
    - PyTorch performance tuning guide, "Disable gradient calculation for validation or inference"
    - PyTorch notes, "Autograd mechanics": evaluation mode is not a mechanism to locally disable gradient computation
    """

    code = "MEM201"
    name = "eval-without-no-grad"
    since = "0.1"
    triggers = NUMBER_WORDS | {"eval", "train", "for", "while", "detach", "data", "if", "return", "load_state_dict"}

    def check(self, module: Module) -> Iterator[Draft]:
        # Of these speaks MEM205.
        in_threads = {
            scope for found in unswitched_forwards(module) for scope in (found.start.function, found.forward.scope)
        }
        told: set[int] = set()
        for region in evaluation_regions(module):
            if region.scope in in_threads:
                continue
            told.add(id(region.first.node))
            what = module.text(region.first.call.func)
            yield self.finding(
                region.first.node,
                f"`{what}` is evaluated with grad mode on ({region.evidence}): each forward pass saves its "
                "activations on the device for a backward pass that never comes",
                cost=Cost(CostClass.RAISES_PEAK, "A, and 2 x A while the previous output is bound"),
                confidence=_confidence(region),
                fix=_fix(module, region),
                questions=region.questions,
            )
        for forward in unlearned_forwards(module):
            if id(forward.call.node) in told:
                continue
            yield self.finding(
                forward.call.node,
                f"nothing is learned from `{module.text(forward.call.call.func)}` here, but it runs with grad on, and "
                f"`{forward.name}` holds its activations while backward runs; run it under `torch.no_grad()`",
                cost=Cost(CostClass.RAISES_PEAK, "A"),
                confidence=Confidence.MEDIUM,
                related=[(forward.backward.node, "this backward pass does not reach it")],
            )


def _confidence(region: EvaluationRegion) -> Confidence:
    if region.is_doubtful:
        return Confidence.LOW
    return Confidence.HIGH if region.strong else Confidence.MEDIUM


def _fix(module: Module, region: EvaluationRegion) -> FixDraft | None:
    name, needs_import = module.torch_name("no_grad")
    edits: list[EditDraft] = [AddImport("import torch")] if needs_import else []
    if region.function is not None:
        edits.append(AddDecorator(region.function, f"{name}()"))
    elif region.statement is not None:
        edits.append(WrapStatements((region.statement,), f"with {name}():"))
    else:
        return None
    message = "switch grad mode off"
    if region.provably_unused:
        return safe_fix(message, *edits, unless_mentioned=PROJECT_DIFFERENTIATES)
    return unsafe_fix(message, *edits)
