"""TRL, as data. Source: trl 1.16.0; the PPO trainer and the value-head models, which 1.16 has
no more: public copies of trl 0.11, not the package itself."""

from __future__ import annotations

from memlint.semantics.knowledge.libraries.rows import Class, Effect, Library, Role, calls, named

# models/modeling_value_head.py of 0.11: PreTrainedModelWrapper(nn.Module).
_MODEL = Class(Role.MODULE)

# trainer/*_trainer.py: subclasses of transformers.Trainer; train, evaluate and predict as there.
_TRAINER = Class(Role.HELPER, calls(Effect.CONSUMES, "train evaluate predict save_model log"))

TRL = Library(
    packages=("trl",),
    classes={
        **named("AutoModelForCausalLMWithValueHead AutoModelForSeq2SeqLMWithValueHead PreTrainedModelWrapper", _MODEL),
        **named(
            "SFTTrainer DPOTrainer GRPOTrainer RLOOTrainer KTOTrainer RewardTrainer ORPOTrainer CPOTrainer GKDTrainer "
            "OnlineDPOTrainer DistillationTrainer",
            _TRAINER,
        ),
    },
)
