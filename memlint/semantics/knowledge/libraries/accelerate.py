"""Accelerate, as data. Source: accelerate 1.15.0."""

from __future__ import annotations

from memlint.semantics.knowledge.libraries.rows import Class, Effect, Library, Role, calls

# accelerate/accelerator.py. backward: `self.scaler.scale(loss).backward()`, `loss.backward()` or DeepSpeed's.
# gather, gather_for_metrics, reduce, pad_across_processes: on one process the very tensor comes back (with its graph),
# on several a fresh one that collective operations filled, without.
_ACCELERATOR = Class(
    Role.HELPER,
    {
        **calls(Effect.DIFFERENTIATES, "backward"),
        **calls(Effect.MAY_PASS, "gather gather_for_metrics reduce pad_across_processes"),
        **calls(Effect.CONSUMES, "log print clip_grad_norm_ clip_grad_value_ wait_for_everyone end_training"),
        **calls(Effect.CONSUMES, "init_trackers save save_state load_state save_model unscale_gradients"),
        **calls(Effect.CONSUMES, "register_for_checkpointing set_trigger check_trigger"),
        **calls(Effect.RETURNS_FIRST, "unwrap_model prepare_model prepare_data_loader prepare_optimizer"),
        **calls(Effect.RETURNS_FIRST, "prepare_scheduler skip_first_batches"),
        **calls(Effect.RETURNS_ALL, "prepare"),
        **calls(Effect.CONTEXT, "accumulate autocast no_sync profile join_uneven_inputs split_between_processes"),
        **calls(Effect.CONTEXT, "main_process_first local_main_process_first maybe_context_parallel"),
    },
)

ACCELERATE = Library(
    packages=("accelerate",),
    classes={"Accelerator": _ACCELERATOR},
    # accelerate/utils/operations.py: gather, reduce, pad_across_processes; send_to_device is `tensor.to(device)`.
    # accelerate/utils/other.py: extract_model_from_parallel unwraps; accelerate/data_loader.py: skip_first_batches.
    functions={
        **calls(Effect.MAY_PASS, "gather reduce pad_across_processes"),
        **calls(Effect.PASSES, "send_to_device concatenate convert_to_fp32"),
        **calls(Effect.RETURNS_FIRST, "extract_model_from_parallel skip_first_batches dispatch_model cpu_offload"),
        **calls(Effect.RETURNS_FIRST, "load_checkpoint_and_dispatch"),
        **calls(Effect.CONSUMES, "set_seed"),
    },
)
