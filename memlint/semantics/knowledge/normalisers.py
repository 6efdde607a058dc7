"""How layers that keep statistics of what they are given are named, as data."""

from __future__ import annotations

# A class with one of these words in its name stands behind other layers: what it is given was computed by them.
# (A normaliser of observations is called `RunningMeanStd`, `Normalizer`, `ObsNorm`.)
INNER_LAYERS = frozenset("bn batchnorm codebook vq quantizer quantiser quantize vectorquantizer loss".split())
NORMS = frozenset("norm normalization normalisation norm1d norm2d norm3d".split())
NORMED = frozenset("batch sync instance group switchable layer batchwise".split())
# How statistics for each channel of a feature map are computed, and spread over it.
OVER_CHANNELS = ("[0, 2, 3]", "(0, 2, 3)", "1, -1, 1, 1")
