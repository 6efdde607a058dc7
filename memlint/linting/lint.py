"""The core: bytes and a policy in, findings (or a fixed text) out. Command line, editor and hooks are callers of it.

Two steps. `analyse` parses once and yields plain data: the file's facts, and its candidate findings with the questions
that they leave open. `conclude` answers the questions from facts alone, without a tree.
"""

from __future__ import annotations

import ast
import gc
import re
import sys
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache

import libcst as cst

from memlint.linting.apply import apply_fixes, demote_if_comment_dropped, edited
from memlint.linting.edits import CannotEdit
from memlint.linting.finding import (
    CONFIDENCE_RANK,
    Applicability,
    Confidence,
    FileResult,
    Finding,
    Fix,
    FixResult,
    Related,
)
from memlint.linting.policy import ALWAYS_ON, Policy
from memlint.linting.registry import Traced, own_name, rule_of, traced_rules
from memlint.linting.rule import Draft, FixDraft, Rule
from memlint.project.files import forget_files
from memlint.semantics.answers import Remembered
from memlint.semantics.knowledge.frameworks import is_torch_code
from memlint.semantics.layout import Layout, LayoutMismatch
from memlint.semantics.module import Module
from memlint.semantics.parsing import parse
from memlint.semantics.project import Project, View
from memlint.semantics.questions import ModuleFacts, Question, answer
from memlint.semantics.typed_assignments import with_typed_assignments
from memlint.source import suppressions
from memlint.source.file import NOTEBOOK_SUFFIX, Comment, SourceFile, UndecodableFile
from memlint.source.lines import Position

# Two fixes that undo each other would run for ever; ruff stops at 100 rounds and so do we.
_MAX_ROUNDS = 100
# Enough for 300 nested blocks; each level of our reading of expressions takes a few Python frames.
_RECURSION_LIMIT = 20_000
_WORD = re.compile(r"\w+")
_LIBCST_MESSAGE = re.compile(r"parser error: error at (\d+):(\d+): (.*)", re.DOTALL)


@dataclass(frozen=True)
class Candidate:
    """A finding that stands if every question is answered with yes."""

    finding: Finding
    questions: frozenset[Question]


@dataclass(frozen=True)
class Margin:
    """The comments of a file and the lines of its statements: what suppressions need. None where there are none."""

    comments: tuple[Comment, ...]
    statements: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Analysis:
    """What the first step yields for one file: plain data.

    `blocked` holds findings that say why the file could not be read; then there is nothing else.
    """

    path: str
    facts: ModuleFacts = field(default_factory=ModuleFacts)
    candidates: tuple[Candidate, ...] = ()
    blocked: tuple[Finding, ...] = ()
    source: SourceFile | None = None
    margin: Margin | None = None


def lint(path: str, raw: bytes, policy: Policy) -> FileResult:
    """All findings of one file. `path` is what the findings show."""
    view = view_of(policy)
    return conclude(analyse(path, raw, policy, view), policy, view)


# A run over several projects goes through them one after the other.
@lru_cache(maxsize=2)
def _project(root: str) -> Project:
    """One run reads a project once: what changes on disk while it lasts is not seen."""
    return Project(root)


def forget_projects() -> None:
    """What was read of projects is read anew: a process that lives on begins another run."""
    _project.cache_clear()
    forget_files()


def view_of(policy: Policy, remembered: Remembered | None = None) -> View | None:
    """The project as the file sees it; None for a file that stands alone."""
    if policy.project is None or policy.file is None:
        return None
    return _project(policy.project).view(policy.file, remembered)


def read_source(path: str, raw: bytes) -> SourceFile:
    """The file's Python text. Raises UndecodableFile."""
    if not path.endswith(NOTEBOOK_SUFFIX):
        return SourceFile.decode(path, raw)
    from memlint.source.notebook import Notebook  # few projects have any

    return Notebook.decode(path, raw)


def analyse(path: str, raw: bytes, policy: Policy, view: View | None = None) -> Analysis:
    """Step one: parse, run the rules. `view` is the project as the file sees it."""
    try:
        source = read_source(path, raw)
    except UndecodableFile as error:
        return _blocked(path, "MEM002", error.position, f"cannot decode this file: {error.reason}")
    words = _words(source.text)
    # Other libraries have models, losses and `backward` too.
    rules = _rules(policy, words) if is_torch_code(words) else []
    wants_directives = suppressions.names_rules(source.text)
    if not rules and not wants_directives and _compiles(source):
        return Analysis(path, source=source)
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(max(limit, _RECURSION_LIMIT))
    # A tree is many objects and no garbage: not looking for some while it grows saves 5 to 13 % of the time.
    collects = gc.isenabled()
    gc.disable()
    try:
        return _analyse_text(source, rules, wants_directives, policy, view)
    except LayoutMismatch as error:
        return _blocked(path, "MEM004", Position(1, 1), f"{error}; please report this")
    except RecursionError:
        return _blocked(path, "MEM006", Position(1, 1), "nested too deeply for the parser: the file is not checked")
    finally:
        sys.setrecursionlimit(limit)
        if collects:
            gc.enable()


def _analyse_text(
    source: SourceFile, rules: list[Rule], wants_directives: bool, policy: Policy, view: View | None
) -> Analysis:
    parse_text = source.parse_text()
    try:
        tree = with_typed_assignments(parse(parse_text.text))
    except cst.ParserSyntaxError as error:
        return _syntax_error(source, error)
    except (cst.CSTValidationError, cst.CSTLogicError) as error:  # `"a" b"b"`
        return _blocked(source.path, "MEM001", Position(1, 1), f"this file does not parse: {error}")
    if not rules:
        return Analysis(source.path, source=source, margin=_margin(Layout(tree, source, parse_text), source))
    if view is not None:
        view.show_own(tree)
    try:
        module = Module(source.path, tree, parse_text.text, target_torch=policy.target_torch, view=view)
    except RecursionError:
        raise
    except Exception as error:  # noqa: BLE001 - a bug of ours must not end the run
        return _blocked(source.path, "MEM004", Position(1, 1), f"reading the file failed: {_where(error)}")
    try:
        drafts, crashes = _drafts(module, rules)
        facts = module.facts
    finally:
        module.release()  # before the layout, which takes as much memory
    if not drafts and not wants_directives:
        return Analysis(source.path, facts, blocked=crashes, source=source)
    layout = Layout(tree, source, parse_text)
    candidates = tuple(_candidate(draft, layout, source, view) for draft in drafts)
    return Analysis(source.path, facts, candidates, crashes, source, _margin(layout, source))


def _drafts(module: Module, rules: Iterable[Rule]) -> tuple[list[Draft], tuple[Finding, ...]]:
    """What the rules find, and the rules that crashed."""
    drafts, crashes = _run_rules(module, rules)
    if module.is_test_file:
        # Unit tests run small models once: what they waste is nobody's memory.
        drafts = [replace(draft, confidence=Confidence.LOW) for draft in drafts]
    return drafts, crashes


def _run_rules(module: Module, rules: Iterable[Rule]) -> tuple[list[Draft], tuple[Finding, ...]]:
    drafts: list[Draft] = []
    crashes: list[Finding] = []
    for rule in rules:
        try:
            drafts.extend(rule.check(module))
        except RecursionError:
            raise
        except Exception as error:  # noqa: BLE001 - a rule that crashes must not take the others' findings along
            message = f"rule {rule.code} ({rule.name}) crashed: {_where(error)}; please report this"
            crashes.append(_own(module.path, "MEM004", Position(1, 1), message))
    return drafts, tuple(crashes)


def _where(error: Exception) -> str:
    import traceback  # seldom needed

    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({frame.filename.rpartition('/')[2]}:{frame.lineno})"


def _candidate(draft: Draft, layout: Layout, source: SourceFile, view: View | None) -> Candidate:
    start, end = layout.range(draft.node)
    finding = Finding(
        code=draft.rule.code,
        name=draft.rule.name,
        message=draft.message,
        path=source.path,
        start=start,
        end=end,
        confidence=draft.confidence,
        cost=draft.cost,
        related=tuple(Related(source.path, layout.range(node)[0], text) for node, text in draft.related),
        fix=_fix(draft, layout, source, view),
    )
    return Candidate(finding, draft.questions)


def _fix(draft: Draft, layout: Layout, source: SourceFile, view: View | None) -> Fix | None:
    if draft.fix is None or not source.editable:
        return None
    try:
        edits = [edit for part in draft.fix.edits for edit in part.edits(layout, source)]
    except CannotEdit:
        return None
    fix = Fix(_applicability(draft.fix, view), draft.fix.message, tuple(sorted(set(edits))))
    if source.cells is not None and not source.can_hold(edited(source, fix)):
        return None
    return demote_if_comment_dropped(fix, source, layout.comments)


def _applicability(fix: FixDraft, view: View | None) -> Applicability:
    """Safe only while the project's text says nothing against it."""
    if fix.applicability is not Applicability.SAFE or not fix.unless_mentioned or view is None:
        return fix.applicability
    return Applicability.UNSAFE if view.project_mentions(fix.unless_mentioned) else Applicability.SAFE


def _margin(layout: Layout, source: SourceFile) -> Margin | None:
    return Margin(layout.comments, layout.statements) if suppressions.mentions(source.text) else None


# --- step two ---


def conclude(analysis: Analysis, policy: Policy, view: View | None = None) -> FileResult:
    """Step two: answer the questions, apply suppressions and the wanted confidence."""
    found = [
        candidate.finding
        for candidate in analysis.candidates
        if all(answer(question, analysis.facts, view) for question in candidate.questions)
    ]
    if analysis.margin is not None and analysis.source is not None:
        enabled = policy.codes | ALWAYS_ON
        found = suppressions.suppress(
            found, analysis.margin, analysis.source, enabled=enabled, known=_known_names(policy.local_rules)
        )
    shown = [finding for finding in found if CONFIDENCE_RANK[finding.confidence] >= CONFIDENCE_RANK[policy.confidence]]
    findings = tuple(sorted({*shown, *analysis.blocked}, key=lambda finding: finding.sort_key))
    cells = analysis.source.cells if analysis.source is not None else None
    return FileResult(analysis.path, findings, _shown_lines(findings, analysis.source), cells=cells)


@cache
def _known_names(local: tuple[str, ...]) -> dict[str, frozenset[str]]:
    """Everything a suppression may name -> the codes it stands for."""
    names: dict[str, set[str]] = {}
    for rule in traced_rules(local):
        for name in (rule.code, rule.name, rule.family):
            names.setdefault(name, set()).add(rule.code)
    return {name: frozenset(codes) for name, codes in names.items()}


def _shown_lines(findings: Iterable[Finding], source: SourceFile | None) -> dict[int, str]:
    if source is None:
        return {}
    wanted: set[int] = set()
    for finding in findings:
        wanted.update(range(finding.start.line, min(finding.end.line, finding.start.line + 20) + 1))
        wanted.update(related.position.line for related in finding.related if related.path == source.path)
    return {line: source.lines.line_text(line) for line in sorted(wanted) if line <= source.lines.line_count}


# --- fixing ---


def fix(
    path: str, raw: bytes, policy: Policy, *, unsafe: bool, only: frozenset[tuple[str, int]] | None = None
) -> FixResult:
    """Apply fixes in rounds until nothing is left to apply.

    `only` names the findings whose fixes are wanted, by code and by the line where they start in `raw`.
    """
    applied: dict[str, int] = {}
    current = raw
    result = lint(path, current, policy)
    for _ in range(_MAX_ROUNDS):
        if not any(finding.fix is not None for finding in result.findings):
            break
        source = read_source(path, current)
        wanted = result.findings if only is None else _among(result.findings, only, source, read_source(path, raw))
        text, counts = apply_fixes(source, wanted, unsafe=unsafe)
        if text == source.text:
            break
        if not source.can_hold(text):
            return FixResult(path, raw, current, applied, _with_broken_fix(result, counts))
        content = source.encode(text)
        after = lint(path, content, policy)
        if any(finding.code in ("MEM001", "MEM002", "MEM006") for finding in after.findings):
            return FixResult(path, raw, current, applied, _with_broken_fix(result, counts))
        for code, count in counts.items():
            applied[code] = applied.get(code, 0) + count
        current, result = content, after
    return FixResult(path, raw, current, applied, result)


def _among(
    findings: Iterable[Finding], only: frozenset[tuple[str, int]], source: SourceFile, original: SourceFile
) -> list[Finding]:
    """The findings that are in `only`, which counts lines as they were before the first round."""
    from memlint.source.line_map import LineMap

    lines = LineMap.between(original.text, source.text)
    return [finding for finding in findings if (finding.code, lines.original(finding.start.line)) in only]


def _with_broken_fix(result: FileResult, counts: dict[str, int]) -> FileResult:
    """The round's result does not parse: it is thrown away, and the rules whose fixes it held are named."""
    message = (
        f"the fixes of {', '.join(sorted(counts))} made this file unparsable and were not applied; please report this"
    )
    broken = _own(result.path, "MEM004", Position(1, 1), message)
    return replace(result, findings=(broken, *result.findings))


# --- the tool's own findings ---


def _own(path: str, code: str, position: Position, message: str) -> Finding:
    end = Position(position.line, position.column + 1)
    return Finding(code, own_name(code), message, path, position, end)


def _blocked(path: str, code: str, position: Position, message: str) -> Analysis:
    return Analysis(path, blocked=(_own(path, code, position, message),))


def _syntax_error(source: SourceFile, error: cst.ParserSyntaxError) -> Analysis:
    position, reason = _place_of_python(source) or _place_of_libcst(source, error)
    finding = _own(source.path, "MEM001", position, f"this file does not parse: {reason}")
    return Analysis(source.path, blocked=(finding,), source=source)


def _place_of_python(source: SourceFile) -> tuple[Position, str] | None:
    """Where this Python finds the file wrong, and why; None where it does not, or names no place."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(source.text)
    except SyntaxError as error:
        if error.lineno is None:
            return None
        return _within(source, error.lineno, error.offset or 1), error.msg
    except (ValueError, RecursionError, MemoryError):
        return None
    return None


def _place_of_libcst(source: SourceFile, error: cst.ParserSyntaxError) -> tuple[Position, str]:
    """LibCST's parser names the place in the message alone, the column counted from 0; its tokenizer names none."""
    match = _LIBCST_MESSAGE.fullmatch(error.message)
    if match is None:
        return _within(source, error.raw_line, error.raw_column + 1), error.message
    line, column, reason = match.groups()
    return _within(source, int(line), int(column) + 1), reason


def _within(source: SourceFile, line: int, column: int) -> Position:
    """The place, or the nearest one in the file: a parser may point behind the end of a line or of the file."""
    index = source.lines
    line = max(1, min(line, index.line_count))
    return Position(line, max(1, min(column, len(index.line_text(line)) + 1)))


def _rules(policy: Policy, words: frozenset[str]) -> list[Rule]:
    """The wanted rules that may find something in a file with these words; the others need not be imported."""
    wanted = (rule for rule in traced_rules(policy.local_rules) if rule.module and rule.code in policy.codes)
    return [rule_of(rule.module, rule.code) for rule in wanted if _may_find(rule, words)]


def _may_find(rule: Traced, words: frozenset[str]) -> bool:
    """Whether a file with these words can hold a finding of the rule: without such a rule it is not parsed."""
    return not words.isdisjoint(rule.triggers)


def _words(text: str) -> frozenset[str]:
    return frozenset(_WORD.findall(text))


def _compiles(source: SourceFile) -> bool:
    """Whether a file that no rule wants is at least valid Python (LibCST decides where this Python cannot)."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(source.text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True
