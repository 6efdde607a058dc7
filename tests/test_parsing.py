"""LibCST's parser without its checks: the same trees, and the same errors."""

import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import libcst as cst
import pytest

from memlint.semantics.parsing import parse

ROOT = Path(__file__).parent.parent


TREES = """
import hashlib, sys
{imports}
for path in sys.argv[1:]:
    text = open(path, encoding="utf-8").read()
    print(hashlib.sha256(repr({parse}(text)).encode()).hexdigest())
"""


def trees(imports: str, parse: str, paths: list[str]) -> str:
    """What a process of its own makes of the files: to import memlint's parser changes LibCST's classes."""
    program = TREES.format(imports=imports, parse=parse)
    return subprocess.run([sys.executable, "-c", program, *paths], check=True, capture_output=True, text=True).stdout


def test_the_trees_are_libcst_s_own() -> None:
    paths = [str(path) for path in sorted((ROOT / "memlint/semantics").glob("[a-c]*.py"))]
    own = trees("from memlint.semantics.parsing import parse", "parse", paths)
    assert own.split() == trees("import libcst", "libcst.parse_module", paths).split()
    assert len(own.split()) == len(paths) > 10


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
