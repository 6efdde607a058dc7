"""What one place (a configuration file, the command line) says, checked for its keys and types."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from memlint.config.errors import ConfigError
from memlint.config.measure import MeasureOptions, MeasureTable
from memlint.config.table import Table
from memlint.linting.finding import Confidence

TorchVersion = tuple[int, int]
"""Major and minor number."""

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
    local_rules: tuple[str, ...] = ()
    allow_local_rules: bool | None = None
    """Never said by a project's file."""
    measure: MeasureOptions = field(default_factory=MeasureOptions)

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
    "local-rules",
    "measure",
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


class MemlintTable(Table):
    """The memlint table of one file."""

    def options(self, origin: str) -> Options:
        """The table's options.

        Raises:
            ConfigError: an unknown key or a value of the wrong type.
        """
        self.require_known(KEYS)
        return Options(
            origin=origin,
            select=self.words("select"),
            ignore=self.words("ignore") or (),
            extend_select=self.words("extend-select") or (),
            per_file_ignores=self._per_file_ignores(),
            exclude=self.words("exclude"),
            extend_exclude=self.words("extend-exclude") or (),
            force_exclude=self.flag("force-exclude"),
            confidence=self.choice("confidence", Confidence),
            output_format=self.choice("output-format", OutputFormat),
            target_torch=self._torch_version("target-torch"),
            timeout_per_file=self.seconds("timeout-per-file"),
            measure=self._measure(),
            local_rules=self.words("local-rules") or (),
            baseline=self._path("baseline", "memlint-baseline.json"),
        )

    @property
    def extend(self) -> str | None:
        """The file this one builds on, as written."""
        return self._path("extend", "../base.toml")

    def _path(self, key: str, example: str) -> str | None:
        return self.text(key, f'a path such as "{example}"')

    def _per_file_ignores(self) -> dict[str, tuple[str, ...]]:
        value = self.values.get("per-file-ignores", {})
        if not isinstance(value, dict):
            raise self.wrong("per-file-ignores", 'a table such as {"tests/**" = ["MEM101"]}', value)
        return {glob: self.strings(f'per-file-ignores."{glob}"', words) for glob, words in value.items()}

    def _torch_version(self, key: str) -> TorchVersion | None:
        value = self.values.get(key)
        if value is None:
            return None
        if not isinstance(value, str):
            # A TOML number would make 2.10 the same as 2.1.
            raise self.wrong(key, 'a version in quotes such as "2.1"', value)
        try:
            return parse_torch_version(value)
        except ValueError as error:
            raise ConfigError(f'{self.name}: "{key}" {error}') from None

    def _measure(self) -> MeasureOptions:
        values = self.table("measure", "a table: [tool.memlint.measure]")
        return MeasureTable(f"{self.name} measure", values).options()
