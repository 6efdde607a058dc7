"""A file's findings together with what says for how long they hold. Plain data: it crosses processes and is stored."""

from __future__ import annotations

from dataclasses import dataclass, field

from memlint.linting.finding import FileResult
from memlint.project.reads import Read


@dataclass(frozen=True)
class Earlier:
    """What an earlier run found in a file, and what it had asked of the project."""

    content: str
    """A digest of the file as it was."""
    result: FileResult
    asked: str
    """The questions and their answers, as text."""
    moved: frozenset[Read]
    """Of what the answers rest on, all that may be otherwise by now."""


@dataclass(frozen=True)
class Grounds:
    """What of the project a file's findings rest on, as digests of what was read.

    A digest is empty where an answer of an earlier run was taken, which this run did not read for.
    """

    files: dict[str, str] = field(default_factory=dict)
    folders: dict[str, str] = field(default_factory=dict)
    words: frozenset[str] = frozenset()
    """Words, and pieces of code, that were searched for in all files."""
    pieces: frozenset[str] = frozenset()
    """Texts that were searched for, also within words."""
    all_files: bool = False
    texts: str = ""
    """What all files said, where this run has searched them."""


@dataclass(frozen=True)
class Examined:
    """The findings of a file, with all that says for how long they hold."""

    content: str
    result: FileResult
    asked: str = ""
    """What was asked of the project, and the answers, as text."""
    grounds: Grounds = field(default_factory=Grounds)
    is_new: bool = True
    """False where an earlier result still holds."""
