"""What tells a finding from others when lines move: its rule, its file and the text of its line."""

from __future__ import annotations

import hashlib
from collections import Counter

from memlint.linting.finding import Finding
from memlint.reporting.report import Report


def fingerprints(report: Report) -> list[str]:
    """One for each finding, in order: stable while neither its path nor its code line changes, and unique.

    Equal findings on lines of the same text are numbered in the order of the file.
    """
    seen: Counter[str] = Counter()
    found = []
    for finding in report.findings:
        key = "\0".join(identity(finding, report.line(finding.path, finding.start.line, finding.cell)))
        seen[key] += 1
        found.append(hashlib.sha256(f"{key}\0{seen[key]}".encode(errors="surrogatepass")).hexdigest()[:32])
    return found


def identity(finding: Finding, line: str | None) -> tuple[str, str, str]:
    """Rule, path with forward slashes, and the code line without its indentation."""
    return finding.code, posix(finding.path), (line or "").strip()


def posix(path: str) -> str:
    """Reports of all systems write paths alike."""
    return path.replace("\\", "/")
