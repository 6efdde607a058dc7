"""MEM205."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from memlint.linting.edits import AddDecorator
from memlint.linting.finding import Confidence, Cost, CostClass
from memlint.linting.rule import Draft, FixDraft, Rule, unsafe_fix
from memlint.semantics.module import Module
from memlint.semantics.threads import UnswitchedForward, unswitched_forwards

if TYPE_CHECKING:
    import libcst as cst


class GradModeThreadLocal(Rule):
    """Grad mode is switched off in one thread, and the model runs in another.

    ## What it does
    Flags a forward pass in a function that runs in a thread of its own (`threading.Thread`, the executors of
    `concurrent.futures`, `asyncio.to_thread`, plain `def` handlers of FastAPI and Flask, Gradio callbacks), where grad
    mode was switched off by a bare `torch.set_grad_enabled(False)` elsewhere, or by a `with torch.no_grad():` (or the
    decorator, of a generator too) around the place that starts the thread. Of a model it is enough that its name says
    so (`self.model(x)`, `net(batch)`), or that it is an attribute of a module of this file; the forward pass may also
    stand in a function of this file that the thread's function calls.

    ## What it costs
    Grad mode belongs to the thread: in a new one, and in those of a pool, it is on (checked with `threading.Thread`,
    `ThreadPoolExecutor`, `asyncio.to_thread` and `run_in_executor`). Each pass in it saves its activations until its
    output is dropped, for as many requests as run at the same time. Measured on a network of 20 layers, with the output
    alive: 10.1 MB in the thread against 1.2 MB with grad off.

    ## Example
    ```python
    import torch
    from fastapi import FastAPI
    from torch import nn

    app = FastAPI()
    torch.set_grad_enabled(False)
    model = nn.Sequential(nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10))


    @app.get("/predict")
    def predict(x: float):
        return model(torch.full((1, 512), x)).argmax().item()
    ```

    ## Use instead
    ```python
    import torch
    from fastapi import FastAPI
    from torch import nn

    app = FastAPI()
    model = nn.Sequential(nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10))


    @app.get("/predict")
    @torch.inference_mode()
    def predict(x: float):
        return model(torch.full((1, 512), x)).argmax().item()
    ```

    ## Fix safety
    Unsafe: it adds `@torch.no_grad()` to the function that the thread runs, which is what was meant, but turns grad
    mode off for all of it.

    ## When it stays silent
    When the function, or what it calls, switches grad mode off itself; for `async def` handlers, which run in the
    thread of the event loop; for processes; when the function trains or mentions `enable_grad`; for a pool with an
    `initializer`; for a frozen model (`requires_grad_(False)`, or a loop over its parameters), whose outputs have no
    graph in any mode; for what is not known to be a model, and for functions of other files.

    ## References
    - PyTorch notes, "Autograd mechanics", section on multithreaded autograd
    - `torch.set_grad_enabled` documentation: "This function is thread local"
    - pytorch/pytorch#82145, pytorch/pytorch#42111
    """

    code = "MEM205"
    name = "grad-mode-thread-local"
    since = "0.1"
    triggers = frozenset(
        {"Thread", "Timer", "ThreadPoolExecutor", "ThreadPool", "to_thread", "run_in_threadpool", "run_in_executor"}
        | {"run_sync", "Flask", "Blueprint", "FastAPI", "APIRouter", "gradio"}
    )

    def check(self, module: Module) -> Iterator[Draft]:
        for found in unswitched_forwards(module):
            yield self.finding(
                found.forward.node,
                f"grad mode is on here: `{found.start.function.name}` runs in another thread than the one in which it "
                "was switched off",
                cost=Cost(CostClass.RAISES_PEAK, "A for each thread"),
                confidence=Confidence.HIGH if found.certain else Confidence.MEDIUM,
                related=_places(found),
                fix=_fix(module, found),
            )


def _places(found: UnswitchedForward) -> list[tuple[cst.CSTNode, str]]:
    start = f"{found.start.how} in another thread"
    if found.starts_off:
        return [(found.start.node, f"{start}; grad mode is off here")]
    return [(found.start.node, start), (found.switch, "switched off here")]


def _fix(module: Module, found: UnswitchedForward) -> FixDraft | None:
    name, needs_import = module.torch_name("no_grad")
    if found.decoratable is None or needs_import:
        return None
    return unsafe_fix("switch grad mode off in the function", AddDecorator(found.decoratable, f"{name}()"))
