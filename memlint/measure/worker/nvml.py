"""What NVML says of a card: how much of it is in use, and by whom."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

from memlint.measure.recording import ProcessMemory


class Card:
    """One card. NVML may refuse any answer (a driver's mode, a container, rights): None is what it would not say."""

    def __init__(self, nvml: Any, handle: Any) -> None:
        self._nvml = nvml
        self._handle = handle

    @classmethod
    def open(cls, uuid: str, nvml: Any) -> Card | None:
        """The card, or the part of one, of which CUDA says this identifier; None where NVML does not know it."""
        try:
            nvml.nvmlInit()
        except nvml.NVMLError:
            return None
        for kind in ("GPU", "MIG"):
            try:
                return cls(nvml, nvml.nvmlDeviceGetHandleByUUID(f"{kind}-{uuid}"))
            except nvml.NVMLError:
                continue
        return None

    def used(self) -> int | None:
        """Bytes of the card that are in use, by whomever."""
        try:
            return int(self._nvml.nvmlDeviceGetMemoryInfo(self._handle).used)
        except self._nvml.NVMLError:
            return None

    def processes(self) -> dict[int, int | None]:
        """The bytes of each process on the card, by its number: the host's, even in a container."""
        found: dict[int, int | None] = {}
        for ask in (self._nvml.nvmlDeviceGetComputeRunningProcesses, self._nvml.nvmlDeviceGetGraphicsRunningProcesses):
            try:
                found |= {int(process.pid): process.usedGpuMemory for process in ask(self._handle)}
            except self._nvml.NVMLError:
                continue
        return found

    def name_of(self, pid: int) -> str:
        try:
            name = self._nvml.nvmlSystemGetProcessName(pid)
        except self._nvml.NVMLError:
            return "unknown"
        return name.decode(errors="replace") if isinstance(name, bytes) else str(name)


class ProcessWatch:
    """Follows what this process takes of a card, and who else is on it. To be made before the CUDA context is."""

    def __init__(self, card: Card) -> None:
        self._card = card
        self._used_before = card.used()
        self._before = card.processes()
        self._others: dict[int, int | None] = {}
        self._pid: int | None = None
        self._memory = ProcessMemory(None, None)

    def context_created(self) -> None:
        """To be called when the context is there, and nothing was allocated yet."""
        after = self._card.processes()
        self._pid = _own_number(self._before, after)
        context = self._taken(after)
        # Where the context was there before, the whole card's use did not rise: that says nothing of its size.
        self._memory = ProcessMemory(context, context or None, by_difference=self._pid is None)

    def look(self) -> None:
        """Note how things stand now, where it is more than before."""
        processes = self._card.processes()
        taken = self._taken(processes)
        if taken is not None:
            self._memory = replace(self._memory, process_bytes=max(taken, self._memory.process_bytes or 0))
        for pid, size in processes.items():
            # Without our own number, only those that were there before are known to be others.
            if pid != self._pid and (self._pid is not None or pid in self._before):
                known = self._others.get(pid)
                self._others[pid] = known if size is None else max(size, known or 0)

    def memory(self) -> ProcessMemory:
        """The most that was seen."""
        others = tuple((pid, self._card.name_of(pid), size) for pid, size in sorted(self._others.items()))
        return replace(self._memory, other_processes=others)

    def _taken(self, processes: dict[int, int | None]) -> int | None:
        if self._pid is not None:
            return processes.get(self._pid)
        used = self._card.used()
        return None if used is None or self._used_before is None else max(used - self._used_before, 0)


def _own_number(before: dict[int, int | None], after: dict[int, int | None]) -> int | None:
    """The number under which NVML knows this process: in a container not the one that the process itself sees.

    It is the one that appeared with the context; where several did, only our own number tells which.
    """
    appeared = after.keys() - before.keys()
    if len(appeared) == 1:
        return next(iter(appeared))
    own = os.getpid()
    return own if own in appeared or (not appeared and own in after) else None
