"""The lowest torch version the checked code must run on: configured, or read from the project's dependencies."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from memlint.config.options import TorchVersion
from memlint.config.paths import shown
from memlint.config.toml_files import parse_toml
from memlint.project.files import holds, holds_file, names_in

# A torch requirement with its version specifiers. Names such as torchvision or torch-geometric do not match.
# (As texts: few folders have a file with requirements.)
_TORCH = r"torch\s*(?:\[[^\]]*\])?\s*(?P<versions>[(<>=!~\s][^;#@]*)?(?:[;#].*)?\Z"
_SPECIFIER = r"(?P<operator>~=|===?|>=|>|\^|~|(?=\d))\s*v?(?P<major>\d+)(?:\.(?P<minor>\d+))?"
_MARKS_OF_A_PROJECT = (".git", "setup.py", "setup.cfg", "pyproject.toml")


@dataclass(frozen=True)
class Target:
    """`version` None: the current torch. `origin` says where it comes from, for the user."""

    version: TorchVersion | None
    origin: str


def configured_target(version: TorchVersion, origin: str) -> Target:
    return Target(version, origin)


NOT_DECLARED = Target(None, "no dependency names a lowest torch")


def declared_target(folder: Path) -> Target | None:
    """The lowest torch that the project files in the folder admit; None where the folders above have to say.

    A project's root has the last word. A requirement without a lower bound says nothing, and neither does a file that
    cannot be read: that is for the tools whose file it is to report.
    """
    declared = list(_declared_in(folder))
    if declared:
        return min(declared, key=lambda target: target.version or (0, 0))
    is_root = any(holds(folder, mark) for mark in _MARKS_OF_A_PROJECT) or folder.parent == folder
    return NOT_DECLARED if is_root else None


def _declared_in(folder: Path) -> Iterator[Target]:
    for file, requirements in _requirements(folder):
        for requirement in requirements:
            version = lowest_torch(requirement)
            if version is not None:
                yield Target(version, f"{shown(file)}: {requirement.strip()}")


def lowest_torch(requirement: str) -> TorchVersion | None:
    """The lower bound in a requirement such as `torch>=1.13,<3`; None for another package or no lower bound."""
    match = re.match(_TORCH, requirement.strip(), re.IGNORECASE)
    if match is None:
        return None
    bounds = [
        (int(found["major"]), int(found["minor"] or 0))
        for part in (match["versions"] or "").strip(" ()").split(",")
        if (found := re.match(_SPECIFIER, part.strip()))
    ]
    return max(bounds, default=None)


def _requirements(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    if holds_file(folder, "pyproject.toml"):
        pyproject = folder / "pyproject.toml"
        yield pyproject, list(_of_pyproject(_document(pyproject)))
    if holds_file(folder, "setup.cfg"):
        setup_cfg = folder / "setup.cfg"
        yield setup_cfg, list(_of_setup_cfg(_text(setup_cfg)))
    for name in sorted(names_in(folder)):
        if name.startswith("requirements") and name.endswith(".txt") and holds_file(folder, name):
            yield folder / name, _text(folder / name).splitlines()


def _of_pyproject(document: Mapping[str, object]) -> Iterator[str]:
    project = _mapping(document.get("project"))
    yield from _strings(project.get("dependencies"))
    for extra in _mapping(project.get("optional-dependencies")).values():
        yield from _strings(extra)
    poetry = _mapping(_mapping(document.get("tool")).get("poetry"))
    yield from _of_poetry(_mapping(poetry.get("dependencies")))
    for group in _mapping(poetry.get("group")).values():
        yield from _of_poetry(_mapping(_mapping(group).get("dependencies")))


def _of_poetry(dependencies: Mapping[str, object]) -> Iterator[str]:
    wanted = dependencies.get("torch")
    for entry in wanted if isinstance(wanted, list) else [wanted]:
        version = _mapping(entry).get("version") if isinstance(entry, Mapping) else entry
        if isinstance(version, str):
            yield f"torch {version}" if not version[:1].isdigit() else f"torch =={version}"


def _of_setup_cfg(text: str) -> Iterator[str]:
    if "torch" not in text.lower():
        return  # most are of other tools: the parser need not be imported
    import configparser

    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        parser.read_string(text)
    except configparser.Error:
        return
    yield from parser.get("options", "install_requires", fallback="").splitlines()
    if parser.has_section("options.extras_require"):
        for _extra, requirements in parser.items("options.extras_require"):
            yield from requirements.splitlines()


def _document(file: Path) -> Mapping[str, object]:
    try:
        return parse_toml(_text(file))
    except ValueError:
        return {}


def _text(file: Path) -> str:
    try:
        return file.read_text("utf-8", errors="replace")
    except OSError:
        return ""


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


def _strings(value: object) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []
