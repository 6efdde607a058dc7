"""MEM604."""

from __future__ import annotations

from collections.abc import Iterator

from memlint.linting.edits import KeepOnly
from memlint.linting.finding import Confidence, Cost, CostClass
from memlint.linting.rule import Draft, FixDraft, Rule, display_fix
from memlint.semantics.devices import Place
from memlint.semantics.module import Module
from memlint.semantics.worker_devices import WorkerMove, worker_moves


class CudaInDataset(Rule):
    """A data set or a collate function puts tensors on the GPU in the loader's worker processes.

    ## What it does
    Flags `.cuda()`, `.to(device)`, `device=...` and the like in `__getitem__` or `__iter__` of a data set, in the
    methods that they call, and in a `collate_fn` or `worker_init_fn`: code that a `DataLoader` runs in its workers.

    ## What it costs
    Each worker process opens a CUDA context of its own on the GPU, about 0.5 GB (reported: 520 MiB a context, 12 GB for
    24 workers), and the batches that wait in its queue (`prefetch_factor` x workers of them) take device memory instead
    of host memory. Workers that are forked, the default on Linux, cannot use CUDA at all: "Cannot re-initialize CUDA in
    forked subprocess".

    ## Example
    ```python
    from torch.utils.data import DataLoader, Dataset


    class Frames(Dataset):
        def __init__(self, frames):
            self.frames = frames

        def __len__(self):
            return len(self.frames)

        def __getitem__(self, index):
            return self.frames[index].cuda()


    def loader(frames):
        return DataLoader(Frames(frames), batch_size=32, num_workers=8)
    ```

    ## Use instead
    ```python
    from torch.utils.data import DataLoader, Dataset


    class Frames(Dataset):
        def __init__(self, frames):
            self.frames = frames

        def __len__(self):
            return len(self.frames)

        def __getitem__(self, index):
            return self.frames[index]


    def batches(frames):
        loader = DataLoader(Frames(frames), batch_size=32, num_workers=8, pin_memory=True)
        for batch in loader:
            yield batch.cuda(non_blocking=True)
    ```

    ## Fix safety
    Taking the move out is shown and never applied: every loop over the data set must then move its batches itself,
    and a transform that follows may compute on the GPU.

    ## When it stays silent
    When the loaders in view have no workers (`num_workers` is 0 by default): then the main process does all of it, and
    a data set may well be kept on the GPU; when the device is the CPU, or that of another tensor; when the class is no
    data set that memlint knows. Where no loader is in view, those of the
    project's files that mention the class are asked; where there are none, the confidence is medium for a GPU that is
    named and low, not shown by default, for a device that a variable holds, and for a data set that puts its data on
    the device in its constructor; it is low too where the file sets how processes start.

    ## References
    - `torch.utils.data` documentation, "Multi-process data loading": "It is generally not recommended to return CUDA
      tensors in multi-process loading"
    - pytorch/pytorch#24292, #64766, #128497
    """

    code = "MEM604"
    name = "cuda-in-dataset"
    since = "0.1"
    triggers = frozenset({"cuda", "to", "device", "map_location"})

    def check(self, module: Module) -> Iterator[Draft]:
        for move in worker_moves(module):
            where = "runs in the loader's workers" if move.workers_in_view else "would run in a loader's workers"
            yield self.finding(
                move.call.node,
                f"`{module.text(move.call.node, 40)}` in `{move.runs_in}` {where}: "
                "each of them opens a CUDA context on the GPU",
                cost=Cost(CostClass.CONSTANT, "workers x (about 0.5 GB + prefetch_factor x the bytes of a batch)"),
                confidence=_confidence(move),
                fix=_fix(move),
            )


def _confidence(move: WorkerMove) -> Confidence:
    if move.spawns or not move.is_sure or (move.place is Place.VARIABLE and move.by_name):
        return Confidence.LOW
    if move.place is Place.VARIABLE or not move.has_workers or move.by_name:
        return Confidence.MEDIUM
    return Confidence.HIGH


def _fix(move: WorkerMove) -> FixDraft | None:
    if move.moved is None:
        return None
    return display_fix("move the batch in the training loop", KeepOnly(move.call.call, move.moved))
