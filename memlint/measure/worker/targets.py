"""Running the target as Python would: a script, a module, a function."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

from memlint.measure import user_code
from memlint.measure.job import Target
from memlint.measure.worker.imports import Sources


class NoSuchTarget(Exception):  # noqa: N818 - says what happened
    """The target cannot be found, or is nothing that can be run. The text says why."""


def run_main(target: Target, sources: Sources) -> None:
    """Run a script or a module as `__main__`, to its end.

    Raises NoSuchTarget, and whatever the target raises.
    """
    if target.kind == "script":
        _run_script(target, sources)
    else:
        _run_module(target, sources)


def import_function(target: Target) -> Callable[[], object]:
    """The function behind `pkg.mod:function`: importing its module is its set-up.

    Raises NoSuchTarget, and whatever the module raises.
    """
    module_name, _, path = target.name.partition(":")
    sys.path.insert(0, os.getcwd())  # noqa: PTH109
    sys.argv = [target.name, *target.arguments]
    found: object = _imported(module_name)
    for name in path.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            raise NoSuchTarget(f"`{module_name}` has no `{path}`") from None
    if not callable(found):
        raise NoSuchTarget(f"`{target.name}` is no function: it cannot be called")
    required = _required_parameters(found)
    if required:
        raise NoSuchTarget(f"`{target.name}` must be callable without arguments; it wants {', '.join(required)}")
    return found


def _run_script(target: Target, sources: Sources) -> None:
    path = os.path.abspath(target.name)  # noqa: PTH100 - its links are kept: tracebacks show the name that was given
    if not Path(path).is_file():
        raise NoSuchTarget(f"there is no file `{target.name}`")
    folder = os.path.dirname(os.path.realpath(path))  # noqa: PTH120
    _make_the_users(path, folder)
    sys.path.insert(0, folder)
    sys.argv = [target.name, *target.arguments]
    _run_as_main(path, sources, None)


def _run_module(target: Target, sources: Sources) -> None:
    sys.path.insert(0, os.getcwd())  # noqa: PTH109
    sys.argv = ["-m", *target.arguments]  # what Python has there while it looks for the module
    spec = _spec_to_run(target.name)
    if spec.origin is None:
        raise NoSuchTarget(f"`{spec.name}` is no Python file")
    _make_the_users(spec.origin, _package_folder(spec.name, spec.origin))
    sys.argv[0] = spec.origin
    _run_as_main(spec.origin, sources, spec)


def _spec_to_run(name: str) -> ModuleSpec:
    """What `python -m name` runs: the module, or the package's `__main__`."""
    try:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.submodule_search_locations is not None:
            name = f"{name}.__main__"
            spec = importlib.util.find_spec(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise
        spec = None
    if spec is None:
        raise NoSuchTarget(f"there is no module `{name}` here or on the Python path")
    return spec


def _run_as_main(path: str, sources: Sources, spec: ModuleSpec | None) -> None:
    """Execute the file in a fresh `__main__`, which takes the worker's place."""
    main = ModuleType("__main__")
    main.__file__ = path
    main.__spec__ = spec
    main.__dict__["__cached__"] = None
    main.__package__ = None if spec is None else spec.parent
    main.__loader__ = None if spec is None else spec.loader
    main.__dict__["__builtins__"] = sys.modules["builtins"]
    sys.modules["__main__"] = main
    exec(sources.compile(path), main.__dict__)


def _imported(name: str) -> ModuleType:
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # the module is there; what it imports is not
        raise NoSuchTarget(f"there is no module `{name}` here or on the Python path") from None
    if module.__file__ is not None:
        _make_the_users(module.__file__, _package_folder(name, module.__file__))
    return module


def _make_the_users(file: str, folder: str) -> None:
    """What somebody measures is theirs, even where it is an installed package."""
    if not user_code.is_user_file(file):
        user_code.claim(folder)


def _package_folder(name: str, file: str) -> str:
    """The folder of the module's outermost package; a module without one is a folder's only file that counts."""
    top = sys.modules.get(name.partition(".")[0])
    if "." in name and top is not None and top.__file__ is not None:
        file = top.__file__
    elif not file.endswith("__init__.py"):
        return file
    return os.path.dirname(file)  # noqa: PTH120


def _required_parameters(function: Callable[..., object]) -> list[str]:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # built-in
        return []
    variadic = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
    return [
        parameter.name
        for parameter in parameters
        if parameter.default is inspect.Parameter.empty and parameter.kind not in variadic
    ]
