"""The options that `check`, `fix` and `config` share."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from memlint.config.options import Options, OutputFormat, TorchVersion, parse_torch_version
from memlint.linting.finding import Confidence

COMMAND_LINE = "the command line"

_Result = TypeVar("_Result")


# Generic from click 8.4 on.
class _TorchVersionType(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    name = "version"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> TorchVersion:
        try:
            return parse_torch_version(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


_OPTIONS = (
    click.option(
        "--select",
        multiple=True,
        metavar="RULES",
        help="Only these rules: codes (MEM101), beginnings of codes (MEM1), names, families or ALL; comma-separated.",
    ),
    click.option("--ignore", multiple=True, metavar="RULES", help="Not these rules."),
    click.option("--extend-select", multiple=True, metavar="RULES", help="These rules too."),
    click.option(
        "--exclude",
        multiple=True,
        metavar="PATTERNS",
        help="Leave out files and folders that match, instead of the default ones (.venv, build, ...).",
    ),
    click.option("--extend-exclude", multiple=True, metavar="PATTERNS", help="Leave these out too."),
    click.option(
        "--force-exclude/--no-force-exclude",
        default=None,
        help="Leave excluded files out even when they are named on the command line.",
    ),
    click.option(
        "--confidence",
        type=click.Choice([confidence.value for confidence in Confidence]),
        help="The lowest confidence of findings to show.  [default: medium]",
    ),
    click.option(
        "--target-torch",
        type=_TorchVersionType(),
        help="The lowest torch that the code must run on, such as 2.1.  [default: what the project depends on]",
    ),
    click.option(
        "--output-format",
        type=click.Choice([output_format.value for output_format in OutputFormat]),
        help="How to print findings.  [default: text]",
    ),
    click.option(
        "--allow-local-rules",
        is_flag=True,
        default=None,
        help="Run the rules that the project brings along (`local-rules`). They are code: allow it where you trust it.",
    ),
    click.option(
        "--timeout-per-file",
        type=click.FloatRange(min=0, min_open=True),
        metavar="SECONDS",
        help="Give up on a file that takes more CPU time than this.  [default: 10]",
    ),
)


@dataclass(frozen=True)
class Running:
    """How to run: with so many processes (None: as many as there are cores), with the cache or without."""

    jobs: int | None = None
    cache: bool = True


def running_options(command: Callable[..., _Result]) -> Callable[..., _Result]:
    """Add the options of how to run; the command gets them as one `running: Running`."""

    @functools.wraps(command)
    def with_running(*, jobs: int | None, cache: bool, **others: Any) -> _Result:
        return command(running=Running(jobs, cache), **others)

    decorated: Callable[..., _Result] = with_running
    decorated = click.option(
        "--cache/--no-cache", default=True, help="Whether to use and to write `.memlint_cache`.  [default: cache]"
    )(decorated)
    return click.option(
        "--jobs",
        type=click.IntRange(min=1),
        metavar="N",
        help="Check so many files at once.  [default: as many as there are cores]",
    )(decorated)


def common_options(command: Callable[..., _Result]) -> Callable[..., _Result]:
    """Add the shared options; the command gets them as one `overrides: Options`."""

    @functools.wraps(command)
    def with_overrides(  # noqa: PLR0913 - one for each option
        *,
        select: tuple[str, ...],
        ignore: tuple[str, ...],
        extend_select: tuple[str, ...],
        exclude: tuple[str, ...],
        extend_exclude: tuple[str, ...],
        force_exclude: bool | None,
        confidence: str | None,
        target_torch: TorchVersion | None,
        output_format: str | None,
        timeout_per_file: float | None,
        allow_local_rules: bool | None,
        **others: Any,
    ) -> _Result:
        overrides = Options(
            origin=COMMAND_LINE,
            select=separated(select) if select else None,
            ignore=separated(ignore),
            extend_select=separated(extend_select),
            exclude=separated(exclude) if exclude else None,
            extend_exclude=separated(extend_exclude),
            force_exclude=force_exclude,
            confidence=Confidence(confidence) if confidence else None,
            output_format=OutputFormat(output_format) if output_format else None,
            target_torch=target_torch,
            timeout_per_file=timeout_per_file,
            allow_local_rules=allow_local_rules,
        )
        return command(overrides=overrides, **others)

    decorated: Callable[..., _Result] = with_overrides
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated


def separated(given: Iterable[str]) -> tuple[str, ...]:
    """The words of an option that takes several, separated by commas or given in turn."""
    return tuple(word.strip() for text in given for word in text.split(",") if word.strip())
