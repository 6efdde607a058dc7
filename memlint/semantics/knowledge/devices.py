"""What memlint knows of devices: how code names them."""

from __future__ import annotations

# torch.device documentation: device types by name. What is not the host has memory of its own.
HOST_TYPES = ("cpu", "meta")
DEVICE_TYPES = ("cuda", "mps", "xpu", "hpu", "npu", "mtia", "xla", "hip", "privateuseone")
DEVICE_OBJECTS = frozenset({"torch.device"})
# A variable with one of these words in its name holds a device, as a rule one with memory of its own: on the host
# nobody would move anything.
DEVICE_WORDS = frozenset({"device", "devices", "dev", "cuda", "gpu", "rank"})
# What has a device of its own to hand out: options, models, trainers. Any other `y.device` is where a tensor is.
OWNER_WORDS = frozenset(
    """self cls args arg cfg config conf opt opts options hparams params flags settings ctx model net module network
    encoder accelerator trainer fabric learner agent policy""".split()
)
# A file with one of these has its model on a device, whoever moves it (accelerate, Lightning, torch.nn.parallel,
# fastai.learner.Learner).
PLACING_WORDS = frozenset(
    """DataParallel DistributedDataParallel Accelerator LightningModule device_map set_device Fabric Learner""".split()
)
