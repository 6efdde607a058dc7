"""Tools for finding errors that cost time or memory as long as they are on."""

from __future__ import annotations

# torch.autograd.anomaly_mode: with it on, each operation of a forward pass stores the text of its Python stack, and
# each backward function's results are searched for NaN.
SET_DETECT_ANOMALY = frozenset(
    {
        "torch.autograd.set_detect_anomaly",
        "torch.autograd.anomaly_mode.set_detect_anomaly",
        "torch.set_anomaly_enabled",
        "torch._C.set_anomaly_enabled",
    }
)
DETECT_ANOMALY = frozenset({"torch.autograd.detect_anomaly", "torch.autograd.anomaly_mode.detect_anomaly"})
# pytorch_lightning/trainer/trainer.py: `with torch.autograd.set_detect_anomaly(self._detect_anomaly):` around the run.
LIGHTNING_TRAINERS = frozenset(
    {
        "pytorch_lightning.Trainer",
        "pytorch_lightning.trainer.Trainer",
        "pytorch_lightning.trainer.trainer.Trainer",
        "lightning.Trainer",
        "lightning.pytorch.Trainer",
        "lightning.pytorch.trainer.Trainer",
    }
)

# torch.profiler.profile documentation: without `schedule` every step between entry and exit is recorded, and the events
# are held in host memory until the exit.
PROFILERS = frozenset(
    {
        "torch.profiler.profile",
        "torch.profiler.profiler.profile",
        "torch.autograd.profiler.profile",
    }
)

# torch.cuda.memory._record_memory_history: `max_entries` is sys.maxsize by default (checked on 2.13).
RECORD_MEMORY_HISTORY = frozenset({"torch.cuda.memory._record_memory_history", "torch.cuda._record_memory_history"})
BOUNDING_KEYWORDS = frozenset({"max_entries", "trace_alloc_max_entries"})
SNAPSHOT_WORDS = frozenset({"_dump_snapshot", "_snapshot", "memory_snapshot"})

# CUDA programming guide: kernel launches wait for the kernel to end.
LAUNCH_BLOCKING = "CUDA_LAUNCH_BLOCKING"
ENVIRONMENT = "os.environ"
SETTING_DEFAULTS = frozenset({"os.environ.setdefault", "os.putenv"})

# A file or function named so is there to find errors, to measure, or to be repeatable.
PURPOSES = frozenset(
    """debug debugging debugger profile profiler profiling benchmark benchmarks bench anomaly determinism deterministic
    trace tracing snapshot reproduce repro perf timing measure""".split()
)
# Functions that run the training, whoever calls them.
RUNNERS = frozenset("main train training trainer fit run worker finetune pretrain init __init__ launch setup".split())
