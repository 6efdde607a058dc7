"""`memlint measure`."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from memlint.cli.errors import Trouble, say_error
from memlint.cli.measuring import explain, measure_options, note, requested, run_target
from memlint.config.measure import MeasureOptions

if TYPE_CHECKING:
    from memlint.measure.job import Job
    from memlint.measure.report.subject import Subject


@click.command()
@measure_options
@click.option("--budget", metavar="SIZE", help="Exit with 1 when the allocated peak passes this, such as 24GiB.")
@click.option("--saved-tensors", is_flag=True, help="Say what autograd saves, too. Breaks second derivatives.")
@click.option("--output-format", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--html", metavar="FILE", type=click.Path(dir_okay=False), help="Write an interactive report, too.")
@click.option(
    "--snapshot", metavar="FILE", type=click.Path(dir_okay=False), help="Write a file for PyTorch's memory viewer, too."
)
@click.pass_context
def measure(
    ctx: click.Context,
    *,
    words: tuple[str, ...],
    module: str | None,
    overrides: MeasureOptions,
    saved_tensors: bool,
    output_format: str,
    html: str | None,
    snapshot: str | None,
) -> None:
    """Run a few steps of TARGET and say what holds its device memory.

    TARGET is a script (train.py), `-m` and a module, a function that does one step (pkg.mod:function), or a name from
    [tool.memlint.measure.targets]. What follows `--` are its arguments. Steps are found without edits to the code.

    The exit status is 0, or 1 when the peak passes the budget, or 2 when nothing could be measured.
    """
    from memlint.config.load import SettingsResolver
    from memlint.config.options import Options
    from memlint.measure.job import Layer
    from memlint.measure.outcome import Status
    from memlint.measure.report.subject import Subject

    request = requested(words, module, overrides, SettingsResolver(Options("")).for_folder(Path.cwd()))
    layers = frozenset({Layer.LINES, Layer.GROWTH, *([Layer.SAVED_TENSORS] if saved_tensors else [])})
    job, outcome = run_target(request, "stderr" if output_format == "json" else "inherit", lambda _: layers)
    if outcome.recording is None:
        raise Trouble(explain(outcome))
    subject = Subject(str(job.target), outcome.recording, request.folder)
    _print(subject, output_format)
    if html is not None:
        _write(html, _html(subject))
    if snapshot is not None:
        _write(snapshot, _snapshot(subject, job))
    if outcome.status is not Status.OK:
        say_error(explain(outcome))
        ctx.exit(2)
    ctx.exit(_budget_status(subject, request.budget_bytes))


def _print(subject: Subject, output_format: str) -> None:
    if output_format == "json":
        from memlint.measure.report import as_json

        click.echo(as_json.render(subject))
        return
    from memlint.measure.report import text
    from memlint.reporting.looks import looks_for

    looks = looks_for(sys.stdout)
    click.echo(text.render(subject, colour=looks.colour, width=looks.width), nl=False, color=True)


def _html(subject: Subject) -> bytes:
    from memlint.measure.report import html

    try:
        return html.render(subject).encode()
    except ImportError as error:
        raise Trouble(f"--html needs a library ({error}): install `memlint-torch[measure]`") from None


def _snapshot(subject: Subject, job: Job) -> bytes:
    """On `cuda` PyTorch's own, from a run of its own: recording it slows the target down."""
    from memlint.measure.job import Layer
    from memlint.measure.launch import run
    from memlint.measure.report import snapshot

    if job.backend == "cuda":
        again = run(replace(job, layers=frozenset({Layer.MEMORY_HISTORY})), "discard")
        if again.recording is not None:
            subject.recording.memory_history = again.recording.memory_history
    return snapshot.render(subject)


def _write(file: str, content: bytes) -> None:
    try:
        Path(file).write_bytes(content)
    except OSError as error:
        raise Trouble(f"{file}: cannot be written: {error.strerror or error}") from None
    note(f"wrote {file}")


def _budget_status(subject: Subject, budget: int | None) -> int:
    from memlint.measure.sizes import words

    if budget is None or subject.peak_allocated_bytes <= budget:
        return 0
    peak = words(subject.peak_allocated_bytes)
    say_error(f"the peak of {peak} ({subject.basis}) passes the budget of {words(budget)}")
    return 1
