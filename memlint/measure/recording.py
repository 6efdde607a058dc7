"""What a run recorded, as plain data: which storages lived when, and what made them.

Peaks, curves, breakdowns, growth, the allocator's replay and every report are computed from this after the run
(`memlint.measure.analysis`). Sizes are bytes as PyTorch asks for them; the allocator's rounding is the analysis's.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import astuple, dataclass, field
from enum import Enum
from typing import Literal

from memlint.measure.job import BackendName, Layer

SETUP_STEP = -1
"""The step number of what happens before the first step begins."""


class Category(str, Enum):
    """What a storage holds."""

    PARAMETERS = "parameters"
    """Parameters and buffers of modules."""
    GRADIENTS = "gradients"
    OPTIMIZER_STATE = "optimizer_state"
    ACTIVATIONS = "activations"
    """Made in a forward pass: saved for the backward pass, or on their way to the next operation."""
    BACKWARD_TEMPORARIES = "backward_temporaries"
    INPUTS = "inputs"
    """Batches that came from the host."""
    OTHER = "other"


class Phase(str, Enum):
    """What the program was doing when a storage was made."""

    SETUP = "setup"
    FORWARD = "forward"
    BACKWARD = "backward"
    OPTIMIZER = "optimizer"


@dataclass(frozen=True)
class Place:
    """A line of the user's code. `path` is absolute; `line` is 1-based, in the text that ran."""

    path: str
    line: int
    function: str = ""


@dataclass(slots=True)
class Storage:
    """A block of device memory, from its allocation to its release.

    `born` and `died` are indices into `Recording.events`; `died` is None for what was alive when the run was stopped.
    A storage that is resized is two records: the allocator, too, makes a new block.
    """

    id: int
    size: int
    category: Category
    phase: Phase
    step: int
    operator: str
    """As PyTorch names it, `aten::mm`; `external` for what was first seen as an input."""
    place: Place | None
    """The user's line that made it; of what a backward pass makes: the forward line whose gradient it belongs to."""
    caller: Place | None
    """The user's line that was running: `loss.backward()` for what a backward pass makes."""
    born: int
    died: int | None = None
    saved: bool = False
    """Saved by autograd for the backward pass (known with `Layer.SAVED_TENSORS` only)."""
    grown_from: int | None = None
    """The id of a smaller storage that the same line made before, and of which this one was made: `x = cat([x, y])`."""


@dataclass(frozen=True)
class AllocatorPeaks:
    """What the CUDA caching allocator counted, in bytes. Only where there is one: backend `cuda`."""

    allocated: int
    reserved: int
    requested: int
    active: int
    """Allocated, and released blocks that another stream may still use."""

    @classmethod
    def highest(cls, peaks: Iterable[AllocatorPeaks]) -> AllocatorPeaks:
        """The highest of each count."""
        return cls(*map(max, zip(*map(astuple, peaks), strict=True)))


StepKind = Literal["training", "evaluation", "call"]
"""Closed by an optimizer step; a loader's next batch or a call of the outermost module; the target's return."""


@dataclass(frozen=True)
class Step:
    """One step: events[start:end] happened in it."""

    number: int
    kind: StepKind
    start: int
    end: int
    seconds: float
    input_shapes: tuple[tuple[int, ...], ...] = ()
    """Of the tensors that came to the device from the host in this step."""
    graph_nodes: int | None = None
    """Autograd nodes that are reachable at its end (known with `Layer.GROWTH`)."""
    allocator: AllocatorPeaks | None = None
    unfinished: bool = False
    """The program ended in it: no next batch is there at its end, as in the others, so the ends are not alike."""
    """Of the first step: since the set-up began."""


@dataclass(frozen=True)
class Keeper:
    """Something that keeps memory of earlier steps alive."""

    place: Place | None
    """The line that keeps it: the accumulation, the append."""
    kind: Literal["graph", "container", "cycle", "tensor"]
    """An autograd node that refers to a node of an earlier step; a Python object that refers to its tensors; objects
    that keep each other alive, which only Python's cycle collector frees, if it can; or one tensor that each step makes
    anew, larger, of itself."""
    name: str
    """In words of the code: `outputs`, `self.history`; of a graph: the variable that carries it, if known."""
    storages: tuple[int, ...] = ()
    """The ids of the storages that it keeps, by what the worker could see."""
    holds_graph: bool = False
    """Whether what it keeps carries autograd graphs: nodes in host memory."""
    other_places: tuple[Place, ...] = ()
    """The other lines that fill such a container: `place` is the nearest to where the contents are made, and which of
    them ran is not seen."""


Effect = Literal["upper bound", "inexact"] | None
"""What an assumption makes of the peak: the most that it can be, as far as it depends on this, or a number that may be
somewhat off, in either direction. None: it is not known to change it."""


@dataclass(frozen=True)
class Assumption:
    """A value that the run could not know, and what was taken for it."""

    what: str
    place: Place | None
    count: int = 1
    effect: Effect = None


@dataclass(frozen=True)
class KernelChoice:
    """Which of several kernels was taken for an operation, and why."""

    operation: str
    kernel: str
    reason: str
    place: Place | None
    count: int = 1


@dataclass(frozen=True)
class DeviceInfo:
    """The card that was there, or that was pretended. `capability` is (major, minor), (0, 0) where it has none."""

    name: str
    total_bytes: int
    capability: tuple[int, int]


@dataclass(frozen=True)
class Workspace:
    """What a library would take of the allocator for itself, and keep. `born` as that of a storage."""

    library: str
    size: int
    born: int


@dataclass(frozen=True)
class ProcessMemory:
    """What NVML says of the card, in bytes. None: it would not say."""

    process_bytes: int | None
    context_bytes: int | None
    other_processes: tuple[tuple[int, str, int | None], ...] = ()
    """(pid, name, bytes) of who else is on the card."""
    by_difference: bool = False
    """NVML could not tell this process from the others, as in a container: `process_bytes` is by how much the use of
    the whole card rose."""


@dataclass(frozen=True)
class OutOfMemory:
    """The request that the card could not serve, and how things stood, in bytes."""

    requested: int
    card_free: int
    allocated: int
    reserved: int
    peaks: AllocatorPeaks
    """Since the last step had ended."""


@dataclass(frozen=True)
class Digest:
    """Tensors, so that those of two runs can be compared: bit by bit, and within a tolerance."""

    bits: str
    """A hash of their types, shapes and bytes."""
    projection: float
    """The sum of their elements under weights that depend on the place alone: a change of signs or of order shows."""
    magnitude: float
    """The sum of the absolute values: what a difference of projections is to be compared with."""


@dataclass(frozen=True)
class Fingerprints:
    """What a run computed."""

    losses: tuple[Digest, ...]
    """Of each step: what was differentiated; where nothing was, what the model (or the measured function) gave."""
    parameters: Digest
    buffers: Digest
    first_gradients: Digest
    random_state: str


@dataclass
class Recording:
    """A whole run."""

    backend: BackendName
    torch_version: str
    device: DeviceInfo
    warmup: int
    layers: frozenset[Layer]
    storages: list[Storage] = field(default_factory=list)
    events: list[int] = field(default_factory=list)
    """In order of time: `id` for an allocation, `~id` for a release."""
    steps: list[Step] = field(default_factory=list)
    keepers: list[Keeper] = field(default_factory=list)
    assumptions: list[Assumption] = field(default_factory=list)
    kernels: list[KernelChoice] = field(default_factory=list)
    excluded: list[str] = field(default_factory=list)
    """What the numbers leave out: the CUDA context, cuBLAS workspaces, NCCL, ..."""
    ran_lines: dict[str, frozenset[int]] = field(default_factory=dict)
    """Every user's file that was loaded, by absolute path, and which of the lines that `Job.watched` names ran in it.
    A line that never ran is never priced."""
    workspaces: list[Workspace] = field(default_factory=list)
    """Those of cuBLAS, on `fake`. They are no storages of the program's: the peak is without them."""
    allocator_settings: str = ""
    """What `PYTORCH_ALLOC_CONF` or `PYTORCH_CUDA_ALLOC_CONF` said in the worker when the run ended."""
    fingerprints: Fingerprints | None = None
    process: ProcessMemory | None = None
    out_of_memory: OutOfMemory | None = None
    """Where the run ended that way, on `cuda`."""
    memory_history: bytes | None = None
    """PyTorch's pickled snapshot (known with `Layer.MEMORY_HISTORY`)."""
