"""Recordings for tests: made by hand, or drawn by hypothesis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from hypothesis import strategies as st

from memlint.measure.job import Layer
from memlint.measure.recording import (
    SETUP_STEP,
    Assumption,
    Category,
    DeviceInfo,
    Keeper,
    KernelChoice,
    Phase,
    Place,
    Recording,
    Step,
    Storage,
)

MIB = 2**20

CARD = DeviceInfo("a100-80gb", 80 * 2**30, (8, 0))


class Run:
    """Writes a recording as a program would: allocate, free, end a step."""

    def __init__(self, warmup: int = 2) -> None:
        self.recording = Recording("fake", "2.13.0", CARD, warmup, frozenset({Layer.LINES, Layer.GROWTH}))
        self._start = 0
        self._number = SETUP_STEP

    def allocate(
        self,
        size: int,
        category: Category = Category.ACTIVATIONS,
        line: int | None = 1,
        *,
        path: str = "train.py",
        phase: Phase = Phase.FORWARD,
        saved: bool = False,
    ) -> int:
        recording = self.recording
        number = len(recording.storages)
        place = None if line is None else Place(path, line)
        recording.storages.append(
            Storage(
                number,
                size,
                category,
                phase,
                self._number,
                "aten::mm",
                place,
                place,
                len(recording.events),
                saved=saved,
            )
        )
        recording.events.append(number)
        return number

    def free(self, number: int) -> None:
        self.recording.storages[number].died = len(self.recording.events)
        self.recording.events.append(~number)

    def begin(self) -> None:
        """The set-up is over."""
        self._number, self._start = 0, len(self.recording.events)

    def end_step(
        self, kind: Literal["training", "evaluation", "call"] = "training", *, graph_nodes: int | None = None
    ) -> None:
        end = len(self.recording.events)
        step = Step(self._number, kind, self._start, end, 0.1, graph_nodes=graph_nodes)
        self.recording.steps.append(step)
        self._number, self._start = self._number + 1, end

    def keep(
        self, line: int, name: str, storages: Sequence[int] = (), *, graph: bool = False, holds_graph: bool = False
    ) -> None:
        kind: Literal["graph", "container"] = "graph" if graph else "container"
        keeper = Keeper(Place("train.py", line), kind, name, tuple(storages), graph or holds_graph)
        self.recording.keepers.append(keeper)


@st.composite
def recordings(draw: st.DrawFn) -> Recording:
    """A run of random allocations and releases, in random categories, lines and steps."""
    run = Run(warmup=draw(st.integers(0, 3)))
    alive: list[int] = []
    actions = draw(st.lists(st.sampled_from("aaaffs"), max_size=60))
    started = False
    for action in actions:
        if action == "a":
            size = draw(st.integers(0, 5000))
            alive.append(
                run.allocate(
                    size,
                    draw(st.sampled_from(Category)),
                    draw(st.none() | st.integers(1, 4)),
                    saved=draw(st.booleans()),
                )
            )
        elif action == "f" and alive:
            run.free(alive.pop(draw(st.integers(0, len(alive) - 1))))
        elif action == "s" and not started:
            run.begin()
            started = True
        elif action == "s":
            run.end_step()
    return run.recording


def leaking_training(path: str) -> Recording:
    """Six training steps that append each output with its graph, on the lines of a small `train.py`."""
    run = Run()
    recording = run.recording
    run.allocate(16 * MIB, Category.PARAMETERS, 1, path=path, phase=Phase.SETUP)
    run.begin()
    outputs = []
    losses: list[int] = []
    for step in range(6):
        batch = run.allocate(3 * MIB, Category.INPUTS, 4, path=path)
        hidden = run.allocate(12 * MIB + 100, line=5, path=path, saved=True)
        outputs.append(run.allocate(2 * MIB, line=5, path=path, saved=True))
        losses.append(run.allocate(1 * MIB, line=6, path=path))
        if len(losses) > 1:
            run.free(losses[-2])
        temporary = run.allocate(6 * MIB, Category.BACKWARD_TEMPORARIES, 5, path=path, phase=Phase.BACKWARD)
        if step == 0:
            run.allocate(16 * MIB, Category.GRADIENTS, 1, path=path, phase=Phase.BACKWARD)
        run.free(temporary)
        run.free(hidden)
        run.free(batch)
        if step == 0:
            run.allocate(32 * MIB, Category.OPTIMIZER_STATE, None, path=path, phase=Phase.OPTIMIZER)
        run.end_step(graph_nodes=30 + 12 * step)
    recording.steps = [replace(step, input_shapes=((8, 3, 32, 32), (8,))) for step in recording.steps]
    recording.keepers.append(Keeper(Place(path, 9), "container", "outputs", tuple(outputs), holds_graph=True))
    recording.kernels.append(
        KernelChoice("scaled_dot_product_attention", "flash", "fp16, head size 64, no mask", Place(path, 5), 24)
    )
    recording.assumptions.append(Assumption("`.item()` of a float32 tensor is 1.0", Place(path, 9), 6))
    recording.excluded += ["the CUDA context", "workspaces of kernels"]
    return recording
