"""From findings to what the protocol calls diagnostics, code actions and hovers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from lsprotocol import types

from memlint.adoption.suppressing import with_suppressions
from memlint.editor.texts import Part, Text, edits_between
from memlint.linting.finding import Applicability, Confidence, Finding, Fix, Related
from memlint.linting.policy import ALWAYS_ON
from memlint.linting.registry import RuleInfo, all_rules
from memlint.reporting.report import message
from memlint.source.file import SourceFile, UndecodableFile, encoded

FIX_ALL = "source.fixAll.memlint"

_WORD = re.compile(r"[\w-]+")
_SUPPRESSION = re.compile(r"#.*\b(?:noqa|memlint)\b", re.IGNORECASE)


def diagnostics(findings: Iterable[Finding], text: Text) -> dict[str, list[types.Diagnostic]]:
    """The diagnostics of each part, by its URI; parts without any have an empty list."""
    found: dict[str, list[types.Diagnostic]] = {part.uri: [] for part in text.parts}
    for finding in findings:
        found[text.part(finding.cell).uri].append(_diagnostic(finding, text))
    return found


def _diagnostic(finding: Finding, text: Text) -> types.Diagnostic:
    return types.Diagnostic(
        range=text.range(finding),
        message=f"{message(finding)} [{finding.name}]",
        severity=_severity(finding),
        code=finding.code,
        source="memlint",
        related_information=[_related(related, text) for related in finding.related],
    )


def _severity(finding: Finding) -> types.DiagnosticSeverity:
    if finding.code in ALWAYS_ON:
        return types.DiagnosticSeverity.Error
    is_low = finding.confidence is Confidence.LOW
    return types.DiagnosticSeverity.Information if is_low else types.DiagnosticSeverity.Warning


def _related(related: Related, text: Text) -> types.DiagnosticRelatedInformation:
    part = text.part(related.cell)
    start = text.position(related.position, part)
    return types.DiagnosticRelatedInformation(types.Location(part.uri, types.Range(start, start)), related.message)


def fixes(findings: Sequence[Finding], text: Text, part: Part, wanted: types.Range) -> Iterator[types.CodeAction]:
    """The fixes of the findings in a range."""
    for finding in findings:
        if not _is_in(finding, text, part, wanted):
            continue
        if finding.fix is not None and finding.fix.applicability is not Applicability.DISPLAY_ONLY:
            yield _quick_fix(finding, finding.fix, text)


def suppressions(
    findings: Sequence[Finding], text: Text, part: Part, wanted: types.Range
) -> Iterator[types.CodeAction]:
    """What suppresses the findings in a range: never the first thing to do."""
    for finding in findings:
        suppression = _suppression(finding, text, part) if _is_in(finding, text, part, wanted) else None
        if suppression is not None:
            yield suppression


def is_safe(finding: Finding) -> bool:
    return finding.fix is not None and finding.fix.applicability is Applicability.SAFE


def _is_in(finding: Finding, text: Text, part: Part, wanted: types.Range) -> bool:
    if text.part(finding.cell) is not part:
        return False
    found = text.range(finding)
    return (found.start.line, found.start.character) <= (wanted.end.line, wanted.end.character) and (
        found.end.line,
        found.end.character,
    ) >= (wanted.start.line, wanted.start.character)


def _quick_fix(finding: Finding, fix: Fix, text: Text) -> types.CodeAction:
    edits: dict[str, list[types.TextEdit]] = {}
    for edit in fix.edits:
        edits.setdefault(text.part(edit.cell).uri, []).append(types.TextEdit(text.range(edit), edit.content))
    return types.CodeAction(
        title=f"memlint: {fix.message} ({fix.applicability.value} fix of {finding.code})",
        kind=types.CodeActionKind.QuickFix,
        diagnostics=[_diagnostic(finding, text)],
        edit=_workspace_edit(edits, text),
        # Editors apply a preferred fix at one key press, without showing it.
        is_preferred=True if is_safe(finding) else None,
    )


def _suppression(finding: Finding, text: Text, part: Part) -> types.CodeAction | None:
    try:
        source = SourceFile.decode(text.analysed_path, encoded(part.text))
    except UndecodableFile:
        return None
    edits = edits_between(part, with_suppressions(source, [finding], ""), text)
    if not edits:
        return None
    return types.CodeAction(
        title=f"memlint: suppress {finding.code} on this line",
        kind=types.CodeActionKind.QuickFix,
        diagnostics=[_diagnostic(finding, text)],
        edit=_workspace_edit({part.uri: edits}, text),
    )


def fix_all(sources: Sequence[str], text: Text) -> types.CodeAction | None:
    """The action that makes the given texts of the parts; None where they are these."""
    edits = {
        part.uri: edits_between(part, source, text)
        for part, source in zip(text.parts, sources, strict=True)
        if part.text != source
    }
    if not edits:
        return None
    return types.CodeAction(title="memlint: apply all safe fixes", kind=FIX_ALL, edit=_workspace_edit(edits, text))


def _workspace_edit(edits: dict[str, list[types.TextEdit]], text: Text) -> types.WorkspaceEdit:
    """With the versions that the edits are meant for: a client drops those of a text that has changed since."""
    versions = {part.uri: part.version for part in text.parts}
    return types.WorkspaceEdit(
        document_changes=[
            types.TextDocumentEdit(types.OptionalVersionedTextDocumentIdentifier(uri, versions[uri]), changes)
            for uri, changes in edits.items()
        ]
    )


def hover(findings: Sequence[Finding], text: Text, part: Part, position: types.Position) -> types.Hover | None:
    """The pages of the rules that have a finding there, or that a suppression there names."""
    here = types.Range(position, position)
    codes = {finding.code for finding in findings if _is_in(finding, text, part, here)}
    codes.update(_suppressed(text, part, position))
    pages = [_page(rule) for rule in all_rules() if rule.code in codes]
    if not pages:
        return None
    return types.Hover(types.MarkupContent(types.MarkupKind.Markdown, "\n\n---\n\n".join(pages)))


def _suppressed(text: Text, part: Part, position: types.Position) -> list[str]:
    line = part.lines.line_text(min(position.line + 1, part.lines.line_count))
    comment = _SUPPRESSION.search(line)
    column = text.offset(position, part) - part.lines.line_start(min(position.line + 1, part.lines.line_count))
    if comment is None or column < comment.start():
        return []
    words = {match.group().lower() for match in _WORD.finditer(line) if match.start() <= column <= match.end()}
    return [rule.code for rule in all_rules() if rule.code.lower() in words or rule.name in words]


def _page(rule: RuleInfo) -> str:
    return f"**{rule.code} {rule.name}**\n\n{rule.page}"
