"""What names say: weak evidence, used only next to some that is better."""

from __future__ import annotations

import re
from functools import cache

from memlint.semantics.knowledge import torch as known

EVALUATION_WORDS = frozenset(
    """val valid validation validate validating eval evaluate evaluation evaluating test testing dev predict prediction
    predictions infer inference accuracy perplexity""".split()
)
_DRIVING_WORDS = frozenset("fit train training run main learn finetune pretrain".split())
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")


@cache
def words_of(name: str) -> frozenset[str]:
    """`valLoader`, `val_loader` -> {val, loader}."""
    return frozenset(_split(name))


@cache
def is_entered_with_grad(name: str) -> bool:
    """`fit`, `train_epoch`, `run`: whatever a framework does around its hooks, nobody trains with grad off."""
    words = words_of(name)
    return name == "__init__" or (not words.isdisjoint(_DRIVING_WORDS) and words.isdisjoint(EVALUATION_WORDS))


@cache
def is_model_name(name: str) -> bool:
    """`model`, `netG`, `reward_model`: no class, and no function that makes or changes one (`build_model`)."""
    words = _split(name)
    if not words or name[0].isupper():
        return False
    *before, last = words
    if last in known.QUALIFIED_MODEL_NOUNS and known.NOT_BEFORE_MODEL_NOUNS.isdisjoint(before):
        return True
    noun = last if last in known.MODEL_NOUNS else words[0]
    return noun in known.MODEL_NOUNS and all(word == noun or word in known.MODEL_QUALIFIERS for word in words)


def _split(name: str) -> list[str]:
    return [match.group().lower() for match in _WORD.finditer(name)]
