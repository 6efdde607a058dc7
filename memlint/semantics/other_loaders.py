"""The data loaders that other files of the project make, read with Python's own parser."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from memlint.project.names import Names
from memlint.semantics.knowledge import loaders as known


def workers_of_loaders(names: Names, file: str) -> Iterator[bool]:
    """Of each `DataLoader(...)` in a file of the project, whether it may have workers."""
    if b"DataLoader" not in names.text(file):
        return
    tree = names.tree(file)
    if tree is None:
        yield True
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2].endswith("DataLoader"):
            given = {item.arg: item.value for item in node.keywords}
            workers = given.get(known.NUM_WORKERS)
            if workers is None:
                yield None in given or len(node.args) > known.NUM_WORKERS_POSITION
            else:
                yield not (isinstance(workers, ast.Constant) and workers.value == 0)


def is_test(file: str) -> bool:
    return any(part in ("test", "tests") or part.startswith("test_") for part in file.split("/"))
