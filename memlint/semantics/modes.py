"""What bases, decorators and frameworks say of the grad mode in which a function runs."""

from __future__ import annotations

from collections.abc import Set

from memlint.semantics.knowledge import frameworks, libraries
from memlint.semantics.knowledge import torch as known
from memlint.semantics.knowledge.libraries.rows import Role
from memlint.semantics.naming import is_entered_with_grad, words_of
from memlint.semantics.values import Mode

# What switches grad mode says so: `evaluating`, `inference_ctx`, `frozen`, `no_sync`. Nor does a name that says nothing
# (`ctx`, `guard`, `wrapper`) say that it leaves grad mode alone.
_SPEAKING_WORDS = frozenset(
    """grad grads gradient gradients graph backward backprop differentiable detach detached track tracking tape
    eval evaluate evaluates evaluating evaluation inference infer infers inferring predict predicting prediction
    val valid validate validating validation test testing sample sampling generate generating generation rollout
    policy teacher target posterior fantasize frozen freeze freezing no not off without disable disabled mode
    train training state context contexts ctx cm manager guard wrap wrapper wrapped decorator step hook callback
    handler event events register registered api func function""".split()
)
# Of these it is known, whatever else the name says.
_NEUTRAL_WORDS = frozenset("autocast amp precision profile profiler profiling timer timing progress".split())


def may_switch_grad_mode(name: str) -> bool:
    """Whether a context manager or decorator out of view may switch grad mode, judged by its name."""
    last = name.rpartition(".")[2]
    words = words_of(last)
    if last in libraries.NEUTRAL_CONTEXT_METHODS:
        return False
    return not words or (words.isdisjoint(_NEUTRAL_WORDS) and not words.isdisjoint(_SPEAKING_WORDS))


def library_decorator_mode(name: str) -> Mode:
    """Grad mode below a library's decorator that is given no argument; KEEP: that of the caller."""
    if name in known.GRAD_OFF_CONTEXTS:
        return Mode.OFF
    if name in known.GRAD_ON_CONTEXTS:
        return Mode.ON
    neutral = name in frameworks.NEUTRAL_DECORATORS or name.rpartition(".")[2] in ("setter", "getter", "deleter")
    if neutral or frameworks.is_of_plain_library(name) or not may_switch_grad_mode(name):
        return Mode.KEEP
    return Mode.UNKNOWN


def method_mode(name: str, bases: Set[str]) -> Mode:
    """The mode in which a framework calls a method of a class with these bases; ENTRY: whoever calls it decides."""
    if name in frameworks.FUNCTION_GRAD_OFF and bases & known.AUTOGRAD_FUNCTIONS:
        return Mode.OFF
    if any(libraries.runs_grad_off(base, name) for base in bases):
        return Mode.OFF
    if not is_entered_with_grad(name) and not all(is_known_base(base) for base in bases):
        return Mode.UNKNOWN
    return Mode.ENTRY


def is_layer_method(name: str, words: Set[str]) -> bool:
    """Whether a method computes what a layer puts out: it is `forward`, or does something in training only."""
    is_hook = any(word in name for word in ("valid", "test", "eval", "predict"))
    return name == "forward" or ("training" in words and not is_hook)


def is_module_base(name: str) -> bool:
    """Whether it is a class of torch, or of a known library, that derives from `torch.nn.Module`."""
    if name in known.MODULE_BASES:
        return True
    if libraries.role_of(name) is Role.MODULE:
        return True
    prefix, _, last = name.rpartition(".")
    return prefix in ("torch.nn", "torch.nn.modules") and last not in known.NN_NOT_MODULES and last[:1].isupper()


def is_known_base(name: str) -> bool:
    """Whether the methods of a class with this base run in their caller's mode, or frameworks' tables name them."""
    return (
        name.startswith((":", "@"))
        or name in frameworks.PLAIN_BASES
        or name in known.DATASET_BASES
        or is_module_base(name)
        or libraries.leaves_grad_mode(name)
        or frameworks.is_of_plain_library(name)
    )
