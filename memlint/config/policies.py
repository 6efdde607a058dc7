"""From settings to what is wanted of one file."""

from __future__ import annotations

from pathlib import Path

from memlint.config.load import SettingsResolver
from memlint.config.selectors import RuleSelector
from memlint.config.settings import Settings
from memlint.linting.policy import Policy
from memlint.project.files import project_root


class PolicyMaker:
    """Makes the policy of each file from its settings."""

    def __init__(self, resolver: SettingsResolver) -> None:
        from memlint.linting.registry import all_rules

        self.resolver = resolver
        self.rules = all_rules()
        self.selector = RuleSelector(self.rules)

    def validate(self, settings: Settings) -> None:
        """Raise ConfigError for settings that name a rule that does not exist."""
        self.selector.validate(settings)

    def policy(self, file: Path) -> Policy:
        """What is wanted of a file (its absolute path)."""
        settings = self.resolver.for_folder(file.parent)
        codes = self.selector.codes_for(settings, file)
        target = self.resolver.target_for(file.parent)
        return Policy(codes, settings.confidence, target.version, str(project_root(file.parent)), file)
