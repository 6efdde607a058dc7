"""Which rules are on, and why: `select`, `ignore`, `extend-select` and `per-file-ignores` against the rules there are.

A selector is a code (MEM101), the beginning of codes (MEM1), a name (loss-accumulates-graph), a family
(graph-retention) or ALL. Within one place (a configuration file, the command line) the more specific selector
wins, and of equally specific ones `ignore` does. `select` starts afresh and forgets what places before it said;
without it, `ignore` and `extend-select` change what those decided.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from memlint.config.errors import ConfigError, nearest
from memlint.config.ignoring import compiled, matching_glob
from memlint.config.options import PerFileIgnore, Selection
from memlint.config.paths import relative_to
from memlint.config.settings import Settings
from memlint.linting.policy import ALWAYS_ON

ALL = "ALL"

_FAMILY_SPECIFICITY = len("MEM1")
_RULE_SPECIFICITY = len("MEM101")


class SelectableRule(Protocol):
    @property
    def code(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def family(self) -> str: ...
    @property
    def on_by_default(self) -> bool: ...


@dataclass(frozen=True)
class Decision:
    """Whether a rule is on, and who said so, in words."""

    on: bool
    reason: str


@dataclass(frozen=True)
class _Match:
    specificity: int
    codes: frozenset[str]


class RuleSelector:
    """Decides which of the given rules are on."""

    def __init__(self, rules: Iterable[SelectableRule]) -> None:
        self._rules = tuple(rules)
        self._codes = frozenset(rule.code for rule in self._rules)
        # By identity, because settings hold mappings; they are kept here so that no identity is used twice.
        self._folder_decisions: dict[int, tuple[Settings, dict[str, Decision]]] = {}
        self._folder_codes: dict[int, frozenset[str]] = {}

    def decide(self, settings: Settings) -> dict[str, Decision]:
        """For each code, whether these settings turn it on, before any `per-file-ignores`.

        Raises:
            ConfigError: a selector that names no rule.
        """
        decisions = {rule.code: _default(rule) for rule in self._rules}
        for selection in settings.selections:
            updates = self._updates(selection)
            if selection.select is not None:
                decisions = {code: Decision(False, f"not in `select` of {selection.origin}") for code in self._codes}
            decisions.update(updates)
        for code in ALWAYS_ON & self._codes:
            decisions[code] = Decision(True, "always on")
        return decisions

    def decide_for_file(
        self, decisions: Mapping[str, Decision], settings: Settings, path: Path | str
    ) -> dict[str, Decision]:
        """The decisions for one file (an absolute path): those of the folder, less its `per-file-ignores`.

        Raises:
            ConfigError: a selector that names no rule, or an invalid pattern.
        """
        changed = dict(decisions)
        for entry in settings.per_file_ignores:
            codes = self._ignored_by(entry)
            if not _matches(entry, settings.root, path):
                continue
            reason = f'per-file-ignores of "{entry.glob}" in {entry.origin}'
            changed.update({code: Decision(False, reason) for code in codes if changed[code].on})
        return changed

    def validate(self, settings: Settings) -> None:
        """Raise ConfigError where a selector of these settings names no rule."""
        if id(settings) in self._folder_decisions:
            return
        for entry in settings.per_file_ignores:
            self._ignored_by(entry)
        decisions = self.decide(settings)
        self._folder_decisions[id(settings)] = (settings, decisions)
        self._folder_codes[id(settings)] = _codes_on(decisions)

    def codes_for(self, settings: Settings, path: Path | str) -> frozenset[str]:
        """The codes that are on for one file (an absolute path).

        Raises:
            ConfigError: a selector that names no rule, or an invalid pattern.
        """
        self.validate(settings)
        _, decisions = self._folder_decisions[id(settings)]
        if not settings.per_file_ignores:
            return self._folder_codes[id(settings)]
        return _codes_on(self.decide_for_file(decisions, settings, path))

    def _ignored_by(self, entry: PerFileIgnore) -> frozenset[str]:
        option = f'per-file-ignores."{entry.glob}"'
        matches = [self._match(selector, entry.origin, option, turns_off=True) for selector in entry.selectors]
        return frozenset().union(*(match.codes for match in matches)) - ALWAYS_ON

    def _updates(self, selection: Selection) -> dict[str, Decision]:
        """What one place says about each code it mentions."""
        said: list[tuple[int, bool, frozenset[str], str]] = []
        for option, selectors in _options(selection):
            turns_off = option == "ignore"
            for selector in selectors:
                match = self._match(selector, selection.origin, option, turns_off=turns_off)
                said.append((match.specificity, turns_off, match.codes, f'{option} "{selector}" of {selection.origin}'))
        said.sort(key=lambda entry: entry[:2])
        return {code: Decision(not off, reason) for _, off, codes, reason in said for code in sorted(codes)}

    def _match(self, selector: str, origin: str, option: str, *, turns_off: bool) -> _Match:
        match = self._find(selector)
        if match is None:
            hint = nearest(selector, self._known_selectors())
            raise ConfigError(f'{origin}: "{selector}" in `{option}` names no rule{hint}')
        if turns_off and match.specificity == _RULE_SPECIFICITY and match.codes <= ALWAYS_ON:
            raise ConfigError(
                f'{origin}: "{selector}" in `{option}` cannot be turned off: it says that a file could not be '
                "checked. To leave the file out, name it in `exclude`"
            )
        return match

    def _find(self, selector: str) -> _Match | None:
        if selector == ALL:
            return _Match(0, self._codes)
        named = frozenset(rule.code for rule in self._rules if rule.name == selector)
        if named:
            return _Match(_RULE_SPECIFICITY, named)
        family = frozenset(rule.code for rule in self._rules if _family(rule) == selector)
        if family:
            return _Match(_FAMILY_SPECIFICITY, family)
        begun = frozenset(code for code in self._codes if code.startswith(selector) and selector.startswith("MEM"))
        return _Match(len(selector), begun) if begun else None

    def _known_selectors(self) -> list[str]:
        names = [rule.name for rule in self._rules]
        families = sorted({_family(rule) for rule in self._rules})
        return [*sorted(self._codes), *names, *families, ALL]


def _codes_on(decisions: Mapping[str, Decision]) -> frozenset[str]:
    return frozenset(code for code, decision in decisions.items() if decision.on)


def _default(rule: SelectableRule) -> Decision:
    return Decision(rule.on_by_default, "on by default" if rule.on_by_default else "off by default")


def _options(selection: Selection) -> Iterator[tuple[str, Sequence[str]]]:
    yield "select", selection.select or ()
    yield "extend-select", selection.extend_select
    yield "ignore", selection.ignore


def _family(rule: SelectableRule) -> str:
    return rule.family.replace("_", "-")


def _matches(entry: PerFileIgnore, root: Path, path: Path | str) -> bool:
    relative = relative_to(path, root)
    if relative is None:
        return False
    return matching_glob(compiled((entry.glob,), entry.origin), relative) is not None
