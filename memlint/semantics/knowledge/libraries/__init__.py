"""All that is known of libraries, in one place to ask: classes, functions and the effects of their calls."""

from __future__ import annotations

from functools import lru_cache

from memlint.semantics.knowledge.libraries.accelerate import ACCELERATE
from memlint.semantics.knowledge.libraries.deepspeed import DEEPSPEED
from memlint.semantics.knowledge.libraries.diffusers import DIFFUSERS
from memlint.semantics.knowledge.libraries.fastai import FASTAI
from memlint.semantics.knowledge.libraries.horovod import HOROVOD
from memlint.semantics.knowledge.libraries.ignite import IGNITE
from memlint.semantics.knowledge.libraries.lightning import LIGHTNING
from memlint.semantics.knowledge.libraries.peft import PEFT
from memlint.semantics.knowledge.libraries.rows import Class, Effect, Role
from memlint.semantics.knowledge.libraries.torchmetrics import TORCHMETRICS
from memlint.semantics.knowledge.libraries.transformers import TRANSFORMERS
from memlint.semantics.knowledge.libraries.trl import TRL

LIBRARIES = (
    ACCELERATE,
    DEEPSPEED,
    DIFFUSERS,
    FASTAI,
    HOROVOD,
    IGNITE,
    LIGHTNING,
    PEFT,
    TORCHMETRICS,
    TRANSFORMERS,
    TRL,
)
_BY_PACKAGE = {package: library for library in LIBRARIES for package in library.packages}

# What `torch.optim.lr_scheduler` builds; its `step` is no optimizer's.
SCHEDULER = "lr_scheduler"
_SCHEDULER = Class(Role.SCHEDULER)

# Methods that one library alone has, for objects that nobody has seen made: an accelerator as a parameter.
_EFFECT_OF_METHOD = {
    "gather_for_metrics": Effect.MAY_PASS,  # accelerate.Accelerator
    "pad_across_processes": Effect.MAY_PASS,  # accelerate.Accelerator
    "unwrap_model": Effect.RETURNS_FIRST,  # accelerate.Accelerator
    "setup_dataloaders": Effect.RETURNS_ALL,  # lightning.fabric.Fabric
    "setup_module": Effect.RETURNS_FIRST,  # lightning.fabric.Fabric
    "prepare_data_loader": Effect.RETURNS_FIRST,  # accelerate.Accelerator
}
# Context managers that leave grad mode alone, though a word in their name could mean it.
NEUTRAL_CONTEXT_METHODS = frozenset(
    {
        "no_sync",  # torch.nn.parallel.DistributedDataParallel, accelerate.Accelerator
        "no_backward_sync",  # lightning.fabric.Fabric
        "compute_loss_context_manager",  # transformers.Trainer
    }
)
# Class methods that build an object of their class from a file or a configuration.
_BUILDING_METHODS = frozenset({"from_pretrained", "from_config", "from_single_file", "load_from_checkpoint"})


@lru_cache(maxsize=8192)
def class_of(name: str) -> Class | None:
    """What is known of the class with this qualified name."""
    package, _, rest = name.partition(".")
    library = _BY_PACKAGE.get(package)
    if library is None:
        return None
    last = rest.rpartition(".")[2]
    if last == SCHEDULER:
        return _SCHEDULER
    found = library.classes.get(last)
    if found is not None or not last[:1].isupper() or last.startswith(tuple(library.not_classes)):
        return found
    for ending, row in library.suffixes.items():
        if last.endswith(ending):
            return row
    for beginning, row in library.prefixes.items():
        if last.startswith(beginning):
            return row
    return None


def builds_its_class(method: str) -> bool:
    """Whether a class method of this name builds an object of its class: `LitModel.load_from_checkpoint(path)`."""
    return method in _BUILDING_METHODS


def role_of(name: str) -> Role | None:
    row = class_of(name)
    return None if row is None else row.role


@lru_cache(maxsize=8192)
def function_effect(name: str) -> Effect | None:
    """What calling the function with this qualified name does."""
    package, _, rest = name.partition(".")
    library = _BY_PACKAGE.get(package)
    if library is None or not rest:
        return None
    folders, _, last = rest.rpartition(".")
    effect = library.functions.get(last)
    if effect is not None:
        return effect
    return next((effect for folder, effect in library.function_folders.items() if folders.startswith(folder)), None)


@lru_cache(maxsize=8192)
def built_classes(name: str) -> tuple[str, ...] | None:
    """The qualified names of the classes of what this function, class or class method builds: one, or a tuple."""
    package, _, rest = name.partition(".")
    library = _BY_PACKAGE.get(package)
    if library is None:
        return None
    built = library.builders.get(rest.rpartition(".")[2])
    if built is not None:
        return tuple(f"{package}.{item}" for item in built)
    owner, _, last = name.rpartition(".")
    if last in _BUILDING_METHODS:
        name = owner
    return (name,) if class_of(name) is not None else None


def method_effect(cls: str, method: str) -> Effect | None:
    """What calling this method of an object of the class does; `__call__`: calling the object."""
    row = class_of(cls)
    return None if row is None else row.calls.get(method)


def effect_of_method(name: str) -> Effect | None:
    """What a method with this name does, whatever it is called on: only one library has it."""
    return _EFFECT_OF_METHOD.get(name)


def runs_grad_off(base: str, method: str) -> bool:
    """Whether the library calls this method of a subclass with grad mode off."""
    row = class_of(base)
    return row is not None and method in row.grad_off


def leaves_grad_mode(base: str) -> bool:
    """Whether all other methods of a subclass run in their caller's grad mode."""
    row = class_of(base)
    return row is not None and (row.plain or row.role is Role.MODULE)
