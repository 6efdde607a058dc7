"""When Lightning calls which method (the hook documentation of LightningModule and Callback)."""

from __future__ import annotations

# The classes whose hooks these are, whatever name they are imported by: `pl.LightningModule`,
# `lightning.pytorch.core.module.LightningModule`.
PACKAGES = frozenset({"lightning", "pytorch_lightning"})
CLASSES = frozenset({"LightningModule", "Callback", "BasePredictionWriter"})

# Once a batch. `predict_step` is left out: whoever predicts wants all of the outputs, once.
TRAINING_STEPS = frozenset({"training_step", "training_step_end", "on_train_batch_start", "on_train_batch_end"})
# A list that only the training step fills is called so.
TRAINING_WORDS = frozenset({"train", "training"})
VALIDATION_STEPS = frozenset(
    {"validation_step", "validation_step_end", "on_validation_batch_start", "on_validation_batch_end"}
)
TEST_STEPS = frozenset({"test_step", "test_step_end", "on_test_batch_start", "on_test_batch_end"})
STEPS = TRAINING_STEPS | VALIDATION_STEPS | TEST_STEPS
PREDICTION_STEPS = frozenset({"predict_step", "on_predict_batch_start", "on_predict_batch_end", "write_on_batch_end"})
# pytorch_lightning/loops: these run with grad mode off.
EVALUATION_STEPS = VALIDATION_STEPS | TEST_STEPS | PREDICTION_STEPS
# Lightning before 2.0 gives these hooks a list of all that the steps have returned
# (pytorch_lightning 1.9, loops/dataloader/evaluation_loop.py).
GIVEN_ALL = {"validation_step": "validation_epoch_end", "test_step": "test_epoch_end"}
# What the hooks at the end of a batch are given, by its name.
OUTPUT_PARAMETERS = frozenset({"outputs", "output", "outs", "out", "prediction", "predictions", "preds"})
# pytorch_lightning/loops/prediction_loop.py, `_predict_step`: Lightning itself moves what it keeps of each batch to the
# host. Whoever keeps it here wants it when the run is over.
AFTER_PREDICTING = frozenset({"on_predict_batch_end", "write_on_batch_end"})

# transformers.Trainer.training_step differentiates what `compute_loss` returns; so do the trainers derived from it.
TRAINER_PACKAGES = frozenset({"transformers", "trl", "sentence_transformers"})
LOSS_METHODS = frozenset({"compute_loss"})

# Once an epoch.
EPOCH_ENDS = frozenset(
    """on_train_epoch_end on_validation_epoch_end on_validation_end on_test_epoch_end on_test_end training_epoch_end
    validation_epoch_end test_epoch_end on_epoch_end on_train_epoch_start on_validation_epoch_start
    on_validation_start""".split()
)

# Once in the life of the module, or once a run: what they set anew is not emptied from epoch to epoch.
ONCE = frozenset(
    """__init__ __post_init__ setup configure_model configure_sharded_model configure_optimizers prepare_data
    on_fit_start on_train_start on_sanity_check_start""".split()
)
# What empties a list, or takes elements out of it.
EMPTYING_METHODS = frozenset({"clear", "pop", "popleft", "popitem", "remove"})
# Code that uses one of these may empty a list by another way.
DYNAMIC_WORDS = frozenset({"setattr", "__dict__", "vars", "delattr"})
# What a value on the host was made by.
HOST_METHODS = frozenset({"cpu", "numpy", "tolist", "item"})
