"""Edits in terms of nodes: the text after them, byte for byte."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator

import libcst as cst
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memlint.linting.apply import apply_fixes
from memlint.linting.edits import (
    AddArgument,
    AddDecorator,
    AddImport,
    AddLineBelow,
    CannotEdit,
    EditDraft,
    InsertAfter,
    InsertBefore,
    KeepOnly,
    LeaveHandler,
    MakeHeader,
    RemoveArgument,
    RemoveStatement,
    Replace,
    WrapStatements,
)
from memlint.linting.finding import Applicability, Finding, Fix
from memlint.semantics.layout import Layout
from memlint.source.file import SourceFile
from memlint.source.lines import Position


class Edited:
    """A parsed source, and the text after a draft."""

    def __init__(self, code: str) -> None:
        self.source = SourceFile.decode("file.py", code.encode())
        parse_text = self.source.parse_text()
        self.tree = cst.parse_module(parse_text.text)
        self.layout = Layout(self.tree, self.source, parse_text)

    def all_of(self, kind: type[cst.CSTNode]) -> list[cst.CSTNode]:
        return [node for node in _nodes(self.tree) if isinstance(node, kind)]

    def node(self, text: str) -> cst.BaseExpression:
        """The outermost expression with this text, without its parentheses."""
        for node in self.all_of(cst.BaseExpression):  # type: ignore[type-abstract]
            start, end = self.layout.inner(node)
            if self.source.text[start:end] == text:
                assert isinstance(node, cst.BaseExpression)
                return node
        raise AssertionError(f"no expression {text!r}")

    def call(self) -> cst.Call:
        call = self.all_of(cst.Call)[0]
        assert isinstance(call, cst.Call)
        return call

    def statements(self, *texts: str, kind: type[cst.CSTNode] = cst.BaseStatement) -> list[cst.CSTNode]:
        found = []
        for text in texts:
            for node in self.all_of(kind):
                start, end = self.layout.inner(node)
                if self.source.text[start:end].startswith(text):
                    found.append(node)
                    break
        assert len(found) == len(texts)
        return found

    def after(self, *drafts: EditDraft) -> str:
        edits = tuple(edit for draft in drafts for edit in draft.edits(self.layout, self.source))
        finding = Finding(
            "MEM101",
            "some-rule",
            "",
            "file.py",
            Position(1, 1),
            Position(1, 1),
            fix=Fix(Applicability.SAFE, "", edits),
        )
        text, _ = apply_fixes(self.source, [finding], unsafe=False)
        again = SourceFile.decode("file.py", text.encode())
        cst.parse_module(again.parse_text().text)
        return text


def _nodes(node: cst.CSTNode) -> Iterator[cst.CSTNode]:
    yield node
    for child in node.children:
        yield from _nodes(child)


@pytest.mark.parametrize(
    ("code", "node", "expected"),
    [
        ("x = loss\n", "loss", "x = loss.detach()\n"),
        ("x = f(a)[0].b\n", "f(a)[0].b", "x = f(a)[0].b.detach()\n"),
        ("x = a + b\n", "a + b", "x = (a + b).detach()\n"),
        ("x = (a + b)\n", "a + b", "x = (a + b).detach()\n"),
        ("x = ((a + b) )\n", "a + b", "x = ((a + b) ).detach()\n"),
        ("x = -a\n", "-a", "x = (-a).detach()\n"),
        ("x = a if b else c\n", "a if b else c", "x = (a if b else c).detach()\n"),
        ("async def f():\n    x = await a\n", "await a", "async def f():\n    x = (await a).detach()\n"),
        ("x = lambda: a\n", "lambda: a", "x = (lambda: a).detach()\n"),
        ("x = a < b\n", "a < b", "x = (a < b).detach()\n"),
        ("x = not a\n", "not a", "x = (not a).detach()\n"),
        ("f(x for x in y)\n", "x for x in y", "f((x for x in y).detach())\n"),
        ("x = a, b\n", "a, b", "x = (a, b).detach()\n"),
        ("x = 1\n", "1", "x = (1).detach()\n"),
        ("def f():\n    x = yield a\n", "yield a", "def f():\n    x = (yield a).detach()\n"),
        ("def f():\n    return-a\n", "-a", "def f():\n    return(-a).detach()\n"),
        ("x = (\n    a\n    + b  # sum\n)\n", "a\n    + b", "x = (\n    a\n    + b  # sum\n).detach()\n"),
        ("x = f'{a}'\n", "a", "x = f'{a.detach()}'\n"),
        ("x = f'{a + b:.2f}'\n", "a + b", "x = f'{(a + b).detach():.2f}'\n"),
    ],
)
def test_a_postfix_binds_to_the_whole_expression(code: str, node: str, expected: str) -> None:
    edited = Edited(code)
    assert edited.after(InsertAfter(edited.node(node), ".detach()")) == expected


def test_words_do_not_grow_together() -> None:
    edited = Edited("def f():\n    return(x)if(y)else(z)\n")
    assert edited.after(Replace(edited.node("x"), "x")) == "def f():\n    return x if(y)else(z)\n"
    edited = Edited("def f():\n    return(x)\n")
    before, after = InsertBefore(edited.node("x"), "list"), Replace(edited.node("x"), "'x'")
    assert edited.after(before) == "def f():\n    return list(x)\n"
    assert edited.after(after) == "def f():\n    return 'x'\n"


@pytest.mark.parametrize(
    ("code", "whole", "part", "expected"),
    [
        ("y = zeros(n).clone()\n", "zeros(n).clone()", "zeros(n)", "y = zeros(n)\n"),
        ("y = (a + b).clone()\n", "(a + b).clone()", "a + b", "y = (a + b)\n"),
        ("y = tensor(\n    zeros(n)\n)\n", "tensor(\n    zeros(n)\n)", "zeros(n)", "y = zeros(n)\n"),
        (
            "y = f(zeros(\n    n\n).clone())\n",
            "zeros(\n    n\n).clone()",
            "zeros(\n    n\n)",
            "y = f(zeros(\n    n\n))\n",
        ),
    ],
)
def test_an_expression_is_cut_down_to_a_part(code: str, whole: str, part: str, expected: str) -> None:
    edited = Edited(code)
    assert edited.after(KeepOnly(edited.node(whole), edited.node(part))) == expected


def test_a_part_that_needs_the_brackets_around_it_is_not_taken_out() -> None:
    edited = Edited("y = tensor(\n    x\n    .t()\n)\n")
    with pytest.raises(CannotEdit):
        edited.after(KeepOnly(edited.call(), edited.node("x\n    .t()")))


def test_a_formatted_string_that_prints_its_source_is_left_alone() -> None:
    edited = Edited("x = f'{a = }'\n")
    with pytest.raises(CannotEdit):
        edited.after(InsertAfter(edited.node("a"), ".detach()"))


def test_no_quotes_go_into_a_formatted_string() -> None:
    edited = Edited('x = f"{load(a)}"\n')
    with pytest.raises(CannotEdit):
        edited.after(AddArgument(edited.call(), 'map_location="cpu"'))


@pytest.mark.parametrize(
    ("code", "argument", "expected"),
    [
        ("f(k=1)\n", 0, "f()\n"),
        ("f( k=1, )\n", 0, "f()\n"),
        ("f(\n    k=1,\n)\n", 0, "f()\n"),
        ("f(k=1, b=2)\n", 0, "f(b=2)\n"),
        ("f(a, k=1)\n", 1, "f(a)\n"),
        ("f(a, k=1,)\n", 1, "f(a,)\n"),
        ("f(a, k=1, b=2)\n", 1, "f(a, b=2)\n"),
        ("f(*a, k=(1), **b)\n", 1, "f(*a, **b)\n"),
        ("f((x for x in y), k=1)\n", 1, "f((x for x in y))\n"),
        ("f(\n    a,\n    k=1\n)\n", 1, "f(\n    a\n)\n"),
        ("f(\n    a,\n    k=1,\n)\n", 1, "f(\n    a,\n)\n"),
        ("f(\n    k=1,\n    a=2,\n)\n", 0, "f(\n    a=2,\n)\n"),
        ("f(\r\n    a,\r\n    k=1,\r\n)\r\n", 1, "f(\r\n    a,\r\n)\r\n"),
        (
            "f(\n    a,  # first\n    k=1,  # why\n    *b,  # last\n)\n",
            1,
            "f(\n    a,  # first\n    # why\n    *b,  # last\n)\n",
        ),
        ("f(\n    a,  # first\n    k=1,\n)\n", 1, "f(\n    a,  # first\n)\n"),
        ("f(\n    a,  # first\n    k=1)\n", 1, "f(\n    a,  # first\n    )\n"),
        ("f(\n    # on k\n    k=1,  # why\n)\n", 0, "f(\n    # on k\n    # why\n)\n"),
        ("f(k=1,  # why\n  b=2)\n", 0, "f(# why\n  b=2)\n"),
        ("f(a, k=1  # why\n  )\n", 1, "f(a  # why\n  )\n"),
    ],
)
def test_an_argument_goes_with_its_comma_and_without_the_comments(code: str, argument: int, expected: str) -> None:
    edited = Edited(code)
    call = edited.call()
    assert edited.after(RemoveArgument(call, call.args[argument])) == expected


def test_a_comment_inside_the_argument_is_not_dropped() -> None:
    edited = Edited("f(k=[\n    1,  # one\n])\n")
    with pytest.raises(CannotEdit):
        edited.after(RemoveArgument(edited.call(), edited.call().args[0]))


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("f()\n", "f(m=1)\n"),
        ("f( )\n", "f(m=1 )\n"),
        ("f(\n    # nothing\n)\n", "f(m=1\n    # nothing\n)\n"),
        ("f(a)\n", "f(a, m=1)\n"),
        ("f(a,)\n", "f(a, m=1,)\n"),
        ("f (a, )\n", "f (a, m=1, )\n"),
        ("f(x for x in y)\n", "f((x for x in y), m=1)\n"),
        ("f(*a, **b)\n", "f(*a, **b, m=1)\n"),
        ("f(\n    a,\n    b,\n)\n", "f(\n    a,\n    b,\n    m=1,\n)\n"),
        ("f(\r\n\ta,\r\n\tb,  # c\r\n)\r\n", "f(\r\n\ta,\r\n\tb,  # c\r\n\tm=1,\r\n)\r\n"),
        ("f(\n    a,\n    b\n)\n", "f(\n    a,\n    b,\n    m=1\n)\n"),
        ("f(\n    a,\n    b  # c\n)\n", "f(\n    a,\n    b, m=1  # c\n)\n"),
        ("f(a,\n  b)\n", "f(a,\n  b, m=1)\n"),
        ("f(a,\n  b,  # c\n  )\n", "f(a,\n  b,  # c\n  m=1,\n  )\n"),
        ("f(a, b,  # c\n  )\n", "f(a, b, m=1,  # c\n  )\n"),
        ("f(g(\n    a,\n),)\n", "f(g(\n    a,\n), m=1,)\n"),
    ],
)
def test_an_argument_is_added_in_the_style_of_the_call(code: str, expected: str) -> None:
    edited = Edited(code)
    assert edited.after(AddArgument(edited.call(), "m=1")) == expected


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("def f():\n    pass\n", "@torch.no_grad()\ndef f():\n    pass\n"),
        ("@a\n# why\ndef f(): pass\n", "@a\n# why\n@torch.no_grad()\ndef f(): pass\n"),
        (
            "class A:\r\n\tasync def f(self): pass\r\n",
            "class A:\r\n\t@torch.no_grad()\r\n\tasync def f(self): pass\r\n",
        ),
        ("x = 1\n\f\ndef f(): pass", "x = 1\n\f\n@torch.no_grad()\ndef f(): pass"),
    ],
)
def test_a_decorator_goes_directly_above_def(code: str, expected: str) -> None:
    edited = Edited(code)
    function = edited.all_of(cst.FunctionDef)[0]
    assert isinstance(function, cst.FunctionDef)
    assert edited.after(AddDecorator(function, "torch.no_grad()")) == expected


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("a\nb\nc\n", "with n():\n    a\n    b\nc\n"),
        (
            "def f():\n  # why\n\n  # what\n  a\n\n  b  # here\n  # after\n",
            "def f():\n  # why\n\n  with n():\n    # what\n    a\n\n    b  # here\n  # after\n",
        ),
        (
            'def f():\n\ta = """x\n  y\n"""\n\tb(1,\n2)\n\tc\n',
            'def f():\n\twith n():\n\t\ta = """x\n  y\n"""\n\t\tb(1,\n\t2)\n\tc\n',
        ),
        (
            "if x:\r\n    a; a2\r\n    b\r\n",
            "if x:\r\n    with n():\r\n        a; a2\r\n        b\r\n",
        ),
        ("if x:\n    y\n    # of the block\na\nb", "if x:\n    y\n    # of the block\nwith n():\n    a\n    b"),
        ("x\n\fa\nb\n", "x\n\fwith n():\n    a\n    b\n"),
    ],
)
def test_statements_are_wrapped(code: str, expected: str) -> None:
    edited = Edited(code)
    first, last = edited.statements("a", "b")
    assert isinstance(first, cst.BaseStatement)
    assert isinstance(last, cst.BaseStatement)
    assert edited.after(WrapStatements([first, last], "with n():")) == expected


def test_a_wrapped_compound_statement_keeps_its_decorators_and_blocks() -> None:
    code = "if x:\n    @d\n    def f():\n        pass\n    for a in b:\n        c\n    else:\n        d\n"
    edited = Edited(code)
    first, last = edited.statements("def f", "for a")
    assert isinstance(first, cst.BaseStatement)
    assert isinstance(last, cst.BaseStatement)
    assert edited.after(WrapStatements([first, last], "with n():")) == (
        "if x:\n    with n():\n        @d\n        def f():\n            pass\n"
        "        for a in b:\n            c\n        else:\n            d\n"
    )


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import os\nimport sys  # c\n\nx = 1\n", "import os\nimport sys  # c\nimport torch\n\nx = 1\n"),
        ("import torch\nx = 1\n", "import torch\nx = 1\n"),
        ('"""Doc."""\n\nx = 1\n', '"""Doc."""\nimport torch\n\nx = 1\n'),
        ("from __future__ import annotations\nx = 1\n", "from __future__ import annotations\nimport torch\nx = 1\n"),
        (
            "from a import (\n    b,\n)  # c\ntry:\n    import d\nexcept E:\n    pass\n",
            "from a import (\n    b,\n)  # c\nimport torch\ntry:\n    import d\nexcept E:\n    pass\n",
        ),
        ("# licence\n\nx = 1\n", "# licence\n\nimport torch\nx = 1\n"),
        ("#!/usr/bin/python\nx = 1\n", "#!/usr/bin/python\nimport torch\nx = 1\n"),
        ("# licence\n\n# memlint: ignore\nx = 1\n", "# licence\n\nimport torch\n# memlint: ignore\nx = 1\n"),
        ("import os", "import os\nimport torch"),
        ("import os\r\n", "import os\r\nimport torch\r\n"),
        ("import os\rx = 1\r", "import os\rimport torch\rx = 1\r"),
        ("# nothing", "# nothing\nimport torch\n"),
        ("\ufeffimport os\n", "\ufeffimport os\nimport torch\n"),
    ],
)
def test_an_import_goes_below_the_leading_imports(code: str, expected: str) -> None:
    assert Edited(code).after(AddImport("import torch")) == expected.removeprefix("\ufeff")


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("a\nz\nb\n", "a\nb\n"),
        ("z\n", ""),
        ("a\n# on z\n\nz  # c", "a\n# on z\n\n"),
        ("if x:\n    z  # c\n", "if x:\n    pass  # c\n"),
        ("if x: z\n", "if x: pass\n"),
        ("if x: a; z; b\n", "if x: a; b\n"),
        ("if x: a; z;\n", "if x: a;\n"),
        ("z; a\n", "a\n"),
        ("a; z # c\n", "a # c\n"),
        ("if x:\n    z(\n        1,\n    )\n    a\n", "if x:\n    a\n"),
        ("def f():\r\n\ta\r\n\tz;\r\n", "def f():\r\n\ta\r\n"),
    ],
)
def test_a_statement_goes_with_its_lines(code: str, expected: str) -> None:
    edited = Edited(code)
    (statement,) = edited.statements("z", kind=cst.Expr)
    assert edited.after(RemoveStatement(statement)) == expected


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("z = 1\n", "z = 1\nn()\n"),
        ("z = 1", "z = 1\nn()"),
        ("def f():\n    z = 1  # c\n\na\n", "def f():\n    z = 1  # c\n    n()\n\na\n"),
        ("def f():\n    z(\n        1,\n    )\na\n", "def f():\n    z(\n        1,\n    )\n    n()\na\n"),
        ("def f():\r\n\tz = 1\r\n", "def f():\r\n\tz = 1\r\n\tn()\r\n"),
        ("def f():\n    z; a\n", "def f():\n    z; a\n    n()\n"),
    ],
)
def test_a_line_goes_below_a_statement(code: str, expected: str) -> None:
    edited = Edited(code)
    (statement,) = edited.statements("z", kind=cst.SimpleStatementLine)
    assert isinstance(statement, cst.SimpleStatementLine)
    assert edited.after(AddLineBelow(statement, "n()")) == expected


def test_a_line_goes_below_a_block() -> None:
    edited = Edited("def f():\n    if x:\n        a\n\nb\n")
    (statement,) = edited.statements("if", kind=cst.If)
    assert isinstance(statement, cst.If)
    assert edited.after(AddLineBelow(statement, "n()")) == "def f():\n    if x:\n        a\n    n()\n\nb\n"


def test_a_block_is_not_emptied_by_two_fixes_at_once() -> None:
    code = "if x:\n    y\n\n    z\n"
    edited = Edited(code)
    findings = [
        Finding(
            "MEM101",
            "some-rule",
            "",
            "file.py",
            Position(1, 1),
            Position(1, 1),
            fix=Fix(Applicability.SAFE, "", tuple(RemoveStatement(statement).edits(edited.layout, edited.source))),
        )
        for statement in edited.statements("y", "z")
    ]
    text, applied = apply_fixes(edited.source, findings, unsafe=False)
    assert text == "if x:\n\n    z\n"
    assert applied == {"MEM101": 1}


def test_a_statement_on_a_continued_line_is_not_moved() -> None:
    edited = Edited("if x:\n    \\\n  a\n    b\n")
    first, last = edited.statements("a", "b")
    assert isinstance(first, cst.BaseStatement)
    assert isinstance(last, cst.BaseStatement)
    with pytest.raises(CannotEdit):
        edited.after(WrapStatements([first, last], "with n():"))


def _made_header(code: str) -> str:
    edited = Edited(code)
    (statement,) = edited.statements("n()", kind=cst.Expr)
    assert isinstance(statement, cst.Expr)
    return edited.after(MakeHeader(statement, edited.statements("a", "b"), "with ", ":"))


def test_a_statement_becomes_the_header_of_those_below() -> None:
    code = "if x:\r\n\tn()  # c\r\n\t# on a\r\n\ta(\r\n1)\r\n\r\n\tb\r\n\tc\r\n"
    expected = "if x:\r\n\twith n():  # c\r\n\t\t# on a\r\n\t\ta(\r\n\t1)\r\n\r\n\t\tb\r\n\tc\r\n"
    assert _made_header(code) == expected


@pytest.mark.parametrize("code", ["n();\na\nb\n", "n(); x\na\nb\n", "x; n()\na\nb\n"])
def test_a_statement_that_shares_its_line_becomes_no_header(code: str) -> None:
    with pytest.raises(CannotEdit):
        _made_header(code)


def test_the_body_of_a_clause_leaves_it() -> None:
    code = "def f():\r\n\t# why\r\n\ttry:\r\n\t\treturn a\r\n\texcept E:\r\n\t\t# c\r\n\t\tb  # d\r\n\t\tc\r\n\te\r\n"
    expected = (
        "def f():\r\n\t# why\r\n\tflag = False\r\n\ttry:\r\n\t\treturn a\r\n\texcept E:\r\n\t\t# c\r\n"
        "\t\tflag = True\r\n\tif flag:\r\n\t\tb  # d\r\n\t\tc\r\n\te\r\n"
    )
    edited = Edited(code)
    (statement,) = edited.all_of(cst.Try)
    assert isinstance(statement, cst.Try)
    body = statement.handlers[0].body
    assert isinstance(body, cst.IndentedBlock)
    assert edited.after(LeaveHandler(statement, body, "flag")) == expected


_ARGUMENTS = st.lists(
    st.tuples(
        st.sampled_from(["a", "*b", "(c)", "[d, e]", "f(g)", "**h", "i=(j)", "k='#'"]),
        st.sampled_from(["", " ", "\n    ", "  # note\n", " \\\n"]),
        st.sampled_from(["", " ", "\n    ", "  # why\n    ", "\n  # above\n  "]),
    ),
    min_size=1,
    max_size=5,
)


def _call_text(arguments: list[tuple[str, str, str]], opening: str, *, trailing: bool) -> str:
    last = len(arguments) - 1
    inside = "".join(
        f"{text}{before}{',' if index < last or trailing else ''}{after}"
        for index, (text, before, after) in enumerate(arguments)
    )
    return f"x = call({opening}{inside})\n"


@settings(deadline=None, derandomize=True)
@given(_ARGUMENTS, st.sampled_from(["", "\n    ", "  # open\n"]), st.booleans(), st.data())
def test_any_call_keeps_its_other_arguments_and_all_comments(
    arguments: list[tuple[str, str, str]], opening: str, trailing: bool, data: st.DataObject
) -> None:
    code = _call_text(arguments, opening, trailing=trailing)
    try:
        edited = Edited(code)
    except cst.ParserSyntaxError:
        return  # a positional argument after a keyword
    call = edited.call()
    index = data.draw(st.integers(0, len(call.args) - 1))
    comments = [comment.text for comment in edited.layout.comments]
    values = _values(edited)

    removed = Edited(edited.after(RemoveArgument(call, call.args[index])))
    added = Edited(edited.after(AddArgument(call, "m=1")))

    assert [comment.text for comment in removed.layout.comments] == comments
    assert [comment.text for comment in added.layout.comments] == comments
    assert _values(removed) == values[:index] + values[index + 1 :]
    assert _values(added) == [*values, "m=1"]


def _values(edited: Edited) -> list[str]:
    spans = [edited.layout.inner(argument) for argument in edited.call().args]
    return [edited.source.text[start:end] for start, end in spans]


_STATEMENTS = st.lists(
    st.sampled_from(
        [
            "a = 1  # one",
            "# on a line of its own",
            "    # further in",
            "",
            "b = (1,\n2)",
            'c = """x\n  # no comment\n""" + \\\n  d',
            "e; f;  # two",
            "if g: h",
            "if i:\n    j  # three\n    # of the block\nelse:\n    k\n",
            '@l\n# between\n@m\ndef n():\n    """Doc\n    string."""\n',
            "\f",
            "while o:\n    # why\n    p\n",
            "q = f'{r}'  # four",
        ]
    ),
    max_size=6,
)


class _Unwrapped(ast.NodeTransformer):
    def visit_With(self, node: ast.With) -> list[ast.stmt]:
        return node.body


@settings(deadline=None, derandomize=True)
@given(_STATEMENTS, st.sampled_from(["", "    ", "\t"]), st.sampled_from(["\n", "\r\n"]), st.booleans(), st.data())
def test_any_statements_can_be_wrapped_and_removed(
    pieces: list[str], indent: str, newline: str, cut: bool, data: st.DataObject
) -> None:
    code = "\n".join([*pieces, "last"]).replace("    ", indent or "    ")
    if indent:
        code = "while x:\n" + "\n".join(f"{indent}{line}" if line.strip() else line for line in code.split("\n"))
    code = (code if cut else f"{code}\n").replace("\n", newline)
    edited = Edited(code)
    block = next(node for node in _nodes(edited.tree) if isinstance(node, cst.IndentedBlock if indent else cst.Module))
    first = data.draw(st.integers(0, len(block.body) - 1))
    last = data.draw(st.integers(first, len(block.body) - 1))
    comments = [comment.text for comment in edited.layout.comments]

    wrapped = edited.after(WrapStatements(block.body[first : last + 1], "with y:"))
    removed = edited.after(RemoveStatement(block.body[first]))

    assert ast.dump(_Unwrapped().visit(ast.parse(wrapped))) == ast.dump(ast.parse(code))
    assert [comment.text for comment in Edited(wrapped).layout.comments] == comments
    assert wrapped.count("\n") == wrapped.count(newline) or "\n" not in code
    start, end = edited.layout.range(block.body[first])
    first_line, last_line = edited.layout.statement_at(start.line)[0], end.line
    others = [comment.text for comment in edited.layout.comments if not first_line <= comment.line <= last_line]
    assert not Counter(others) - Counter(comment.text for comment in Edited(removed).layout.comments)
