"""What a rule is, and what it yields."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from memlint.linting.finding import Applicability, Confidence, Cost
from memlint.semantics.questions import Question

if TYPE_CHECKING:
    import libcst as cst

    from memlint.linting.edits import EditDraft
    from memlint.semantics.module import Module


@dataclass(frozen=True, eq=False)
class FixDraft:
    """A fix on nodes. Made by `safe_fix`, `unsafe_fix` and `display_fix`, whose names are the promise."""

    applicability: Applicability
    message: str
    edits: tuple[EditDraft, ...]
    unless_mentioned: tuple[str, ...] = ()
    """Not safe in a project whose text contains one of these."""


def safe_fix(message: str, *edits: EditDraft, unless_mentioned: tuple[str, ...] = ()) -> FixDraft:
    """The code in view proves that nothing the program computes changes (docs/fix-safety.md).

    `unless_mentioned`: the proof needs that the project's text contains none of these.
    """
    return FixDraft(Applicability.SAFE, message, edits, unless_mentioned)


def unsafe_fix(message: str, *edits: EditDraft) -> FixDraft:
    """Most likely what is meant, but not proven: applied on request only."""
    return FixDraft(Applicability.UNSAFE, message, edits)


def display_fix(message: str, *edits: EditDraft) -> FixDraft:
    """Shown, never applied."""
    return FixDraft(Applicability.DISPLAY_ONLY, message, edits)


@dataclass(frozen=True, eq=False)
class Draft:
    """A candidate finding on nodes, with the questions that must be answered with yes for it to stand."""

    rule: Rule
    node: cst.CSTNode
    message: str
    cost: Cost
    confidence: Confidence
    related: tuple[tuple[cst.CSTNode, str], ...]
    fix: FixDraft | None
    questions: frozenset[Question]


class Rule(ABC):
    """One anti-pattern. The class docstring is the rule's page.

    `triggers` are words of which at least one stands in every file that can hold a finding: a file with none of them
    is not parsed for this rule's sake.
    """

    code: ClassVar[str]
    name: ClassVar[str]
    since: ClassVar[str]
    triggers: ClassVar[frozenset[str]]
    on_by_default: ClassVar[bool] = True

    @abstractmethod
    def check(self, module: Module) -> Iterator[Draft]:
        """Yield what is wrong in the file."""

    def finding(
        self,
        node: cst.CSTNode,
        message: str,
        *,
        cost: Cost,
        confidence: Confidence = Confidence.HIGH,
        related: Sequence[tuple[cst.CSTNode, str]] = (),
        fix: FixDraft | None = None,
        questions: Iterable[Question] = (),
    ) -> Draft:
        """A finding at the node, which stands if every question is answered with yes."""
        return Draft(self, node, message, cost, confidence, tuple(related), fix, frozenset(questions))
