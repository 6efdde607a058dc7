"""What `measure` and `confirm` share: their options, and from words on the command line to a job."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from memlint.cli.errors import Trouble
from memlint.config.errors import nearest
from memlint.config.measure import BackendChoice, MeasureOptions, NamedTarget

if TYPE_CHECKING:
    from memlint.config.settings import Settings
    from memlint.measure.job import BackendName, Job, Layer, Target
    from memlint.measure.launch import Output
    from memlint.measure.outcome import Outcome

_Result = TypeVar("_Result")

_OPTIONS = (
    click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="TARGET [-- ARGS]..."),
    click.option("-m", "module", metavar="MODULE", help="The target is this module, as for `python -m`."),
    click.option(
        "--backend",
        type=click.Choice([backend.value for backend in BackendChoice]),
        help="Where to run it.  [default: auto]",
    ),
    click.option("--steps", type=click.IntRange(min=1), help="Stop after so many steps.  [default: 6]"),
    click.option(
        "--with-evaluation/--without-evaluation",
        default=None,
        help="After so many training steps, go on to the evaluation: the training's loader ends there.",
    ),
    click.option("--warmup", type=click.IntRange(min=0), help="So many of them say nothing of growth.  [default: 2]"),
    click.option("--device", metavar="NAME", help="The card that `fake` pretends, such as a100-80gb."),
    click.option(
        "--timeout",
        type=click.FloatRange(min=0, min_open=True),
        metavar="SECONDS",
        help="End the target after this long.  [default: 120]",
    ),
    click.option("--memory-limit", metavar="SIZE", help="Host memory that the target may take, such as 8GiB."),
    click.option("--seed", type=click.IntRange(min=0), help="Seeds Python, numpy and torch.  [default: 0]"),
    click.option("--allow-write/--no-allow-write", default=None, help="Let the target save, write and delete files."),
)


def measure_options(command: Callable[..., _Result]) -> Callable[..., _Result]:
    """Add the shared options; the command gets `words`, `module` and the rest as one `overrides: MeasureOptions`."""

    @functools.wraps(command)
    def with_overrides(  # noqa: PLR0913 - one for each option
        *,
        backend: str | None,
        steps: int | None,
        with_evaluation: bool | None,
        warmup: int | None,
        device: str | None,
        timeout: float | None,
        memory_limit: str | None,
        seed: int | None,
        allow_write: bool | None,
        budget: str | None = None,
        **others: Any,
    ) -> _Result:
        overrides = MeasureOptions(
            steps=steps,
            with_evaluation=with_evaluation,
            warmup=warmup,
            backend=BackendChoice(backend) if backend else None,
            device=device,
            budget=budget,
            timeout=timeout,
            memory_limit=memory_limit,
            seed=seed,
            allow_write=allow_write,
        )
        return command(overrides=overrides, **others)

    decorated: Callable[..., _Result] = with_overrides
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated


@dataclass(frozen=True)
class Request:
    """What is to be run, all options decided but for the backend `auto`."""

    target: Target
    folder: Path
    options: MeasureOptions

    @property
    def budget_bytes(self) -> int | None:
        return _size(self.options.budget, "budget")

    def job(self, backend: BackendName) -> Job:
        from memlint.measure.devices import in_this_machine
        from memlint.measure.job import Job

        options = self.options
        said = {
            "steps": options.steps,
            "with_evaluation": options.with_evaluation,
            "warmup": options.warmup,
            "device": options.device or (in_this_machine() if backend == "fake" else None),
            "seed": options.seed,
            "timeout_seconds": options.timeout,
            "host_memory_limit_bytes": _size(options.memory_limit, "memory-limit"),
            "allow_write": options.allow_write,
        }
        return Job(
            self.target,
            backend,
            str(self.folder),
            environment=dict(options.env),
            **{name: value for name, value in said.items() if value is not None},  # type: ignore[arg-type]
        )


def requested(words: tuple[str, ...], module: str | None, overrides: MeasureOptions, settings: Settings) -> Request:
    """The request behind the words of the command line and the configuration of the current folder.

    Raises Trouble: no target is named, or none of that name is there.
    """
    configured = settings.measure
    if module is not None:
        return _request(NamedTarget(f"-m {module}", words), Path.cwd(), overrides.over(configured))
    if not words:
        raise Trouble(f"name a target: a script, `-m` and a module, or `pkg.mod:function`{_known(configured)}")
    name, arguments = words[0], words[1:]
    named = configured.targets.get(name)
    if named is None:
        return _request(NamedTarget(name, arguments), Path.cwd(), overrides.over(configured))
    own = NamedTarget(named.target, (*named.arguments, *arguments))
    return _request(own, settings.root, overrides.over(named.options.over(configured)))


def _request(named: NamedTarget, folder: Path, options: MeasureOptions) -> Request:
    _require_known_card(options.device)
    request = Request(_target(named, folder, options), folder, options)
    request.job("cpu")  # what cannot be read is said before anything runs
    _ = request.budget_bytes
    return request


def _require_known_card(name: str | None) -> None:
    from memlint.measure.devices import CARDS

    if name is not None and name not in CARDS:
        raise Trouble(f'device: memlint knows no card "{name}"{nearest(name, CARDS)}')


def _target(named: NamedTarget, folder: Path, options: MeasureOptions) -> Target:
    from memlint.measure.job import Target

    text = named.target.strip()
    if text.startswith("-m "):
        return Target("module", text.removeprefix("-m ").strip(), named.arguments)
    if (folder / text).is_file():
        return Target("script", text, named.arguments)
    module, colon, function = text.partition(":")
    if colon and all(part.isidentifier() for part in [*module.split("."), *function.split(".")]):
        return Target("function", text, named.arguments)
    raise Trouble(f"there is no file `{text}`, and it is no `pkg.mod:function`{_known(options, text)}")


def _known(options: MeasureOptions, wrong: str | None = None) -> str:
    names = sorted(options.targets)
    if not names:
        return ""
    return nearest(wrong, names) if wrong is not None else f"; the configuration has {', '.join(names)}"


def _size(text: str | None, option: str) -> int | None:
    from memlint.measure.sizes import parse_size

    if text is None:
        return None
    try:
        return parse_size(text)
    except ValueError as error:
        raise Trouble(f"{option}: {error}") from None


def run_target(
    request: Request, output: Output, layers_of: Callable[[BackendName], frozenset[Layer]]
) -> tuple[Job, Outcome]:
    """Run it on the backend that is asked for, or on the best one that can run it.

    `layers_of` says what is recorded on each. Raises Trouble where nothing can be run.
    """
    from memlint.measure.launch import CannotMeasure, best_backend, require_torch, run
    from memlint.measure.outcome import Status

    try:
        require_torch()
    except CannotMeasure as error:
        raise Trouble(str(error)) from None
    choice = request.options.backend or BackendChoice.AUTO

    def job_on(backend: BackendName) -> Job:
        return replace(request.job(backend), layers=layers_of(backend))

    job = job_on(best_backend() if choice is BackendChoice.AUTO else choice.value)
    if job.backend == "fake" and output != "discard":
        note("backend fake: no GPU is used, and the values that the target prints are placeholders")
    outcome = run(job, output)
    if outcome.status is not Status.UNSUPPORTED or choice is not BackendChoice.AUTO or job.backend == "cpu":
        return job, outcome
    note(f"backend {job.backend} cannot run this: {outcome.message}; running it on cpu")
    job = job_on("cpu")
    return job, run(job, output)


def note(text: str) -> None:
    click.echo(f"note: {text}", err=True)


def explain(outcome: Outcome) -> str:
    """How a run ended that gave no measurement, and what to do."""
    from memlint.config.paths import shown

    lines = [outcome.message]
    for frame in outcome.frames:
        place = frame.place
        function = f", in {place.function}" if place.function not in {"", "<module>"} else ""
        lines.append(f"  {shown(Path(place.path))}:{place.line}{function}")
        lines += [f"    {frame.text}"] * bool(frame.text)
    if outcome.advice:
        lines.append(f"help: {outcome.advice}")
    return "\n".join(lines)
