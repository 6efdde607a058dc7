"""A saved confirmation, read again: which finding of today is which of then?"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from memlint.linting.finding import FileResult, Finding, Measured
from memlint.measure.confirm.as_json import SCHEMA_VERSION
from memlint.measure.confirm.verdicts import SAVING, Verdict


class NotAConfirmation(Exception):  # noqa: N818 - says what happened
    """The file holds no confirmation that this version reads. The text says why."""


@dataclass(frozen=True)
class SavedFinding:
    """`place` is the file's absolute path, `digest` the SHA-256 of its content when it was measured."""

    place: str
    digest: str
    code: str
    line: int
    code_line: str
    verdict: Verdict
    measured: Measured


@dataclass(frozen=True)
class SavedConfirmation:
    """What `memlint confirm --output` has written."""

    file: Path
    files: Mapping[str, str]
    """Absolute path -> SHA-256, of every file that the target ran."""
    findings: tuple[SavedFinding, ...]

    @classmethod
    def read(cls, file: Path) -> SavedConfirmation:
        """Raises OSError and NotAConfirmation."""
        try:
            content = json.loads(file.read_bytes())
            version = content["schema_version"]
            if version != SCHEMA_VERSION:
                raise NotAConfirmation(f"it has version {version} of the format; this memlint reads {SCHEMA_VERSION}")
            return cls._of(file, content)
        except (ValueError, KeyError, TypeError) as error:
            raise NotAConfirmation("it is no output of `memlint confirm --output`") from error

    @classmethod
    def _of(cls, file: Path, content: Mapping[str, Any]) -> SavedConfirmation:
        folder = Path(os.path.abspath(file)).parent  # noqa: PTH100
        files = {_place(folder, one["path"]): str(one["sha256"]) for one in content["files"]}
        found = tuple(_finding(one, content, folder, files) for one in content["findings"])
        return cls(file, files, found)

    def changed(self) -> list[Path]:
        """The files that the target ran and that have another content by now. Those that are gone are no business of
        whoever checks others."""
        return [
            Path(path)
            for path, digest in self.files.items()
            if Path(path).is_file() and _digest(Path(path).read_bytes()) != digest
        ]

    def priced(self, result: FileResult, path: Path, content: bytes) -> FileResult:
        """The findings of one file with what was measured of them.

        In a file that has changed since, a finding is one of then where rule and text of the line are the same, in the
        order of the file; and it says that the file has changed.
        """
        saved = self._of_file(path, content)
        if not saved:
            return result
        if saved[0].digest == _digest(content):
            by_line = {(one.code, one.line): one.measured for one in saved}
            found = [replace(one, measured=by_line.get((one.code, one.start.line))) for one in result.findings]
        else:
            found = list(_of_then(result.findings, saved, content))
        return replace(result, findings=tuple(found))

    def confirmed(self, path: Path, content: bytes) -> frozenset[tuple[str, int]]:
        """The code and line of each finding whose fix was seen to save memory and to leave the results as they were.

        None in a file that has changed since: what was proved was proved of another program.
        """
        digest = _digest(content)
        return frozenset(
            (saved.code, saved.line)
            for saved in self._of_file(path, content)
            if saved.digest == digest and saved.verdict in SAVING
        )

    def _of_file(self, path: Path, content: bytes) -> list[SavedFinding]:
        """By content, wherever the file lies; else by its place."""
        digest = _digest(content)
        same = [saved for saved in self.findings if saved.digest == digest]
        return same or [saved for saved in self.findings if saved.place == os.path.realpath(path)]


def _of_then(findings: Iterable[Finding], saved: Sequence[SavedFinding], content: bytes) -> Iterator[Finding]:
    lines = content.decode("utf-8", "replace").splitlines()
    left: dict[tuple[str, str], list[SavedFinding]] = {}
    for one in sorted(saved, key=lambda one: one.line, reverse=True):
        left.setdefault((one.code, one.code_line), []).append(one)
    for finding in findings:
        number = finding.start.line
        alike = left.get((finding.code, lines[number - 1].strip() if number <= len(lines) else ""))
        yield replace(finding, measured=replace(alike.pop().measured, changed_since=True)) if alike else finding


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _place(folder: Path, relative: str) -> str:
    return os.path.realpath(folder / relative)


def _finding(
    one: Mapping[str, Any], content: Mapping[str, Any], folder: Path, files: Mapping[str, str]
) -> SavedFinding:
    place = _place(folder, one["path"])
    before, after = content["baseline"], one["after"]
    measured = Measured(
        verdict=one["verdict"],
        summary=one["summary"],
        basis=content["basis"],
        steps=content["steps"],
        peak_before_bytes=before["peak_allocated_bytes"],
        peak_after_bytes=None if after is None else after["peak_allocated_bytes"],
        growth_before_bytes_per_step=before["growth_bytes_per_step"],
        growth_after_bytes_per_step=None if after is None else after["growth_bytes_per_step"],
        held_at_peak_bytes=one["held_at_peak_bytes"],
        results=one["results"]["grade"],
    )
    return SavedFinding(
        place,
        files[place],
        one["code"],
        one["line"],
        one["code_line"],
        Verdict(one["verdict"]),
        measured,
    )
