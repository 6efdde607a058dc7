"""A file's findings, and for how long they hold: what of the project they rest on."""

from __future__ import annotations

from collections.abc import Iterable

from memlint.linting.earlier import Earlier, Examined, Grounds
from memlint.linting.lint import analyse, conclude, lint, view_of
from memlint.linting.policy import Policy
from memlint.project.reads import Read, digest_of
from memlint.semantics.answers import from_text, same_answers, to_text
from memlint.semantics.project import View


def examine(path: str, raw: bytes, policy: Policy, earlier: Earlier | None = None) -> Examined:
    """All findings of one file, and what they rest on. Nothing is done again where the earlier result still holds."""
    content, view = digest_of(raw), view_of(policy)
    if view is None:
        return Examined(content, lint(path, raw, policy))
    if earlier is not None and earlier.content == content:
        with view.reads.collected() as reads:
            holds = _holds(view, earlier.questions)
        if holds:
            return Examined(content, earlier.result, earlier.questions, _grounds(view, reads), is_new=False)
        view = view_of(policy)
        assert view is not None
    with view.reads.collected() as reads:
        result = conclude(analyse(path, raw, policy, view), policy, view)
    return Examined(content, result, to_text(view.answers.questions()), _grounds(view, reads))


def _holds(view: View, questions: str) -> bool:
    try:
        return same_answers(view, from_text(questions))
    except (ValueError, TypeError, KeyError):
        return False  # the store is damaged


def _grounds(view: View, reads: Iterable[Read]) -> Grounds:
    names: dict[str, list[str]] = {kind: [] for kind in ("file", "folder", "word", "piece", "all")}
    for read in reads:
        names[read.kind].append(read.name)
    return Grounds(
        {file: view.digest_of_file(file) for file in names["file"]},
        {folder: view.digest_of_folder(folder) for folder in names["folder"]},
        frozenset(names["word"]),
        frozenset(names["piece"]),
        bool(names["all"]),
        view.text_digest if names["word"] or names["piece"] or names["all"] else "",
    )
