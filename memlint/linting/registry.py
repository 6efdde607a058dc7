"""Finding the rules: every class in `memlint.rules` that derives from Rule, plus the tool's own codes."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain
from operator import attrgetter
from typing import Protocol

from memlint.linting.custom import BadRules, local_rules, plugin_rules
from memlint.linting.rule import Rule

RULES_PACKAGE = "memlint.rules"


class Traced(Protocol):
    """A rule that need not be imported yet."""

    @property
    def code(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def family(self) -> str: ...
    @property
    def module(self) -> str: ...
    @property
    def triggers(self) -> Collection[str]: ...


@dataclass(frozen=True)
class RuleInfo:
    """What the outside needs to know of a rule."""

    code: str
    name: str
    family: str
    page: str
    since: str
    on_by_default: bool
    module: str = ""
    """Where it is defined; of the tool's own codes nowhere."""
    triggers: frozenset[str] = frozenset()

    @property
    def summary(self) -> str:
        """The first line of the page."""
        return self.page.partition("\n")[0]


_OWN = {
    "MEM001": (
        "syntax-error",
        """The file is not valid Python.

## What it does
Reports the place at which the parser gave up. The file's other findings are unknown.

## When it stays silent
Never: a file that cannot be parsed cannot be checked.
""",
    ),
    "MEM002": (
        "undecodable-file",
        """The file's bytes are not text in its declared encoding.

## What it does
Reports the first byte that cannot be decoded, or a coding line that names no known encoding (PEP 263). Codecs that a
package would have to register are unknown; a file in that of `future-fstrings` is read as the UTF-8 that it is.

## When it stays silent
Never.
""",
    ),
    "MEM003": (
        "unused-suppression",
        """A suppression comment suppresses nothing.

## What it does
Reports `# memlint: ignore[...]` comments and `MEM...` codes in `# noqa: ...` lists to which no finding belongs. A bare
`# noqa` and the codes of other tools are never reported.

## Fix safety
Safe: only the unused codes are taken out; the rest of the comment stays.

## When it stays silent
About codes of rules that are switched off in this run.
""",
    ),
    "MEM004": (
        "internal-error",
        """A rule of memlint crashed on this file.

## What it does
Names the rule. The findings of the other rules stand; the exit status is 2. Please report it with the file.

## When it stays silent
Never.
""",
    ),
    "MEM005": (
        "file-timeout",
        """Checking the file took more CPU time than `--timeout-per-file` allows.

## What it does
The file is given up and the others are checked. The usual cause is a generated file with a huge expression, on which
the parser itself is slow.

## When it stays silent
Never.
""",
    ),
    "MEM006": (
        "too-deeply-nested",
        """The file is nested deeper than the parser can follow.

## What it does
LibCST reads nested code by recursion and gives up on, for example, thousands of chained `elif`s. The file is not
checked.

## When it stays silent
Never.
""",
    ),
}


@cache
def rule_classes(local: tuple[str, ...] = ()) -> tuple[type[Rule], ...]:
    """All rules, by code: memlint's, those of plugins, and those in the local files or folders.

    Raises:
        ImportError: a rule module of memlint cannot be imported.
        BadRules: those of a plugin or of a local file cannot be used.
    """
    own = _own_rules()
    others = [*plugin_rules(), *(rule for path in local for rule in local_rules(path))]
    by_code = {rule.code: rule for rule in own}
    for rule in others:
        twin = by_code.setdefault(rule.code, rule)
        if twin is not rule:
            raise BadRules(f"{rule.__module__}: {twin.__module__} has a rule {rule.code} too")
    return tuple(by_code[code] for code in sorted(by_code))


@cache
def _own_rules() -> tuple[type[Rule], ...]:
    package = importlib.import_module(RULES_PACKAGE)
    modules = pkgutil.walk_packages(package.__path__, f"{RULES_PACKAGE}.")
    return tuple(sorted(chain.from_iterable(_rules_in(module.name) for module in modules), key=attrgetter("code")))


_traced: Sequence[Traced] = ()


def assume(rules: Sequence[Traced]) -> None:
    """From now on, in this process: these are all rules but local ones, as an earlier run has found them."""
    global _traced  # noqa: PLW0603 - of the process, like the modules that are imported
    _traced = rules


def traced_rules(local: tuple[str, ...]) -> Sequence[Traced]:
    """All rules, by code. Raises as `rule_classes` does."""
    return _traced if _traced and not local else all_rules(local)


@cache
def rule_of(module: str, code: str) -> Rule:
    """The one instance of a rule in this process."""
    return next(rule() for rule in _rules_in(module) if rule.code == code)


def _rules_in(module: str) -> Iterator[type[Rule]]:
    """Those that the module defines."""
    for item in vars(importlib.import_module(module)).values():
        # Where it is defined comes first: to ask an abstract class about each imported one takes longer.
        is_own = isinstance(item, type) and item.__module__ == module
        if is_own and issubclass(item, Rule) and not inspect.isabstract(item):
            yield item


@cache
def all_rules(local: tuple[str, ...] = ()) -> tuple[RuleInfo, ...]:
    """Every code that can be reported, in order. Raises as `rule_classes` does."""
    own = [RuleInfo(code, name, "memlint", page, "0.1", True) for code, (name, page) in _OWN.items()]
    rules = [
        RuleInfo(
            rule.code,
            rule.name,
            _family(rule),
            inspect.cleandoc(rule.__doc__ or ""),
            rule.since,
            rule.on_by_default,
            rule.__module__,
            rule.triggers,
        )
        for rule in rule_classes(local)
    ]
    return (*own, *rules)


def _family(rule: type[Rule]) -> str:
    """Of memlint's rules the folder; others are `custom`."""
    is_own = rule.__module__.startswith(f"{RULES_PACKAGE}.")
    return rule.__module__.split(".")[-2].replace("_", "-") if is_own else "custom"


def own_name(code: str) -> str:
    """The name of one of the tool's own codes."""
    return _OWN[code][0]
