"""Path patterns, as git reads them: `.gitignore` files and memlint's own `exclude`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from memlint.config.errors import ConfigError
from memlint.config.options import Patterns
from memlint.config.paths import relative_to
from memlint.project.files import holds, holds_file

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec


class PathPatterns:
    """Patterns, ready to match."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = tuple(lines)
        # Nearly all files match nothing, and pathspec takes longer to be imported than to match a thousand files.
        names = [_LAST_NAME.fullmatch(line) for line in self._lines]
        self._names = {found["name"]: index for index, found in enumerate(names) if found and not found["any"]}
        self._ends = {found["name"]: index for index, found in enumerate(names) if found and found["any"]}
        self._any_end = tuple(self._ends)
        self._others = tuple(
            line for line, found in zip(self._lines, names, strict=True) if found is None and _says_something(line)
        )
        self._are_plain = not self._others and not any(found and (found["more"] or found["folder"]) for found in names)

    def decide(self, relative: str) -> tuple[bool | None, int | None]:
        """What the last pattern that matches says (True: take the path, False: do not), and its index."""
        index = self._last_named(relative)
        if self._are_plain:
            return (None, None) if index is None else (True, index)
        if index is None and (self._any_other is None or self._any_other.search(relative) is None):
            return None, None
        result = self._spec.check_file(relative)
        return result.include, result.index

    def passes(self, name: str) -> bool:
        """Whether clearly nothing is said of a file of this name in a folder of which nothing is said."""
        return not self._others and name not in self._names and not name.endswith(self._any_end)

    def _last_named(self, relative: str) -> int | None:
        """The last pattern with the name of the path, or of a folder above it, in its last place."""
        names = relative.split("/")
        found = [self._names[name] for name in names if name in self._names]
        found += (index for end, index in self._ends.items() for name in names if name.endswith(end))
        return max(found, default=None)

    @cached_property
    def _spec(self) -> GitIgnoreSpec:
        return _spec_of(self._lines)

    @cached_property
    def _any_other(self) -> re.Pattern[str] | None:
        """One pattern for all those without a plain last name: to try them one by one takes longer."""
        if not self._others:
            return None
        parts = [pattern.regex.pattern for pattern in _spec_of(self._others).patterns if pattern.regex is not None]
        return re.compile("|".join(re.sub(_GROUP_NAME, "(?:", part) for part in parts)) if parts else None


def _says_something(line: str) -> bool:
    return bool(line.strip()) and not line.startswith("#")


def _spec_of(lines: Iterable[str]) -> GitIgnoreSpec:
    from pathspec import GitIgnoreSpec

    return GitIgnoreSpec.from_lines(lines)


# `build` and `*.pyc`, which match by their name alone; `/docs/_build/` and `!keep`, which match no path without it.
_LAST_NAME = re.compile(r"(?P<more>!?/?(?:[^*?\[\]\\/!#\s]+/)*)(?P<any>\*?)(?P<name>[^*?\[\]\\/!#\s]+)(?P<folder>/?)")
_GROUP_NAME = r"\(\?P<\w+>"


@lru_cache(maxsize=256)
def compiled(globs: tuple[str, ...], origin: str) -> PathPatterns:
    """The patterns, ready to match.

    Raises:
        ConfigError: one is no pattern.
    """
    return PathPatterns(_checked(glob, origin) for glob in globs)


def _checked(glob: str, origin: str) -> str:
    glob = glob.removeprefix("./")
    try:
        _require_pattern(glob)
    except ValueError as error:
        raise ConfigError(f'{origin}: "{glob}" is not a path pattern: {error}') from None
    return glob


def matching_glob(patterns: PathPatterns, relative: str) -> int | None:
    """The index of the pattern that covers the path; None where none does. A folder's path ends in a slash."""
    include, index = patterns.decide(relative)
    return index if include else None


@dataclass(frozen=True)
class Matched:
    """A pattern that covers a path, and the place that has it."""

    glob: str
    origin: str


class Excluder:
    """Answers whether patterns of `exclude` and `extend-exclude` cover a path."""

    def __init__(self, groups: Sequence[Patterns]) -> None:
        self._groups = tuple(groups)

    @cached_property
    def _compiled(self) -> tuple[tuple[Patterns, str, PathPatterns], ...]:
        return tuple((group, str(group.base), compiled(group.globs, group.origin)) for group in self._groups)

    def match(self, path: Path | str, *, folder: bool = False) -> Matched | None:
        """The pattern that covers the absolute path, or a folder above it."""
        for group, base, patterns in self._compiled:
            relative = relative_to(path, base)
            if relative is None:
                # Outside the project the place of a file means nothing; its own name still does.
                relative = Path(path).name
            if relative == ".":
                continue
            index = matching_glob(patterns, relative + "/" * folder)
            if index is not None:
                return Matched(group.globs[index], group.origin)
        return None

    def passes(self, name: str) -> bool:
        """Whether clearly no pattern covers a file of this name in a folder that none covers."""
        return all(patterns.passes(name) for _, _, patterns in self._compiled)

    def without(self, path: Path) -> Excluder:
        """Less the patterns that cover the folder `path` itself: who names a folder wants it looked at."""
        return Excluder([_uncovering(patterns, path) for patterns in self._groups])


def _uncovering(patterns: Patterns, path: Path) -> Patterns:
    kept = tuple(
        glob
        for glob in patterns.globs
        if Excluder([Patterns(patterns.base, (glob,), patterns.origin)]).match(path, folder=True) is None
    )
    return Patterns(patterns.base, kept, patterns.origin)


@dataclass(frozen=True)
class GitIgnores:
    """The `.gitignore` files that hold in one folder, outermost first."""

    specs: tuple[tuple[Path, PathPatterns], ...] = ()

    def ignores(self, path: Path | str, *, folder: bool = False) -> bool:
        """Whether git would ignore the path, its parent folders not being ignored."""
        for base, patterns in reversed(self.specs):
            relative = relative_to(path, base)
            if relative in {None, "."}:
                continue
            decision, _ = patterns.decide(f"{relative}{'/' * folder}")
            if decision is not None:
                return decision
        return False

    def passes(self, name: str) -> bool:
        """Whether clearly nothing is said of a file of this name in a folder that is not ignored."""
        return all(patterns.passes(name) for _, patterns in self.specs)

    def inside(self, folder: Path) -> GitIgnores:
        """With the folder's own `.gitignore`, if it has one."""
        return self._with(folder, folder / ".gitignore") if holds_file(folder, ".gitignore") else self

    def _with(self, base: Path, file: Path) -> GitIgnores:
        return GitIgnores((*self.specs, (base, _read(file))))

    @classmethod
    def above(cls, folder: Path) -> GitIgnores:
        """What the folders above say about the inside of this one, from its repository's root down.

        Where they ignore the folder itself, nothing: who names an ignored folder wants it looked at.
        """
        root = next((place for place in (folder, *folder.parents) if holds(place, ".git")), None)
        if root is None:
            return cls()
        ignores = cls()
        information = root / ".git" / "info"
        if holds_file(information, "exclude"):
            ignores = ignores._with(root, information / "exclude")
        if root == folder:
            return ignores
        for place in _down(root, folder):
            if place != root and ignores.ignores(place, folder=True):
                return cls()
            if place != folder:
                ignores = ignores.inside(place)
        return ignores


def _down(top: Path, bottom: Path) -> Iterator[Path]:
    """The folders from `top` to `bottom`, both included."""
    yield top
    place = top
    for part in bottom.relative_to(top).parts:
        place /= part
        yield place


def _read(file: Path) -> PathPatterns:
    try:
        lines = file.read_text("utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return PathPatterns([])
    return PathPatterns(line for line in lines if _is_pattern(line))


def _is_pattern(line: str) -> bool:
    """git passes over lines that are no pattern; pathspec raises."""
    try:
        _require_pattern(line)
    except ValueError:
        return False
    return True


def _require_pattern(line: str) -> None:
    """Raises ValueError for what pathspec does not take."""
    if _says_something(line) and _LAST_NAME.fullmatch(line) is None:
        _spec_of([line])
