"""DeepSpeed, as data. Source: the repository deepspeedai/DeepSpeed at 0a1fbe1d."""

from __future__ import annotations

from memlint.semantics.knowledge.libraries.rows import Class, Effect, Library, Role, calls, named

# deepspeed/runtime/engine.py, class DeepSpeedEngine(Module): backward(loss) scales and differentiates, step() runs the
# optimizer. deepspeed/runtime/pipe/engine.py, class PipelineEngine: train_batch() differentiates and steps by itself
# and returns the detached loss; eval_batch() runs under torch.no_grad().
_ENGINE = Class(
    Role.MODULE,
    {
        **calls(Effect.DIFFERENTIATES, "backward"),
        **calls(Effect.STEPS, "step train_batch"),
        **calls(Effect.CONSUMES, "eval_batch save_checkpoint load_checkpoint save_16bit_model"),
        **calls(Effect.CONSUMES, "allreduce_gradients set_train_batch_size"),
        **calls(Effect.CONTEXT, "no_sync"),
    },
)

DEEPSPEED = Library(
    packages=("deepspeed",),
    classes={
        **named("DeepSpeedEngine PipelineEngine DeepSpeedHybridEngine", _ENGINE),
        "InferenceEngine": Class(Role.MODULE),
        "PipelineModule": Class(Role.MODULE),
        "DeepSpeedDataLoader": Class(Role.LOADER),
        # deepspeed/runtime/lr_schedules.py
        **named("LRRangeTest OneCycle WarmupLR WarmupDecayLR WarmupCosineLR", Class(Role.SCHEDULER)),
        # deepspeed/ops/adam, deepspeed/ops/lamb, deepspeed/runtime/fp16/onebit, deepspeed/runtime/zero
        **named(
            "DeepSpeedCPUAdam FusedAdam FusedLamb DeepSpeedCPULion FusedLion DeepSpeedCPUAdagrad OnebitAdam OnebitLamb "
            "ZeroOneAdam DeepSpeedOptimizer",
            Class(Role.OPTIMIZER),
        ),
    },
    # deepspeed/__init__.py: initialize returns engine, optimizer, training_dataloader, lr_scheduler; init_inference an
    # InferenceEngine, tp_model_init the model.
    builders={
        "initialize": ("DeepSpeedEngine", "DeepSpeedOptimizer", "DeepSpeedDataLoader", "WarmupLR"),
        "init_inference": ("InferenceEngine",),
    },
    functions=calls(Effect.RETURNS_FIRST, "tp_model_init"),
)
