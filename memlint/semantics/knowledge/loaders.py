"""What memlint knows of collecting batches."""

from __future__ import annotations

# Builtins that hold every item they are given (Python documentation).
HOLDS_EVERY_ITEM = frozenset({"list", "tuple", "sorted", "dict", "set", "collections.deque"})
BOUNDED = frozenset({"maxlen"})
# Methods that give the same data again, whole: copies, other shapes, other types, arrays.
SAME_DATA_METHODS = frozenset({"detach", "numpy", "pin_memory", "to", "type", "items", "values", "copy"})
# Keys under which a batch has its inputs (torchvision, transformers, MONAI, detection libraries).
INPUT_KEYS = frozenset(
    {"image", "images", "img", "imgs", "pixel_values", "input", "inputs", "x", "video", "videos", "audio"}
)
# Methods of dictionaries and of objects that make data: what has them is no loader of batches.
NO_LOADER_METHODS = frozenset({"items", "keys", "values", "get", "append", "load", "load_data", "split"})
# With one of these as `collate_fn` nothing is stacked: the loader is used to run a function in parallel.
NOT_COLLATING = frozenset({"list", "tuple"})
# Already in memory, on the host or on the device; or chosen to be small.
IN_MEMORY_DATASETS = frozenset({"torch.utils.data.TensorDataset"})
CHOSEN_DATASETS = frozenset({"torch.utils.data.Subset"})
# What a loader of batches is called besides: the role, the kind or the place of its data.
DATA_WORDS = frozenset(
    """loader data dl dataset train training trn val valid validation validating test testing tst eval evaluation dev
    pretrain finetune trainval holdout batch minibatch support query gallery source src target tgt trg labeled labelled
    unlabeled unlabelled inner outer meta base novel image images img imgs video videos audio text node graph link
    neighbor subgraph memory predict prediction pred inference infer full all new old clean noisy ood cifar mnist
    imagenet torch pytorch""".split()
)
# What a loader or a list of a few batches is called.
FEW_WORDS = frozenset(
    "small subset tiny toy mini debug dummy fixed calib calibration sample samples probe example examples".split()
)

# A function called so is there to hold the data in memory.
CACHE_WORDS = frozenset("cache caching cached prefetch preload preloaded materialize materialise memory".split())

# torch.utils.data documentation: what a worker process runs. (torch_geometric data sets: `get`.)
WORKER_METHODS = frozenset({"__getitem__", "__getitems__", "__iter__", "__next__", "get", "collate_fn"})
WORKER_ARGUMENTS = frozenset({"collate_fn", "worker_init_fn"})
COLLATE_WORD = "collate"
NUM_WORKERS = "num_workers"
NUM_WORKERS_POSITION = 5
# With workers that are spawned a GPU can be used: somebody may have meant to.
SPAWNING_WORDS = frozenset({"set_start_method", "multiprocessing_context"})
# Functions that put what they read or make on a device of their own accord.
DEVICE_ARGUMENTS = frozenset({"map_location"})
