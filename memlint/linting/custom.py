"""Rules that are not memlint's own: of installed plugins, and of modules in a project that the user trusts."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import pkgutil
import re
import sys
from collections.abc import Iterator
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType

from memlint.linting.rule import Rule

ENTRY_POINTS = "memlint.rules"
API_VERSION = 1
"""Of `memlint.api`. A module of rules says for which one it is written: `MEMLINT_API = 1`."""

_CODE = re.compile(r"[A-Z]{2,8}[0-9]{3,4}")
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_OURS = "MEM"


class BadRules(Exception):  # noqa: N818 - says what happened
    """Rules that cannot be used. The text names the module and says why."""


@cache
def plugin_rules() -> tuple[type[Rule], ...]:
    """The rules of installed plugins. Raises BadRules."""
    if not _may_have_plugins():
        return ()
    from importlib.metadata import entry_points

    found: list[type[Rule]] = []
    for entry in entry_points(group=ENTRY_POINTS):
        with _blamed(f"plugin {entry.name} ({entry.value})"):
            found += _rules_below(importlib.import_module(entry.module), f"plugin {entry.name}")
    return tuple(found)


def _may_have_plugins() -> bool:
    """Judged from the text of what is installed: `importlib.metadata` takes ten times as long to be imported."""
    finders = [finder for finder in sys.meta_path if finder is not PathFinder]
    if any(hasattr(finder, "find_distributions") for finder in finders):
        return True  # packages may lie elsewhere than on the path
    return any(_may_hold_plugins(folder or ".") for folder in sys.path)


def _may_hold_plugins(folder: str) -> bool:
    try:
        with os.scandir(folder) as entries:
            installed = [entry.path for entry in entries if entry.name.endswith((".dist-info", ".egg-info"))]
    except NotADirectoryError:
        return True  # an archive
    except OSError:
        return False
    return any(_mentions_rules(f"{place}/entry_points.txt") for place in installed)


def _mentions_rules(file: str) -> bool:
    try:
        with open(file, "rb") as stream:  # noqa: PTH123 - hundreds of Path objects take their time
            return ENTRY_POINTS.encode() in stream.read()
    except OSError:
        return False


@cache
def local_rules(path: str) -> tuple[type[Rule], ...]:
    """The rules in a Python file, or in the files of a folder. Raises BadRules."""
    files = sorted(Path(path).rglob("*.py")) if Path(path).is_dir() else [Path(path)]
    return tuple(rule for file in files for rule in _rules_in(_loaded(file), str(file)))


def _loaded(file: Path) -> ModuleType:
    """The file as a module: under a name of its own, so that it takes nobody's place."""
    name = f"memlint_local_rules.{file.stem}_{abs(hash(str(file)))}"
    with _blamed(str(file)):
        specification = importlib.util.spec_from_file_location(name, file)
        if specification is None or specification.loader is None:
            raise BadRules(f"{file}: not a Python file")
        module = importlib.util.module_from_spec(specification)
        sys.modules[name] = module
        specification.loader.exec_module(module)
    return module


def _rules_below(module: ModuleType, origin: str) -> Iterator[type[Rule]]:
    yield from _rules_in(module, origin)
    for below in pkgutil.walk_packages(getattr(module, "__path__", []), f"{module.__name__}."):
        with _blamed(f"{origin}: {below.name}"):
            yield from _rules_in(importlib.import_module(below.name), origin)


def _rules_in(module: ModuleType, origin: str) -> Iterator[type[Rule]]:
    """The rules that a module defines itself."""
    for item in vars(module).values():
        if not (isinstance(item, type) and issubclass(item, Rule)) or inspect.isabstract(item):
            continue
        if item.__module__ == module.__name__:
            _require_usable(item, module, origin)
            yield item


def _require_usable(rule: type[Rule], module: ModuleType, origin: str) -> None:
    version = getattr(module, "MEMLINT_API", None)
    if version != API_VERSION:
        what = "does not say for which version" if version is None else f"is written for version {version}"
        raise BadRules(f"{origin}: {module.__name__} {what} of memlint.api; here it is MEMLINT_API = {API_VERSION}")
    missing = [name for name in ("code", "name", "since", "triggers") if not hasattr(rule, name)]
    if missing:
        raise BadRules(f"{origin}: {rule.__name__} has no `{missing[0]}`")
    if not _CODE.fullmatch(rule.code) or rule.code.startswith(_OURS):
        raise BadRules(
            f"{origin}: {rule.code!r} is no code such as ACME001 (codes that begin with {_OURS} are memlint's)"
        )
    if not _NAME.fullmatch(rule.name):
        raise BadRules(f"{origin}: {rule.name!r} is no name such as tensor-printed-in-loop")
    if not (rule.__doc__ or "").strip():
        raise BadRules(f"{origin}: {rule.__name__} has no docstring, which is its page")


class _blamed:  # noqa: N801 - reads as a word
    """What goes wrong inside is the fault of these rules, whatever it is."""

    def __init__(self, origin: str) -> None:
        self._origin = origin

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        if isinstance(error, (Exception, SystemExit)) and not isinstance(error, BadRules):
            raise BadRules(f"{self._origin}: cannot be loaded: {type(error).__name__}: {error}") from error
