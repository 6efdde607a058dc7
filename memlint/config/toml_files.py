"""Reads TOML."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from memlint.config.errors import ConfigError
from memlint.config.paths import shown


def read_toml(file: Path) -> Mapping[str, object]:
    """The document.

    Raises:
        ConfigError: the file cannot be opened, or is no TOML.
    """
    try:
        return parse_toml(read_bytes(file).decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{shown(file)}: not valid TOML: it is not UTF-8 (byte {error.start})") from None
    except ValueError as error:
        raise ConfigError(f"{shown(file)}: not valid TOML: {error}") from None


def parse_toml(text: str) -> Mapping[str, object]:
    """The document. Raises ValueError for what is no TOML."""
    if not text.strip():
        return {}  # only to say so, the parser need not be imported
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    document: Mapping[str, object] = tomllib.loads(text)
    return document


def read_bytes(file: Path) -> bytes:
    """The file's content.

    Raises:
        ConfigError: it cannot be opened.
    """
    try:
        return file.read_bytes()
    except OSError as error:
        raise ConfigError(f"{shown(file)}: cannot be opened: {error.strerror}") from None
