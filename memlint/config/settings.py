"""The settings that hold for the files of one folder: defaults, configuration files and command line combined."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TypeVar

from memlint.config.measure import MeasureOptions
from memlint.config.options import Options, OutputFormat, Patterns, PerFileIgnore, Selection, TorchVersion
from memlint.linting.finding import Confidence

_Value = TypeVar("_Value")

DEFAULT = "default"

DEFAULT_EXCLUDE = (
    # version control
    ".bzr",
    ".git",
    ".git-rewrite",
    ".hg",
    ".svn",
    # environments and installed packages
    ".direnv",
    ".eggs",
    ".nox",
    ".pyenv",
    ".tox",
    ".venv",
    "__pypackages__",
    "node_modules",
    "site-packages",
    "venv",
    # caches and editors
    ".idea",
    ".ipynb_checkpoints",
    ".memlint_cache",
    ".mypy_cache",
    ".pytest_cache",
    ".pytype",
    ".ruff_cache",
    ".vscode",
    "__pycache__",
    # what builds leave
    "*.egg-info",
    "_build",
    "buck-out",
    "build",
    "dist",
)

# LibCST reads some 15,000 lines a second: a file that takes ten is pathological, not long.
DEFAULT_TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True)
class Settings:
    """Every option, decided.

    `root` is the folder of the nearest configuration file, or the current folder where there is none: path
    patterns of configuration files are relative to it. `files` are the configuration files, nearest first.
    `selections` are the rule selectors of each place, the strongest last. `target_torch` None: not configured.
    `local_rules` are the absolute paths of the project's own rules, which run; `refused_local_rules` those that its
    file names and nobody has allowed: opening a project must not run its code.
    `baseline` is the absolute path of the file of known findings, if there is one.
    `origins` says for each option (by its key in the file) who decided it.
    """

    root: Path
    files: tuple[Path, ...]
    selections: tuple[Selection, ...]
    per_file_ignores: tuple[PerFileIgnore, ...]
    exclude: Patterns
    extend_exclude: tuple[Patterns, ...]
    force_exclude: bool
    confidence: Confidence
    output_format: OutputFormat
    target_torch: TorchVersion | None
    timeout_per_file: float
    baseline: Path | None
    local_rules: tuple[str, ...]
    refused_local_rules: tuple[str, ...]
    measure: MeasureOptions
    origins: Mapping[str, str]


def combine(
    layers: Sequence[Options],
    overrides: Options,
    *,
    root: Path,
    cwd: Path,
    files: tuple[Path, ...] = (),
    trusted: bool = False,
) -> Settings:
    """Settings from configuration files (`layers`, the strongest last) and the command line (`overrides`).

    `trusted` says whether the user lets the project bring rules of its own.

    Of most options the strongest place that gives one decides. Rule selectors are layered (see
    `memlint.config.selectors`), `extend-exclude` adds up, `per-file-ignores` add up by pattern, and `measure` by key.
    """
    places = [*layers, overrides]
    strongest_first = places[::-1]

    def decided(value: _Value | None, default: _Value) -> _Value:
        return default if value is None else value

    def first(name: str) -> Options:
        return next((place for place in strongest_first if getattr(place, name) is not None), Options(DEFAULT))

    def base_of(place: Options) -> Path:
        return cwd if place is overrides else root

    excluding, baselining = first("exclude"), first("baseline")
    local_rules = tuple(str(base_of(place) / path) for place in places for path in place.local_rules)
    per_file = {
        glob: PerFileIgnore(glob, selectors, place.origin)
        for place in places
        for glob, selectors in place.per_file_ignores.items()
    }
    return Settings(
        root=root,
        files=files,
        selections=tuple(place.selection for place in places),
        per_file_ignores=tuple(per_file.values()),
        exclude=Patterns(base_of(excluding), decided(excluding.exclude, DEFAULT_EXCLUDE), excluding.origin),
        extend_exclude=tuple(
            Patterns(base_of(place), place.extend_exclude, place.origin) for place in places if place.extend_exclude
        ),
        force_exclude=decided(first("force_exclude").force_exclude, False),
        confidence=decided(first("confidence").confidence, Confidence.MEDIUM),
        output_format=decided(first("output_format").output_format, OutputFormat.TEXT),
        target_torch=first("target_torch").target_torch,
        timeout_per_file=decided(first("timeout_per_file").timeout_per_file, DEFAULT_TIMEOUT_SECONDS),
        baseline=None if baselining.baseline is None else base_of(baselining) / baselining.baseline,
        local_rules=local_rules if trusted else (),
        refused_local_rules=() if trusted else local_rules,
        measure=functools.reduce(lambda weaker, place: place.measure.over(weaker), places, MeasureOptions()),
        origins={
            option.name.replace("_", "-"): _origin(option.name, strongest_first)
            for option in fields(Options)
            if option.name != "origin"
        },
    )


def _origin(name: str, strongest_first: Sequence[Options]) -> str:
    for place in strongest_first:
        value = getattr(place, name)
        if value is not None and value not in ((), {}):
            return place.origin
        if name in {"select", "exclude"} and value == ():
            return place.origin
    return DEFAULT
