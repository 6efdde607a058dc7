"""Recordings for tests: made by hand, or drawn by hypothesis."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

from memlint.measure.job import Layer
from memlint.measure.recording import (
    SETUP_STEP,
    Category,
    DeviceInfo,
    Keeper,
    Phase,
    Place,
    Recording,
    Step,
    Storage,
)

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

    def end_step(self, *, graph_nodes: int | None = None) -> None:
        end = len(self.recording.events)
        step = Step(self._number, "training", self._start, end, 0.1, graph_nodes=graph_nodes)
        self.recording.steps.append(step)
        self._number, self._start = self._number + 1, end

    def keep(self, line: int, name: str, storages: Sequence[int] = (), *, graph: bool = False) -> None:
        kind = "graph" if graph else "container"
        self.recording.keepers.append(Keeper(Place("train.py", line), kind, name, tuple(storages)))  # type: ignore[arg-type]


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
