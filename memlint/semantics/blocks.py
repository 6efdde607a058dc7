"""Where a statement stands among its neighbours. Worked out for a finding only, never for a whole file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import libcst as cst

from memlint.semantics.scopes import parents_within, path_of, walk


def followers(inside: cst.CSTNode, statement: cst.CSTNode) -> Sequence[cst.CSTNode]:
    """The statements after this simple statement in its block; none where it shares its line with another."""
    for block in walk(inside):
        if not isinstance(block, (cst.Module, cst.IndentedBlock)):
            continue
        for index, line in enumerate(block.body):
            if isinstance(line, cst.SimpleStatementLine) and any(small is statement for small in line.body):
                alone = len(line.body) == 1 and not isinstance(line.body[0].semicolon, cst.Semicolon)
                return block.body[index + 1 :] if alone else ()
    return ()


def leaves_at_once(loop: cst.For | cst.While) -> bool:
    """Whether the loop ends with its first item: `break` or `return`, on no condition."""
    return _leaves(loop.body)


def _leaves(body: cst.BaseSuite) -> bool:
    return any(
        _leaves(line.body)
        if isinstance(line, cst.With)
        else isinstance(line, cst.SimpleStatementLine) and isinstance(line.body[-1], (cst.Break, cst.Return))
        for line in body.body
    )


def path_to(inside: cst.CSTNode, node: cst.CSTNode) -> list[cst.CSTNode]:
    """The nodes from `inside` down to `node`, both among them; empty where `node` is not in it."""
    parents = parents_within(inside)
    if node is not inside and id(node) not in parents:
        return []
    path = [node]
    while path[-1] is not inside:
        path.append(parents[id(path[-1])])
    return path[::-1]


def mentions(inside: cst.CSTNode, name: str) -> int:
    """How often a name stands in the code, nested functions included."""
    return sum(isinstance(node, cst.Name) and node.value == name for node in walk(inside))


def conditions_around(inside: cst.CSTNode, node: cst.CSTNode) -> Iterator[str]:
    """The names and paths in the conditions under which the node is read: `torch.__version__` of an `if` around it."""
    for around in path_to(inside, node):
        if not isinstance(around, (cst.If, cst.IfExp)):
            continue
        for part in walk(around.test):
            name = path_of(part) if isinstance(part, (cst.Name, cst.Attribute)) else None
            if name is not None:
                yield name
