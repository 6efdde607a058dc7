"""Lightning and Fabric, as data. Source: pytorch-lightning 2.6.6 (packages pytorch_lightning and lightning_fabric)."""

from __future__ import annotations

from memlint.semantics.knowledge.libraries.rows import Class, Effect, Library, Role, calls, named

# pytorch_lightning/loops/evaluation_loop.py and prediction_loop.py: `run` is decorated with _no_grad_context
# (loops/utilities.py), and from it these hooks of the module and of callbacks are called. The methods
# `validation_epoch_end` and the like are those of versions before 2.
GRAD_OFF = frozenset(
    {
        *(
            f"on_{stage}_{event}"
            for stage in ("validation", "test", "predict")
            for event in ("start", "end", "epoch_start", "epoch_end", "batch_start", "batch_end")
        ),
        *(
            f"on_{stage}_model_{event}"
            for stage in ("validation", "test", "predict")
            for event in ("eval", "train", "zero_grad")
        ),
        *(
            f"{stage}_{event}"
            for stage in ("validation", "test", "predict")
            for event in ("step", "step_end", "epoch_end")
        ),
    }
)

# pytorch_lightning/core/module.py: log and log_dict detach what they are given
# (trainer/connectors/logger_connector/result.py: recursive_detach); manual_backward differentiates; all_gather gives
# the very tensor back on one device.
_MODULE = Class(
    Role.MODULE,
    {
        **calls(Effect.CONSUMES, "log log_dict print save_hyperparameters clip_gradients toggle_optimizer"),
        **calls(Effect.CONSUMES, "untoggle_optimizer lr_schedulers"),
        **calls(Effect.DIFFERENTIATES, "manual_backward"),
        **calls(Effect.MAY_PASS, "all_gather"),
    },
    grad_off=GRAD_OFF,
    plain=True,
)
_CALLBACK = Class(Role.HELPER, grad_off=GRAD_OFF, plain=True)

# lightning_fabric/fabric.py: setup returns the module, or (module, *optimizers); setup_module, setup_dataloaders and
# to_device what they are given; backward(tensor) differentiates; loggers turn what log is given into numbers.
_FABRIC = Class(
    Role.HELPER,
    {
        **calls(Effect.DIFFERENTIATES, "backward"),
        **calls(Effect.RETURNS_ALL, "setup setup_dataloaders setup_optimizers"),
        **calls(Effect.RETURNS_FIRST, "setup_module to_device"),
        **calls(Effect.CONSUMES, "log log_dict print barrier save load load_raw clip_gradients seed_everything"),
        **calls(Effect.MAY_PASS, "all_gather all_reduce broadcast"),
        **calls(Effect.CONTEXT, "autocast no_backward_sync rank_zero_first sharded_model init_module init_tensor"),
    },
    plain=True,
)

# pytorch_lightning/loggers and lightning_fabric/loggers: log_metrics takes numbers.
_LOGGER = Class(
    Role.LOGGER, calls(Effect.CONSUMES, "log_metrics log_hyperparams log_graph log_image log_text save finalize")
)

# pytorch_lightning/trainer/trainer.py: validate, test and predict run the loops above.
_TRAINER = Class(Role.HELPER, calls(Effect.CONSUMES, "fit validate test predict save_checkpoint print"), plain=True)

LIGHTNING = Library(
    packages=("pytorch_lightning", "lightning", "lightning_fabric"),
    classes={
        "LightningModule": _MODULE,
        **named(
            "Callback ModelCheckpoint EarlyStopping BasePredictionWriter BaseFinetuning ProgressBar TQDMProgressBar "
            "RichProgressBar LearningRateMonitor WeightAveraging StochasticWeightAveraging LambdaCallback",
            _CALLBACK,
        ),
        **named("Fabric LightningLite", _FABRIC),
        "Trainer": _TRAINER,
        **named(
            "CSVLogger TensorBoardLogger WandbLogger MLFlowLogger CometLogger NeptuneLogger LightningLogger", _LOGGER
        ),
    },
)
