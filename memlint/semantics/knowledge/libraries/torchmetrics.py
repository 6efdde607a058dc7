"""TorchMetrics, as data. Source: torchmetrics 1.9.0; what is kept was tried out on it.

`update` runs with grad mode off (metric.py, `_wrap_update`), so sums hold no graph. But what a list state is given
unchanged it keeps with its graph. Calling the metric (`forward`) computes the batch's value with grad mode on.
"""

from __future__ import annotations

from memlint.semantics.knowledge.libraries.rows import Class, Effect, Library, Role, calls, named

# Sums: update keeps nothing, the value of the batch may carry a graph.
_SUMS = Class(
    Role.METRIC,
    {
        **calls(Effect.CONSUMES, "update compute reset item"),
        **calls(Effect.MAY_PASS, "__call__ forward"),
        **calls(Effect.RETURNS_SELF, "to cuda cpu"),
    },
)
# Lists of what they are given, with its graph (tried: `requires_grad` of the state after `update`).
_LISTS = Class(
    Role.METRIC,
    {
        **calls(Effect.KEEPS, "update __call__ forward"),
        **calls(Effect.CONSUMES, "reset"),
        **calls(Effect.MAY_PASS, "compute"),
        **calls(Effect.RETURNS_SELF, "to cuda cpu"),
    },
)
# Lists that may or may not change what they are given (probabilities are kept, logits are not), or that hold sums where
# they are told to (`thresholds=`), and collections of metrics: nothing is differentiated in them.
_UNDECIDED = Class(
    Role.METRIC,
    {
        **calls(Effect.MAY_PASS, "update compute __call__ forward"),
        **calls(Effect.CONSUMES, "reset"),
        **calls(Effect.RETURNS_SELF, "to cuda cpu clone"),
    },
)
_TASKS = ("", "Binary", "Multiclass", "Multilabel")

TORCHMETRICS = Library(
    packages=("torchmetrics",),
    classes={
        **named("CatMetric CosineSimilarity SpearmanCorrCoef KendallRankCorrCoef", _LISTS),
        **{
            f"Retrieval{name}": _LISTS
            for name in ("MAP", "MRR", "Precision", "Recall", "FallOut", "HitRate", "NormalizedDCG", "RPrecision")
        },
        **named(
            "MeanMetric SumMetric MaxMetric MinMetric RunningMean RunningSum MeanSquaredError MeanAbsoluteError "
            "MeanAbsolutePercentageError MeanSquaredLogError SymmetricMeanAbsolutePercentageError "
            "WeightedMeanAbsolutePercentageError LogCoshError MinkowskiDistance RelativeSquaredError R2Score "
            "ExplainedVariance PearsonCorrCoef ConcordanceCorrCoef TweedieDevianceScore NormalizedRootMeanSquaredError "
            "Perplexity MeanIoU GeneralizedDiceScore FrechetInceptionDistance CLIPScore "
            "ScaleInvariantSignalDistortionRatio ScaleInvariantSignalNoiseRatio SignalDistortionRatio "
            "SignalNoiseRatio PermutationInvariantTraining HausdorffDistance WordErrorRate CharErrorRate "
            "MatchErrorRate BLEUScore SacreBLEUScore SQuAD",
            _SUMS,
        ),
        **{
            f"{task}{name}": _SUMS
            for task in _TASKS
            for name in (
                "Accuracy CohenKappa ConfusionMatrix ExactMatch F1Score FBetaScore HammingDistance HingeLoss "
                "JaccardIndex MatthewsCorrCoef NegativePredictiveValue Precision Recall Specificity StatScores"
            ).split()
        },
        **{
            f"{task}{name}": _UNDECIDED
            for task in _TASKS
            for name in (
                "AUROC AveragePrecision PrecisionRecallCurve ROC CalibrationError LogAUC PrecisionAtFixedRecall "
                "RecallAtFixedPrecision SensitivityAtSpecificity SpecificityAtSensitivity"
            ).split()
        },
        **named(
            "Metric MetricCollection MetricTracker BootStrapper ClasswiseWrapper MinMaxMetric MultioutputWrapper "
            "MultitaskWrapper PeakSignalNoiseRatio StructuralSimilarityIndexMeasure TotalVariation KLDivergence "
            "MultiScaleStructuralSimilarityIndexMeasure UniversalImageQualityIndex MeanAveragePrecision "
            "LearnedPerceptualImagePatchSimilarity SpectralAngleMapper RelativeAverageSpectralError InceptionScore "
            "KernelInceptionDistance ErrorRelativeGlobalDimensionlessSynthesis",
            _UNDECIDED,
        ),
    },
    function_folders={"functional": Effect.MAY_PASS},
)
