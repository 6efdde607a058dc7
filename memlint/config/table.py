"""A table of a configuration file, read key by key, and checked for its types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

from memlint.config.errors import ConfigError, nearest

_Choice = TypeVar("_Choice", bound=Enum)


@dataclass(frozen=True)
class Table:
    """`name` is what a user would call it. Each reader gives None where the table does not have the key.

    Every method raises ConfigError for an unknown key or a value of the wrong type.
    """

    name: str
    values: Mapping[str, object]

    def require_known(self, keys: tuple[str, ...]) -> None:
        for key in self.values:
            if key not in keys:
                raise ConfigError(f'{self.name}: there is no option "{key}"{nearest(key, keys)}')

    def wrong(self, key: str, wanted: str, value: object) -> ConfigError:
        return ConfigError(f'{self.name}: "{key}" must be {wanted}, not {described(value)}')

    def words(self, key: str) -> tuple[str, ...] | None:
        value = self.values.get(key)
        return None if value is None else self.strings(key, value)

    def strings(self, key: str, value: object) -> tuple[str, ...]:
        if not isinstance(value, list):
            raise self.wrong(key, "a list of strings", value)
        for item in value:
            if not isinstance(item, str):
                raise ConfigError(f'{self.name}: "{key}" must be a list of strings; it holds {described(item)}')
        return tuple(value)

    def table(self, key: str, wanted: str) -> Mapping[str, object]:
        """An empty one where there is none."""
        value = self.values.get(key, {})
        if not isinstance(value, Mapping):
            raise self.wrong(key, wanted, value)
        return value

    def text(self, key: str, wanted: str) -> str | None:
        value = self.values.get(key)
        if value is None or isinstance(value, str):
            return value
        raise self.wrong(key, wanted, value)

    def count(self, key: str, *, least: int) -> int | None:
        value = self.values.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise self.wrong(key, f"a whole number, {least} or more", value)
        return value

    def flag(self, key: str) -> bool | None:
        value = self.values.get(key)
        if value is None or isinstance(value, bool):
            return value
        raise self.wrong(key, "true or false", value)

    def choice(self, key: str, choices: type[_Choice]) -> _Choice | None:
        value = self.values.get(key)
        if value is None:
            return None
        words = [choice.value for choice in choices]
        if isinstance(value, str) and value in words:
            return choices(value)
        wanted = " or ".join(f'"{word}"' for word in words)
        hint = nearest(value, words) if isinstance(value, str) and len(words) > 3 else ""
        raise ConfigError(f'{self.name}: "{key}" must be {wanted}, not {described(value)}{hint}')

    def seconds(self, key: str) -> float | None:
        value = self.values.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.wrong(key, "a number of seconds", value)
        if not 0 < value < float("inf"):
            raise ConfigError(f'{self.name}: "{key}" must be more than 0 seconds, not {value}')
        return float(value)


def described(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'the string "{value}"'
    if isinstance(value, (int, float)):
        return f"the number {value}"
    if isinstance(value, list):
        return "a list"
    return "a table" if isinstance(value, dict) else f"{value}"
