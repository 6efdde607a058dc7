"""What the configuration demands of one file, as plain data."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from memlint.linting.finding import Confidence

# The tool's own findings say that a file could not be checked; nobody may switch that off.
ALWAYS_ON = frozenset({"MEM001", "MEM002", "MEM004", "MEM005", "MEM006"})


class Policy(NamedTuple):
    """Which findings are wanted. `target_torch` is the lowest torch the code must run on; None: the current one.

    `project` is the folder of the project that the file belongs to, and `file` the file's place in it (both absolute);
    None: the file stands alone.
    """

    codes: frozenset[str]
    confidence: Confidence = Confidence.MEDIUM
    target_torch: tuple[int, int] | None = None
    project: str | None = None
    file: Path | str | None = None
    local_rules: tuple[str, ...] = ()
    """Files and folders with rules of the project, which the user trusts."""
