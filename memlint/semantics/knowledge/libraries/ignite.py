"""Ignite, as data. Source: pytorch-ignite 0.5.5."""

from __future__ import annotations

from memlint.semantics.knowledge.libraries.rows import Class, Effect, Library, Role, calls, named

# metrics/*: each update detaches what it is given (`output[0].detach()`, also in accumulation.py, loss.py and
# running_average.py); iteration_completed (metrics/metric.py), which calls it, is decorated with @torch.no_grad().
_METRIC = Class(Role.METRIC, calls(Effect.CONSUMES, "update compute reset attach detach"))

IGNITE = Library(
    packages=("ignite",),
    classes={
        **named(
            "Accuracy Average CohenKappa ConfusionMatrix CosineSimilarity EpochMetric Entropy "
            "FID Frequency GeometricAverage HSIC InceptionScore JSDivergence KLDivergence Loss "
            "MaximumMeanDiscrepancy MeanAbsoluteError MeanAveragePrecision MeanPairwiseDistance MeanSquaredError "
            "MultiLabelConfusionMatrix Perplexity Precision PSNR Recall RootMeanSquaredError Rouge RougeL RougeN "
            "RunningAverage SSIM TopKCategoricalAccuracy VariableAccumulation Bleu ROC_AUC AveragePrecision "
            "PrecisionRecallCurve RocCurve",
            _METRIC,
        ),
        # engine/engine.py: the process function runs in the caller's grad mode.
        "Engine": Class(Role.HELPER, calls(Effect.CONSUMES, "run terminate add_event_handler on")),
    },
    # engine/__init__.py: the trainer's step differentiates and returns `loss.item()`; the evaluator's runs under
    # torch.no_grad().
    builders={"create_supervised_trainer": ("Engine",), "create_supervised_evaluator": ("Engine",)},
)
