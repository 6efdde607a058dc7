"""LibCST's parser, made faster from outside.

It checks the nodes that it has just made itself, a fifth of its time: not here. And nodes are frozen dataclasses, whose
`__init__` goes through `object.__setattr__` for each field: that of the commonest classes fills the slots directly.

And nodes are of abstract base classes, of which `isinstance` asks whether one has been registered for another: none is.
"""

from __future__ import annotations

import dataclasses
from abc import ABCMeta
from collections.abc import Iterator
from typing import Any

import libcst as cst

_check = cst.CSTNode.__post_init__
_names: dict[str, Any] = {"check": _check, "MISSING": dataclasses.MISSING, "is_parsing": False}
"""What the `__init__`s made here refer to."""

# Nine of ten nodes.
_COMMON: tuple[type[cst.CSTNode], ...] = (
    cst.SimpleWhitespace, cst.Name, cst.Newline, cst.TrailingWhitespace, cst.Dot, cst.Attribute, cst.Arg,
    cst.SimpleStatementLine, cst.Comma, cst.Call, cst.EmptyLine, cst.ParenthesizedWhitespace, cst.Integer, cst.Assign,
    cst.AssignTarget, cst.AssignEqual, cst.IndentedBlock, cst.BinaryOperation, cst.SimpleString, cst.Param,
)  # fmt: skip


def _fill_slots_directly(kind: type[cst.CSTNode]) -> None:
    """Replace the class's `__init__` by one that does the same, and checks nothing while a text is parsed."""
    parameters, lines = ["self"], []
    fields = dataclasses.fields(kind)
    if not all(hasattr(getattr(kind, field.name, None), "__set__") and field.init for field in fields):
        return  # not as LibCST has been up to now: it is only slower
    for field in fields:
        name, key = field.name, f"{kind.__name__}_{field.name}"
        value = name
        _names[f"set_{key}"] = getattr(kind, name).__set__
        if field.default_factory is not dataclasses.MISSING:
            _names[f"make_{key}"] = field.default_factory
            value = f"make_{key}() if {name} is MISSING else {name}"
            parameters.append(f"{name}=MISSING")
        elif field.default is not dataclasses.MISSING:
            _names[f"default_{key}"] = field.default
            parameters.append(f"{name}=default_{key}")
        else:
            parameters.append(name)
        lines.append(f"    set_{key}(self, {value})")
    made: dict[str, Any] = {}
    body = "\n".join([*lines, "    if not is_parsing: check(self)"])
    exec(f"def __init__({', '.join(parameters)}):\n{body}", _names, made)
    kind.__init__ = made["__init__"]  # type: ignore[method-assign]


def _check_unless_parsing(self: cst.CSTNode) -> None:
    if not _names["is_parsing"]:
        _check(self)


class _Concrete(ABCMeta):
    """What is an instance of a class is told by the classes above its own alone."""

    __instancecheck__ = type.__instancecheck__


def _below(kind: type[cst.CSTNode]) -> Iterator[type[cst.CSTNode]]:
    yield kind
    for inner in kind.__subclasses__():
        yield from _below(inner)


for _kind in _COMMON:
    _fill_slots_directly(_kind)
for _kind in _below(cst.CSTNode):  # type: ignore[type-abstract]
    _kind.__class__ = _Concrete  # type: ignore[assignment]
cst.CSTNode.__post_init__ = _check_unless_parsing  # type: ignore[method-assign]
# The parser takes `"a" b"b"`, which is no Python: only this check says so.
cst.ConcatenatedString.__post_init__ = _check  # type: ignore[method-assign]


def parse(text: str) -> cst.Module:
    """The tree of the text.

    Raises what `libcst.parse_module` raises: ParserSyntaxError, CSTValidationError, CSTLogicError.
    """
    _names["is_parsing"] = True
    try:
        return cst.parse_module(text)
    finally:
        _names["is_parsing"] = False
