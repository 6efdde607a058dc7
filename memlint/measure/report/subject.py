"""What every report is made from: a recording, what the analysis says of it, and the source that ran."""

from __future__ import annotations

import re
import tokenize
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from memlint.measure import allocator, analysis
from memlint.measure.job import BackendName
from memlint.measure.recording import AllocatorPeaks, Category, Place, Recording, Storage

BASIS: Mapping[BackendName, str] = {
    "cuda": "measured on cuda",
    "cpu": "measured on cpu",
    "fake": "predicted",
}
"""How a number was obtained: stands beside every number that is printed."""

# What Python takes for the end of a line: form feeds, for example, end none.
_NEWLINE = re.compile(r"\r\n|\r|\n")


@dataclass(frozen=True)
class Subject:
    """One run of a target. `overlay` is what ran in place of files, by absolute path (`Job.overlay`)."""

    target: str
    recording: Recording
    folder: Path
    """Paths inside are shown relative to it."""
    overlay: Mapping[str, str] = field(default_factory=dict)

    @property
    def basis(self) -> str:
        return BASIS[self.recording.backend]

    @property
    def card_bytes(self) -> int | None:
        """The memory of the card that was there or was pretended; None on the CPU, which stands for any."""
        return None if self.recording.backend == "cpu" else self.recording.device.total_bytes

    @cached_property
    def tracked_peak(self) -> analysis.Peak:
        """The peak of what the tracker saw: the moment that is broken down."""
        return analysis.peak(self.recording)

    @cached_property
    def at_peak(self) -> list[Storage]:
        return analysis.alive(self.recording, self.tracked_peak.event)

    @cached_property
    def lines(self) -> tuple[analysis.LineShare, ...]:
        return analysis.by_line(self.at_peak)

    @cached_property
    def categories(self) -> dict[Category, int]:
        return analysis.by_category(self.at_peak)

    @cached_property
    def held_over(self) -> tuple[analysis.LineShare, ...]:
        return analysis.by_line(analysis.held_over(self.recording, self.tracked_peak))

    @cached_property
    def growth(self) -> analysis.Growth:
        """That of the kind of steps that grows most."""
        return analysis.growth(self.recording)

    @cached_property
    def growths(self) -> tuple[analysis.Growth, ...]:
        """That of each kind of steps of which something is known; where nothing is, of that which ran."""
        found = analysis.growths(self.recording)
        return tuple(one for one in found if one.bytes_per_step is not None or one.irregular_bytes) or found[:1]

    @property
    def growing(self) -> Iterator[tuple[analysis.Growth, analysis.GrowthLine]]:
        """All that grows, each with the steps by which it does."""
        return ((growth, line) for growth in self.growths for line in growth.lines)

    @cached_property
    def host_growth(self) -> analysis.HostGrowth:
        return analysis.host_growth(self.recording)

    @cached_property
    def counted(self) -> AllocatorPeaks | None:
        """The highest that CUDA's own allocator counted, in any step or when it ran out; None where there was none."""
        peaks = [step.allocator for step in self.recording.steps if step.allocator is not None]
        end = self.recording.out_of_memory
        if end is not None:
            peaks.append(end.peaks)
        return AllocatorPeaks.highest(peaks) if peaks else None

    @cached_property
    def replayed(self) -> allocator.Replay | None:
        """The allocator's replay, where it says something: the CPU has no such allocator, CUDA has its own counts."""
        if self.recording.backend != "fake":
            return None
        return allocator.replay(self.recording, allocator.Settings.parse(self.recording.allocator_settings))

    @property
    def peak_allocated_bytes(self) -> int:
        return self.counted.allocated if self.counted else self.tracked_peak.bytes

    @cached_property
    def workspace_bytes(self) -> int:
        """What cuBLAS is predicted to take beside the peak; 0 where the peak was measured."""
        return analysis.workspace_bytes(self.recording)

    @property
    def peak_reserved_bytes(self) -> int | None:
        if self.counted:
            return self.counted.reserved
        return self.replayed.reserved_peak if self.replayed else None

    @property
    def is_upper_bound(self) -> bool:
        """Whether the peak is the most that it can be: some sizes depend on values, and were taken at their largest."""
        return any(assumption.effect == "upper bound" for assumption in self.recording.assumptions)

    @property
    def is_inexact(self) -> bool:
        """Whether something is known to have run in another way than on a card."""
        return any(assumption.effect == "inexact" for assumption in self.recording.assumptions)

    @property
    def untracked_bytes(self) -> int:
        """Of the allocated peak, what no storage accounts for: kernels' workspaces, and blocks that were not split."""
        return max(0, self.peak_allocated_bytes - self.tracked_peak.bytes)

    def shown(self, path: str) -> str:
        """A path as reports print it: relative to the folder where it lies inside, with `/`."""
        try:
            return Path(path).relative_to(self.folder).as_posix()
        except ValueError:
            return path

    def where(self, place: Place | None) -> str:
        return "(no line of yours)" if place is None else f"{self.shown(place.path)}:{place.line}"

    def source(self, path: str) -> list[str]:
        """The lines that ran; none where they cannot be read."""
        if path not in self._sources:
            self._sources[path] = _NEWLINE.split(self._read(path))
        return self._sources[path]

    def source_line(self, place: Place | None) -> str | None:
        """The text of a place; None where it cannot be read."""
        if place is None:
            return None
        lines = self.source(place.path)
        return lines[place.line - 1] if 0 < place.line <= len(lines) else None

    @cached_property
    def _sources(self) -> dict[str, list[str]]:
        return {}

    def _read(self, path: str) -> str:
        if path in self.overlay:
            return self.overlay[path]
        try:
            with tokenize.open(path) as file:
                return file.read()
        except (OSError, SyntaxError, UnicodeDecodeError):
            return ""
