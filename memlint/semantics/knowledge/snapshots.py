"""What memlint knows of keeping the best weights."""

from __future__ import annotations

DEEP_COPIES = frozenset({"copy.deepcopy"})
# Words of a condition, or of a name, that say "the best so far".
BEST_WORDS = frozenset(
    """best better improve improved improves improvement improving min max lowest highest minimum maximum smallest
    largest optimal""".split()
)
KEPT_WORDS = BEST_WORDS | frozenset({"checkpoint", "ckpt", "snapshot", "saved", "backup", "restore"})
# What a copied model is called.
MODEL_WORDS = frozenset({"model", "net", "network", "backbone", "classifier"})
# A function with one of these in its name is called when the model is the best so far.
KEEPING_WORDS = frozenset({"checkpoint", "snapshot", "best", "save", "store", "backup", "improve", "improved"})
# What a copy is taken apart, averaged or compared by: then it is computed with.
TAKING_APART = frozenset({"items", "keys", "values", "update"})
# Methods that put it onto the host.
HOST_METHODS = frozenset({"cpu", "numpy"})
# Methods between a parameter and its copy that leave it where it is.
COPY_CHAIN = frozenset({"clone", "detach"})
# Libraries whose models have a handful of parameters: the hyperparameters of Gaussian processes (gpytorch.kernels).
SMALL_MODELS = frozenset({"gpytorch", "botorch"})
TRIGGERS = frozenset({"deepcopy", "state_dict"})
