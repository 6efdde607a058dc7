"""Classes that count and average what a training loop tells them, as data."""

from __future__ import annotations

# Named so, a class sums its argument in one of these methods: the AverageMeter of torch's imagenet example
# (`self.sum += val * n`) and its many copies. `MetricLogger` is no row: that of DETR, its model, calls `.item()`.
SUMMING_CLASSES = frozenset(
    {
        "AverageMeter",
        "AvgMeter",
        "AverageValueMeter",
        "RunningAverage",
        "RunningAverageMeter",
        "Averager",
        "SmoothedValue",
        "Meter",
    }
)
SUMMING_METHODS = frozenset({"update", "add", "append", "__call__"})
# Methods that empty a meter.
RESETTING_METHODS = frozenset({"reset", "clear", "reset_state", "zero", "restart"})

# Libraries whose classes of such names convert or detach what they are given.
# (torchmetrics and ignite.metrics update with grad mode off or from detached values; detectron2 and fvcore convert.)
CONVERTING_LIBRARIES = (
    "torchmetrics.",
    "ignite.",
    "fvcore.",
    "detectron2.",
    "mmengine.",
    "mmcv.",
    "keras.",
    "tensorflow.",
)
