"""A confirmation for people."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from memlint.linting.finding import Applicability
from memlint.measure.confirm.confirmation import Confirmation, Priced, Together
from memlint.measure.confirm.verdicts import Grade, Price, Verdict, fewer_graph_nodes, growth_changes
from memlint.measure.sizes import words
from memlint.reporting.colour import Palette
from memlint.reporting.report import visible
from memlint.reporting.summary import counted

_INDENT = " " * 4

# What saves memory is good news; what changes results or costs memory is a warning.
_GOOD = frozenset({Verdict.CONFIRMED, Verdict.GROWTH_CONFIRMED, Verdict.HOST_ONLY})
_BAD = frozenset({Verdict.WORSE, Verdict.RESULTS_DIFFER, Verdict.COULD_NOT_RUN})


def render(confirmation: Confirmation, palette: Palette | None = None) -> str:
    """The whole report, ending in a newline."""
    return "\n".join(_Report(confirmation, palette or Palette()).lines()) + "\n"


def in_a_line(priced: Priced, confirmation: Confirmation) -> str:
    """`growth confirmed: growth 89.7 MiB/step -> 0 B/step (measured on cpu, 6 steps); results identical`."""
    facts = list(_facts(priced, confirmation.before, confirmation.steps))
    facts += [f"results {priced.results.grade.value}"] * (priced.after is not None)
    return f"{priced.verdict.value}: {'; '.join(facts)} ({obtained(confirmation)})" if facts else priced.verdict.value


def obtained(confirmation: Confirmation) -> str:
    """`measured on cpu, 6 steps`."""
    return f"{confirmation.basis}, {counted(confirmation.steps, 'step')}"


class _Report:
    def __init__(self, confirmation: Confirmation, palette: Palette) -> None:
        self._confirmation = confirmation
        self._palette = palette

    def lines(self) -> Iterator[str]:
        confirmation = self._confirmation
        device = f" ({confirmation.device.name})" if confirmation.backend != "cpu" else ""
        yield (
            f"{confirmation.target}: {obtained(confirmation)}{device}, the first {confirmation.warmup} as warm-up; "
            f"torch {confirmation.torch_version}"
        )
        yield f"as it is: {_price_words(confirmation.before)}"
        yield from self._about_the_runs()
        for priced in confirmation.priced:
            yield ""
            yield from self._priced(priced)
        if confirmation.together is not None:
            yield ""
            yield from self._together(confirmation.together)
        yield ""
        yield self._summary()

    def _about_the_runs(self) -> Iterator[str]:
        confirmation = self._confirmation
        if confirmation.input_shapes:
            shapes = [_INTO.join(map(str, shape)) or "a number" for shape in confirmation.input_shapes[:6]]
            more = len(confirmation.input_shapes) - len(shapes)
            yield f"inputs seen: {', '.join(shapes)}{f' and {more} more' * bool(more)}"
        if confirmation.noise_bytes:
            yield f"noise: the peaks of two runs of the original are {words(confirmation.noise_bytes)} apart"
        if confirmation.deterministic.grade is Grade.NOT_CHECKED:
            yield f"results: not checked: {confirmation.deterministic.detail}"
        elif confirmation.deterministic.grade is not Grade.IDENTICAL:
            yield (
                "results: the program is not deterministic, two runs of it differ, and fixes are held against that "
                f"({confirmation.deterministic.detail})"
            )
        assumed = sum(one.count for one in confirmation.assumptions)
        if assumed:
            yield f"assumptions: {assumed}, as `memlint measure` lists them"

    def _priced(self, priced: Priced) -> Iterator[str]:
        palette, finding = self._palette, priced.finding
        unsafe = " (unsafe fix)" if priced.applicability is Applicability.UNSAFE else ""
        place = f"{palette.path(visible(finding.path))}{palette.faint(f':{finding.start.line}:')}"
        rule = f"{palette.code(finding.code)} {palette.faint(f'[{finding.name}]')}"
        yield f"{place} {rule} {self._painted(priced.verdict)}{unsafe}"
        yield f"{_INDENT}{palette.faint(visible(priced.code_line))}"
        for fact in _facts(priced, self._confirmation.before, self._confirmation.steps):
            yield f"{_INDENT}{visible(fact)}"
        if priced.after is not None and self._checked:
            yield f"{_INDENT}results: {priced.results}"

    @property
    def _checked(self) -> bool:
        """Whether results were compared: else it is said once, for all."""
        return self._confirmation.deterministic.grade is not Grade.NOT_CHECKED

    def _painted(self, verdict: Verdict) -> str:
        if verdict in _GOOD:
            return self._palette.help(verdict.value)
        return self._palette.cost(verdict.value) if verdict in _BAD else verdict.value

    def _together(self, together: Together) -> Iterator[str]:
        which = "both" if together.fixes == 2 else f"all {together.fixes}"
        yield self._palette.path(f"{which} fixes together")
        if together.after is None:
            yield f"{_INDENT}could not run: {visible(together.reason)}"
            return
        for change in _changes(self._confirmation.before, together.after, self._confirmation.steps):
            yield f"{_INDENT}{change}"
        if self._checked:
            yield f"{_INDENT}results: {together.results}"
        for one in together.remaining:
            place = "a line that is not known" if one.place is None else self._place(one.place.path, one.place.line)
            kept = f" in `{one.kept_by}`" if one.kept_by else ""
            yield f"{_INDENT}still grows: {words(one.bytes_per_step)} a step, kept by {place}{kept}"

    def _place(self, path: str, line: int) -> str:
        try:
            return f"{Path(path).relative_to(self._confirmation.folder).as_posix()}:{line}"
        except ValueError:
            return f"{path}:{line}"

    def _summary(self) -> str:
        priced = self._confirmation.priced
        if not priced:
            return f"No findings in the {counted(len(self._confirmation.files), 'file')} that the target runs."
        saving = sum(one.saves for one in priced)
        return f"{counted(len(priced), 'finding')} in the files that the target runs; {saving} confirmed."


_INTO = " x "


def _facts(priced: Priced, before: Price, steps: int) -> Iterator[str]:
    """What is known of one finding, in sentences."""
    if priced.after is not None:
        yield from _changes(before, priced.after, steps)
    elif priced.verdict is Verdict.NO_FIX:
        yield _held_words(priced.held_at_peak_bytes, before.peak_allocated_bytes)
        if priced.grows_bytes_per_step:
            yield f"{words(priced.grows_bytes_per_step)} of it more with each step"
    if priced.reason:
        yield priced.reason


def _held_words(held: int, peak: int) -> str:
    if not held:
        return "nothing that was allocated on its lines is held at the peak"
    return f"what was allocated on its lines holds {words(held)} of the peak of {words(peak)}"


def _changes(before: Price, after: Price, steps: int) -> Iterator[str]:
    changes = growth_changes(before, after)
    for kind, grew, grows in changes:
        if grew or grows:
            step = "step" if len(changes) == 1 else f"{kind} step"
            yield f"growth {_per_step(grew)} -> {_per_step(grows)} a {step}"
    first, second = before.peak_allocated_bytes, after.peak_allocated_bytes
    after_steps = f" after {counted(steps, 'step')}" if before.growth_bytes_per_step else ""
    change = f"{words(first)} -> {words(second)} ({_difference(second - first)})"
    yield f"peak{after_steps} {change if first != second else f'{words(first)}, unchanged'}"
    nodes = before.graph_nodes_per_step or 0
    if nodes:  # what grows only after the fix grew before, too, but for the end of an epoch between
        yield f"graph nodes in host memory +{nodes} -> +{after.graph_nodes_per_step or 0} a step"
    elif fewer_graph_nodes(before, after):
        yield f"up to {fewer_graph_nodes(before, after)} fewer graph nodes in host memory at the end of a step"


def _per_step(growth: int | None) -> str:
    return "unknown" if growth is None else words(growth)


def _difference(size: int) -> str:
    return f"{'+' if size > 0 else ''}{words(size)}"


def _price_words(price: Price) -> str:
    parts = [f"peak {words(price.peak_allocated_bytes)} allocated"]
    if price.peak_reserved_bytes is not None:
        parts.append(f"{words(price.peak_reserved_bytes)} reserved")
    parts.append(
        "too few steps to speak of growth"
        if price.growth_bytes_per_step is None
        else f"growth {_per_step(price.growth_bytes_per_step)} a step"
    )
    if price.graph_nodes_per_step:
        parts.append(f"{price.graph_nodes_per_step} more graph nodes in host memory a step")
    return ", ".join(parts)
