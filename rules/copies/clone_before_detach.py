"""MEM501."""

from __future__ import annotations

from collections.abc import Iterator

from memlint.linting.edits import KeepOnly, Replace
from memlint.linting.finding import Confidence, Cost, CostClass
from memlint.linting.rule import Draft, FixDraft, Rule, safe_fix, unsafe_fix
from memlint.semantics.copies import DetachedClone, detached_clones
from memlint.semantics.module import Module


class CloneBeforeDetach(Rule):
    """A copy is recorded in the autograd graph, only to be cut out of it again.

    ## What it does
    Flags `x.clone().detach()` (and `.detach_()`, `torch.clone(x).detach()`) where grad mode is on, for one caller at
    least, and `x` may carry a graph.

    ## What it costs
    Time and a graph node, not bytes: the clone is recorded as an operation of the graph (a node of about 0.7 kB on
    the host, freed at once), then `detach` drops the record. `x.detach().clone()` gives the same values in the same
    memory and records nothing.

    ## Example
    ```python
    import torch


    def snapshot(model: torch.nn.Module, x):
        return model(x).clone().detach()
    ```

    ## Use instead
    ```python
    import torch


    def snapshot(model: torch.nn.Module, x):
        return model(x).detach().clone()
    ```

    ## Fix safety
    Safe when `x` is proven to be a tensor: an annotation, a torch operation, `backward()` called on it. Unsafe
    otherwise: an object that only looks like a tensor may give the two methods another meaning.

    ## When it stays silent
    With grad mode off or unknown; when the value carries no graph anyway (`.data`, a state dict, an index, a
    comparison); when anything stands between the two calls; when the object is known to be something else than a
    tensor. Of a value of unknown origin, also one that an annotation calls a tensor, it speaks with low confidence
    only, which is not shown by default, unless the code takes it for part of a graph: it is called a loss, a layer's
    `weight` or what a model returned; its `requires_grad` is read; a forward hook is given it; the function is called
    `repackage_hidden` or `detach_all`.

    ## References
    - `torch.Tensor.clone` and `torch.Tensor.detach` documentation
    - the warning of `torch.tensor(t)`, which recommends the other order
    """

    code = "MEM501"
    name = "clone-before-detach"
    since = "0.1"
    triggers = frozenset({"clone"})

    def check(self, module: Module) -> Iterator[Draft]:
        for found in detached_clones(module):
            source = module.text(found.source, 30)
            yield self.finding(
                found.clone_name if found.is_method else found.clone.node,
                f"the copy of `{source}` enters the autograd graph and is cut out again: detach first, then clone",
                cost=Cost(CostClass.CONSTANT, "one graph node"),
                confidence=_confidence(found),
                fix=_fix(found) if found.is_method else None,
                questions=found.questions,
            )


def _confidence(found: DetachedClone) -> Confidence:
    if found.carries_graph and found.proven:
        return Confidence.HIGH
    # Of data a clone records nothing: what nothing says to be a tensor, or part of a graph, is data as a rule.
    return Confidence.MEDIUM if found.carries_graph or found.by_signs else Confidence.LOW


def _fix(found: DetachedClone) -> FixDraft:
    make = safe_fix if found.proven else unsafe_fix
    return make(
        "detach before cloning",
        Replace(found.clone_name, "detach().clone"),
        KeepOnly(found.detach.call, found.clone.call),
    )
