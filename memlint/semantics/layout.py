"""Where the nodes of a tree stand in the file.

LibCST's PositionProvider costs several times the parse. `Layout` prints the module once and lets the printer's
hooks append each node, entered and left, to the very list that collects the tokens; offsets follow from the
lengths of the tokens. What is asked for seldom is worked out when it is asked for.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from itertools import accumulate
from types import TracebackType

import libcst as cst
from libcst._nodes.expression import _BaseParenthesizedNode
from libcst._nodes.internal import CodegenState

from memlint.source.file import Comment, ParseText, SourceFile
from memlint.source.lines import Position


class LayoutMismatch(Exception):  # noqa: N818 - named for what was found
    """The printed tree is not the text that was parsed, so no offset can be trusted."""


class Layout:
    """The offsets, in code points of `source.text`, of the nodes of one tree, whitespace within a line left out.

    Raises LayoutMismatch when the tree does not print as `parse_text`, RecursionError when it is nested deeper
    than LibCST can print.
    """

    def __init__(self, tree: cst.Module, source: SourceFile, parse_text: ParseText) -> None:
        printer = _Printer(tree)
        for part in (*tree.header, *tree.body) if tree.body else ():
            part._codegen(printer)
        printed = printer.printed()
        if len(printed) > len(parse_text.text):  # the file's last line has no newline
            printer.drop_last_newline()
            printed = printer.printed()
        # The module's footer is not printed: it holds no code, and LibCST loses lines of it when its last comment
        # is indented.
        if not (parse_text.text.startswith(printed) and _FOOTER.fullmatch(parse_text.text, len(printed))):
            raise LayoutMismatch(f"{source.path}: the syntax tree does not print as the file's text")
        events = printer.tokens
        lengths = [len(event) if event.__class__ is str else 0 for event in events]
        self.tree = tree
        self.source = source
        self._parse_text = parse_text
        self._footer = len(printed)
        self._events: Sequence[object] = events
        self._offsets = list(accumulate(lengths, initial=0))
        # Ids of strings are in there too and do no harm. The last offset of an id is where its node was left.
        self._ends = dict(zip(map(id, events), self._offsets, strict=False))
        self._starts = dict(zip(map(id, reversed(events)), reversed(self._offsets[:-1]), strict=True))
        self._marks = printer.marks

    def inner(self, node: cst.CSTNode) -> tuple[int, int]:
        """The span of the node without its own parentheses, leading lines, separating comma and trailing whitespace."""
        return self._parse_text.original_span(self._inner_start(node), self._inner_end(node))

    def outer(self, node: cst.CSTNode) -> tuple[int, int]:
        """The span of the node, with its own parentheses where it has some."""
        parentheses = _parentheses(node)
        if parentheses is None:
            return self.inner(node)
        first, last = parentheses[0][0], parentheses[1][-1]
        return self._parse_text.original_span(self._start(first), self._end(last))

    def full(self, node: cst.CSTNode) -> tuple[int, int]:
        """The span of everything that LibCST prints for the node: leading lines, comma and whitespace included."""
        return self._parse_text.original_span(self._start(node), self._end(node))

    def behind_comma(self, comma: cst.Comma) -> int:
        """The offset behind the comma itself."""
        return self._behind(",", self._start(comma))

    def behind_opening(self, call: cst.Call) -> int:
        """The offset behind the `(` of the call."""
        return self._behind("(", self._end(call.func))

    def _behind(self, token: str, start: int) -> int:
        index = bisect_left(self._offsets, start)
        while self._events[index] != token:
            index += 1
        return self._parse_text.original(self._offsets[index]) + 1

    def range(self, node: cst.CSTNode) -> tuple[Position, Position]:
        """The positions of the node's inner span."""
        start, end = self.inner(node)
        return self.source.lines.position(start), self.source.lines.position(end)

    @cached_property
    def comments(self) -> tuple[Comment, ...]:
        """All comments, in the order of the text."""
        spans = [self.inner(node) for node in self._nodes_of(cst.Comment)]
        footer = _COMMENT.finditer(self._parse_text.text, self._footer)
        spans += [self._parse_text.original_span(*match.span()) for match in footer]
        return tuple(self._comment(start, end) for start, end in spans)

    @cached_property
    def statements(self) -> tuple[tuple[int, int], ...]:
        """The first and the last line of each logical line, sorted and disjoint.

        That is a line of simple statements, or the header of a compound statement (decorators up to the colon,
        with the suite where that follows on the same line) or of one of its clauses. Trailing comments count.
        """
        spans = (self._statement_lines(node) for node in self._nodes_of(cst.SimpleStatementLine, *_HEADERS))
        return tuple(sorted(spans))

    def statement_at(self, line: int) -> tuple[int, int]:
        """The first and the last line of the statement that `line` belongs to; the line itself where there is none."""
        index = bisect_right(self.statements, line, key=lambda lines: lines[0]) - 1
        if index >= 0 and line <= self.statements[index][1]:
            return self.statements[index]
        return line, line

    @cached_property
    def multiline_strings(self) -> tuple[tuple[int, int], ...]:
        """The spans of the string literals (formatted ones too) that span lines, by their start."""
        literals = self._nodes_of(cst.SimpleString, cst.FormattedString, cst.TemplatedString)
        spans = (self.inner(node) for node in literals)
        return tuple((start, end) for start, end in spans if _spans_lines(self.source.text[start:end]))

    @cached_property
    def replacement_fields(self) -> tuple[tuple[int, int, bool], ...]:
        """The spans of the `{...}` in formatted strings, and whether each prints its own source (`{x = }`)."""
        fields = self._nodes_of(cst.FormattedStringExpression, cst.TemplatedStringExpression)
        return tuple((*self.full(node), getattr(node, "equal", None) is not None) for node in fields)

    def block_of(self, statement: cst.CSTNode) -> cst.CSTNode:
        """The module, indented block, line or suite that directly holds the statement. Raises KeyError."""
        return self._blocks[id(statement)]

    @cached_property
    def _blocks(self) -> dict[int, cst.CSTNode]:
        blocks = self._nodes_of(cst.IndentedBlock, cst.SimpleStatementLine, cst.SimpleStatementSuite)
        return {id(child): block for block in (self.tree, *blocks) for child in getattr(block, "body", ())}

    def _nodes_of(self, *kinds: type[cst.CSTNode]) -> Iterator[cst.CSTNode]:
        """The nodes of these very classes, each once, in the order in which they start."""
        wanted = frozenset(kinds)
        found = {id(event): event for event in self._events if event.__class__ in wanted}
        return (event for event in found.values() if isinstance(event, cst.CSTNode))

    def _start(self, node: cst.CSTNode) -> int:
        try:
            return self._starts[id(node)]
        except KeyError:
            raise KeyError(f"this {type(node).__name__} is no node of the tree of {self.source.path}") from None

    def _end(self, node: cst.CSTNode) -> int:
        self._start(node)
        return self._ends[id(node)]

    def _inner_start(self, node: cst.CSTNode) -> int:
        parentheses = _parentheses(node)
        if parentheses is not None:
            return self._end(parentheses[0][-1])
        mark = self._marks.get(id(node))
        if mark is None:
            return self._start(node)
        if mark.start_node is not None:
            return self._inner_start(mark.start_node)
        return self._offsets[mark.first]

    def _inner_end(self, node: cst.CSTNode) -> int:
        mark = self._marks.get(id(node))
        while mark is not None and mark.end_node is not None:
            node = mark.end_node
            mark = self._marks.get(id(node))
        parentheses = _parentheses(node)
        if parentheses is not None:
            return self._start(parentheses[1][0])
        return self._end(node) if mark is None else self._offsets[mark.last]

    def _comment(self, start: int, end: int) -> Comment:
        line = self.source.lines.position(start).line
        own_line = not self.source.text[self.source.lines.line_start(line) : start].strip()
        return Comment(start, line, self.source.text[start:end], own_line)

    def _statement_lines(self, node: cst.CSTNode) -> tuple[int, int]:
        decorators: Sequence[cst.CSTNode] = getattr(node, "decorators", ())
        start = self._inner_start(decorators[0] if decorators else node)
        end = self._start(_newline_of(node))
        first, last = self._parse_text.original(start), self._parse_text.original(end)
        return self.source.lines.position(first).line, self.source.lines.position(last).line


_COMMENT = re.compile(r"#[^\r\n]*")
_FOOTER = re.compile(r"(?:[ \t\f\r\n]|\\\r?\n|#[^\r\n]*)*")

_HEADERS: tuple[type[cst.CSTNode], ...] = (
    cst.FunctionDef,
    cst.ClassDef,
    cst.If,
    cst.Else,
    cst.For,
    cst.While,
    cst.With,
    cst.Try,
    cst.TryStar,
    cst.ExceptHandler,
    cst.ExceptStarHandler,
    cst.Finally,
    cst.Match,
    cst.MatchCase,
)


class _Mark:
    """Where a node's own text begins and ends, where that is not where its printing begins and ends."""

    __slots__ = ("_events", "end_node", "first", "last", "start_node")

    def __init__(self, events: list[str], start_node: cst.CSTNode | None, end_node: cst.CSTNode | None) -> None:
        self._events = events
        self.start_node = start_node
        self.end_node = end_node
        self.first = self.last = 0

    def __enter__(self) -> None:
        self.first = len(self._events)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.last = len(self._events)


class _NoMark:
    """For expressions: their span without parentheses follows from where the parentheses are."""

    __slots__ = ()

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


_NO_MARK = _NoMark()


class _Printer(CodegenState):
    """Prints a module, and notes in the list of tokens where each node is entered and left."""

    def __init__(self, module: cst.Module) -> None:
        super().__init__(default_indent=module.default_indent, default_newline=module.default_newline)
        self.marks: dict[int, _Mark] = {}
        append = self.tokens.append
        self.add_token = append  # type: ignore[method-assign, assignment]
        self.before_codegen = append  # type: ignore[method-assign, assignment]
        self.after_codegen = append  # type: ignore[method-assign, assignment]

    def printed(self) -> str:
        return "".join([event for event in self.tokens if event.__class__ is str])

    def drop_last_newline(self) -> None:
        for index in range(len(self.tokens) - 1, -1, -1):
            if self.tokens[index].__class__ is str:
                self.tokens[index] = ""
                return

    def record_syntactic_position(  # type: ignore[override]
        self,
        node: cst.CSTNode,
        *,
        start_node: cst.CSTNode | None = None,
        end_node: cst.CSTNode | None = None,
    ) -> _Mark | _NoMark:
        if node.__class__ in _UNMARKED:
            return _NO_MARK
        mark = self.marks[id(node)] = _Mark(self.tokens, start_node, end_node)
        return mark


_with_parentheses = _BaseParenthesizedNode._parenthesize


def _parenthesize(node: _BaseParenthesizedNode, state: CodegenState) -> AbstractContextManager[None]:
    """LibCST's own makes a generator for each expression: few have parentheses."""
    return _with_parentheses(node, state) if node.lpar else state.record_syntactic_position(node)


_BaseParenthesizedNode._parenthesize = _parenthesize  # type: ignore[method-assign, assignment]


def _print_whitespace(node: cst.SimpleWhitespace, state: CodegenState) -> None:
    """Four of ten nodes are such: nobody asks where they stand."""
    if state.__class__ is not _Printer:
        cst.CSTNode._codegen(node, state)
    elif node.value:
        state.tokens.append(node.value)


cst.SimpleWhitespace._codegen = _print_whitespace  # type: ignore[method-assign, assignment]


def _with_subclasses(kind: type[cst.CSTNode]) -> Iterator[type[cst.CSTNode]]:
    yield kind
    for subclass in kind.__subclasses__():
        yield from _with_subclasses(subclass)


# A starred element prints its comma after its parentheses, so its end has to be marked.
_UNMARKED = frozenset(
    kind
    for base in (cst.BaseExpression, cst.MatchPattern)
    for kind in _with_subclasses(base)
    if kind is not cst.StarredElement
)


def _parentheses(node: cst.CSTNode) -> tuple[Sequence[cst.LeftParen], Sequence[cst.RightParen]] | None:
    """The parentheses that a node puts around itself. (Those of a class, an import or a `with` are inside it.)"""
    if not isinstance(node, (cst.BaseExpression, cst.MatchPattern)) or not node.lpar:
        return None
    return node.lpar, node.rpar


def _newline_of(node: cst.CSTNode) -> cst.Newline:
    """The newline that ends the logical line with which a statement or a clause begins."""
    if isinstance(node, cst.Match):
        return node.whitespace_after_colon.newline
    body = getattr(node, "body", None)
    if isinstance(body, cst.IndentedBlock):
        return body.header.newline
    line = node if isinstance(node, cst.SimpleStatementLine) else body
    if isinstance(line, (cst.SimpleStatementLine, cst.SimpleStatementSuite)):
        return line.trailing_whitespace.newline
    raise TypeError(f"a {type(node).__name__} has no logical line")


def _spans_lines(text: str) -> bool:
    return "\n" in text or "\r" in text
