"""A baseline: the findings that a project knows of and has not mended yet. They are not reported.

An entry is a rule, a file and the text of a code line, never a line number. The baseline shrinks by itself when a
finding is gone, and grows only when it is written anew (`memlint baseline`).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from memlint.config.errors import ConfigError
from memlint.config.paths import relative_to, shown
from memlint.linting.finding import CONFIDENCE_RANK, Confidence, FileResult, Finding
from memlint.linting.policy import ALWAYS_ON
from memlint.source.file import write_atomically

DEFAULT_NAME = "memlint-baseline.json"
_VERSION = 1


class Entry(NamedTuple):
    """`path` is relative to the baseline's folder, with forward slashes; `line` is the code line, not indented."""

    path: str
    code: str
    line: str


@dataclass(frozen=True)
class Checked:
    """A file that was checked: where it is, with which rules and down to which confidence, and what came of it."""

    path: Path
    codes: frozenset[str]
    confidence: Confidence
    result: FileResult


@dataclass(frozen=True)
class Baseline:
    """`confidence` is the lowest that was shown when the entries were recorded."""

    path: Path
    confidence: Confidence
    entries: Counter[Entry] = field(default_factory=Counter)

    @classmethod
    def read(cls, path: Path) -> Baseline:
        """Raises ConfigError: it cannot be read, or is no baseline of this version."""
        try:
            content = json.loads(path.read_bytes())
            if content["version"] != _VERSION:
                raise ConfigError(
                    f"{shown(path)}: a baseline of version {content['version']}, which this memlint cannot read"
                )
            entries = Counter({Entry(i["path"], i["code"], i["line"]): int(i["count"]) for i in content["findings"]})
            return cls(path, Confidence(content["confidence"]), entries)
        except OSError as error:
            hint = "; `memlint baseline` writes one" if isinstance(error, FileNotFoundError) else ""
            raise ConfigError(f"{shown(path)}: cannot read the baseline: {error.strerror or error}{hint}") from None
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{shown(path)}: not a baseline of memlint ({type(error).__name__}: {error})") from None

    def write(self) -> None:
        """Raises OSError."""
        findings = [{**entry._asdict(), "count": count} for entry, count in sorted(self.entries.items()) if count > 0]
        content = {"version": _VERSION, "confidence": self.confidence.value, "findings": findings}
        write_atomically(
            self.path, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode(errors="backslashreplace")
        )

    def without_known(self, checked: Sequence[Checked]) -> tuple[list[FileResult], Baseline]:
        """The results without the findings that are known, and the baseline without the entries that are gone."""
        known = Counter(self.entries)
        results = [replace(file.result, findings=tuple(self._new(file, known))) for file in checked]
        # What `known` still counts was not found.
        left = self.entries - Counter({entry: count for entry, count in known.items() if self._is_gone(entry, checked)})
        return results, replace(self, entries=left)

    def recording(self, checked: Sequence[Checked]) -> Baseline:
        """The baseline with exactly the findings of these files, and what it knew of others."""
        paths = {self._relative(file.path) for file in checked}
        entries = Counter({entry: count for entry, count in self.entries.items() if entry.path not in paths})
        for file in checked:
            entries.update(self._entry(finding, file) for finding in file.result.findings if _is_recordable(finding))
        return replace(self, entries=entries)

    def _new(self, file: Checked, known: Counter[Entry]) -> Iterable[Finding]:
        for finding in file.result.findings:
            entry = self._entry(finding, file)
            if _is_recordable(finding) and known[entry] > 0:
                known[entry] -= 1
            else:
                yield finding

    def _is_gone(self, entry: Entry, checked: Sequence[Checked]) -> bool:
        """Whether what was not found is not there, rather than not looked for."""
        path = self.path.parent / entry.path
        if not path.exists():
            return True
        return any(
            file.path == path
            and entry.code in file.codes
            and CONFIDENCE_RANK[file.confidence] <= CONFIDENCE_RANK[self.confidence]
            and file.result.trouble is None
            and not any(finding.code in ALWAYS_ON for finding in file.result.findings)
            for file in checked
        )

    def _entry(self, finding: Finding, file: Checked) -> Entry:
        line = file.result.lines.get(finding.start.line, "")
        return Entry(self._relative(file.path), finding.code, line.strip())

    def _relative(self, path: Path) -> str:
        return relative_to(path, self.path.parent) or path.as_posix()


def _is_recordable(finding: Finding) -> bool:
    """A file that could not be checked must not look as if it were clean."""
    return finding.code not in ALWAYS_ON
