"""Which lines have changed since a revision of git."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from memlint.linting.finding import FileResult, Finding

_HUNK = re.compile(r"@@ -\d+(?:,(\d+))? \+(\d+)(?:,(\d+))? @@")


class NoChanges(RuntimeError):  # noqa: N818 - says what happened
    """Git is not there, the folder is no checkout, or the revision is unknown."""


@dataclass
class Changes:
    """Of each file of the checkout (absolute, links resolved) the changed lines; None: all of them."""

    lines: dict[Path, set[int] | None] = field(default_factory=dict)

    def touch(self, path: Path, first: int, last: int) -> bool:
        """Whether one of the lines of the file has changed."""
        changed = self.lines.get(path.resolve(), set())
        return changed is None or not changed.isdisjoint(range(first, last + 1))

    def only_touched(self, result: FileResult, path: Path) -> FileResult:
        """The result with the findings on changed lines."""
        return replace(result, findings=tuple(one for one in result.findings if self._touches(one, result, path)))

    def _touches(self, finding: Finding, result: FileResult, path: Path) -> bool:
        if result.cells is None:
            return self.touch(path, finding.start.line, finding.end.line)
        return self.touch(path, result.cells.file_line(finding.start), result.cells.file_line(finding.end))


def changes_since(revision: str, folder: Path) -> Changes:
    """What has changed in the working tree since the history left `revision`; files that git does not know are new.

    Raises:
        NoChanges: git cannot say.
    """
    root = Path(_git(folder, "rev-parse", "--show-toplevel").rstrip("\n"))
    commit = _git(folder, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}").strip()
    base = _merge_base(folder, commit)
    diff = _git(
        root, "-c", "core.quotePath=false", "diff", "--unified=0", "--no-color", "--no-ext-diff", "--find-renames",
        "--src-prefix=a/", "--dst-prefix=b/", base,
    )  # fmt: skip
    changes = Changes()
    for path, lines in _changed(diff.splitlines()):
        changes.lines[(root / path).resolve()] = lines
    for path in filter(None, _git(root, "ls-files", "--others", "--exclude-standard", "-z").split("\0")):
        changes.lines[(root / path).resolve()] = None
    return changes


def _merge_base(folder: Path, commit: str) -> str:
    """Where the history left the revision: what others did on their branch since is no change of ours."""
    try:
        return _git(folder, "merge-base", commit, "HEAD").strip()
    except NoChanges:
        return commit  # of unrelated histories


def _changed(diff: Sequence[str]) -> Iterator[tuple[str, set[int]]]:
    path, lines = "", set[int]()
    rows = iter(diff)
    for row in rows:
        if row.startswith("+++ "):
            path, lines = _path(row[4:]), set()
            yield path, lines  # filled while the hunks of the file are read
        elif match := _HUNK.match(row):
            removed, first, added = match.groups(default="1")
            lines.update(range(int(first), int(first) + int(added)))
            for _ in range(int(removed) + int(added)):
                next(rows, None)  # a line of the text may look like a header


def _path(written: str) -> str:
    name = written.rstrip("\t")
    if name.startswith('"'):  # quotes and control characters in a name are escaped as in C
        name = name[1:-1].encode("latin-1", "backslashreplace").decode("unicode_escape")
    return name.removeprefix("b/")


def _git(folder: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, check=True)
    except FileNotFoundError:
        raise NoChanges("git was not found") from None
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip().removeprefix("fatal: ")
        raise NoChanges(said or f"`git {arguments[0]}` gave no answer") from None
    return done.stdout.decode(errors="surrogateescape")
