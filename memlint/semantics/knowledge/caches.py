"""What memlint knows of caches that keep their keys and values."""

from __future__ import annotations

# functools documentation: both keep the arguments of the calls they remember, `cache` without a limit.
REMEMBERING_DECORATORS = frozenset({"functools.lru_cache", "functools.cache"})
REMEMBERING_WORDS = frozenset(name.rpartition(".")[2] for name in REMEMBERING_DECORATORS)
# A cache of so many samples is a buffer, smaller than what a loader's workers prefetch anyway.
FEW_SAMPLES = 16
# Below these a method has no `self` in the key.
WITHOUT_SELF = frozenset({"staticmethod", "classmethod"})
# What takes entries out of a dictionary.
REMOVING_METHODS = frozenset({"clear", "pop", "popitem"})
# typing: what stands around a type that may also be None.
OPTIONAL = frozenset({"typing.Optional", "typing.Union", "typing.Annotated", "typing_extensions.Annotated"})
TENSOR_NAMES = frozenset(
    {"torch.Tensor", "torch.FloatTensor", "torch.LongTensor", "torch.nn.Parameter", "torch.nn.parameter.Parameter"}
)
