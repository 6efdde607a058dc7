"""`memlint config`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from memlint.cli.options import common_options
from memlint.config.options import Options
from memlint.config.paths import absolute, shown

if TYPE_CHECKING:
    from memlint.config.policies import PolicyMaker
    from memlint.config.settings import Settings
    from memlint.config.target import Target


@click.command()
@click.argument("path", default=".")
@common_options
def config(path: str, overrides: Options) -> None:
    """Show which settings and rules apply to the file PATH, and why.

    For a folder, those of the files that lie directly in it.
    """
    from memlint.config.load import SettingsResolver
    from memlint.config.policies import PolicyMaker

    file = absolute(path)
    folder = file if file.is_dir() else file.parent
    policies = PolicyMaker(SettingsResolver(overrides))
    settings = policies.resolver.for_folder(folder)
    for line in _described(file, settings, policies):
        click.echo(line)


def _described(file: Path, settings: Settings, policies: PolicyMaker) -> Iterator[str]:
    is_folder = file.is_dir()
    yield f"{shown(file)}{'' if file.exists() else ' (does not exist)'}"
    yield ""
    yield from _table(
        [
            ("configured by", ", which extends ".join(map(shown, settings.files)) or "no file: these are the defaults"),
            ("project root", shown(settings.root)),
            *([] if is_folder else [("checked", _checked(file, policies))]),
        ]
    )
    yield ""
    yield "Settings"
    target = policies.resolver.target_for(file if is_folder else file.parent)
    yield from _table(_settings_rows(settings, target))
    yield ""
    yield from _rules(file, settings, policies, is_folder=is_folder)


def _checked(file: Path, policies: PolicyMaker) -> str:
    from memlint.config.discovery import exclusion_of

    exclusion = exclusion_of(file, policies.resolver)
    if exclusion is None:
        return "yes"
    reason = exclusion if isinstance(exclusion, str) else f'"{exclusion.glob}" ({exclusion.origin})'
    if policies.resolver.for_folder(file.parent).force_exclude and not isinstance(exclusion, str):
        return f"no: excluded by {reason}"
    return f"only when it is named itself: excluded by {reason}"


def _settings_rows(settings: Settings, target: Target) -> Iterator[tuple[str, ...]]:
    from memlint.config.settings import DEFAULT_EXCLUDE

    origins = settings.origins
    for key in ("select", "ignore", "extend-select"):
        attribute = key.replace("-", "_")
        for selection in settings.selections:
            selectors = getattr(selection, attribute)
            if selectors or (key == "select" and selectors is not None):
                yield key, _words(selectors), selection.origin
    for entry in settings.per_file_ignores:
        yield "per-file-ignores", f"{entry.glob}: {_words(entry.selectors)}", entry.origin
    is_default = settings.exclude.globs == DEFAULT_EXCLUDE
    yield "exclude", "the default ones" if is_default else _words(settings.exclude.globs), settings.exclude.origin
    for patterns in settings.extend_exclude:
        yield "extend-exclude", _words(patterns.globs), patterns.origin
    yield "force-exclude", str(settings.force_exclude).lower(), origins["force-exclude"]
    yield "confidence", settings.confidence.value, origins["confidence"]
    yield "output-format", settings.output_format.value, origins["output-format"]
    version = "current" if target.version is None else ".".join(map(str, target.version))
    yield "target-torch", version, target.origin
    yield "baseline", shown(settings.baseline) if settings.baseline else "none", origins["baseline"]
    local_rules = ", ".join(
        [*settings.local_rules, *(f"{path} (not allowed)" for path in settings.refused_local_rules)]
    )
    yield "local-rules", local_rules or "none", origins["local-rules"]
    yield "timeout-per-file", f"{settings.timeout_per_file:g} s", origins["timeout-per-file"]


def _rules(file: Path, settings: Settings, policies: PolicyMaker, *, is_folder: bool) -> Iterator[str]:
    selector = policies.selector(settings)
    decisions = selector.decide(settings)
    if not is_folder:
        decisions = selector.decide_for_file(decisions, settings, file)
    on = sum(decision.on for decision in decisions.values())
    yield f"Rules: {on} on, {len(decisions) - on} off"
    rows = []
    for rule in sorted(policies.rules(settings), key=lambda rule: rule.code):
        decision = decisions[rule.code]
        rows.append(("on" if decision.on else "off", rule.code, rule.name, decision.reason))
    yield from _table(rows)


def _words(words: tuple[str, ...]) -> str:
    return ", ".join(words) or "none"


def _table(rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    listed = list(rows)
    widths: dict[int, int] = {}
    for row in listed:
        for column, cell in enumerate(row[:-1]):
            widths[column] = max(widths.get(column, 0), min(len(cell), 60))
    for row in listed:
        yield "  " + "  ".join(f"{cell:<{widths.get(column, 0)}}" for column, cell in enumerate(row)).rstrip()
