"""MEM301."""

from __future__ import annotations

from collections.abc import Iterator

from memlint.linting.finding import Confidence, Cost, CostClass
from memlint.linting.rule import Draft, Rule
from memlint.semantics.caches import Key, keeping_caches
from memlint.semantics.module import Module

_SELF = "this cache has `self` in its key: every `{name}` that used it stays alive, "
_STORIES = {
    Key.MODULE_SELF: _SELF + "with all its parameters",
    Key.DATASET_SELF: _SELF + "in each worker process",
    Key.SAMPLE: "this cache keeps the samples of `{name}` in host memory, once in each worker process",
    Key.HOLDER_SELF: _SELF + "with the modules it holds",
    Key.TENSORS_SELF: _SELF + "with the tensors it holds",
    Key.TENSOR: "the tensor `{name}` is the key of this cache: it is compared by identity, so an equal tensor misses, "
    "and each one is kept",
    Key.MODULE: "the module `{name}` is the key of this cache, which keeps it alive with all its parameters",
    Key.TENSOR_ID: "`{name}` is keyed by the identity of a tensor: no entry is ever taken out, and an id may come back "
    "for another tensor",
}
_COSTS = {
    Key.MODULE_SELF: Cost(CostClass.GROWS_ON_DEVICE, "P for each dead module"),
    Key.DATASET_SELF: Cost(CostClass.GROWS_ON_HOST, "the data set for each worker"),
    Key.SAMPLE: Cost(CostClass.GROWS_ON_HOST, "N x the bytes of a sample for each worker"),
    Key.HOLDER_SELF: Cost(CostClass.GROWS_ON_DEVICE, "P for each dead object"),
    Key.TENSORS_SELF: Cost(CostClass.GROWS_ON_DEVICE, "the tensors of each dead object"),
    Key.TENSOR: Cost(CostClass.GROWS_ON_DEVICE, "maxsize x the bytes of the tensors, with their graphs"),
    Key.MODULE: Cost(CostClass.GROWS_ON_DEVICE, "P for each dead module"),
    Key.TENSOR_ID: Cost(CostClass.GROWS_ON_DEVICE, "N x the bytes of an entry"),
}


class LruCacheHoldsTensors(Rule):
    """A cache keeps tensors, modules or data sets alive by its keys.

    ## What it does
    Flags `functools.lru_cache` and `functools.cache` on a method of a module, of a data set or of a class that holds
    modules or tensors (the key contains `self`), and on a function with a tensor or a module as a parameter; also a
    dictionary of the module that is filled under `id(tensor)` or under the tensor itself and never emptied.

    ## What it costs
    - On a method the cache keeps every object that ever called it: P bytes for each dead module, or the data set,
      once in each worker process.
    - A tensor is hashed and compared by identity. An equal tensor is another key, so the cache never hits, and it
      keeps up to `maxsize` tensors (128 by default, without a limit for `cache`) with their autograd graphs.

    ## Example
    ```python
    from functools import lru_cache

    import torch
    from torch import nn


    class Encoding(nn.Module):
        @lru_cache(maxsize=None)
        def table(self, length):
            return torch.arange(length)
    ```

    ## Use instead
    ```python
    import torch
    from torch import nn


    class Encoding(nn.Module):
        def __init__(self):
            super().__init__()
            self.tables = {}

        def table(self, length):
            if length not in self.tables:
                self.tables[length] = torch.arange(length)
            return self.tables[length]
    ```

    The dictionary lives and dies with the object. For a function of a tensor cache by what the result depends on: its
    shape, dtype and device.

    ## Fix safety
    There is no fix: where the cache belongs, and what its key should be, is a decision.

    ## When it stays silent
    When the key holds only numbers, strings, shapes, devices and dtypes; on static and class methods; for
    `cached_property`; with `maxsize=0`, or a handful of samples of a data set; when the file calls `cache_clear()`;
    for other libraries' caches; for classes that hold no modules and tensors in view (ruff's B019 speaks about
    methods in general).

    ## References
    - `functools.lru_cache` documentation
    - Python FAQ, "How do I cache method calls?"
    - ruff rule B019 (cached-instance-method)
    """

    code = "MEM301"
    name = "lru-cache-holds-tensors"
    since = "0.1"
    triggers = frozenset({"lru_cache", "cache", "id", "Tensor", "Parameter"})

    def check(self, module: Module) -> Iterator[Draft]:
        for cache in keeping_caches(module):
            yield self.finding(
                cache.node,
                _STORIES[cache.key].format(name=cache.name),
                cost=_COSTS[cache.key],
                confidence=Confidence.HIGH if cache.certain else Confidence.MEDIUM,
            )
