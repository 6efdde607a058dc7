"""`loss: Tensor = criterion(out, y)` is an assignment, whatever it also says of the type.

LibCST has another class for it, which each question about assignments would have to know. So it becomes one once
the file is parsed, and prints as it did. What a class body declares stays what it is: there it is a field.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import libcst as cst
from libcst._nodes.internal import CodegenState


@dataclass(frozen=True, eq=False)
class TypedAssign(cst.Assign):
    """An assignment with an annotation. `printed` is what LibCST has parsed."""

    annotation: cst.Annotation = cst.Annotation(cst.Name("object"))  # noqa: RUF009 - nodes are immutable

    @property
    def target(self) -> cst.BaseAssignTargetExpression:
        return self.targets[0].target

    def _codegen_impl(self, state: CodegenState, default_semicolon: bool = False) -> None:
        printed: cst.AnnAssign = self.__dict__["printed"]
        printed._codegen_impl(state, default_semicolon)


def with_typed_assignments(tree: cst.Module) -> cst.Module:
    """The same tree, in which each annotated assignment of the module and its functions is a `TypedAssign`."""
    pending: list[cst.CSTNode] = [tree]
    fields: set[int] = set()
    while pending:
        block = pending.pop()
        if isinstance(block, cst.ClassDef):
            fields.add(id(block.body))
        for line in _lines_of(block):
            if not isinstance(line, (cst.SimpleStatementLine, cst.SimpleStatementSuite)):
                pending.append(line)
            elif id(block) not in fields and any(type(item) is cst.AnnAssign for item in line.body):
                object.__setattr__(line, "body", tuple(map(_taken, line.body)))
    return tree


def _taken(item: cst.BaseSmallStatement) -> cst.BaseSmallStatement:
    if type(item) is not cst.AnnAssign or item.value is None:
        return item
    taken = TypedAssign([cst.AssignTarget(item.target)], item.value, annotation=item.annotation)
    taken.__dict__["printed"] = item
    return taken


def _lines_of(block: cst.CSTNode) -> Iterator[cst.CSTNode]:
    """The lines and blocks right below a statement."""
    if isinstance(block, (cst.Module, cst.IndentedBlock)):
        yield from block.body
        return
    for name in ("body", "orelse", "finalbody"):
        inner = getattr(block, name, None)
        if inner is not None:
            yield inner
    for name in ("handlers", "cases"):
        yield from getattr(block, name, ())
