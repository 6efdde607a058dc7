"""Host memory that a prediction is about to take: said before it is taken, refused where it is not there.

On `fake` the device costs nothing, so the host's part is what a machine may be too small for. Most of it are weights
whose values something reads; other large tensors of the host are counted with them.
"""

from __future__ import annotations

import functools
import os
import resource
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

from memlint.measure.recording import Place
from memlint.measure.sizes import words

_LEAST_SAID = 1 << 30
"""Below this, nobody needs to be told; then at each doubling."""

_MAKES = "makes a tensor in host memory"
_LOADS = "loads a file into host memory"
_READS = "reads weights in host memory"
_CAUTION = 8
"""Of what is available, an eighth may go before it is asked again: asking takes half a millisecond."""

ADVICE = (
    'weights that are made on the device (`with torch.device("cuda"):`), or moved there before anything reads them, '
    "take no host memory"
)


class TooLittleHostMemory(MemoryError):  # noqa: N818 - says what happened
    """Not enough is available for what is about to be made. The text says how much."""


class HostMemory:
    """Counts large tensors of the host that hold values, in bytes."""

    def __init__(
        self,
        place: Callable[[], Place | None],
        *,
        available: Callable[[], int | None] | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self._place = place
        self._available = available or available_bytes
        self._say = say or _say
        self._held = 0
        self._next = _LEAST_SAID
        """What is to be said next: so many bytes."""
        self._unchecked = 0
        """So much may be taken before it is asked again how much there is."""
        self._references: dict[int, weakref.ref[Any]] = {}

    def take(self, size: int) -> None:
        """Before `size` bytes of a tensor are written. Raises TooLittleHostMemory."""
        self._take(size, _MAKES)

    def take_read(self, size: int, unread: int) -> None:
        """Before the values of a weight are made because something reads them. Raises TooLittleHostMemory.

        `unread`: bytes of the other weights that nothing has read.
        """
        self._check(size, _READS)
        needed = self._held + size
        if needed + unread >= self._next:
            self._next = 2 * (needed + unread)
            rest = f", {words(needed + unread)} once all are read" if unread else ""
            self._say(f"{self._where()} {_READS}, which takes {words(needed)}{rest}; {self._left()}; {ADVICE}")

    def loading(self, load: Callable[..., Any]) -> Callable[..., Any]:
        """`torch.load`, which reads a file as a whole unless it maps it. Raises TooLittleHostMemory."""

        @functools.wraps(load)
        def load_said(f: Any, *args: Any, **kwargs: Any) -> Any:
            if isinstance(f, (str, os.PathLike)) and not kwargs.get("mmap"):
                self._take(Path(f).stat().st_size if Path(f).is_file() else 0, _LOADS)
            return load(f, *args, **kwargs)

        return load_said

    def holds(self, storage: Any) -> None:
        """What was taken is in this storage, until that goes."""
        key, size = storage._cdata, storage.nbytes()
        if key not in self._references:
            self._held += size
            self._references[key] = weakref.ref(storage, lambda _: self._released(key, size))

    def _take(self, size: int, what: str) -> None:
        self._check(size, what)
        if self._held + size >= self._next:
            self._next = 2 * (self._held + size)
            held = words(self._held + size)
            self._say(f"{self._where()} {what}: large tensors then take {held}; {self._left()}")

    def _check(self, size: int, what: str) -> None:
        if size > self._unchecked:
            available = self._available()
            if available is not None and size > available:
                raise TooLittleHostMemory(
                    f"out of host memory: {self._where()} {what}, which takes {words(size)}, and {self._left()}"
                )
            self._unchecked = size + (0 if available is None else (available - size) // _CAUTION)
        self._unchecked -= size

    def _left(self) -> str:
        available = self._available()
        return "how much is available is not known here" if available is None else f"{words(available)} are available"

    def _released(self, key: int, size: int) -> None:
        del self._references[key]
        self._held -= size

    def _where(self) -> str:
        place = self._place()
        return "the program" if place is None else f"{Path(place.path).name}:{place.line}"


def _say(text: str) -> None:
    stream = sys.__stderr__
    if stream is not None:
        stream.write(f"note: {text}\n")
        stream.flush()


def lend(size: int) -> None:
    """Let the process have address space beyond `--memory-limit`, for what costs no memory; a negative size ends it.

    RLIMIT_DATA counts address space (getrlimit(2)).
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if soft != resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_DATA, (soft + size, hard))


def available_bytes() -> int | None:
    """What the system, the container and `--memory-limit` leave to this process; None where nothing says so (macOS)."""
    left = [_of_system(), _of_container(), _of_limit()]
    return min((size for size in left if size is not None), default=None)


def _of_system() -> int | None:
    """proc_meminfo(5)."""
    kilobytes = _number("/proc/meminfo", "MemAvailable:")
    return None if kilobytes is None else kilobytes * 1024


def _of_container() -> int | None:
    """Control groups, versions 2 and 1, as a container sees its own."""
    for folder, limit, used, cache in (
        ("/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
        ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        most, now = _number(f"{folder}/{limit}"), _number(f"{folder}/{used}")
        if most is not None and now is not None:
            return max(0, most - now + (_number(f"{folder}/memory.stat", cache) or 0))
    return None


def _of_limit() -> int | None:
    soft, _ = resource.getrlimit(resource.RLIMIT_DATA)
    kilobytes = _number("/proc/self/status", "VmData:")
    if soft == resource.RLIM_INFINITY or kilobytes is None:
        return None
    return max(0, soft - kilobytes * 1024)


def _number(path: str, name: str = "") -> int | None:
    """The number of a file, or the one after a name in it."""
    try:
        parts = Path(path).read_text(encoding="ascii").split()
        return int(parts[parts.index(name) + 1 if name else 0])
    except (OSError, ValueError, IndexError):
        return None
