"""Edits in terms of syntax: what a rule says of nodes becomes replacements of text.

Each draft yields edits after which the file still parses, keeps the file's newlines and indentation, and loses
no comment unless what it takes out contains one. A draft that cannot do so raises CannotEdit; the finding then
has no fix.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import libcst as cst

from memlint.linting.finding import Edit
from memlint.semantics.layout import Layout
from memlint.source.file import SourceFile

_BLANKS = " \t\f"

# What `.name`, `(...)` and `[...]` bind to without parentheses. An integer's dot would be a decimal point.
_POSTFIXABLE = (
    cst.Attribute,
    cst.Call,
    cst.Dict,
    cst.DictComp,
    cst.FormattedString,
    cst.List,
    cst.ListComp,
    cst.Name,
    cst.Set,
    cst.SetComp,
    cst.SimpleString,
    cst.Subscript,
)


class CannotEdit(Exception):  # noqa: N818 - it is no error: the finding is reported without a fix
    """This edit cannot be made here without breaking the file."""


class EditDraft(Protocol):
    """An edit in terms of nodes."""

    def edits(self, layout: Layout, source: SourceFile) -> list[Edit]:
        """The replacements of text. Raises CannotEdit."""
        ...


@dataclass(frozen=True)
class InsertBefore:
    """Put text directly before an expression (and its own parentheses)."""

    node: cst.CSTNode
    text: str

    def edits(self, layout: Layout, source: SourceFile) -> list[Edit]:
        start, _ = layout.outer(self.node)
        return [_expression_edit(layout, source, start, start, self.text)]


@dataclass(frozen=True)
class InsertAfter:
    """Put text directly after an expression (and its own parentheses).

    Where the text is a postfix (`.detach()`, `[0]`, `()`) and would bind to a part of the expression only, the
    expression is put into parentheses: `a + b` becomes `(a + b).detach()`.
    """

    node: cst.CSTNode
    text: str

    def edits(self, layout: Layout, source: SourceFile) -> list[Edit]:
        if isinstance(self.node, cst.StarredElement):
            raise CannotEdit("nothing can follow a starred element")
        start, end = layout.outer(self.node)
        if not self.text.startswith((".", "(", "[")) or not _needs_parentheses(self.node):
            return [_expression_edit(layout, source, end, end, self.text)]
        opening = _expression_edit(layout, source, start, start, "(")
        return [opening, _expression_edit(layout, source, end, end, f"){self.text}")]


@dataclass(frozen=True)
class Replace:
    """Put text in the place of a node and its own parentheses.

    The text must be an expression that binds at least as tightly as the node with its parentheses. An argument
    can be replaced too; its comma stays.
    """

    node: cst.CSTNode
    text: str

    def edits(self, layout: Layout, source: SourceFile) -> list[Edit]:
        start, end = layout.outer(self.node)
        return [_expression_edit(layout, source, start, end, self.text)]


@dataclass(frozen=True)
class KeepOnly:
    """Cut an expression down to one of its parts: `torch.zeros(n).clone()` to `torch.zeros(n)`."""

    node: cst.BaseExpression
    part: cst.BaseExpression

    def edits(self, layout: Layout, source: SourceFile) -> list[Edit]:
        start, end = layout.inner(self.node)
        part_start, part_end = layout.outer(self.part)
        kept = source.text[part_start:part_end]
        if "\n" in kept and not _stands_alone(kept):
            raise CannotEdit("the brackets that hold its lines together would go")
        spans = [(start, part_start), (part_end, end)]
        return [_expression_edit(layout, source, first, last, "") for first, last in spans if first < last]


@dataclass(frozen=True)
class RemoveArgument:
    """Take one argument out of a call, with its comma. Comments next to it stay."""

    call: cst.Call
    argument: cst.Arg

    def edits(self, layout: Layout, source: SourceFile) -> list[Edit]:
        arguments = self.call.args
        index = next(index for index, argument in enumerate(arguments) if argument is self.argument)
        start, end = self._span(layout, index)
        spans = self._between_comments(layout, source) if _holds_comment(layout, start, end) else [(start, end)]
        return [_expression_edit(layout, source, start, end, "") for start, end in spans]

    def _span(self, layout: Layout, index: int) -> tuple[int, int]:
        arguments = self.call.args
        start, _ = layout.inner(self.argument)
        if index + 1 < len(arguments):
            return start, layout.inner(arguments[index + 1])[0]
        if index == 0:
            return layout.behind_opening(self.call), layout.inner(self.call)[1] - 1
        before = arguments[index - 1]
        if _comma(self.argument) is None:
            return layout.inner(before)[1], layout.inner(self.argument)[1]
        return _end_with_comma(layout, before), _end_with_comma(layout, self.argument)

    def _between_comments(self, layout: Layout, source: SourceFile) -> list[tuple[int, int]]:
        """The argument and its comma alone; the whole line where nothing else is on it."""
        start, inner_end = layout.inner(self.argument)
        end = _end_with_comma(layout, self.argument)
        if _holds_comment(layout, start, inner_end):
            raise CannotEdit("a comment stands inside the argument")
        if _holds_comment(layout, inner_end, end):
            return [(start, inner_end), (end - 1, end)]
        while source.text[end : end + 1] and source.text[end] in _BLANKS:
            end += 1
        line_start = _line_start(source, start)
        next_line = _next_line(source, end)
        if not source.text[line_start:start].strip() and not source.text[end:next_line].strip():
            return [(line_start, next_line)]
        return [(start, end)]


@dataclass(frozen=True)
class AddArgument:
    """Put an argument at the end of a call. A trailing comma stays trailing, one argument a line stays so."""

    call: cst.Call
    text: str

    def edits(self, layout: Layout, source: SourceFile) -> list[Edit]:
        if not self.call.args:
            inside = layout.behind_opening(self.call)
            return [_expression_edit(layout, source, inside, inside, self.text)]
        last = self.call.args[-1]
        end = layout.inner(last)[1]
        own_line = self._on_its_own_line(layout, source, last)
        indent = _indent_at(source, layout.inner(last)[0])
        if _comma(last) is not None:
            return [self._after_trailing_comma(layout, source, last, indent if own_line else None)]
        value = last.value
        if isinstance(value, cst.GeneratorExp) and not value.lpar:
            start = layout.inner(value)[0]
            opening = _expression_edit(layout, source, start, start, "(")
            return [opening, _expression_edit(layout, source, end, end, f"), {self.text}")]
        if own_line and not _comment_follows(layout, source, end):
            text = f",{source.newline_at(end)}{indent}{self.text}"
            return [_expression_edit(layout, source, end, end, text)]
        return [_expression_edit(layout, source, end, end, f", {self.text}")]

    def _on_its_own_line(self, layout: Layout, source: SourceFile, last: cst.Arg) -> bool:
        start = layout.inner(last)[0]
        closing = layout.inner(self.call)[1] - 1
        return (
            not source.text[_line_start(source, start) : start].strip()
            and not source.text[_line_start(source, closing) : closing].strip()
        )

    def _after_trailing_comma(self, layout: Layout, source: SourceFile, last: cst.Arg, indent: str | None) -> Edit:
        after_comma = _end_with_comma(layout, last)
        if indent is None:
            return _expression_edit(layout, source, after_comma, after_comma, f" {self.text},")
        next_line = _next_line(source, after_comma)
        text = f"{indent}{self.text},{source.newline_at(after_comma)}"
        return _expression_edit(layout, source, next_line, next_line, text)


@dataclass(frozen=True)
class AddDecorator:
    """Put a decorator directly above `def`, below the other decorators. `text` has no `@`."""

    function: cst.FunctionDef
    text: str

    def edits(self, layout: Layout, source: SourceFile) -> list[Edit]:
        start = layout.inner(self.function)[0]
        _require_line_start(source, start)
        indent = _indent_at(source, start)
        newline = source.newline_at(start)
        return [_edit(source, start, start, f"@{self.text}{newline}{indent}")]


@dataclass(frozen=True)
class WrapStatements:
    """Put consecutive statements of one block under a header such as `with torch.no_grad():`.

    Their lines are indented by one level, except those that begin inside a string. Comment lines directly above
    the first statement come along.
    """

    statements: Sequence[cst.BaseStatement]
    header: str

    def edits(self, layout: Layout, source: SourceFile) -> list[Edit]:
        start = _start_with_decorators(layout, self.statements[0])
        _require_line_start(source, start)
        indent = _indent_at(source, start)
        unit = _indent_unit(layout, indent)
        last_line = source.lines.position(layout.inner(self.statements[-1])[1]).line
        first_line = _first_comment_line(layout, source, start)
        top = _after_form_feed(source, first_line)
        header = _edit(source, top, top, f"{indent}{self.header}{source.newline_at(top)}")
        return _joined_insertions([header, *_indented(layout, source, range(first_line, last_line + 1), indent, unit)])


@dataclass(frozen=True)
class MakeHeader:
    """Turn an expression statement into the header of the consecutive statements that follow it in its block.

    `torch.no_grad()` becomes `with torch.no_grad():`; the lines below it are indented by one level, comments too.
    """

    statement: cst.Expr
    followers: Sequence[cst.CSTNode]
    before: str
    after: str

    def edits(self, layout: Layout, source: SourceFile) -> list[Edit]:
        start, end = layout.inner(self.statement)
        _require_line_start(source, start)
        indent = _indent_at(source, start)
        line = layout.statement_at(source.lines.position(start).line)[1]
        if source.text[end : _next_line(source, end)].lstrip().startswith(";"):
            raise CannotEdit("a semicolon cannot follow a header")
        last_line = source.lines.position(layout.inner(self.followers[-1])[1]).line
        if source.lines.position(_start_with_decorators(layout, self.followers[0])).line <= line:
            raise CannotEdit("another statement is on the same line")
        return [
            _edit(source, start, start, self.before),
            _edit(source, end, end, self.after),
            *_indented(layout, source, range(line + 1, last_line + 1), indent, _indent_unit(layout, indent)),
        ]


@dataclass(frozen=True)
class AddImport:
    """Put an import after the leading imports of the module, or after its docstring where it has none.

    Nothing is added where the leading imports contain this very line.
    """

    text: str

    def edits(self, layout: Layout, source: SourceFile) -> list[Edit]:
        last: cst.CSTNode | None = None
        for statement in layout.tree.body:
            if _is_import(statement):
                start, end = layout.inner(statement)
                if source.text[start:end] == self.text:
                    return []
                last = statement
            elif last is not None or not _is_docstring(layout.tree, statement):
                break
        last = last or next((first for first in layout.tree.body[:1] if _is_docstring(layout.tree, first)), None)
        if last is not None:
            return [_line_after(layout, source, last, self.text)]
        return [self._at_top(layout, source)]

    def _at_top(self, layout: Layout, source: SourceFile) -> Edit:
        if not layout.tree.body:
            end = len(source.text)
            gap = source.newline if _line_start(source, end) < end else ""
            return _edit(source, end, end, f"{gap}{self.text}{source.newline}")
        start = _start_with_decorators(layout, layout.tree.body[0])
        _require_line_start(source, start)
        first_line = _first_comment_line(layout, source, start)
        if first_line == 1:  # a shebang, an encoding, a licence: these stay first
            first_line = source.lines.position(start).line
        top = _after_form_feed(source, first_line)
        return _edit(source, top, top, f"{self.text}{source.newline_at(top)}")


@dataclass(frozen=True)
class AddLineBelow:
    """Put a statement below another, simple or compound, of the same block."""

    statement: cst.BaseStatement
    text: str

    def edits(self, layout: Layout, source: SourceFile) -> list[Edit]:
        start, end = layout.inner(self.statement)
        start = _start_with_decorators(layout, self.statement)
        _require_line_start(source, start)
        line = source.lines.position(end).line
        if source.lines.position(end).column == 0 and end > start:
            line -= 1  # a block ends where the line after it begins
        indent = _indent_at(source, start)
        offset = source.lines.line_start(line) + len(source.lines.line_text(line))
        return [_edit(source, offset, offset, f"{source.newline_at(start)}{indent}{self.text}")]


@dataclass(frozen=True)
class LeaveHandler:
    """Let the body of an `except` clause run after the `try` statement: the clause only sets a flag.

    The body stays where it is, under an `if` of its own; the clause must be the last of its `try`.
    """

    statement: cst.Try
    body: cst.IndentedBlock
    flag: str

    def edits(self, layout: Layout, source: SourceFile) -> list[Edit]:
        start = layout.inner(self.statement)[0]
        first = _start_with_decorators(layout, self.body.body[0])
        _require_line_start(source, start)
        _require_line_start(source, first)
        outer, inner = _indent_at(source, start), _indent_at(source, first)
        newline = source.newline_at(start)
        header = f"{self.flag} = True{newline}{outer}if {self.flag}:{newline}{inner}"
        return [
            _edit(source, start, start, f"{self.flag} = False{newline}{outer}"),
            _edit(source, first, first, header),
        ]


@dataclass(frozen=True)
class RemoveStatement:
    """Take a statement out, with its line or lines; `pass` takes its place where its block would be empty."""

    statement: cst.CSTNode

    def edits(self, layout: Layout, source: SourceFile) -> list[Edit]:
        block = layout.block_of(self.statement)
        siblings: Sequence[cst.CSTNode] = getattr(block, "body", ())
        if isinstance(block, cst.SimpleStatementLine):
            if len(siblings) == 1:
                return RemoveStatement(block).edits(layout, source)
            return [self._out_of_line(layout, source, siblings)]
        if isinstance(block, cst.SimpleStatementSuite) and len(siblings) > 1:
            return [self._out_of_line(layout, source, siblings)]
        if len(siblings) == 1 and block is not layout.tree:
            start, end = _start_with_decorators(layout, self.statement), layout.inner(self.statement)[1]
            return [_edit(source, start, end, "pass")]
        return [self._with_its_lines(layout, source, siblings)]

    def _out_of_line(self, layout: Layout, source: SourceFile, siblings: Sequence[cst.CSTNode]) -> Edit:
        """Out of `a; b; c`."""
        index = next(index for index, sibling in enumerate(siblings) if sibling is self.statement)
        start, end = layout.inner(self.statement)
        if index + 1 < len(siblings):
            return _edit(source, start, layout.inner(siblings[index + 1])[0], "")
        return _edit(source, layout.inner(siblings[index - 1])[1], end, "")

    def _with_its_lines(self, layout: Layout, source: SourceFile, siblings: Sequence[cst.CSTNode]) -> Edit:
        start = _start_with_decorators(layout, self.statement)
        _require_line_start(source, start)
        top = _line_start(source, start)
        end = _next_line(source, layout.inner(self.statement)[1])
        index = next(index for index, sibling in enumerate(siblings) if sibling is self.statement)
        if index == 0:
            return _edit(source, top, end, "")
        # The edit reaches back to the statement before, so that two neighbours are never taken out in one round:
        # a block must not become empty.
        before = _next_line(source, layout.inner(siblings[index - 1])[1])
        return _edit(source, before, end, source.text[before:top])


def _needs_parentheses(node: cst.CSTNode) -> bool:
    if not isinstance(node, cst.BaseExpression):
        return False
    return not node.lpar and not isinstance(node, _POSTFIXABLE)


def _stands_alone(code: str) -> bool:
    """Whether the code is an expression without anything around it."""
    try:
        ast.parse(code, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def _edit(source: SourceFile, start: int, end: int, content: str) -> Edit:
    return Edit(source.lines.position(start), source.lines.position(end), content)


def _expression_edit(layout: Layout, source: SourceFile, start: int, end: int, content: str) -> Edit:
    """An edit inside an expression: words do not grow together, and a formatted string stays what it is."""
    for field_start, field_end, prints_source in layout.replacement_fields:
        if field_start < start and end < field_end:
            if prints_source:
                raise CannotEdit("the formatted string prints the expression's source")
            if any(char in content for char in "'\"\\#\r\n"):
                raise CannotEdit("quotes and newlines cannot be put into a formatted string before Python 3.12")
    if content and start and _grow_together(source.text[start - 1], content[0]):
        content = f" {content}"
    if content and end < len(source.text) and _grow_together(content[-1], source.text[end]):
        content = f"{content} "
    return _edit(source, start, end, content)


def _grow_together(left: str, right: str) -> bool:
    return _in_word(left) and (_in_word(right) or right in "'\"")


def _in_word(char: str) -> bool:
    return char == "_" or char.isalnum()


def _comma(argument: cst.Arg) -> cst.Comma | None:
    return argument.comma if isinstance(argument.comma, cst.Comma) else None


def _end_with_comma(layout: Layout, argument: cst.Arg) -> int:
    comma = _comma(argument)
    if comma is None:
        return layout.inner(argument)[1]
    return layout.behind_comma(comma)


def _holds_comment(layout: Layout, start: int, end: int) -> bool:
    return any(start <= comment.offset < end for comment in layout.comments)


def _comment_follows(layout: Layout, source: SourceFile, offset: int) -> bool:
    line = source.lines.position(offset).line
    return any(comment.line == line and comment.offset >= offset for comment in layout.comments)


def _line_start(source: SourceFile, offset: int) -> int:
    return source.lines.line_start(source.lines.position(offset).line)


def _next_line(source: SourceFile, offset: int) -> int:
    """Where the line after that of `offset` starts; the end of the text on the last line."""
    line = source.lines.position(offset).line
    return source.lines.line_start(line + 1) if line < source.lines.line_count else len(source.text)


def _indent_at(source: SourceFile, offset: int) -> str:
    """The indentation of the line of `offset`, as Python counts it: after the last form feed."""
    start = _line_start(source, offset)
    line = source.text[start : _next_line(source, offset)]
    return line[: len(line) - len(line.lstrip(_BLANKS))].rpartition("\f")[2]


def _after_form_feed(source: SourceFile, line: int) -> int:
    """Where the indentation of a line starts."""
    start = source.lines.line_start(line)
    text = source.lines.line_text(line)
    return start + text[: len(text) - len(text.lstrip(_BLANKS))].rfind("\f") + 1


def _require_line_start(source: SourceFile, offset: int) -> None:
    position = source.lines.position(offset)
    if source.text[source.lines.line_start(position.line) : offset].strip(_BLANKS):
        raise CannotEdit("the statement does not start its line")
    if position.line > 1 and source.lines.line_text(position.line - 1).endswith("\\"):
        raise CannotEdit("the statement starts on a continued line")


def _start_with_decorators(layout: Layout, statement: cst.CSTNode) -> int:
    decorators: Sequence[cst.CSTNode] = getattr(statement, "decorators", ())
    return layout.inner(decorators[0] if decorators else statement)[0]


def _first_comment_line(layout: Layout, source: SourceFile, start: int) -> int:
    """The first of the comment lines that stand directly above a statement, as far in as it; else its line."""
    line, column = source.lines.position(start)
    own = {comment.line: comment.offset for comment in layout.comments if comment.own_line}
    while line - 1 in own and source.lines.position(own[line - 1]).column == column:
        line -= 1
    return line


def _indent_unit(layout: Layout, indent: str) -> str:
    if "\t" in indent:
        return "\t"
    unit = layout.tree.default_indent
    return " " * 4 if indent and "\t" in unit else unit


def _indented(layout: Layout, source: SourceFile, lines: range, indent: str, unit: str) -> list[Edit]:
    """One more level before each line that is not blank and does not begin inside a string."""
    edits = []
    for line in lines:
        if source.lines.line_text(line).strip() and not _in_string(layout, source.lines.line_start(line)):
            offset = _after_form_feed(source, line)
            offset += len(indent) if source.text.startswith(indent, offset) else 0
            edits.append(_edit(source, offset, offset, unit))
    return edits


def _in_string(layout: Layout, offset: int) -> bool:
    return any(start < offset < end for start, end in layout.multiline_strings)


def _joined_insertions(edits: list[Edit]) -> list[Edit]:
    """Insertions at one place as one: `with x:` and the indentation of the line below it."""
    joined: list[Edit] = []
    for edit in edits:
        if joined and joined[-1].start == edit.start:
            joined[-1] = Edit(edit.start, edit.end, joined[-1].content + edit.content)
        else:
            joined.append(edit)
    return joined


def _is_import(statement: cst.CSTNode) -> bool:
    first = statement.body[0] if isinstance(statement, cst.SimpleStatementLine) else None
    return isinstance(first, (cst.Import, cst.ImportFrom))


def _is_docstring(tree: cst.Module, statement: cst.CSTNode) -> bool:
    return statement is tree.body[0] and tree.get_docstring(clean=False) is not None


def _line_after(layout: Layout, source: SourceFile, statement: cst.CSTNode, text: str) -> Edit:
    """An edit that puts a line of text below the logical line of a simple statement."""
    line = source.lines.position(layout.inner(statement)[1]).line
    last_line = layout.statement_at(line)[1]
    if last_line < source.lines.line_count:
        offset = source.lines.line_start(last_line + 1)
        return _edit(source, offset, offset, f"{text}{source.newline_at(source.lines.line_start(last_line))}")
    end = len(source.text)
    return _edit(source, end, end, f"{source.newline}{text}")
