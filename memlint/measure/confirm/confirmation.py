"""A confirmation as plain data: what was run, and what came of each finding."""

from __future__ import annotations

from dataclasses import dataclass, field

from memlint.linting.finding import Applicability, Finding
from memlint.measure.confirm.verdicts import SAVING, Grade, Price, Results, Verdict
from memlint.measure.recording import Assumption, DeviceInfo, Place

NOT_CHECKED = Results(Grade.NOT_CHECKED)


@dataclass(frozen=True)
class Priced:
    """A finding and its price. `after` is None where its fix was not run."""

    finding: Finding
    path: str
    """Absolute."""
    code_line: str
    """The text of the line where it starts, not indented."""
    verdict: Verdict
    reason: str = ""
    """Why it is so, where the verdict alone does not say it."""
    after: Price | None = None
    results: Results = NOT_CHECKED
    held_at_peak_bytes: int = 0
    """What was allocated on the finding's lines and is there at the peak of the original."""
    grows_bytes_per_step: int = 0
    """What each step leaves behind that was allocated on its lines, or is kept by them, in the original."""

    @property
    def applicability(self) -> Applicability | None:
        """Of the fix that was tried; None where there is none that can be applied."""
        fix = self.finding.fix
        return None if fix is None or fix.applicability is Applicability.DISPLAY_ONLY else fix.applicability

    @property
    def saves(self) -> bool:
        return self.verdict in SAVING


@dataclass(frozen=True)
class Remaining:
    """What still grows with all fixes, at a line of the original."""

    place: Place | None
    kept_by: str
    bytes_per_step: int


@dataclass(frozen=True)
class Together:
    """All fixes that were run, applied at once: savings do not add up."""

    fixes: int
    after: Price | None
    results: Results = NOT_CHECKED
    reason: str = ""
    """Why there is no price."""
    remaining: tuple[Remaining, ...] = ()


@dataclass(frozen=True)
class Confirmation:
    """Everything that one `memlint confirm` found out."""

    target: str
    folder: str
    """Absolute; where the target ran."""
    basis: str
    backend: str
    device: DeviceInfo
    torch_version: str
    steps: int
    warmup: int
    input_shapes: tuple[tuple[int, ...], ...]
    before: Price
    noise_bytes: int
    """How far the peaks of two runs of the original are apart."""
    deterministic: Results
    """How the second run of the original compares with the first."""
    files: dict[str, str]
    """Absolute path -> SHA-256 of the content, of each user's file that was loaded."""
    priced: tuple[Priced, ...]
    together: Together | None = None
    assumptions: tuple[Assumption, ...] = field(default=())
