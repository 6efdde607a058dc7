"""MEM601."""

from __future__ import annotations

from collections.abc import Iterator

from memlint.linting.edits import AddArgument, Replace
from memlint.linting.finding import Confidence, Cost, CostClass
from memlint.linting.rule import Draft, FixDraft, Rule, safe_fix, unsafe_fix
from memlint.semantics.checkpoints import CheckpointLoad, checkpoint_loads
from memlint.semantics.module import Module

_MISSING, _NONE = "has no `map_location`", "gets `None` as `map_location`"
_ONE_PROCESS = "every tensor returns to the device it was saved from, beside what it is loaded for"
_EVERY_RANK = "each rank puts every tensor on the device it was saved from, mostly GPU 0"


class LoadWithoutMapLocation(Rule):
    """A checkpoint is loaded to the device it was saved from.

    ## What it does
    Flags `torch.load(path)` without `map_location`, or with one that may be `None`, where the code shows that the file
    is a checkpoint: what it returns goes into a `load_state_dict` (or a function whose name says that, or an argument
    `state_dict=`), is read by a key such as `"state_dict"` or `"model"` (also by those that call a function that
    returns it), is itself used as a module, or is called a checkpoint, or its file is (`ckpt_path`). Also where the
    function has a parameter `map_location` that it does not hand on, and `load_from_checkpoint(path)` of a Lightning
    module of the project.

    ## What it costs
    Every tensor returns to the device that it was saved from: P bytes of parameters, and 2 P more for the states of
    Adam, a second time on that GPU, until the loaded object is freed. With one process per GPU *every* process does
    so on the device named in the file, mostly GPU 0, and opens a context there (0.5 to 0.7 GB each).

    ## Example
    ```python
    import torch
    from torch import nn


    def build(path):
        net = nn.Linear(8, 2)
        net.load_state_dict(torch.load(path))
        return net
    ```

    ## Use instead
    ```python
    import torch
    from torch import nn


    def build(path):
        net = nn.Linear(8, 2)
        net.load_state_dict(torch.load(path, map_location="cpu"))
        return net
    ```

    With a file in the zip format (the default since torch 1.6) `mmap=True` also saves the copy in host memory.

    ## Fix safety
    Adding `map_location="cpu"` is safe when all that happens to the loaded object is `load_state_dict` of a module
    class that is in view (or of `torch.nn`) or of an optimizer of `torch.optim`: both end on the device of their own
    parameters. Otherwise it is unsafe: a scheduler, an own `load_state_dict`, `assign=True`, or any other use keeps
    the tensors, which would now be on the CPU; and a handler around it may wait for the exception of a missing GPU.
    Handing on a parameter is unsafe as well.

    ## When it stays silent
    When `map_location` is given by keyword or by position, or may come with `*args` or `**kwargs`; when nothing shows
    that the file is a checkpoint (a data set stored as tensors is loaded as often), or only a name does, at the top
    level of a script or where a condition chooses the place; when only a scheduler or a gradient scaler reads it,
    whose state is numbers; when the same function has written it from host memory; when `load` is not torch's; in
    files that need torch_xla (not where its import stands below a condition). With low confidence, not shown by
    default, where the project moves states to the host before it saves them (`move_to_cpu(state_dict)`,
    `offload_to_cpu`); in one process, for a pickled module and the state of an optimizer alone, whose tensors are used
    themselves.

    ## References
    - `torch.load` documentation, parameter `map_location`
    - PyTorch tutorial "Getting Started with Distributed Data Parallel", section "Save and Load Checkpoints"
    """

    code = "MEM601"
    name = "load-without-map-location"
    since = "0.1"
    triggers = frozenset({"load", "load_from_checkpoint"})

    def check(self, module: Module) -> Iterator[Draft]:
        for load in checkpoint_loads(module):
            code = module.text(load.call.call.func)
            lack = _NONE if "map_location" in load.call.keywords else _MISSING
            evidence = [] if load.evidence is None else [(load.evidence, "this is what the checkpoint is loaded for")]
            yield self.finding(
                load.call.node,
                f"`{code}(...)` {lack}: {_EVERY_RANK if load.every_process else _ONE_PROCESS}",
                cost=Cost(
                    CostClass.RAISES_PEAK, "P (+ 2 P with Adam's state)" + (" a rank" if load.every_process else "")
                ),
                confidence=_confidence(load),
                related=evidence,
                fix=_fix(load),
            )


def _confidence(load: CheckpointLoad) -> Confidence:
    if load.adopted or load.saved_from_host:
        return Confidence.LOW
    return Confidence.HIGH if load.every_process and not load.by_name else Confidence.MEDIUM


def _fix(load: CheckpointLoad) -> FixDraft:
    if load.ignores_parameter and not load.only_copied:
        return unsafe_fix("hand it on", AddArgument(load.call.call, "map_location=map_location"))
    make = safe_fix if load.only_copied else unsafe_fix
    given = load.call.keywords.get("map_location")
    if given is not None:
        return make("load it on the CPU", Replace(given.expression, '"cpu"'))
    return make("load it on the CPU", AddArgument(load.call.call, 'map_location="cpu"'))
