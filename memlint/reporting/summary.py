"""The last line of a report for people."""

from __future__ import annotations

from memlint.linting.finding import Applicability
from memlint.reporting.report import Report


def counted(number: int, noun: str) -> str:
    """`1 file`, `2 files`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def found(report: Report, checked_files: int) -> str:
    """What a check found, and how much of it memlint can fix."""
    if not report.findings:
        return f"No findings in {counted(checked_files, 'file')}."
    files = len({finding.path for finding in report.findings})
    return f"Found {counted(len(report.findings), 'finding')} in {counted(files, 'file')}{fixable(report)}."


def fixable(report: Report) -> str:
    """` (3 fixable with ...)`, or nothing where no finding has a fix that can be applied."""
    applicabilities = [finding.fix.applicability for finding in report.findings if finding.fix]
    safe = applicabilities.count(Applicability.SAFE)
    unsafe = applicabilities.count(Applicability.UNSAFE)
    if safe and unsafe:
        return f" ({safe} fixable with `memlint fix --apply`, {unsafe} more with `--unsafe-fixes`)"
    if safe:
        return f" ({safe} fixable with `memlint fix --apply`)"
    if unsafe:
        return f" ({unsafe} fixable with `memlint fix --apply --unsafe-fixes`)"
    return ""


def fixed(applied: dict[str, int], files: int, *, written: bool) -> str:
    """What a fix did, or would do. `applied` counts fixes by code."""
    total = sum(applied.values())
    if not total:
        return "Nothing to fix."
    codes = ", ".join(f"{code}: {count}" for code, count in sorted(applied.items()))
    verb = "Fixed" if written else "Would fix"
    return f"{verb} {counted(total, 'finding')} in {counted(files, 'file')} ({codes})."


def remaining(report: Report) -> str:
    """What is left after a fix."""
    if not report.findings:
        return "No findings remain."
    many = len(report.findings) > 1
    return f"{counted(len(report.findings), 'finding')} remain{'' if many else 's'}{fixable(report)}."
