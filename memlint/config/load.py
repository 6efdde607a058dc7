"""Finds and reads the configuration: the nearest `memlint.toml`, or `[tool.memlint]` in a `pyproject.toml`, upwards."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from memlint.config.errors import ConfigError
from memlint.config.options import MemlintTable, Options
from memlint.config.paths import absolute, shown
from memlint.config.settings import Settings, combine
from memlint.config.target import Target, configured_target, declared_target
from memlint.config.toml_files import read_bytes, read_toml
from memlint.config.user import trusts
from memlint.project.files import holds_file

OWN_FILE = "memlint.toml"
PYPROJECT = "pyproject.toml"


class SettingsResolver:
    """Answers which settings hold for the files of a folder, and reads each configuration file once.

    Every method raises ConfigError for a configuration file that cannot be used.
    """

    def __init__(self, overrides: Options) -> None:
        self._overrides = overrides
        self._cwd = Path.cwd()
        self._settings: dict[Path, Settings] = {}
        self._targets: dict[Path, Target] = {}

    def for_folder(self, folder: Path) -> Settings:
        """The settings for the files that lie directly in the folder (an absolute path)."""
        if folder not in self._settings:
            self._settings[folder] = self._find(folder)
        return self._settings[folder]

    @property
    def has_local_rules(self) -> bool:
        """Whether a folder that was asked about has rules of its own, be they refused."""
        return any(settings.local_rules or settings.refused_local_rules for settings in self._settings.values())

    def target_for(self, folder: Path) -> Target:
        """The lowest torch version that the files in this folder must run on, and who says so."""
        settings = self.for_folder(folder)
        if settings.target_torch is not None:
            return configured_target(settings.target_torch, settings.origins["target-torch"])
        return self._declared_target(folder)

    def _declared_target(self, folder: Path) -> Target:
        if folder not in self._targets:
            self._targets[folder] = declared_target(folder) or self._declared_target(folder.parent)
        return self._targets[folder]

    def _find(self, folder: Path) -> Settings:
        file = own_configuration(folder)
        if file is not None:
            files, layers = _read_chain(file)
            trusted = any(layer.local_rules for layer in layers) and (
                bool(self._overrides.allow_local_rules) or trusts(folder)
            )
            return combine(layers, self._overrides, root=folder, cwd=self._cwd, files=files, trusted=trusted)
        if folder.parent != folder:
            return self.for_folder(folder.parent)
        return combine([], self._overrides, root=self._cwd, cwd=self._cwd)


def own_configuration(folder: Path) -> Path | None:
    """The file in this very folder that configures memlint, if any. `memlint.toml` goes before `pyproject.toml`."""
    if holds_file(folder, OWN_FILE):
        return folder / OWN_FILE
    # A pyproject.toml that does not speak of memlint is nobody's business here, broken or not.
    if holds_file(folder, PYPROJECT) and b"memlint" in read_bytes(folder / PYPROJECT):
        return folder / PYPROJECT if _table(folder / PYPROJECT) is not None else None
    return None


def _read_chain(file: Path) -> tuple[tuple[Path, ...], list[Options]]:
    """The file and those it extends, nearest first; and their options, the strongest last."""
    files: list[Path] = []
    layers: list[Options] = []
    following: Path | None = file
    while following is not None:
        if following in files:
            chain = " -> ".join(shown(path) for path in [*files[files.index(following) :], following])
            raise ConfigError(f'{shown(files[-1])}: "extend" goes round in a circle: {chain}')
        table = _table_to_extend(following, files[-1] if files else None)
        files.append(following)
        layers.insert(0, table.options(shown(following)))
        following = absolute(following.parent / Path(table.extend).expanduser()) if table.extend else None
    return tuple(files), layers


def _table_to_extend(file: Path, extended_by: Path | None) -> MemlintTable:
    if extended_by is not None and not holds_file(file.parent, file.name):
        raise ConfigError(f'{shown(extended_by)}: "extend" names {shown(file)}, which is not a file')
    table = _table(file)
    if table is None:
        raise ConfigError(f"{shown(extended_by or file)}: {shown(file)} has no [tool.memlint] table")
    return table


def _table(file: Path) -> MemlintTable | None:
    """The memlint table of a configuration file; None where a pyproject.toml has none."""
    document = read_toml(file)
    if file.name != PYPROJECT:
        return MemlintTable(shown(file), document)
    tool = document.get("tool")
    if not isinstance(tool, Mapping) or "memlint" not in tool:
        return None
    values = tool["memlint"]
    if not isinstance(values, Mapping):
        raise ConfigError(f'{shown(file)}: "tool.memlint" must be a table')
    return MemlintTable(f"{shown(file)} [tool.memlint]", values)
