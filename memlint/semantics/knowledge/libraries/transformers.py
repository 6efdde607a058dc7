"""Transformers, as data. Source: transformers 5.23.0."""

from __future__ import annotations

from memlint.semantics.knowledge.libraries.rows import Class, Effect, Library, Role, calls, named

_MODEL = Class(Role.MODULE)

# trainer.py and trainer_seq2seq.py: only prediction_step itself switches grad off (`with torch.no_grad():` in its
# body); evaluation_loop, which calls it, does not. A subclass's own prediction_step, evaluate or evaluation_loop
# therefore runs with grad on, training_step and compute_loss too. No row for grad mode off.
_TRAINER = Class(
    Role.HELPER,
    {
        **calls(Effect.CONSUMES, "log evaluate predict save_model save_state train save_metrics log_metrics"),
        **calls(Effect.CONTEXT, "compute_loss_context_manager autocast_smart_context_manager"),
    },
    plain=True,
)

# pipelines/base.py: Pipeline.forward calls _forward in get_inference_context(), which is torch.no_grad; __call__ goes
# through it.
_PIPELINE = Class(Role.HELPER, calls(Effect.CONSUMES, "__call__ forward"), grad_off=frozenset({"_forward"}))

# generation/utils.py: GenerationMixin.generate is decorated with @torch.no_grad() and calls these.
_IN_GENERATE = Class(Role.HELPER, grad_off=frozenset({"__call__"}), plain=True)

# models/auto/modeling_auto.py, modeling_utils.py: how the classes of models end.
_HEADS = """CausalLM ConditionalGeneration SequenceClassification TokenClassification QuestionAnswering MaskedLM
PreTraining MultipleChoice ImageClassification ObjectDetection SemanticSegmentation InstanceSegmentation
UniversalSegmentation CTC AudioClassification Seq2SeqLM Vision2Seq ImageTextToText NextSentencePrediction
DepthEstimation MaskedImageModeling SpeechSeq2Seq VideoClassification KeypointDetection XVector
AudioFrameClassification MaskGeneration ImageToImage DocumentQuestionAnswering VisualQuestionAnswering
TableQuestionAnswering ZeroShotObjectDetection ZeroShotImageClassification TimeSeriesPrediction
ImageSegmentation Retrieval Prediction""".split()

TRANSFORMERS = Library(
    packages=("transformers",),
    classes={
        **named("Trainer Seq2SeqTrainer", _TRAINER),
        "TrainerCallback": Class(Role.HELPER, plain=True),
        **named("LogitsProcessor LogitsWarper StoppingCriteria", _IN_GENERATE),
        "AutoBackbone": _MODEL,
        # optimization.py; AdamW stood there until 4.x.
        **named("AdamW Adafactor GreedyLR", Class(Role.OPTIMIZER)),
    },
    suffixes={
        **{f"For{head}": _MODEL for head in _HEADS},
        "Model": _MODEL,
        "WithLMHead": _MODEL,
        "Pipeline": _PIPELINE,
    },
    # TensorFlow's, Flax's; modeling_outputs.py; integrations/integration_utils.py: WandbLogModel is an Enum.
    not_classes=frozenset({"TF", "Flax", "DataCollator", "WandbLog", "Exported"}),
    builders={
        "pipeline": ("TextGenerationPipeline",),
        # optimization.py: each returns torch.optim.lr_scheduler.LambdaLR.
        **dict.fromkeys(
            """get_constant_schedule get_constant_schedule_with_warmup get_linear_schedule_with_warmup get_scheduler
            get_cosine_schedule_with_warmup get_cosine_with_hard_restarts_schedule_with_warmup
            get_polynomial_decay_schedule_with_warmup get_inverse_sqrt_schedule""".split(),
            ("lr_scheduler",),
        ),
    },
    functions=calls(Effect.CONSUMES, "set_seed"),
)
