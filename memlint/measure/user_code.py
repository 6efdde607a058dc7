"""Which files are the user's: those that bytes are attributed to, and whose frames are shown."""

from __future__ import annotations

import os
import site
import sys
import sysconfig
from functools import cache
from pathlib import Path

_MEMLINT = Path(__file__).resolve().parent.parent


def _library_folders() -> tuple[str, ...]:
    """Python's own modules, installed packages, and memlint with its rules."""
    paths = sysconfig.get_paths()
    folders = {paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    folders.update(site.getsitepackages())
    folders.add(site.getusersitepackages())
    # In a virtual environment the standard library is that of the Python it was made with.
    folders.add(sysconfig.get_path("stdlib", vars={"installed_base": sys.base_prefix, "base": sys.base_prefix}))
    folders.update({str(_MEMLINT), str(_MEMLINT.parent / "rules")})
    return tuple(sorted({os.path.realpath(folder) + os.sep for folder in folders}))


_LIBRARIES = _library_folders()
_PACKAGE_FOLDERS = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")
"""Wherever they lie: a path file or PYTHONPATH may add those of another installation."""
_own: list[str] = []


def claim(place: str) -> None:
    """Count this file, or what lies in this folder, as the user's: the target may be an installed package."""
    real = os.path.realpath(place)
    _own.append(real + os.sep * Path(real).is_dir())
    is_user_file.cache_clear()


def is_memlint_file(filename: str) -> bool:
    return os.path.realpath(filename).startswith(str(_MEMLINT) + os.sep)


@cache
def is_user_file(filename: str) -> bool:
    """Whether code that was compiled under this name is the user's. False for `<string>` and its like."""
    if filename.startswith("<"):
        return False
    real = os.path.realpath(filename)
    if real.startswith(tuple(_own)):
        return True
    return not real.startswith(_LIBRARIES) and not any(folder in real for folder in _PACKAGE_FOLDERS)
