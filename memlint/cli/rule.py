"""`memlint rule`."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

from memlint.cli.errors import Trouble
from memlint.config.errors import nearest

if TYPE_CHECKING:
    from memlint.linting.registry import RuleInfo


@click.command()
@click.argument("rule", required=False, metavar="[CODE|NAME]")
@click.option("--all", "every", is_flag=True, help="Print the pages of all rules.")
@click.option("--output-format", type=click.Choice(["text", "json"]), default="text", show_default=True)
def rule(rule: str | None, every: bool, output_format: str) -> None:
    """Print the page of a rule: what it finds, what that costs, and what to do."""
    from memlint.linting.registry import all_rules

    if (rule is None) != every:
        raise click.UsageError("Name one rule by its code or name, or say --all.")
    rules = all_rules()
    chosen = list(rules) if every else [_find(rule or "", rules)]
    if output_format == "json":
        objects = [rule_object(info) for info in chosen]
        click.echo(json.dumps(objects if every else objects[0], indent=2))
        return
    _print_pages([page_text(info) for info in chosen])


def rule_object(info: RuleInfo) -> dict[str, object]:
    return {
        "code": info.code,
        "name": info.name,
        "family": info.family,
        "summary": info.summary,
        "since": info.since,
        "on_by_default": info.on_by_default,
        "page": info.page,
        "url": None,
    }


def page_text(info: RuleInfo) -> str:
    """The page in Markdown, below a heading with the rule's name and code."""
    default = "on by default" if info.on_by_default else "off by default"
    facts = f"{info.family}, {default}, since {info.since}"
    return f"# {info.name} ({info.code})\n\n*{facts}*\n\n{info.page.strip()}\n"


def _find(wanted: str, rules: tuple[RuleInfo, ...]) -> RuleInfo:
    for info in rules:
        if wanted in {info.code, info.name} or wanted.upper() == info.code:
            return info
    known = [word for info in rules for word in (info.code, info.name)]
    raise Trouble(f'there is no rule "{wanted}"{nearest(wanted, known)}')


def _print_pages(pages: list[str]) -> None:
    if not sys.stdout.isatty():
        click.echo("\n".join(pages), nl=False)
        return
    from rich.console import Console
    from rich.markdown import Markdown

    console = Console()
    for page in pages:
        console.print(Markdown(page))
        console.print()
