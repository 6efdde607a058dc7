"""MEM702."""

from __future__ import annotations

from collections.abc import Iterator

from memlint.linting.edits import AddArgument, RemoveArgument, RemoveStatement
from memlint.linting.finding import Confidence, Cost, CostClass
from memlint.linting.rule import Draft, FixDraft, Rule, unsafe_fix
from memlint.semantics.debug_tools import DebugTool, Tool, debug_tools
from memlint.semantics.module import Module

_STORIES = {
    Tool.ANOMALY: "anomaly detection is on in every run: each operation keeps the text of its stack, each gradient is "
    "searched for NaN",
    Tool.PROFILER: "without a `schedule` the profiler holds the events of every step of this loop in host memory",
    Tool.MEMORY_HISTORY: "the allocator's history grows in host memory with every allocation: it has no bound, and "
    "nothing stops or reads it",
    Tool.BLOCKING_LAUNCHES: "every kernel launch waits for its kernel in every run",
}
_COSTS = {
    Tool.ANOMALY: Cost(CostClass.CONSTANT),
    Tool.PROFILER: Cost(CostClass.GROWS_ON_HOST, "N x events"),
    Tool.MEMORY_HISTORY: Cost(CostClass.GROWS_ON_HOST, "N x allocations"),
    Tool.BLOCKING_LAUNCHES: Cost(CostClass.CONSTANT),
}


class DebugToolsLeftOn(Rule):
    """A tool for finding errors is on in every run.

    ## What it does
    Flags, where no condition decides whether they run: `torch.autograd.set_detect_anomaly(True)` (also as a context
    manager around training, and `detect_anomaly=True` of Lightning's `Trainer`); `torch.profiler.profile(...)` without
    `schedule=` around a loop over batches; `torch.cuda.memory._record_memory_history()` without `max_entries` that
    nothing switches off or reads; and `CUDA_LAUNCH_BLOCKING` set to `"1"` in the code.

    ## What it costs
    - Anomaly detection: time, and host memory while a graph lives. Measured for a network of 200 modules on the CPU:
      72 ms an iteration instead of 18, and 964 kB of stack texts for one graph.
    - A profiler without a schedule: host memory for every event of the run (pytorch-lightning#10717; one report went
      from 21 to 512 GiB), with `record_shapes=True` references to tensors too.
    - The allocator's history: by default up to 2^63-1 entries on the host, with their stacks.
    - Blocking launches: the device is idle whenever Python works.

    ## Example
    ```python
    import torch


    def train(net, loader, criterion, optimizer):
        torch.autograd.set_detect_anomaly(True)
        for x, y in loader:
            loss = criterion(net(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    ```

    ## Use instead
    ```python
    import torch


    def train(net, loader, criterion, optimizer, debug=False):
        torch.autograd.set_detect_anomaly(debug)
        for x, y in loader:
            loss = criterion(net(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    ```

    For the profiler, `schedule=torch.profiler.schedule(wait=1, warmup=1, active=3)` and `prof.step()` in the loop.

    ## Fix safety
    Every fix is unsafe: without anomaly detection a NaN in a backward pass raises no error any more, without blocking
    launches an error of a kernel shows up at a later line, and a bounded history forgets.

    ## When it stays silent
    When a condition or a variable decides (`if args.debug:`, `set_detect_anomaly(args.debug)`); when the tool is
    switched off again in the same file, or what it recorded is read; when the loop is short (`range(10)`, `islice`, a
    `break`); in files and functions that are named for it (`debug`, `profile`, `benchmark`, `deterministic`); in a
    function that nothing in view calls, that does not train and is no `forward`; for blocking launches, when the file
    makes a single step of training.

    ## References
    - `torch.autograd.detect_anomaly` and `torch.profiler.profile` documentation
    - Lightning-AI/pytorch-lightning#10717, pytorch/pytorch#133444
    """

    code = "MEM702"
    name = "debug-tools-left-on"
    since = "0.2"
    triggers = frozenset(
        {"set_detect_anomaly", "detect_anomaly", "set_anomaly_enabled", "profile", "_record_memory_history"}
        | {"CUDA_LAUNCH_BLOCKING"}
    )

    def check(self, module: Module) -> Iterator[Draft]:
        for tool in debug_tools(module):
            yield self.finding(
                tool.node,
                _STORIES[tool.tool],
                cost=_COSTS[tool.tool],
                confidence=Confidence.MEDIUM if tool.tool is Tool.BLOCKING_LAUNCHES else Confidence.HIGH,
                related=[] if tool.loop is None else [(tool.loop.node, "the loop")],
                fix=_fix(tool),
            )


def _fix(tool: DebugTool) -> FixDraft | None:
    if tool.statement is not None:
        return unsafe_fix("remove it", RemoveStatement(tool.statement))
    if tool.call is not None and tool.argument is not None:
        return unsafe_fix("remove it", RemoveArgument(tool.call.call, tool.argument.node))
    if tool.call is not None and tool.tool is Tool.MEMORY_HISTORY:
        return unsafe_fix("bound it", AddArgument(tool.call.call, "max_entries=100_000"))
    return None
