"""What one measurement is asked to do: plain data, sent to a fresh interpreter."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

BackendName = Literal["cuda", "fake", "cpu"]


PROGRESS_FILE = "steps.txt"
"""In the worker's temporary folder: the number of steps that it has made so far."""


class Layer(str, Enum):
    """An optional part of the instrument. The peak is the same with and without it."""

    LINES = "lines"
    """Attribute each storage to a source line, backward memory to its forward line."""
    SAVED_TENSORS = "saved-tensors"
    """Which storages autograd saved for the backward pass. In a run of its own: it breaks double backward."""
    GROWTH = "growth"
    """Name what keeps the memory that grows from step to step."""
    FINGERPRINTS = "fingerprints"
    """Hash losses, parameters, buffers, first gradients and random state. Not on `fake`, which has no values."""
    MEMORY_HISTORY = "memory-history"
    """PyTorch's own history with stacks. Only on `cuda`, in a second run."""


@dataclass(frozen=True)
class Target:
    """What to run. `kind` says how `name` is to be read: a file, `-m` module, or `pkg.mod:function`."""

    kind: Literal["script", "module", "function"]
    name: str
    arguments: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"-m {self.name}" if self.kind == "module" else self.name


@dataclass(frozen=True)
class Job:
    """One run of a target in a process of its own."""

    target: Target
    backend: BackendName
    folder: str
    """The working directory, absolute."""
    steps: int = 6
    """Stop after this many steps, warm-up counted in."""
    with_evaluation: bool = False
    """Go on after that many training steps: loaders end there, so that what comes after an epoch is reached."""
    warmup: int = 2
    """Steps that say nothing about growth: gradients and optimizer state first appear in them."""
    device: str | None = None
    """The card that `fake` pretends, by its name in `memlint.measure.devices`; None: the backend's own."""
    seed: int = 0
    timeout_seconds: float = 120.0
    """Wall clock, for the whole process group."""
    host_memory_limit_bytes: int | None = None
    """Address space of the worker, where the system can limit it."""
    allow_write: bool = False
    """Whether the target may write and delete outside its temporary folder."""
    environment: dict[str, str] = field(default_factory=dict)
    """Added to the parent's environment."""
    overlay: dict[str, str] = field(default_factory=dict)
    """Absolute path -> the source text to run in its place. Nothing on disk changes."""
    watched: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Absolute path -> the lines of which `Recording.ran_lines` is to say whether they ran."""
    layers: frozenset[Layer] = frozenset({Layer.LINES, Layer.GROWTH})
