"""Diffusers, as data. Source: diffusers 0.42.1."""

from __future__ import annotations

from memlint.semantics.knowledge.libraries.rows import Class, Effect, Library, Role, calls

_MODEL = Class(Role.MODULE)

# pipelines/*: `__call__` of every pipeline is decorated with @torch.no_grad() (368 of them in this version);
# encode_prompt and the like are not.
_PIPELINE = Class(
    Role.HELPER,
    {**calls(Effect.CONSUMES, "__call__ set_progress_bar_config save_pretrained"), **calls(Effect.RETURNS_SELF, "to")},
)

# schedulers/*: the formulas of a diffusion process, differentiable in their tensors. `step` is no optimizer's.
_NOISE_SCHEDULER = Class(
    Role.HELPER,
    {
        **calls(Effect.PASSES, "step add_noise get_velocity scale_model_input scale_noise"),
        **calls(Effect.CONSUMES, "set_timesteps"),
    },
)

# training_utils.py: EMAModel.step is decorated with @torch.no_grad(); store and copy_to move data.
_EMA = Class(Role.HELPER, calls(Effect.CONSUMES, "step store restore copy_to to save_pretrained load_state_dict"))

DIFFUSERS = Library(
    packages=("diffusers",),
    classes={
        "ModelMixin": _MODEL,
        "EMAModel": _EMA,
        "DiffusionPipeline": _PIPELINE,
        "SchedulerMixin": _NOISE_SCHEDULER,
    },
    suffixes={"Model": _MODEL, "Pipeline": _PIPELINE, "Scheduler": _NOISE_SCHEDULER, "Scheduler2": _NOISE_SCHEDULER},
    prefixes={"AutoencoderKL": _MODEL, "AutoPipelineFor": _PIPELINE},
    builders={"get_scheduler": ("lr_scheduler",)},  # optimization.py
    functions={
        # training_utils.py
        **calls(Effect.CONSUMES, "set_seed"),
        **calls(Effect.PASSES, "compute_snr"),
    },
)
