"""From bytes to text and back: encoding, byte order mark, newlines, and the text that LibCST is given."""

from __future__ import annotations

import os
import re
import stat
import tokenize
from bisect import bisect_right
from codecs import BOM_UTF8
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from memlint.source.lines import LineIndex, Position

if TYPE_CHECKING:
    from memlint.source.cells import CellIndex

NOTEBOOK_SUFFIX = ".ipynb"

_COOKIE = re.compile(rb"^[ \t\f]*#.*?coding[:=][ \t]*[-\w.]+")
# The codec of the package future-fstrings rewrites f-strings for Python before 3.6. The text in the file is UTF-8.
_REWRITING_CODEC = re.compile(rb"(\A|[\r\n])([ \t\f]*#.*?coding[:=][ \t]*)future[-_]fstrings\b")
_NEWLINE = re.compile(r"\r\n|\r|\n")
_LONE_CR = re.compile(r"\r(?!\n)")
_NON_ASCII = re.compile(rb"[^\x00-\x7f]")

# A second byte order mark; form feeds in an indentation, after which Python counts it anew.
_LOST_MARKS = re.compile(r"\A\ufeff|^[ \t\f]*\f", re.MULTILINE)
# Continuations in an indentation: the first line that has one sets it, what comes after it does not count.
# It matches whatever follows: to look for code behind it, and to go back where there is none, would not be linear.
_CONTINUED_INDENT = re.compile(r"^((?:\\\r?\n)*)[ \t]*((?:\\\r?\n[ \t]*)*)", re.MULTILINE)
_HAS_CONTINUED_INDENT = re.compile(r"^[ \t]*\\\r?\n", re.MULTILINE)


class UndecodableFile(Exception):  # noqa: N818 - it becomes a finding
    """The bytes are no Python text: a byte that the encoding does not know, or an unknown encoding."""

    def __init__(self, position: Position, reason: str) -> None:
        super().__init__(f"{position.line}:{position.column}: {reason}")
        self.position = position
        self.reason = reason


class Comment(NamedTuple):
    """A comment: the offset of its `#`, its line, its text from the `#` on, and whether its line holds nothing else."""

    offset: int
    line: int
    text: str
    own_line: bool


@dataclass(frozen=True)
class ParseText:
    """What LibCST parses. Its printer loses form feeds and continuations in an indentation and turns a lone
    carriage return into a line feed, so the former are taken out here and the latter are replaced.

    `removed` holds the offsets, in the original text, of the characters taken out.
    """

    text: str
    removed: tuple[int, ...] = ()

    def original(self, offset: int) -> int:
        """The offset in the original text of the character at `offset`."""
        return offset + bisect_right(self._removed_before, offset)

    def original_span(self, start: int, end: int) -> tuple[int, int]:
        """The span in the original text of the characters from `start` up to `end`, with nothing around them."""
        first = self.original(start)
        return first, self.original(end - 1) + 1 if end > start else first

    @cached_property
    def _removed_before(self) -> list[int]:
        """The offset, in `text`, before which each character was taken out."""
        return [offset - index for index, offset in enumerate(self.removed)]


@dataclass(frozen=True)
class SourceFile:
    """One file: its bytes and its text.

    `text` has no byte order mark, and its newlines are those of the file. `editable` says whether the text
    encodes back to the very same bytes; where it does not, nothing may be edited.
    """

    path: str
    raw: bytes
    text: str
    encoding: str
    has_bom: bool
    editable: bool

    @classmethod
    def decode(cls, path: str, raw: bytes) -> SourceFile:
        """Decode as Python does (PEP 263). Raises UndecodableFile, which names the place."""
        has_bom = raw.startswith(BOM_UTF8)
        encoding = _encoding(raw)
        body = raw[len(BOM_UTF8) :] if has_bom else raw
        text = _text(body, encoding)
        return cls(path, raw, text, encoding, has_bom, _encodes_to(text, encoding, body))

    def encode(self, text: str) -> bytes:
        """The bytes of a file that holds `text`. Raises UnicodeEncodeError."""
        return (BOM_UTF8 if self.has_bom else b"") + text.encode(self.encoding)

    def can_hold(self, text: str) -> bool:  # noqa: ARG002 - a notebook looks at it
        """Whether the file can be written with this text in place of its own."""
        return True

    @property
    def cells(self) -> CellIndex | None:
        """Of a notebook, where its cells lie in the text."""
        return None

    def parse_text(self) -> ParseText:
        text = _LONE_CR.sub("\n", self.text)
        removed = _lost_offsets(text)
        if not removed:
            return ParseText(text)
        kept = "".join(char for offset, char in enumerate(text) if offset not in removed)
        return ParseText(kept, tuple(sorted(removed)))

    @cached_property
    def lines(self) -> LineIndex:
        return LineIndex(self.text)

    @cached_property
    def newline(self) -> str:
        """The file's first newline, or a line feed where it has none."""
        match = _NEWLINE.search(self.text)
        return match.group() if match else "\n"

    def newline_at(self, offset: int) -> str:
        """The newline that ends the line of `offset`; the file's newline on a last line without one."""
        match = _NEWLINE.search(self.text, offset)
        return match.group() if match else self.newline


_MODE_OF_NEW_FILES = 0o644


def encoded(text: str) -> bytes:
    """The bytes of a file that holds this text, in the encoding that it declares; what that cannot hold is replaced.

    Raises UndecodableFile for a declaration of an unknown encoding.
    """
    return text.encode(_encoding(text.encode(errors="replace")), errors="replace")


def write_atomically(path: Path, content: bytes) -> None:
    """Replace the file's content at once or not at all, keeping its mode and, where allowed, its owner.

    A symbolic link stays; its target is replaced. A new file is readable by all, as reports are meant to be.

    Raises:
        OSError: the folder or the file cannot be written.

    """
    target = path.resolve()
    import tempfile  # a check writes no file

    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
        if target.exists():
            _copy_owner_and_mode(target, temporary)
        else:
            temporary.chmod(_MODE_OF_NEW_FILES)
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _copy_owner_and_mode(source: Path, target: Path) -> None:
    status = source.stat()
    if hasattr(os, "chown"):
        with suppress(OSError):  # only the superuser may give files away, and only it needs to
            os.chown(target, status.st_uid, status.st_gid)
    target.chmod(stat.S_IMODE(status.st_mode))


def _encoding(raw: bytes) -> str:
    # Split as Python does (a lone carriage return ends a line): detect_encoding itself leaves that to its caller.
    head = raw.removeprefix(BOM_UTF8)
    head = _REWRITING_CODEC.sub(rb"\1\2utf-8", head[: _end_of_second_line(head)])
    # detect_encoding wants these lines in UTF-8; Python wants them in the encoding that they declare.
    ascii_head = _NON_ASCII.sub(b"?", head)
    marked = BOM_UTF8 + ascii_head if raw.startswith(BOM_UTF8) else ascii_head
    lines = iter(marked.splitlines(keepends=True))
    try:
        encoding, _ = tokenize.detect_encoding(lambda: next(lines, b""))
    except SyntaxError as error:
        raise UndecodableFile(Position(_declaration_line(head), 1), str(error)) from error
    return "utf-8" if encoding == "utf-8-sig" else encoding


def _end_of_second_line(raw: bytes) -> int:
    end = 0
    for _ in range(2):
        match = re.compile(rb"\r\n|\r|\n").search(raw, end)
        if match is None:
            return len(raw)
        end = match.end()
    return end


def _declaration_line(head: bytes) -> int:
    lines = enumerate(head.splitlines(), start=1)
    return next((number for number, line in lines if _COOKIE.match(line)), 1)


def _text(body: bytes, encoding: str) -> str:
    try:
        text = body.decode(encoding)
        if encoding != "utf-8":
            text.encode("utf-8")  # a lone surrogate is in no Python text
        return text
    except UnicodeDecodeError as error:
        raise _bad_byte(body, error) from error
    except (UnicodeError, LookupError, ValueError) as error:
        raise UndecodableFile(Position(1, 1), f"cannot decode with encoding {encoding!r}: {error}") from error


def _bad_byte(body: bytes, error: UnicodeDecodeError) -> UndecodableFile:
    before = body[: error.start].decode(error.encoding, errors="replace")
    position = LineIndex(before).position(len(before))
    byte = body[error.start : error.start + 1]
    return UndecodableFile(position, f"byte 0x{byte.hex()} is not valid {error.encoding} ({error.reason})")


def _encodes_to(text: str, encoding: str, body: bytes) -> bool:
    try:
        return text.encode(encoding) == body
    except UnicodeError:
        return False


def _lost_offsets(text: str) -> set[int]:
    lost: set[int] = set()
    if "\f" in text or text.startswith("\ufeff"):  # to try each line takes longer
        lost.update(*(range(*match.span()) for match in _LOST_MARKS.finditer(text)))
    if "\\" in text and _HAS_CONTINUED_INDENT.search(text):
        for match in _CONTINUED_INDENT.finditer(text):
            following = text[match.end() : match.end() + 1]
            if following.strip() and following != "\\":
                lost.update(range(*match.span(1)), range(*match.span(2)))
    return lost
