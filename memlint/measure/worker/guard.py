"""Refuses writes and deletions outside one folder, for as long as the process lives.

It sees what Python's own functions do (PEP 578). What it cannot see: files that native code opens by itself, other
processes that the target starts, and code that looks for a way around it. It protects from accidents, not from malice.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# A terminal, the null device, shared memory, a process's own settings: nothing there outlives the run.
NOT_FILES = ("/dev/", "/proc/self/")


class WriteRefused(PermissionError):  # noqa: N818 - says what happened
    """The target wanted to write or delete outside its temporary folder."""


def confine_writes(folder: str) -> None:
    """Let Python code of this process write below `folder` only. Cannot be undone: there is no way to remove an
    audit hook."""
    checks = _Checks(os.path.realpath(folder) + os.sep).table()

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        check = checks.get(event)
        if check is not None:
            check(*arguments)

    sys.addaudithook(hook)


class _Checks:
    """One for each audit event that changes the file system: docs.python.org/3/library/audit_events.html."""

    def __init__(self, allowed: str) -> None:
        self._allowed = (allowed, *NOT_FILES)

    def table(self) -> dict[str, Callable[..., None]]:
        return {
            "open": self._open,
            "os.mkdir": self._mkdir,
            "os.remove": self._remove,
            "os.rmdir": self._remove,
            "os.rename": self._rename,
            "os.link": lambda _source, path, _source_fd, dir_fd: self._require(path, "write", dir_fd),
            "os.symlink": lambda _source, path, dir_fd: self._require(path, "write", dir_fd),
            "os.truncate": lambda path, _length: self._require(path, "write"),
            "os.chmod": lambda path, _mode, dir_fd: self._require(path, "change", dir_fd),
            "os.chown": lambda path, _uid, _gid, dir_fd: self._require(path, "change", dir_fd),
            "os.utime": lambda path, _times, _ns, dir_fd: self._require(path, "change", dir_fd),
            "sqlite3.connect": self._database,
        }

    def _open(self, path: object, _mode: object, flags: int) -> None:
        if flags & WRITE_FLAGS:
            self._require(path, "write")

    def _mkdir(self, path: object, _mode: int, dir_fd: int) -> None:
        if not _exists(path):  # where it does, the system says so itself, and `exist_ok=True` counts on that
            self._require(path, "write", dir_fd)

    def _remove(self, path: object, dir_fd: int) -> None:
        self._require(path, "delete", dir_fd, follow=False)

    def _rename(self, source: object, target: object, source_fd: int, target_fd: int) -> None:
        self._require(source, "rename", source_fd, follow=False)
        self._require(target, "write", target_fd)

    def _database(self, path: object) -> None:
        if path not in {":memory:", b":memory:", ""}:
            self._require(path, "write")

    def _require(self, path: object, verb: str, dir_fd: int = -1, *, follow: bool = True) -> None:
        """Raise WriteRefused unless the place is allowed. `follow`: whether a link means what it leads to."""
        if not isinstance(path, (str, bytes, os.PathLike)):
            return  # a descriptor: it was looked at when it was opened
        place = os.path.join(_folder_of(dir_fd), os.fsdecode(path))  # noqa: PTH118
        folder, name = os.path.split(place)
        real = os.path.realpath(place) if follow else os.path.join(os.path.realpath(folder), name)  # noqa: PTH118
        if not (real + os.sep).startswith(self._allowed):  # the folder itself, too: a file without a name is made so
            raise WriteRefused(f"memlint does not let the target {verb} {place}")


def _exists(path: object) -> bool:
    return isinstance(path, (str, bytes, os.PathLike)) and os.path.lexists(path)


def _folder_of(descriptor: int) -> str:
    """The folder behind a `dir_fd`; without one, the current folder."""
    if descriptor < 0:
        return os.getcwd()  # noqa: PTH109
    if sys.platform == "darwin":
        import fcntl

        return fcntl.fcntl(descriptor, fcntl.F_GETPATH, bytes(1024)).rstrip(b"\0").decode()
    return os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115
