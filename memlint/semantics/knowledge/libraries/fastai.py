"""fastai, as data. Source: fastai 2.8.12."""

from __future__ import annotations

from memlint.semantics.knowledge.libraries.rows import Class, Effect, Library, Role, calls, named

# learner.py: _do_epoch_validate runs the batches of validation, and with them these events, under torch.no_grad();
# validate, get_preds and predict go through it. to_detach detaches.
_LEARNER = Class(
    Role.HELPER, calls(Effect.CONSUMES, "validate get_preds predict to_detach show_results fit fit_one_cycle fine_tune")
)
_METRIC = Class(Role.METRIC, calls(Effect.CONSUMES, "accumulate"))
_CALLBACK = Class(Role.HELPER, grad_off=frozenset({"before_validate", "after_validate", "after_cancel_validate"}))

FASTAI = Library(
    packages=("fastai",),
    classes={
        "Learner": _LEARNER,
        "Callback": _CALLBACK,
        # learner.py: accumulate detaches (`learn.to_detach`).
        **named(
            "AvgMetric AvgLoss AvgSmoothLoss ValueMetric", Class(Role.METRIC, calls(Effect.CONSUMES, "accumulate"))
        ),
        **named("DataLoader TfmdDL", Class(Role.LOADER)),  # data/load.py, data/core.py
    },
    builders=dict.fromkeys(
        "vision_learner cnn_learner unet_learner text_classifier_learner language_model_learner tabular_learner "
        "collab_learner".split(),
        ("Learner",),
    ),
    functions=calls(Effect.CONSUMES, "to_detach"),  # torch_core.py
)
