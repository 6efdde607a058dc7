"""What runs of a program with and without a fix say of it. The runs are made by hand here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from recordings import MIB, Run

from memlint.linting.finding import Applicability, Edit, FileResult, Finding, Fix
from memlint.measure.confirm import as_json, report
from memlint.measure.confirm.confirmation import Confirmation, Priced
from memlint.measure.confirm.engine import Engine, NoBaseline
from memlint.measure.confirm.saved import NotAConfirmation, SavedConfirmation
from memlint.measure.confirm.verdicts import Grade, Price, Results, Verdict, compare, compare_with_both, judge
from memlint.measure.job import Job, Layer, Target
from memlint.measure.outcome import Outcome, Status
from memlint.measure.recording import Digest, Fingerprints, Recording
from memlint.source.line_map import LineMap
from memlint.source.lines import Position

IDENTICAL = Results(Grade.IDENTICAL)


def digest(value: float, bits: str = "") -> Digest:
    return Digest(bits or str(value), value, abs(value))


SAME = Fingerprints((digest(1.0), digest(0.5)), digest(3.0), digest(0.0), digest(2.0), "r")

# --- verdicts ---


def growing(training: int | None, evaluation: int | None = 0) -> Price:
    return Price(9 * MIB, growth_of_kinds=(("training", training), ("evaluation", evaluation)))


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        (Price(100 * MIB), Price(98 * MIB), Verdict.CONFIRMED),
        (Price(100 * MIB), Price(99 * MIB), Verdict.NO_EFFECT),  # one hundredth is not more than one hundredth
        (Price(100 * MIB), Price(102 * MIB), Verdict.WORSE),
        (Price(100 * MIB), Price(101 * MIB), Verdict.NO_EFFECT),
        (Price(40_960), Price(20_480), Verdict.CONFIRMED),  # a small program stands for a large one
        (Price(40_960), Price(40_448), Verdict.NO_EFFECT),  # but a scalar less is nothing
        (growing(MIB), growing(0), Verdict.GROWTH_CONFIRMED),
        (growing(MIB), growing(None), Verdict.NO_EFFECT),  # what is unknown is no saving
        (growing(MIB), replace(growing(None), peak_allocated_bytes=4 * MIB), Verdict.CONFIRMED),
        (growing(512), growing(0), Verdict.NO_EFFECT),
        (growing(0), growing(MIB), Verdict.WORSE),
        # The slower growth of two ends: that of the training, or that of the evaluation.
        (growing(MIB, 5 * MIB), growing(0, 5 * MIB), Verdict.GROWTH_CONFIRMED),
        (growing(5 * MIB, MIB), growing(5 * MIB, 0), Verdict.GROWTH_CONFIRMED),
        (growing(5 * MIB, 0), growing(5 * MIB, MIB), Verdict.WORSE),
        # They pile up until the end of an epoch; are as many as with the fix; are one graph more, at every step.
        (Price(9 * MIB, step_graph_nodes=(5, 9, 13)), Price(9 * MIB, step_graph_nodes=(5, 5, 5)), Verdict.HOST_ONLY),
        (Price(9 * MIB, step_graph_nodes=(5, 9, 13)), Price(9 * MIB, step_graph_nodes=(5, 9, 13)), Verdict.NO_EFFECT),
        (Price(9 * MIB, step_graph_nodes=(9, 9, 9)), Price(9 * MIB, step_graph_nodes=(5, 5, 5)), Verdict.NO_EFFECT),
        # What is saved on the device, though not at the peak, is not the host's alone.
        (
            Price(9 * MIB, step_peaks=(4 * MIB,), step_graph_nodes=(5, 9, 13)),
            Price(9 * MIB, step_peaks=(2 * MIB,), step_graph_nodes=(5, 5, 5)),
            Verdict.NO_EFFECT,
        ),
    ],
)
def test_verdicts(before: Price, after: Price, verdict: Verdict) -> None:
    assert judge(before, after, IDENTICAL) is verdict


def test_a_saving_counts_only_above_what_two_runs_of_the_original_differ_by() -> None:
    assert judge(Price(100 * MIB), Price(95 * MIB), IDENTICAL, noise=4 * MIB) is Verdict.CONFIRMED
    assert judge(Price(100 * MIB), Price(95 * MIB), IDENTICAL, noise=5 * MIB) is Verdict.NO_EFFECT


def test_a_fix_that_changes_results_is_no_saving() -> None:
    assert judge(Price(100 * MIB), Price(1 * MIB), Results(Grade.DIFFERENT)) is Verdict.RESULTS_DIFFER
    assert judge(Price(100 * MIB), Price(1 * MIB), Results(Grade.NOT_CHECKED)) is Verdict.CONFIRMED


# --- results ---


@pytest.mark.parametrize(
    ("other", "grade", "words"),
    [
        (SAME, Grade.IDENTICAL, "bitwise: losses, parameters, buffers, first gradients, random state"),
        (replace(SAME, losses=(digest(1.0 + 1e-7), digest(0.5))), Grade.WITHIN_TOLERANCE, "losses 1.0e-07"),
        (replace(SAME, parameters=digest(3.001)), Grade.WITHIN_TOLERANCE, "parameters 3.3e-04"),
        (replace(SAME, parameters=digest(3.1)), Grade.DIFFERENT, "parameters 3.2e-02"),
        (replace(SAME, losses=(digest(1.01), digest(0.5))), Grade.DIFFERENT, "losses 9.9e-03"),
        (replace(SAME, losses=SAME.losses[:1]), Grade.DIFFERENT, "2 losses against 1"),
        (replace(SAME, random_state="s"), Grade.DIFFERENT, "other random numbers were drawn"),
        (replace(SAME, losses=(digest(float("nan")), digest(0.5))), Grade.DIFFERENT, "losses inf"),
        (replace(SAME, losses=(digest(float("inf")), digest(0.5))), Grade.DIFFERENT, "losses inf"),
        # The same sizes with other signs, and a sum near zero of large values that hardly differ.
        (replace(SAME, parameters=Digest("x", -3.0, 3.0)), Grade.DIFFERENT, "parameters 2.0e+00"),
        (replace(SAME, buffers=Digest("x", 1e-6, 1.0)), Grade.DIFFERENT, "buffers"),
    ],
)
def test_grades_of_results(other: Fingerprints, grade: Grade, words: str) -> None:
    results = compare(SAME, other)
    assert results.grade is grade and words in results.detail


def test_a_sum_near_zero_is_compared_with_the_size_of_its_terms() -> None:
    first = replace(SAME, losses=(Digest("a", 1e-7, 10.0),))
    assert compare(first, replace(first, losses=(Digest("b", 2e-7, 10.0),))).grade is Grade.WITHIN_TOLERANCE


def test_losses_that_are_no_numbers_are_equal_to_themselves() -> None:
    diverged = replace(SAME, losses=(digest(float("nan")),))
    assert compare(diverged, replace(diverged)).grade is Grade.IDENTICAL


# --- lines of edited texts ---


def test_lines_are_mapped_back_through_edits() -> None:
    original = "import torch\nfor x in xs:\n    y = f(x)\n    g(y)\nend()\n"
    wrapped = "import torch\nwith torch.no_grad():\n    for x in xs:\n        y = f(x)\n        g(y.detach())\nend()\n"
    lines = LineMap.between(original, wrapped)
    assert [lines.original(number) for number in range(1, 7)] == [1, 2, 2, 3, 4, 5]
    removed = LineMap.between(original, "for x in xs:\n    g(f(x))\nend()\n")
    assert [removed.original(number) for number in (1, 2, 3)] == [2, 3, 5]
    assert LineMap.between(original, original).original(4) == 4


# --- the runs ---

SCRIPT = "x = 1\ny = waste(x)\nz = waste(y)\nw = hopeless(z)\nv = rare(w)\n"


def finding(path: Path, line: int, fixed: str | None, kind: Applicability = Applicability.SAFE) -> Finding:
    end = Position(line, 99)
    edits = (Edit(Position(line, 1), Position(line, len(SCRIPT.splitlines()[line - 1]) + 1), fixed or ""),)
    fix = None if fixed is None else Fix(kind, "mend it", edits)
    return Finding("MEM101", "loss-accumulates-graph", "it grows", path.name, Position(line, 5), end, fix=fix)


def recording(peak: int, *, growth: int = 0, line: int = 2, path: str = "", losses: float = 1.0) -> Recording:
    """Six steps with this peak, and this growth on a line, which ran lines 1 to 4."""
    run = Run()
    run.begin()
    left = peak - 6 * growth
    for _ in range(6):
        held = run.allocate(left, line=3, path=path)
        if growth:
            run.keep(2, "kept", [run.allocate(growth, line=line, path=path)])
        run.free(held)
        run.end_step(graph_nodes=5)
    made = run.recording
    made.ran_lines = {path: frozenset({1, 2, 3, 4})}
    made.fingerprints = replace(SAME, losses=(digest(losses),))
    return made


@dataclass
class Machine:
    """Runs texts: what each gives is chosen by the test. Stands for the linter, too."""

    path: Path
    runs: dict[str, Recording | Outcome]
    found: list[Finding] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def run(self, job: Job) -> Outcome:
        self.jobs.append(job)
        text = job.overlay.get(str(self.path), SCRIPT)
        given = self.runs[text]
        if isinstance(given, Outcome):
            return given
        prints = given.fingerprints if Layer.FINGERPRINTS in job.layers else None
        return Outcome(Status.OK, recording=replace(given, fingerprints=prints))

    def findings(self, paths: Sequence[Path]) -> list[tuple[Path, Finding]]:
        assert paths == [self.path]
        return [(self.path, one) for one in self.found]

    def fixed(self, path: Path, only: frozenset[tuple[str, int]]) -> str:
        assert path == self.path
        lines = SCRIPT.splitlines()
        for one in self.found:
            if (one.code, one.start.line) in only and one.fix is not None:
                lines[one.start.line - 1] = one.fix.edits[0].content
        return "\n".join(lines) + "\n"

    def confirm(self, backend: str = "cpu", *, verify: bool = True) -> Confirmation:
        from memlint.measure.confirm.engine import layers_of

        job = Job(Target("script", "train.py"), backend, str(self.path.parent))  # type: ignore[arg-type]
        job = replace(job, layers=layers_of(job.backend))
        first = self.run(job).recording
        assert first is not None
        return Engine(job, first, self, self.run, self.said.append, verify=verify).confirm()


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "train.py"
    path.write_text(SCRIPT, "utf-8")
    return path


def with_line(number: int, text: str) -> str:
    lines = SCRIPT.splitlines()
    lines[number - 1] = text
    return "\n".join(lines) + "\n"


def the_one(confirmation: Confirmation) -> Priced:
    (priced,) = confirmation.priced
    return priced


def test_each_fix_runs_alone_then_all_together_in_memory_only(script: Path) -> None:
    at = str(script)
    first, second = finding(script, 2, "y = good(x)"), finding(script, 3, "z = good(y)", Applicability.UNSAFE)
    both = with_line(2, "y = good(x)").replace("z = waste(y)", "z = good(y)")
    machine = Machine(
        script,
        {
            SCRIPT: recording(100 * MIB, path=at),
            with_line(2, "y = good(x)"): recording(80 * MIB, path=at),
            with_line(3, "z = good(y)"): recording(70 * MIB, path=at),
            both: recording(60 * MIB, path=at),
        },
        [first, second],
    )
    confirmation = machine.confirm()
    assert [priced.verdict for priced in confirmation.priced] == [Verdict.CONFIRMED, Verdict.CONFIRMED]
    assert [priced.results.grade for priced in confirmation.priced] == [Grade.IDENTICAL, Grade.IDENTICAL]
    assert confirmation.together is not None and confirmation.together.after is not None
    assert confirmation.together.after.peak_allocated_bytes == 60 * MIB  # savings do not add up
    assert [sorted(job.overlay) for job in machine.jobs] == [[], [], [at], [at], [at]]
    assert script.read_text() == SCRIPT
    printed = report.render(confirmation)
    assert "train.py:2: MEM101 [loss-accumulates-graph] confirmed\n    y = waste(x)\n" in printed
    assert "peak 100.0 MiB -> 80.0 MiB (-20.0 MiB)" in printed
    assert "train.py:3: MEM101 [loss-accumulates-graph] confirmed (unsafe fix)" in printed
    assert "both fixes together\n    peak 100.0 MiB -> 60.0 MiB (-40.0 MiB)" in printed


def test_a_line_that_did_not_run_has_no_price_and_no_run(script: Path) -> None:
    machine = Machine(script, {SCRIPT: recording(MIB, path=str(script))}, [finding(script, 5, "v = good(w)")])
    priced = the_one(machine.confirm())
    assert priced.verdict is Verdict.NOT_REACHED and priced.after is None
    assert len(machine.jobs) == 2
    assert machine.jobs[1].watched == {str(script): (5,)}


def test_what_a_line_without_a_fix_holds_and_makes_grow(script: Path) -> None:
    run = recording(30 * MIB, growth=2 * MIB, line=4, path=str(script))
    machine = Machine(
        script, {SCRIPT: run}, [finding(script, 4, None), finding(script, 3, "x", Applicability.DISPLAY_ONLY)]
    )
    grows, holds = machine.confirm().priced
    assert (grows.verdict, grows.grows_bytes_per_step) == (Verdict.NO_FIX, 2 * MIB)
    assert holds.verdict is Verdict.NO_FIX and holds.held_at_peak_bytes == 18 * MIB
    assert "what was allocated on its lines holds 18.0 MiB of the peak of 30.0 MiB" in report.render(machine.confirm())


def test_a_decorator_stands_for_its_function(script: Path) -> None:
    text = "@cache\ndef table(n):\n    return make(n)\n\n\ntable(3)\n"
    script.write_text(text, "utf-8")
    machine = Machine(script, {SCRIPT: recording(30 * MIB, path=str(script))}, [replace(finding(script, 1, None))])
    assert the_one(machine.confirm()).held_at_peak_bytes == 30 * MIB


def test_growth_that_a_fix_ends(script: Path) -> None:
    at = str(script)
    runs: dict[str, Recording | Outcome] = {
        SCRIPT: recording(30 * MIB, growth=2 * MIB, path=at),
        with_line(2, "y = good(x)"): recording(18 * MIB, path=at),
    }
    confirmation = Machine(script, runs, [finding(script, 2, "y = good(x)")]).confirm()
    assert the_one(confirmation).verdict is Verdict.GROWTH_CONFIRMED
    printed = report.render(confirmation)
    assert "growth 2.0 MiB -> 0 B a step" in printed and "peak after 6 steps 30.0 MiB -> 18.0 MiB" in printed


def test_a_fix_after_which_the_program_computes_something_else(script: Path) -> None:
    at = str(script)
    runs: dict[str, Recording | Outcome] = {
        SCRIPT: recording(30 * MIB, path=at),
        with_line(2, "y = wrong(x)"): recording(3 * MIB, path=at, losses=2.0),
    }
    confirmation = Machine(script, runs, [finding(script, 2, "y = wrong(x)")]).confirm()
    assert the_one(confirmation).verdict is Verdict.RESULTS_DIFFER
    assert not the_one(confirmation).saves and confirmation.together is None


def test_a_fix_after_which_the_program_does_not_run(script: Path) -> None:
    runs: dict[str, Recording | Outcome] = {
        SCRIPT: recording(30 * MIB, path=str(script)),
        with_line(2, "y = broken(x)"): Outcome(Status.USER_EXCEPTION, "NameError: broken"),
    }
    priced = the_one(Machine(script, runs, [finding(script, 2, "y = broken(x)")]).confirm())
    assert (priced.verdict, priced.reason) == (Verdict.COULD_NOT_RUN, "with the fix: NameError: broken")


def test_a_saving_in_steps_that_do_not_make_the_peak_is_told(script: Path) -> None:
    at = str(script)
    fixed = recording(30 * MIB, path=at)
    late = fixed.storages[-1]
    late.size -= 5 * MIB
    runs: dict[str, Recording | Outcome] = {SCRIPT: recording(30 * MIB, path=at), with_line(2, "y = good(x)"): fixed}
    priced = the_one(Machine(script, runs, [finding(script, 2, "y = good(x)")]).confirm())
    assert priced.verdict is Verdict.NO_EFFECT
    assert priced.reason == "it saves up to 5.0 MiB in steps that do not make the peak"


def test_findings_with_the_same_fix_share_a_run(script: Path) -> None:
    at = str(script)
    runs: dict[str, Recording | Outcome] = {
        SCRIPT: recording(30 * MIB, path=at),
        with_line(2, "y = good(x)"): recording(20 * MIB, path=at),
    }
    machine = Machine(script, runs, [finding(script, 2, "y = good(x)")] * 2)
    assert [priced.verdict for priced in machine.confirm().priced] == [Verdict.CONFIRMED] * 2
    assert len(machine.jobs) == 3


def losses(value: float) -> Fingerprints:
    return replace(SAME, losses=(digest(value), digest(0.5)))


@pytest.mark.parametrize(
    ("again", "other", "grade", "words"),
    [
        (SAME, losses(1.0 + 1e-7), Grade.WITHIN_TOLERANCE, "losses 1.0e-07"),
        (losses(1.001), losses(1.0015), Grade.WITHIN_TOLERANCE, "losses 5.0e-04; of two runs of the original: losses"),
        (losses(1.001), losses(1.004), Grade.NOT_CHECKED, "losses 3.0e-03"),
        (losses(1.001), losses(1.05), Grade.DIFFERENT, "losses 4.7e-02"),
        # As near as ever, but the two originals are too far apart to say that it means anything.
        (losses(1.1), losses(1.05), Grade.NOT_CHECKED, "differ too much to compare with: losses 9.1e-02"),
        # What both originals agree on has no spread.
        (losses(1.001), replace(losses(1.001), parameters=digest(3.3)), Grade.DIFFERENT, "parameters 9.1e-02"),
        (losses(1.001), replace(losses(1.001), random_state="s"), Grade.DIFFERENT, "other random numbers were drawn"),
        (replace(losses(1.001), random_state="s"), replace(SAME, random_state="t"), Grade.WITHIN_TOLERANCE, "none"),
        (replace(SAME, losses=SAME.losses[:1]), SAME, Grade.NOT_CHECKED, "2 losses and 1"),
        (losses(1.001), replace(SAME, losses=SAME.losses[:1]), Grade.DIFFERENT, "2 losses against 1"),
        (losses(float("nan")), SAME, Grade.NOT_CHECKED, "losses inf"),
    ],
)
def test_a_program_that_is_not_deterministic_has_its_own_spread(
    again: Fingerprints, other: Fingerprints, grade: Grade, words: str
) -> None:
    results = compare_with_both(SAME, again, other)
    assert results.grade is grade
    assert words in results.detail


def test_a_program_that_differs_too_much_from_itself_is_not_compared(script: Path) -> None:
    at = str(script)
    originals = iter([recording(30 * MIB, path=at, losses=1.0), recording(31 * MIB, path=at, losses=1.1)])
    fixed: dict[str, Recording | Outcome] = {with_line(2, "y = good(x)"): recording(20 * MIB, path=at)}
    machine = Machine(script, fixed, [finding(script, 2, "y = good(x)")])
    usual = machine.run

    def run(job: Job) -> Outcome:
        return usual(job) if job.overlay else Outcome(Status.OK, recording=next(originals))

    machine.run = run  # type: ignore[method-assign]
    confirmation = machine.confirm()
    priced = the_one(confirmation)
    assert priced.verdict is Verdict.CONFIRMED
    assert priced.results.grade is Grade.NOT_CHECKED and "not deterministic" in priced.results.detail
    assert confirmation.noise_bytes == MIB
    assert "the program is not deterministic, two runs of it differ" in report.render(confirmation)
    assert "results: not checked (the program is not deterministic" in report.render(confirmation)


def test_fake_has_its_results_from_cpu_and_says_where_there_are_none(script: Path) -> None:
    at = str(script)
    runs: dict[str, Recording | Outcome] = {
        SCRIPT: recording(30 * MIB, path=at),
        with_line(2, "y = good(x)"): recording(20 * MIB, path=at),
    }
    machine = Machine(script, runs, [finding(script, 2, "y = good(x)")])
    results = the_one(machine.confirm("fake")).results
    assert results.grade is Grade.IDENTICAL and results.detail.startswith("on cpu, bitwise")
    assert [job.backend for job in machine.jobs] == ["fake", "fake", "cpu", "cpu", "fake", "cpu"]
    machine.jobs.clear()
    assert the_one(machine.confirm("fake", verify=False)).results == Results(Grade.NOT_CHECKED, "not asked for")
    assert [job.backend for job in machine.jobs] == ["fake", "fake", "fake"]
    usual = machine.run

    def without_cpu(job: Job) -> Outcome:
        return Outcome(Status.OUT_OF_MEMORY, "too large") if job.backend == "cpu" else usual(job)

    machine.run = without_cpu  # type: ignore[method-assign]
    priced = the_one(machine.confirm("fake"))
    assert priced.verdict is Verdict.CONFIRMED
    assert priced.results == Results(Grade.NOT_CHECKED, "on cpu: too large")


def test_the_results_on_cuda_have_runs_of_their_own(script: Path) -> None:
    at = str(script)
    runs: dict[str, Recording | Outcome] = {
        SCRIPT: recording(30 * MIB, path=at),
        with_line(2, "y = good(x)"): recording(20 * MIB, path=at),
    }
    machine = Machine(script, runs, [finding(script, 2, "y = good(x)")])
    machine.confirm("cuda")
    wanted = [False, False, True, True, False, True]
    assert [(job.backend, Layer.FINGERPRINTS in job.layers) for job in machine.jobs] == [
        ("cuda", one) for one in wanted
    ]


def test_what_nobody_asks_for_is_not_run(script: Path) -> None:
    runs: dict[str, Recording | Outcome] = {SCRIPT: recording(30 * MIB, path=str(script))}
    machine = Machine(script, runs)
    assert "No findings in the 1 file that the target runs." in report.render(machine.confirm("fake"))
    assert len(machine.jobs) == 1
    machine = Machine(script, runs, [finding(script, 2, None), finding(script, 5, "v = good(w)")])
    machine.confirm("fake")
    assert [job.backend for job in machine.jobs] == ["fake", "fake"]


def test_a_fix_after_which_fewer_steps_run_is_not_priced_as_a_saving(script: Path) -> None:
    at = str(script)
    shorter = recording(20 * MIB, path=at)
    del shorter.steps[3:]
    runs: dict[str, Recording | Outcome] = {SCRIPT: recording(30 * MIB, path=at), with_line(2, "y = good(x)"): shorter}
    priced = the_one(Machine(script, runs, [finding(script, 2, "y = good(x)")]).confirm(verify=False))
    assert (priced.verdict, priced.results.detail) == (Verdict.RESULTS_DIFFER, "3 steps, not 6")


def test_results_that_cannot_be_had_with_the_fix_leave_its_price(script: Path) -> None:
    at = str(script)
    runs: dict[str, Recording | Outcome] = {
        SCRIPT: recording(30 * MIB, path=at),
        with_line(2, "y = good(x)"): recording(20 * MIB, path=at),
    }
    machine = Machine(script, runs, [finding(script, 2, "y = good(x)")])
    usual = machine.run
    ends = {"slow": Outcome(Status.TIMEOUT, "slow"), "broken": Outcome(Status.USER_EXCEPTION, "broken")}
    for word, verdict in (("slow", Verdict.CONFIRMED), ("broken", Verdict.COULD_NOT_RUN)):
        end = ends[word]
        machine.run = lambda job, end=end: end if job.overlay and job.backend == "cpu" else usual(job)  # type: ignore[method-assign,misc]
        priced = the_one(machine.confirm("fake"))
        assert priced.verdict is verdict and priced.results.grade is Grade.NOT_CHECKED


def test_an_original_that_does_not_run_twice(script: Path) -> None:
    machine = Machine(script, {SCRIPT: recording(30 * MIB, path=str(script))}, [finding(script, 2, None)])
    usual = machine.run
    machine.run = lambda job: usual(job) if not machine.jobs else Outcome(Status.TIMEOUT, "slow")  # type: ignore[method-assign]
    with pytest.raises(NoBaseline, match="slow"):
        machine.confirm()


# --- saved confirmations ---


@pytest.fixture
def saved(script: Path) -> tuple[Path, Machine]:
    """A saved confirmation: the finding of line 2 is confirmed, that of line 3 has no effect."""
    at = str(script)
    runs: dict[str, Recording | Outcome] = {
        SCRIPT: recording(30 * MIB, path=at),
        with_line(2, "y = good(x)"): recording(20 * MIB, path=at),
        with_line(3, "z = good(y)"): recording(30 * MIB, path=at),
        with_line(2, "y = good(x)").replace("z = waste(y)", "z = good(y)"): recording(20 * MIB, path=at),
    }
    machine = Machine(script, runs, [finding(script, 2, "y = good(x)"), finding(script, 3, "z = good(y)")])
    file = script.parent / "saved" / "prices.json"
    file.parent.mkdir()
    file.write_text(as_json.render(machine.confirm(), file.parent), "utf-8")
    return file, machine


def prices(file: Path, findings: Sequence[Finding], path: Path) -> list[tuple[str, bool] | None]:
    priced = SavedConfirmation.read(file).priced(FileResult(path.name, tuple(findings)), path, path.read_bytes())
    return [
        None if one.measured is None else (one.measured.verdict, one.measured.changed_since) for one in priced.findings
    ]


def moved(findings: Sequence[Finding], by: int) -> list[Finding]:
    return [replace(one, start=Position(one.start.line + by, one.start.column)) for one in findings]


def test_saved_prices_belong_to_the_content_of_a_file(saved: tuple[Path, Machine], script: Path) -> None:
    file, machine = saved
    assert json.loads(file.read_text())["files"][0]["path"] == "../train.py"
    verdicts = [("confirmed", False), ("no effect at the peak here", False)]
    assert prices(file, machine.found, script) == verdicts
    copy = script.with_name("copy.py")
    copy.write_text(SCRIPT, "utf-8")
    assert prices(file, machine.found, copy) == verdicts
    assert SavedConfirmation.read(file).confirmed(copy, copy.read_bytes()) == {("MEM101", 2)}


def test_saved_prices_after_an_edit_say_so_and_no_fix_is_confirmed(saved: tuple[Path, Machine], script: Path) -> None:
    file, machine = saved
    script.write_text("import new\n" + SCRIPT, "utf-8")
    confirmation = SavedConfirmation.read(file)
    assert prices(file, moved(machine.found, 1), script) == [("confirmed", True), ("no effect at the peak here", True)]
    assert confirmation.confirmed(script, script.read_bytes()) == frozenset()
    assert confirmation.changed() == [script]
    script.write_text(SCRIPT.replace("y = waste(x)", "y = waste(x, 1)"), "utf-8")
    assert prices(file, machine.found, script) == [None, ("no effect at the peak here", True)]


def test_alike_lines_are_told_apart_by_their_order(tmp_path: Path, saved: tuple[Path, Machine], script: Path) -> None:
    file, _ = saved
    content = json.loads(file.read_text())
    first, second = content["findings"]
    second["code_line"] = first["code_line"]
    file.write_text(json.dumps(content), "utf-8")
    script.write_text("new = 1\ny = waste(x)\ny = waste(x)\n", "utf-8")
    found = [finding(script, 2, None), finding(script, 3, None)]
    assert prices(file, found, script) == [("confirmed", True), ("no effect at the peak here", True)]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"schema_version": 1}', '{"schema_version": 99}'])
def test_a_file_that_is_no_confirmation(tmp_path: Path, content: str) -> None:
    file = tmp_path / "prices.json"
    file.write_text(content, "utf-8")
    with pytest.raises(NotAConfirmation):
        SavedConfirmation.read(file)
