"""What the target writes goes to a folder that is deleted with the run, and is read from there again.

Scripts make folders, open logs and dump settings on their way to the first step: refused, most would end there. What
does not come through here (deleting, renaming or changing what was there before) is refused by
`memlint.measure.worker.guard`.
"""

from __future__ import annotations

import builtins
import functools
import io
import os
import pathlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from memlint.measure.worker.guard import NOT_FILES, WRITE_FLAGS

# A larger file is not copied so that something can be appended to it: that write is refused.
_LARGEST_COPY_BYTES = 64 * 2**20


def redirect(folder: str) -> None:
    """From now on, files that Python code makes or changes outside the folder are made in it instead."""
    outputs = _Outputs(os.path.realpath(folder))
    builtins.open = io.open = outputs.opening(io.open)
    os.open = outputs.opening_descriptors(os.open)
    os.mkdir = outputs.making_folders(os.mkdir)
    os.remove = outputs.removing(os.remove)
    os.unlink = outputs.removing(os.unlink)
    os.rename = outputs.renaming(os.rename)
    os.replace = outputs.renaming(os.replace)
    # Python 3.10 has its own references to them.
    accessor: Any = getattr(pathlib, "_NormalAccessor", None)
    if accessor is not None:
        accessor.open = staticmethod(io.open)
        for name in ("mkdir", "unlink", "rename", "replace"):
            setattr(accessor, name, staticmethod(getattr(os, name)))


class _Outputs:
    def __init__(self, folder: str) -> None:
        self._allowed = (folder + os.sep, *NOT_FILES)
        self._mirror = os.path.join(folder, "written")  # noqa: PTH118

    def opening(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def open_redirected(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            writing = isinstance(mode, str) and not set(mode).isdisjoint("wax+")
            place = self._to_write(file, keep="w" not in mode) if writing else self._to_read(file)
            return original(place, mode, *args, **kwargs)

        return open_redirected

    def opening_descriptors(self, original: Callable[..., int]) -> Callable[..., int]:
        @functools.wraps(original)
        def open_redirected(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
            if dir_fd is None:
                place = (
                    self._to_write(path, keep=not flags & os.O_TRUNC) if flags & WRITE_FLAGS else self._to_read(path)
                )
                return original(place, flags, mode)
            return original(path, flags, mode, dir_fd=dir_fd)

        return open_redirected

    def making_folders(self, original: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(original)
        def mkdir_redirected(path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
            mirror = None if dir_fd is not None or os.path.lexists(path) else self._mirrored(path)
            if mirror is None:
                original(path, mode, dir_fd=dir_fd)
            else:
                self._make_room(os.path.join(mirror, "_"))  # noqa: PTH118

        return mkdir_redirected

    def removing(self, original: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(original)
        def remove_redirected(path: Any, *, dir_fd: int | None = None) -> None:
            place = self._to_read(path) if dir_fd is None else path
            original(place, dir_fd=dir_fd)

        return remove_redirected

    def renaming(self, original: Callable[..., None]) -> Callable[..., None]:
        """A file that was written in the run is renamed where it is; another one is for the guard to refuse."""

        @functools.wraps(original)
        def rename_redirected(source: Any, target: Any, **kwargs: Any) -> None:
            written = self._to_read(source)
            moved = target if written is source else self._to_write(target, keep=False)
            original(written, moved, **kwargs)

        return rename_redirected

    def _to_read(self, path: Any) -> Any:
        """Where the file is now. A folder is where it was: what was made in it is beside the point."""
        mirror = self._mirrored(path)
        return mirror if mirror is not None and Path(mirror).is_file() else path

    def _to_write(self, path: Any, *, keep: bool) -> Any:
        """Where to write the file; `keep`: what it holds counts."""
        mirror = self._mirrored(path)
        there = Path(os.fsdecode(path)) if mirror is not None else None
        if mirror is None or there is None or there.is_dir():
            return path
        if Path(mirror).exists():
            return mirror
        copied = keep and there.is_file()
        if copied and there.stat().st_size > _LARGEST_COPY_BYTES:
            return path
        self._make_room(mirror)
        if copied:
            shutil.copyfile(there, mirror)
        return mirror

    def _mirrored(self, path: Any) -> str | None:
        """The place in the folder that stands for one outside of it; None for one inside, and for descriptors."""
        if not isinstance(path, (str, bytes, os.PathLike)):
            return None
        real = os.path.realpath(os.fsdecode(path))
        return None if real.startswith(self._allowed) else self._mirror + real

    @staticmethod
    def _make_room(place: str) -> None:
        Path(place).parent.mkdir(parents=True, exist_ok=True)
