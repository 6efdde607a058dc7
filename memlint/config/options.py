"""What one place (a configuration file, the command line) says, checked for its keys and types."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TypeVar

from memlint.config.errors import ConfigError, nearest
from memlint.linting.finding import Confidence

TorchVersion = tuple[int, int]
"""Major and minor number."""

_Choice = TypeVar("_Choice", bound=Enum)

_VERSION = re.compile(r"(\d+)\.(\d+)(?:\.\d+)*\Z")


class OutputFormat(str, Enum):
    TEXT = "text"
    CONCISE = "concise"
    JSON = "json"
    JSON_LINES = "json-lines"
    GITHUB = "github"
    GITLAB = "gitlab"
    AZURE = "azure"
    JUNIT = "junit"
    RDJSON = "rdjson"
    SARIF = "sarif"


@dataclass(frozen=True)
class Selection:
    """The rule selectors of one place. `select` None: the place leaves the choice to those before it."""

    origin: str
    select: tuple[str, ...] | None = None
    ignore: tuple[str, ...] = ()
    extend_select: tuple[str, ...] = ()


@dataclass(frozen=True)
class Patterns:
    """Path patterns, written as in a `.gitignore` in the folder `base`."""

    base: Path
    globs: tuple[str, ...]
    origin: str


@dataclass(frozen=True)
class PerFileIgnore:
    glob: str
    selectors: tuple[str, ...]
    origin: str


@dataclass(frozen=True)
class Options:
    """The options of one place; None, or empty, where it does not say.

    `origin` names the place to the user: a path as shown, or "the command line".
    """

    origin: str
    select: tuple[str, ...] | None = None
    ignore: tuple[str, ...] = ()
    extend_select: tuple[str, ...] = ()
    per_file_ignores: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    exclude: tuple[str, ...] | None = None
    extend_exclude: tuple[str, ...] = ()
    force_exclude: bool | None = None
    confidence: Confidence | None = None
    output_format: OutputFormat | None = None
    target_torch: TorchVersion | None = None
    timeout_per_file: float | None = None
    baseline: str | None = None

    @property
    def selection(self) -> Selection:
        return Selection(self.origin, self.select, self.ignore, self.extend_select)


KEYS = (
    "select",
    "ignore",
    "extend-select",
    "per-file-ignores",
    "exclude",
    "extend-exclude",
    "force-exclude",
    "confidence",
    "output-format",
    "target-torch",
    "timeout-per-file",
    "baseline",
    "extend",
)


def parse_torch_version(text: str) -> TorchVersion:
    """The major and minor number of a version such as `2.1` or `2.1.0`.

    Raises:
        ValueError: it is no such version.
    """
    match = _VERSION.match(text.strip())
    if match is None:
        raise ValueError(f'must be a version such as "2.1", not "{text}"')
    return int(match[1]), int(match[2])


@dataclass(frozen=True)
class Table:
    """The memlint table of one file. `name` is what a user would call it."""

    name: str
    values: Mapping[str, object]

    def options(self, origin: str) -> Options:
        """The table's options.

        Raises:
            ConfigError: an unknown key or a value of the wrong type.
        """
        for key in self.values:
            if key not in KEYS:
                raise ConfigError(f'{self.name}: there is no option "{key}"{nearest(key, KEYS)}')
        return Options(
            origin=origin,
            select=self._words("select"),
            ignore=self._words("ignore") or (),
            extend_select=self._words("extend-select") or (),
            per_file_ignores=self._per_file_ignores(),
            exclude=self._words("exclude"),
            extend_exclude=self._words("extend-exclude") or (),
            force_exclude=self._flag("force-exclude"),
            confidence=self._choice("confidence", Confidence),
            output_format=self._choice("output-format", OutputFormat),
            target_torch=self._torch_version("target-torch"),
            timeout_per_file=self._seconds("timeout-per-file"),
            baseline=self._path("baseline", "memlint-baseline.json"),
        )

    @property
    def extend(self) -> str | None:
        """The file this one builds on, as written."""
        return self._path("extend", "../base.toml")

    def _path(self, key: str, example: str) -> str | None:
        value = self.values.get(key)
        if value is None or isinstance(value, str):
            return value
        raise self._wrong(key, f'a path such as "{example}"', value)

    def _wrong(self, key: str, wanted: str, value: object) -> ConfigError:
        return ConfigError(f'{self.name}: "{key}" must be {wanted}, not {_described(value)}')

    def _words(self, key: str) -> tuple[str, ...] | None:
        value = self.values.get(key)
        return None if value is None else self._strings(key, value)

    def _strings(self, key: str, value: object) -> tuple[str, ...]:
        if not isinstance(value, list):
            raise self._wrong(key, "a list of strings", value)
        for item in value:
            if not isinstance(item, str):
                raise ConfigError(f'{self.name}: "{key}" must be a list of strings; it holds {_described(item)}')
        return tuple(value)

    def _per_file_ignores(self) -> dict[str, tuple[str, ...]]:
        value = self.values.get("per-file-ignores", {})
        if not isinstance(value, dict):
            raise self._wrong("per-file-ignores", 'a table such as {"tests/**" = ["MEM101"]}', value)
        return {glob: self._strings(f'per-file-ignores."{glob}"', words) for glob, words in value.items()}

    def _flag(self, key: str) -> bool | None:
        value = self.values.get(key)
        if value is None or isinstance(value, bool):
            return value
        raise self._wrong(key, "true or false", value)

    def _choice(self, key: str, choices: type[_Choice]) -> _Choice | None:
        value = self.values.get(key)
        if value is None:
            return None
        words = [choice.value for choice in choices]
        if isinstance(value, str) and value in words:
            return choices(value)
        wanted = " or ".join(f'"{word}"' for word in words)
        hint = nearest(value, words) if isinstance(value, str) and len(words) > 3 else ""
        raise ConfigError(f'{self.name}: "{key}" must be {wanted}, not {_described(value)}{hint}')

    def _torch_version(self, key: str) -> TorchVersion | None:
        value = self.values.get(key)
        if value is None:
            return None
        if not isinstance(value, str):
            # A TOML number would make 2.10 the same as 2.1.
            raise self._wrong(key, 'a version in quotes such as "2.1"', value)
        try:
            return parse_torch_version(value)
        except ValueError as error:
            raise ConfigError(f'{self.name}: "{key}" {error}') from None

    def _seconds(self, key: str) -> float | None:
        value = self.values.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self._wrong(key, "a number of seconds", value)
        if not 0 < value < float("inf"):
            raise ConfigError(f'{self.name}: "{key}" must be more than 0 seconds, not {value}')
        return float(value)


def _described(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'the string "{value}"'
    if isinstance(value, (int, float)):
        return f"the number {value}"
    if isinstance(value, list):
        return "a list"
    return "a table" if isinstance(value, dict) else f"{value}"
