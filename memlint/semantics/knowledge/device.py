"""What memlint knows of the device's memory cache, and of methods that run at every step."""

from __future__ import annotations

from memlint.semantics.knowledge.torch import DATASET_BASES, LIGHTNING_MODULES

# torch.cuda.empty_cache documentation: unused blocks go back to the driver; nothing that is alive is freed.
EMPTY_CACHE = frozenset(
    {
        "torch.cuda.empty_cache",
        "torch.cuda.memory.empty_cache",
        "torch.accelerator.empty_cache",
        "torch.accelerator.memory.empty_cache",
        "torch.mps.empty_cache",
        "torch.xpu.empty_cache",
        "torch.xpu.memory.empty_cache",
    }
)

# What code calls before it measures a peak (torch.cuda.reset_peak_memory_stats documentation).
PEAK_RESETS = frozenset({"reset_peak_memory_stats", "reset_max_memory_allocated", "reset_max_memory_cached"})

# Checks whose answer is the same in every step.
DEVICE_CHECKS = frozenset(
    {
        "torch.cuda.is_available",
        "torch.cuda.is_initialized",
        "torch.accelerator.is_available",
        "torch.mps.is_available",
        "torch.backends.mps.is_available",
        "torch.xpu.is_available",
    }
)

LIGHTNING_CALLBACKS = frozenset(
    {
        "lightning.Callback",
        "lightning.pytorch.Callback",
        "lightning.pytorch.callbacks.Callback",
        "lightning.pytorch.callbacks.callback.Callback",
        "pytorch_lightning.Callback",
        "pytorch_lightning.callbacks.Callback",
        "pytorch_lightning.callbacks.base.Callback",
    }
)
_LIGHTNING_BATCH_HOOKS = frozenset(
    f"on_{stage}_batch_{end}" for stage in ("train", "validation", "test", "predict") for end in ("start", "end")
)
_LIGHTNING_STEPS = frozenset({"training_step", "validation_step", "test_step", "predict_step"})
TRAINER_CALLBACKS = frozenset({"transformers.TrainerCallback", "transformers.trainer_callback.TrainerCallback"})
TRAINERS = frozenset({"transformers.Trainer", "transformers.Seq2SeqTrainer", "transformers.trainer.Trainer"})

AUTOGRAD_FUNCTIONS = frozenset({"torch.autograd.Function", "torch.autograd.function.Function"})

# Classes whose framework calls these methods once a batch, or once a sample (the frameworks' hook documentation).
EVERY_STEP = (
    (LIGHTNING_MODULES, _LIGHTNING_STEPS | _LIGHTNING_BATCH_HOOKS),
    (LIGHTNING_CALLBACKS, _LIGHTNING_BATCH_HOOKS),
    (TRAINER_CALLBACKS, frozenset({"on_step_begin", "on_step_end", "on_substep_end"})),
    (TRAINERS, frozenset({"training_step", "compute_loss", "prediction_step"})),
    (DATASET_BASES, frozenset({"__getitem__"})),
    (AUTOGRAD_FUNCTIONS, frozenset({"forward", "backward"})),
)
FORWARD = "forward"
