"""What is known of libraries: the tables hold together; names are found under all paths they are imported by."""

from __future__ import annotations

import pytest

from memlint.semantics.knowledge import libraries
from memlint.semantics.knowledge.libraries.rows import Effect, Library, Role


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("accelerate.Accelerator", Role.HELPER),
        ("deepspeed.DeepSpeedEngine", Role.MODULE),
        ("deepspeed.runtime.engine.DeepSpeedEngine", Role.MODULE),
        ("deepspeed.ops.adam.FusedAdam", Role.OPTIMIZER),
        ("diffusers.UNet2DConditionModel", Role.MODULE),
        ("diffusers.AutoencoderKL", Role.MODULE),
        ("diffusers.DDPMScheduler", Role.HELPER),
        ("diffusers.HeunDiscreteScheduler", Role.HELPER),
        ("diffusers.KDPM2DiscreteScheduler", Role.HELPER),
        ("ignite.metrics.Accuracy", Role.METRIC),
        ("lightning.pytorch.LightningModule", Role.MODULE),
        ("pytorch_lightning.core.lightning.LightningModule", Role.MODULE),
        ("lightning.Fabric", Role.HELPER),
        ("lightning.fabric.Fabric", Role.HELPER),
        ("torchmetrics.classification.MulticlassAccuracy", Role.METRIC),
        ("transformers.BertModel", Role.MODULE),
        ("transformers.models.bert.modeling_bert.BertForSequenceClassification", Role.MODULE),
        ("transformers.AutoModelForCausalLM", Role.MODULE),
        ("transformers.GPT2LMHeadModel", Role.MODULE),
        ("transformers.Trainer", Role.HELPER),
        ("transformers.optimization.AdamW", Role.OPTIMIZER),
        ("trl.AutoModelForCausalLMWithValueHead", Role.MODULE),
    ],
)
def test_classes(name: str, role: Role) -> None:
    assert libraries.role_of(name) is role


@pytest.mark.parametrize(
    "name",
    [
        "BertModel",
        "models.BertModel",
        "transformers.AutoTokenizer",
        "transformers.BertConfig",
        "transformers.TFBertModel",
        "transformers.FlaxBertModel",
        "transformers.DataCollatorForTokenClassification",
        "transformers.models.bert.modeling_bert.BertForPreTrainingOutput",
        "transformers.pipeline",
        "torchmetrics.functional.accuracy",
        "lightning.pytorch.seed_everything",
    ],
)
def test_names_that_are_no_such_classes(name: str) -> None:
    assert libraries.class_of(name) is None


@pytest.mark.parametrize("library", libraries.LIBRARIES, ids=lambda library: library.packages[0])
def test_what_builders_build_is_known(library: Library) -> None:
    for function, classes in library.builders.items():
        for cls in classes:
            assert libraries.class_of(f"{library.packages[0]}.{cls}") is not None, (function, cls)


@pytest.mark.parametrize("library", libraries.LIBRARIES, ids=lambda library: library.packages[0])
def test_rows_are_found_by_their_names(library: Library) -> None:
    for package in library.packages:
        for name, row in library.classes.items():
            assert libraries.class_of(f"{package}.somewhere.{name}") is row
        for name, effect in library.functions.items():
            assert libraries.function_effect(f"{package}.{name}") is effect


@pytest.mark.parametrize("library", libraries.LIBRARIES, ids=lambda library: library.packages[0])
def test_methods_with_grad_off_belong_to_classes_that_are_derived_from(library: Library) -> None:
    for name, row in library.classes.items():
        for method in row.grad_off:
            assert libraries.runs_grad_off(f"{library.packages[0]}.{name}", method)


def test_what_engines_and_checkpoints_build() -> None:
    built = libraries.built_classes("deepspeed.initialize")
    assert built is not None
    assert [libraries.role_of(cls) for cls in built] == [Role.MODULE, Role.OPTIMIZER, Role.LOADER, Role.SCHEDULER]
    assert libraries.built_classes("transformers.BertModel.from_pretrained") == ("transformers.BertModel",)
    assert libraries.built_classes("transformers.AutoTokenizer.from_pretrained") is None


@pytest.mark.parametrize(
    ("cls", "method", "effect"),
    [
        ("accelerate.Accelerator", "backward", Effect.DIFFERENTIATES),
        ("accelerate.Accelerator", "accumulate", Effect.CONTEXT),
        ("deepspeed.DeepSpeedEngine", "step", Effect.STEPS),
        ("diffusers.DDPMScheduler", "step", Effect.PASSES),
        ("diffusers.StableDiffusionPipeline", "__call__", Effect.CONSUMES),
        ("ignite.metrics.Loss", "update", Effect.CONSUMES),
        ("torchmetrics.MeanMetric", "update", Effect.CONSUMES),
        ("torchmetrics.MeanMetric", "__call__", Effect.MAY_PASS),
        ("torchmetrics.CatMetric", "update", Effect.KEEPS),
        ("torchmetrics.AUROC", "update", Effect.MAY_PASS),
        ("torchmetrics.MeanMetric", "plot", None),
    ],
)
def test_methods(cls: str, method: str, effect: Effect | None) -> None:
    assert libraries.method_effect(cls, method) is effect


def test_functions() -> None:
    assert libraries.function_effect("torchmetrics.functional.classification.accuracy") is Effect.MAY_PASS
    assert libraries.function_effect("accelerate.utils.gather") is Effect.MAY_PASS
    assert libraries.function_effect("fastai.torch_core.to_detach") is Effect.CONSUMES
    assert libraries.function_effect("accelerate.Accelerator") is None
    assert libraries.function_effect("torch.gather") is None
