"""Where nodes stand in the file."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

import libcst as cst
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from libcst.metadata import MetadataWrapper, PositionProvider

from memlint.semantics.layout import Layout, LayoutMismatch
from memlint.source.file import ParseText, SourceFile
from memlint.source.lines import Position


def laid_out(code: str) -> tuple[cst.Module, SourceFile, Layout]:
    source = SourceFile.decode("file.py", code.encode())
    parse_text = source.parse_text()
    tree = cst.parse_module(parse_text.text)
    return tree, source, Layout(tree, source, parse_text)


def nodes(node: cst.CSTNode) -> Iterator[cst.CSTNode]:
    yield node
    for child in node.children:
        yield from nodes(child)


SAMPLE = '''\
"""Doc."""
from __future__ import annotations
import torch as t, os.path
from . import (a, b as c,)  # names

@decorate(1)
# between
@t.no_grad()
async def f(self, a: int = (1), /, *b, c=-2, **d) -> "x":
    """Doc
    of two lines."""
    global g; h = i = (yield)  ; del h[0], (j)
    async with (a as b, c, d as (e)):
        await (x)
    for ((k), l) in m: continue
    else:
        pass
    while not (n): break
    if (o := 1): raise E from F
    elif p: assert q, "r"
    else: return
    try:
        s += ( t)[1:2, ..., ::3](*u, v, w=1, **x,)
    except (A, B) as e:
        pass
    except: pass
    finally:
        lambda *y, z=1: (y, z)

class C(D, metaclass=E,):
    x: int = 1 if (2) else 3
    y = [*a, {**b, "c": 1}, {d for e in f if g if h}, (i for j in k async for l in m)]
    z = f"{a!r:>{b}} {c = }" "d" if 1 < 2 <= 3 not in 4 else (((5))) + 6j @ 1.5
    match a:
        # case
        case [1, *_] | {"a": b, **c} if d: pass
        case E(f, g=(h)) as i:
            pass
type T[U: int, *V, **W] = X
if a:
\tb = \\
\t  c
\t# of the block
# at the end
'''

FORMS = {
    "as it is": SAMPLE,
    "with carriage returns": SAMPLE.replace("\n", "\r\n"),
    "with lone carriage returns": SAMPLE.replace("\n", "\r"),
    "with form feeds": SAMPLE.replace("\n@decorate", "\n\f\n\f@decorate").replace("\n    ", "\n \f    "),
    "with continued indentation": SAMPLE.replace("\n    for", "\n    \\\n  for").replace("\nclass", "\n\\\nclass"),
    "with a byte order mark": "\ufeff" + SAMPLE,
    "without a last newline": SAMPLE.rstrip("\n"),
    "in other letters": SAMPLE.replace("q", "ξ").replace("Doc", "文書\U0001f600"),
}


@pytest.mark.parametrize("form", FORMS)
def test_names_stand_where_the_layout_says(form: str) -> None:
    tree, source, layout = laid_out(FORMS[form])
    names = [node for node in nodes(tree) if isinstance(node, (cst.Name, cst.Integer, cst.SimpleString))]
    assert len(names) > 100
    for node in names:
        start, end = layout.inner(node)
        assert source.text[start:end].replace(" \f", "").replace("\r\n", "\n").replace("\r", "\n") == (
            node.value.replace("\r\n", "\n")
        )


@pytest.mark.parametrize("path", [None, inspect.getsourcefile(cst.Module), __file__])
def test_ranges_are_those_of_libcst(path: str | None) -> None:
    tree, _, layout = laid_out(Path(path).read_text(encoding="utf-8") if path else SAMPLE)
    footer = {id(node) for line in tree.footer for node in nodes(line)}
    for node, place in MetadataWrapper(tree, unsafe_skip_copy=True).resolve(PositionProvider).items():
        if node is not tree and id(node) not in footer and not isinstance(node, cst.SimpleWhitespace):
            start, end = layout.range(node)
            assert (start.line, start.column - 1) == (place.start.line, place.start.column), node
            assert (end.line, end.column - 1) == (place.end.line, place.end.column), node


def test_tokens_stand_behind_whatever_whitespace_is_before_them() -> None:
    tree, source, layout = laid_out("y = (f)  ( a  # (, one\n ,b \\\n, c,)\n")
    (call,) = [node for node in nodes(tree) if isinstance(node, cst.Call)]
    assert source.text[: layout.behind_opening(call)] == "y = (f)  ("
    commas = [argument.comma for argument in call.args if isinstance(argument.comma, cst.Comma)]
    assert [source.text[: layout.behind_comma(comma)].count(",") for comma in commas] == [2, 3, 4]


@pytest.mark.parametrize(
    ("code", "inner", "outer"),
    [
        ("x = (  ( a + b ) )\n", "a + b", "(  ( a + b ) )"),
        ("x = a + b\n", "a + b", "a + b"),
        ("x = (\f\n\fa + b\n)\n", "a + b", "(\f\n\fa + b\n)"),
    ],
)
def test_own_parentheses_are_outside(code: str, inner: str, outer: str) -> None:
    tree, source, layout = laid_out(code)
    (node,) = [node for node in nodes(tree) if isinstance(node, cst.BinaryOperation)]
    assert source.text[slice(*layout.inner(node))] == inner
    assert source.text[slice(*layout.outer(node))] == outer


def test_an_argument_is_without_its_comma_and_comment() -> None:
    tree, source, layout = laid_out("f(a = (1) , # c\n  *b,)\n")
    arguments = [node for node in nodes(tree) if isinstance(node, cst.Arg)]
    assert [source.text[slice(*layout.outer(node))] for node in arguments] == ["a = (1)", "*b"]


def test_a_range_is_in_lines_and_columns_from_one() -> None:
    tree, _, layout = laid_out("\f\nif x:\r\n\t\U0001f600 = y\r\n".replace("\U0001f600", "文"))
    (name,) = [node for node in nodes(tree) if isinstance(node, cst.Name) and node.value == "y"]
    assert layout.range(name) == (Position(3, 6), Position(3, 7))


def test_comments() -> None:
    _, source, layout = laid_out('# a\nx = f(  # b\n    # c\n    "# no"\n)\n\f  # d\nif x:  # e\n    y\n    # f')
    assert [(comment.text, comment.line, comment.own_line) for comment in layout.comments] == [
        ("# a", 1, True),
        ("# b", 2, False),
        ("# c", 3, True),
        ("# d", 6, True),
        ("# e", 7, False),
        ("# f", 9, True),
    ]
    assert all(source.text.startswith(comment.text, comment.offset) for comment in layout.comments)


def test_statements() -> None:
    code = (
        "x = f(\n  1)  # c\n\n@d\n# e\n@g(\n)\nasync def f(\n  a,\n):  # h\n    a; b = \\\n      c\n"
        "if x: y = f(\n  2)\nelse:\n    pass\nmatch x:\n    case 1:\n        pass"
    )
    _, _, layout = laid_out(code)
    expected = ((1, 2), (4, 10), (11, 12), (13, 14), (15, 15), (16, 16), (17, 17), (18, 18), (19, 19))
    assert layout.statements == expected
    assert [layout.statement_at(line) for line in (1, 2, 3, 5, 19)] == [(1, 2), (1, 2), (3, 3), (4, 10), (19, 19)]


def test_strings_that_span_lines() -> None:
    _, source, layout = laid_out('a = "b" """c\n"""\nd = f"""{\ne}"""\nf = "g\\\nh"\ni = ("j"\n "k")\n')
    spans = [source.text[start:end] for start, end in layout.multiline_strings]
    assert spans == ['"""c\n"""', 'f"""{\ne}"""', '"g\\\nh"']


@pytest.mark.parametrize("newline", ["\n", "\r\n", ""])
def test_indented_comments_at_the_end_of_the_file(newline: str) -> None:
    """LibCST's printer loses all but the last of them."""
    _, _, layout = laid_out(f"if x:\n    y\n\n    # a\n  # b\n\n\f  # c{newline}")
    assert [(comment.text, comment.line) for comment in layout.comments] == [("# a", 4), ("# b", 5), ("# c", 7)]


@pytest.mark.parametrize("code", ["", "\n", " ", "#", "# a\n", "\f", "x", "x;", "if x: y", "\n\n", "\r"])
def test_small_files(code: str) -> None:
    _, _, layout = laid_out(code)
    assert len(layout.comments) == code.count("#")


def test_a_node_of_another_tree_has_no_place() -> None:
    _, _, layout = laid_out("x\n")
    with pytest.raises(KeyError, match=r"Name is no node of the tree of file\.py"):
        layout.inner(cst.Name("x"))


def test_a_tree_that_prints_as_another_text_is_refused() -> None:
    source = SourceFile.decode("file.py", b"x = 1\n")
    with pytest.raises(LayoutMismatch):
        Layout(cst.parse_module("x  = 1\n"), source, ParseText("x = 1\n"))


_PIECES = st.lists(
    st.sampled_from(
        [
            "name = other\n",
            "if name:\n    name\n",
            "def name():\n\t'''a\n\f'''\n\treturn name\n",
            "name(\n\f  name, # name\n  k=name)\n",
            "\f\n",
            "\fname\n",
            " \f # name\n",
            "\\\nname\n",
            "name = 'ä\U0001f600'; name\n",
            "name = f'{name}' + \\\n  name\n",
            "# ä\n",
            "\n",
            "   \n",
        ]
    ),
    max_size=8,
)


@settings(deadline=None, derandomize=True)
@given(_PIECES, st.sampled_from(["\n", "\r\n", "\r"]), st.booleans())
def test_any_file(pieces: list[str], newline: str, cut: bool) -> None:
    code = "".join(pieces).replace("\n", newline)
    tree, source, layout = laid_out(code.rstrip("\r\n") if cut else code)
    for node in nodes(tree):
        if isinstance(node, cst.Name):
            start, end = layout.inner(node)
            assert source.text[start:end] == node.value
    assert all(source.text.startswith("#", comment.offset) for comment in layout.comments)
    assert all(before[1] < after[0] for before, after in zip(layout.statements, layout.statements[1:], strict=False))
