"""`memlint rule`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from memlint.cli.errors import Trouble
from memlint.cli.options import COMMAND_LINE
from memlint.config.errors import nearest
from memlint.config.options import Options

if TYPE_CHECKING:
    from memlint.linting.registry import RuleInfo


@click.command()
@click.argument("words", nargs=-1, metavar="[CODE|NAME] | new NAME")
@click.option("--code", default="ACME001", show_default=True, help="With `new`: the code of the new rule.")
@click.option(
    "--into",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("memlint_rules"),
    show_default=True,
    help="With `new`: the folder to write to.",
)
@click.option("--all", "every", is_flag=True, help="Print the pages of all rules.")
@click.option("--output-format", type=click.Choice(["text", "json"]), default="text", show_default=True)
def rule(words: tuple[str, ...], code: str, into: Path, every: bool, output_format: str) -> None:
    """Print the page of a rule: what it finds, what that costs, and what to do.

    `memlint rule new NAME` writes a rule of your own to begin with, and a fixture that tests it.
    """
    from memlint.config.load import SettingsResolver
    from memlint.config.policies import PolicyMaker

    if len(words) == 2 and words[0] == "new":
        from memlint.cli.new_rule import write_new_rule

        write_new_rule(words[1], code, into)
        return
    if len(words) != (0 if every else 1):
        raise click.UsageError("Name one rule by its code or name, or say --all.")
    resolver = SettingsResolver(Options(COMMAND_LINE))
    rules = PolicyMaker(resolver).rules(resolver.for_folder(Path.cwd()))
    chosen = list(rules) if every else [_find(words[0], rules)]
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
