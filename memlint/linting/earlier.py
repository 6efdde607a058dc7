"""A file's findings together with what says for how long they hold. Plain data: it crosses processes and is stored."""

from __future__ import annotations

from dataclasses import dataclass, field

from memlint.linting.finding import FileResult


@dataclass(frozen=True)
class Earlier:
    """What an earlier run found in a file, and what it had asked of the project."""

    content: str
    """A digest of the file."""
    result: FileResult
    questions: str
    """As text."""


@dataclass(frozen=True)
class Grounds:
    """What of the project a file's findings rest on, as digests of what was read."""

    files: dict[str, str] = field(default_factory=dict)
    folders: dict[str, str] = field(default_factory=dict)
    words: frozenset[str] = frozenset()
    """Words, and pieces of code, that were searched for in all files."""
    pieces: frozenset[str] = frozenset()
    """Texts that were searched for, also within words."""
    all_files: bool = False
    texts: str = ""
    """What all files said, where any was searched."""


@dataclass(frozen=True)
class Examined:
    """The findings of a file, with all that says for how long they hold."""

    content: str
    result: FileResult
    questions: str = "[]"
    """What was asked of the project, as text."""
    grounds: Grounds = field(default_factory=Grounds)
    is_new: bool = True
    """False where an earlier result still holds."""
