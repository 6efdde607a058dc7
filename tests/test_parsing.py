"""LibCST's parser without its checks: the same trees, and the same errors."""

from contextlib import suppress
from pathlib import Path

import libcst as cst
import pytest

from memlint.semantics.parsing import parse

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("path", sorted((ROOT / "memlint/semantics").glob("*.py")), ids=lambda path: path.name)
def test_the_tree_is_libcst_s_own(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert parse(text).deep_equals(cst.parse_module(text))


@pytest.mark.parametrize("text", ['x = "a" b"b"\n', "x = f'a' b'b'\n", "x = 'a' 'b' b'c'\n"])
def test_what_only_a_check_finds_wrong_is_found(text: str) -> None:
    with pytest.raises(cst.CSTValidationError):
        parse(text)


@pytest.mark.parametrize("text", ["x = 1\n", "x = \n"])
def test_afterwards_nodes_are_checked_again(text: str) -> None:
    with suppress(cst.ParserSyntaxError):
        parse(text)
    with pytest.raises(cst.CSTValidationError):
        cst.Name("")
