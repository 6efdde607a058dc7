"""From settings to what is wanted of one file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from memlint.config.errors import ConfigError
from memlint.config.load import SettingsResolver
from memlint.config.options import TorchVersion
from memlint.config.selectors import RuleSelector, SelectableRule
from memlint.config.settings import Settings
from memlint.linting.policy import Policy
from memlint.project.files import project_root

if TYPE_CHECKING:
    from memlint.linting.registry import RuleInfo


class PolicyMaker:
    """Makes the policy of each file from its settings."""

    def __init__(self, resolver: SettingsResolver, known: Sequence[SelectableRule] = ()) -> None:
        """`known` are all rules but local ones, where the caller knows them: to find them, all have to be imported."""
        self.resolver = resolver
        self._selectors: dict[tuple[str, ...], RuleSelector] = {(): RuleSelector(known)} if known else {}
        self._places: dict[str, _Place] = {}

    def rules(self, settings: Settings) -> tuple[RuleInfo, ...]:
        """The rules there are for these settings: with those of the project, where the user trusts it.

        Raises:
            ConfigError: rules of a plugin or of the project that cannot be used.
        """
        from memlint.linting.custom import BadRules
        from memlint.linting.registry import all_rules

        try:
            return all_rules(settings.local_rules)
        except BadRules as error:
            raise ConfigError(str(error)) from error

    def selector(self, settings: Settings) -> RuleSelector:
        """Raises ConfigError as `rules` does."""
        local = settings.local_rules
        if local not in self._selectors:
            self._selectors[local] = RuleSelector(self.rules(settings))
        return self._selectors[local]

    def validate(self, settings: Settings) -> None:
        """Raise ConfigError for settings that name a rule that does not exist."""
        try:
            self.selector(settings).validate(settings)
        except ConfigError as error:
            if not settings.refused_local_rules:
                raise
            raise ConfigError(f"{error} (the project's own rules are not loaded: `--allow-local-rules`)") from None

    def policy(self, file: Path | str) -> Policy:
        """What is wanted of a file (its absolute path)."""
        return self.settings_and_policy(file)[1]

    def settings_and_policy(self, file: Path | str) -> tuple[Settings, Policy]:
        """The settings that hold for a file (its absolute path), and what is wanted of it."""
        settings, target, project, codes = self._place(file)
        if codes is None:
            codes = self.selector(settings).codes_for(settings, file)
        return settings, Policy(codes, settings.confidence, target, project, file, settings.local_rules)

    def _place(self, file: Path | str) -> _Place:
        # By its text: paths compare and hash at length, and this is asked of every file that there is.
        name = str(file).rpartition(os.sep)[0]
        if name not in self._places:
            self._places[name] = self._place_of_folder(Path(name or os.sep), file)
        return self._places[name]

    def _place_of_folder(self, folder: Path, file: Path | str) -> _Place:
        """`file`: one in the folder."""
        settings, target = self.resolver.for_folder(folder), self.resolver.target_for(folder).version
        codes = None if settings.per_file_ignores else self.selector(settings).codes_for(settings, file)
        return _Place(settings, target, str(project_root(folder)), codes)


class _Place(NamedTuple):
    """What holds for the files of one folder."""

    settings: Settings
    target: TorchVersion | None
    project: str
    codes: frozenset[str] | None
    """Of the rules that are on; None where each file's name may decide."""
