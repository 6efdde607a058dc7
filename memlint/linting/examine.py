"""A file's findings, and for how long they hold: what of the project they rest on."""

from __future__ import annotations

from collections.abc import Iterable

from memlint.linting.earlier import Earlier, Examined, Grounds
from memlint.linting.lint import analyse, conclude, lint, view_of
from memlint.linting.policy import Policy
from memlint.project.reads import Read, digest_of
from memlint.semantics.answers import UNREADABLE, Remembered, from_text, same_answers, to_text
from memlint.semantics.project import View


def examine(path: str, raw: bytes, policy: Policy, earlier: Earlier | None = None) -> Examined:
    """All findings of one file, and what they rest on. Nothing is done again where the earlier result still holds."""
    content, remembered = digest_of(raw), None if earlier is None else _remembered(earlier)
    view = view_of(policy, remembered)
    if view is None:
        return Examined(content, lint(path, raw, policy))
    if earlier is not None and remembered is not None and earlier.content == content:
        with view.reads.collected() as reads:
            holds = same_answers(view, remembered)
        if holds:
            return Examined(content, earlier.result, _asked(view), _grounds(view, reads), is_new=False)
        view = view_of(policy, remembered)
        assert view is not None
    with view.reads.collected() as reads:
        result = conclude(analyse(path, raw, policy, view), policy, view)
    return Examined(content, result, _asked(view), _grounds(view, reads))


def _remembered(earlier: Earlier) -> Remembered | None:
    """None where the store is damaged."""
    try:
        return Remembered(from_text(earlier.asked), earlier.moved)
    except UNREADABLE:
        return None


def _asked(view: View) -> str:
    return to_text(view.answers.record())


def _grounds(view: View, reads: Iterable[Read]) -> Grounds:
    names: dict[str, list[str]] = {kind: [] for kind in ("file", "surface", "folder", "word", "piece", "all")}
    for read in reads:
        names[read.kind].append(read.name)
    return Grounds(
        {file: view.digest_of_file(file) for file in (*names["file"], *names["surface"])},
        {folder: view.digest_of_folder(folder) for folder in names["folder"]},
        frozenset(names["word"]),
        frozenset(names["piece"]),
        bool(names["all"]),
        view.text_digest if names["word"] or names["piece"] or names["all"] else "",
    )
