"""The runs behind a confirmation: the original twice, each fix alone, all fixes together."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from memlint.linting.apply import edited
from memlint.linting.finding import Applicability, Finding
from memlint.measure.confirm.confirmation import NOT_CHECKED, Confirmation, Priced, Remaining, Together
from memlint.measure.confirm.verdicts import (
    Grade,
    Price,
    Results,
    Verdict,
    compare,
    compare_with_both,
    judge,
    saved_elsewhere,
)
from memlint.measure.job import BackendName, Job, Layer
from memlint.measure.outcome import Outcome, Status
from memlint.measure.recording import Fingerprints, Place, Recording
from memlint.measure.report.subject import Subject
from memlint.measure.sizes import words
from memlint.source.file import SourceFile
from memlint.source.line_map import LineMap

Run = Callable[[Job], Outcome]


class Linter(Protocol):
    """The static half, with the settings of the project."""

    def findings(self, paths: Sequence[Path]) -> list[tuple[Path, Finding]]:
        """The findings in these files (absolute paths)."""

    def fixed(self, path: Path, only: frozenset[tuple[str, int]]) -> str:
        """The file's text after the fixes, unsafe ones too, of the findings with these codes and lines."""


class NoBaseline(Exception):  # noqa: N818 - says what happened
    """The target as it is did not run, a second time."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.message)
        self.outcome = outcome


def layers_of(backend: BackendName) -> frozenset[Layer]:
    """What a run that is priced records. On `cpu` its results are those that are compared, too.

    `fake` has no values, and on `cuda` kernels that repeat their results may need more memory than the usual ones:
    there the results come from runs of their own.
    """
    priced = frozenset({Layer.LINES, Layer.GROWTH})
    return priced | {Layer.FINGERPRINTS} if backend == "cpu" else priced


def results_job(job: Job) -> Job:
    """The job whose results are compared: on `cuda` where that is priced, else on `cpu`."""
    backend: BackendName = "cuda" if job.backend == "cuda" else "cpu"
    return replace(job, backend=backend, layers=frozenset({Layer.FINGERPRINTS}))


@dataclass
class Engine:
    """`job` is that of the first run of the original, `first` its recording. `verify`: whether results are compared.

    `say` is told what is about to run.
    """

    job: Job
    first: Recording
    linter: Linter
    run: Run
    say: Callable[[str], None]
    verify: bool = True

    def confirm(self) -> Confirmation:
        """Raises NoBaseline."""
        paths = [Path(path) for path in sorted(self.first.ran_lines)]
        files = {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths if path.is_file()}
        found = self.linter.findings([Path(path) for path in files])
        baseline = _Baseline(self, found)
        prices = [self._priced(path, finding, baseline) for path, finding in found]
        return Confirmation(
            target=str(self.job.target),
            folder=self.job.folder,
            basis=baseline.subject.basis,
            backend=self.job.backend,
            device=self.first.device,
            torch_version=self.first.torch_version,
            steps=len(self.first.steps),
            warmup=self.first.warmup,
            input_shapes=tuple(dict.fromkeys(shape for step in self.first.steps for shape in step.input_shapes)),
            before=baseline.price,
            noise_bytes=baseline.noise,
            deterministic=baseline.deterministic,
            files=files,
            priced=tuple(prices),
            together=self._together(prices, baseline),
            assumptions=tuple(self.first.assumptions),
        )

    def _priced(self, path: Path, finding: Finding, baseline: _Baseline) -> Priced:
        source = SourceFile.decode(str(path), path.read_bytes())
        lines = _lines(finding)
        whole = _whole_definition(source.text, lines)
        priced = Priced(
            finding,
            str(path),
            source.lines.line_text(finding.start.line).strip(),
            Verdict.NO_FIX,
            held_at_peak_bytes=_held(baseline.subject, path, whole),
            grows_bytes_per_step=_grows(baseline.subject, path, whole),
        )
        if baseline.ran[str(path)].isdisjoint(lines):
            return replace(priced, verdict=Verdict.NOT_REACHED, reason=self._not_reached())
        if priced.applicability is None or finding.fix is None:
            return priced
        self.say(f"{finding.path}:{finding.start.line} {finding.code} with its fix")
        tried = baseline.try_overlay({str(path): edited(source, finding.fix)})
        if tried.price is None:
            return replace(priced, verdict=Verdict.COULD_NOT_RUN, reason=tried.reason)
        verdict = judge(baseline.price, tried.price, tried.results, noise=baseline.noise)
        reason = _elsewhere(baseline.price, tried.price) if verdict is Verdict.NO_EFFECT else ""
        return replace(priced, verdict=verdict, reason=reason, after=tried.price, results=tried.results)

    def _not_reached(self) -> str:
        steps = self.first.steps
        if all(step.kind == "training" for step in steps) and not self.job.with_evaluation:
            more = "`--with-evaluation` goes on to what comes after training"
        else:
            more = "more `--steps`, or another target, may reach it"
        return f"the line did not run in {len(steps)} steps; {more}"

    def _together(self, prices: Sequence[Priced], baseline: _Baseline) -> Together | None:
        """All fixes that ran and left the results as they were."""
        run = [one for one in prices if one.after is not None and one.verdict is not Verdict.RESULTS_DIFFER]
        if len(run) < 2:
            return None
        wanted: dict[str, set[tuple[str, int]]] = {}
        for one in run:
            wanted.setdefault(one.path, set()).add((one.finding.code, one.finding.start.line))
        overlay = {path: self.linter.fixed(Path(path), frozenset(only)) for path, only in wanted.items()}
        self.say(f"all {len(run)} fixes together")
        tried = baseline.try_overlay(overlay)
        if tried.price is None or tried.recording is None:
            return Together(len(run), None, reason=tried.reason)
        remaining = tuple(_remaining(tried.recording, overlay))
        return Together(len(run), tried.price, tried.results, remaining=remaining)


@dataclass(frozen=True)
class _Tried:
    """A run with an overlay. `price` is None where it could not run: `reason` says why."""

    price: Price | None
    results: Results = NOT_CHECKED
    reason: str = ""
    recording: Recording | None = None


class _Baseline:
    """The original, run twice, and what other runs are compared with."""

    def __init__(self, engine: Engine, found: Sequence[tuple[Path, Finding]]) -> None:
        self._engine = engine
        self._tried: dict[tuple[tuple[str, str], ...], _Tried] = {}
        self.subject = Subject(str(engine.job.target), engine.first, Path(engine.job.folder))
        self.price = Price.of(engine.first)
        self.ran: dict[str, frozenset[int]] = {}
        self.noise = 0
        self._results: tuple[Fingerprints, Fingerprints] | None = None
        self.deterministic = Results(Grade.NOT_CHECKED, "there is no fix to compare it with")
        if found:
            self._run_again(found)

    def _run_again(self, found: Sequence[tuple[Path, Finding]]) -> None:
        engine = self._engine
        watched: dict[str, set[int]] = {}
        for path, finding in found:
            watched.setdefault(str(path), set()).update(range(finding.start.line, finding.end.line + 1))
        engine.say("the target as it is, once more")
        job = replace(engine.job, watched={path: tuple(sorted(lines)) for path, lines in watched.items()})
        second = _recording(engine.run(job))
        self.ran = {path: second.ran_lines.get(path, frozenset()) for path in watched}
        self.noise = abs(Price.of(second).peak_allocated_bytes - self.price.peak_allocated_bytes)
        if any(_has_fix(finding) and not self.ran[str(path)].isdisjoint(_lines(finding)) for path, finding in found):
            self.deterministic = self._compare_with_itself(second)

    def _compare_with_itself(self, second: Recording) -> Results:
        """Two runs of the original: what other runs are compared with."""
        engine = self._engine
        if not engine.verify:
            return Results(Grade.NOT_CHECKED, "not asked for")
        pair = [engine.first.fingerprints, second.fingerprints]
        if None in pair:
            job = results_job(engine.job)
            pair = []
            for _ in range(2):
                engine.say(f"the target as it is, for its results on {job.backend}")
                fingerprints, why = _fingerprints(engine.run(job))
                if fingerprints is None:
                    return Results(Grade.NOT_CHECKED, f"on {job.backend}: {why}")
                pair.append(fingerprints)
        first, again = pair
        assert first is not None and again is not None
        self._results = first, again
        return compare(first, again)

    def try_overlay(self, overlay: dict[str, str]) -> _Tried:
        """Run with these texts. Findings with the same fix share a run."""
        key = tuple(sorted(overlay.items()))
        if key not in self._tried:
            self._tried[key] = self._run_overlay(overlay)
        return self._tried[key]

    def _run_overlay(self, overlay: dict[str, str]) -> _Tried:
        outcome = self._engine.run(replace(self._engine.job, overlay=overlay))
        if outcome.status is not Status.OK or outcome.recording is None:
            return _Tried(None, reason=f"with the fix: {outcome.message}")
        recording = outcome.recording
        first, steps = len(self._engine.first.steps), len(recording.steps)
        if steps != first:
            results = Results(Grade.DIFFERENT, f"{steps} steps, not {first}")
            return _Tried(Price.of(recording), results, recording=recording)
        if self._results is None:
            return _Tried(Price.of(recording), self.deterministic, recording=recording)
        if recording.fingerprints is not None:
            results = compare_with_both(*self._results, recording.fingerprints)
            return _Tried(Price.of(recording), results, recording=recording)
        return self._with_results(overlay, recording, self._results)

    def _with_results(
        self, overlay: dict[str, str], recording: Recording, originals: tuple[Fingerprints, Fingerprints]
    ) -> _Tried:
        """What was priced, and its results from a run of their own."""
        job = replace(results_job(self._engine.job), overlay=overlay)
        outcome = self._engine.run(job)
        if outcome.status is Status.USER_EXCEPTION:
            return _Tried(None, reason=f"with the fix, on {job.backend}: {outcome.message}")
        fingerprints, why = _fingerprints(outcome)
        if fingerprints is None:
            results = Results(Grade.NOT_CHECKED, f"with the fix, on {job.backend}: {why}")
        else:
            compared = compare_with_both(*originals, fingerprints)
            results = replace(compared, detail=f"on {job.backend}, {compared.detail}")
        return _Tried(Price.of(recording), results, recording=recording)


def _fingerprints(outcome: Outcome) -> tuple[Fingerprints | None, str]:
    """Those of a run that was for its results; None, and why."""
    if outcome.status is not Status.OK or outcome.recording is None:
        return None, outcome.message
    return outcome.recording.fingerprints, "nothing was recorded"


def _has_fix(finding: Finding) -> bool:
    return finding.fix is not None and finding.fix.applicability is not Applicability.DISPLAY_ONLY


def _lines(finding: Finding) -> range:
    return range(finding.start.line, finding.end.line + 1)


def _recording(outcome: Outcome) -> Recording:
    if outcome.status is not Status.OK or outcome.recording is None:
        raise NoBaseline(outcome)
    return outcome.recording


def _whole_definition(text: str, lines: range) -> range:
    """The lines; where they begin in the header of a function (its decorators, its parameters), all of the function."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            if first <= lines.start < node.body[0].lineno:
                return range(first, (node.end_lineno or first) + 1)
    return lines


def _held(subject: Subject, path: Path, lines: range) -> int:
    return sum(share.bytes for share in subject.lines if _on(share.place, path, lines))


def _grows(subject: Subject, path: Path, lines: range) -> int:
    """What the lines keep; where they keep nothing, what was allocated on them and is kept elsewhere."""
    growth = [line for _, line in subject.growing]
    kept = sum(
        line.bytes_per_step for line in growth if line.keeper is not None and _on(line.keeper.place, path, lines)
    )
    made = (one for line in growth for one in line.allocated_at if _on(one.place, path, lines))
    return kept or sum(one.bytes_per_step for one in made)


def _on(place: Place | None, path: Path, lines: range) -> bool:
    return place is not None and place.line in lines and Path(place.path) == path


def _elsewhere(before: Price, after: Price) -> str:
    saved = saved_elsewhere(before, after)
    return f"it saves up to {words(saved)} in steps that do not make the peak" if saved > 0 else ""


def _remaining(recording: Recording, overlay: dict[str, str]) -> Iterable[Remaining]:
    """What still grows, at the lines of the files as they are on the disk."""
    for _, line in Subject("", recording, Path()).growing:
        keeper = line.keeper
        place = None if keeper is None else _original(keeper.place, overlay)
        yield Remaining(place, "" if keeper is None else keeper.name, line.bytes_per_step)


def _original(place: Place | None, overlay: dict[str, str]) -> Place | None:
    if place is None or place.path not in overlay:
        return place
    source = SourceFile.decode(place.path, Path(place.path).read_bytes())
    return replace(place, line=LineMap.between(source.text, overlay[place.path]).original(place.line))
