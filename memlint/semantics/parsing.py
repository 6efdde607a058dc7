"""LibCST's parser, without its checks of the nodes that it has just made itself: they are a fifth of its time."""

from __future__ import annotations

import libcst as cst

_check = cst.CSTNode.__post_init__


def _believe(self: cst.CSTNode) -> None:
    pass


# The parser takes `"a" b"b"`, which is no Python: only this check says so.
cst.ConcatenatedString.__post_init__ = _check  # type: ignore[method-assign]


def parse(text: str) -> cst.Module:
    """The tree of the text.

    Raises what `libcst.parse_module` raises: ParserSyntaxError, CSTValidationError, CSTLogicError.
    """
    cst.CSTNode.__post_init__ = _believe  # type: ignore[method-assign]
    try:
        return cst.parse_module(text)
    finally:
        cst.CSTNode.__post_init__ = _check  # type: ignore[method-assign]
