"""The user's own configuration: what no project may say for itself."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from memlint.config.errors import ConfigError
from memlint.config.paths import shown
from memlint.config.table import Table
from memlint.config.toml_files import read_toml

TRUST = "trust-local-rules"


def user_file() -> Path:
    """`memlint/memlint.toml` where the system keeps its users' configuration."""
    if sys.platform == "win32":
        folder = os.environ.get("APPDATA") or "~/AppData/Roaming"
    elif sys.platform == "darwin":
        folder = "~/Library/Application Support"
    else:
        folder = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(folder).expanduser() / "memlint" / "memlint.toml"


def trusts(project: Path) -> bool:
    """Whether the user lets the project in this folder bring rules of its own: it lies in a folder that they named.

    Raises:
        ConfigError: the user's configuration cannot be used.
    """
    file = user_file()
    if not file.is_file():
        return False
    table = Table(shown(file), read_toml(file))
    table.require_known((TRUST,))
    folders = table.words(TRUST) or ()
    if relative := [folder for folder in folders if not Path(folder).expanduser().is_absolute()]:
        raise ConfigError(f'{table.name}: "{TRUST}" must hold absolute paths, not "{relative[0]}"')
    here = project.resolve()
    return any(here.is_relative_to(Path(folder).expanduser().resolve()) for folder in folders)
