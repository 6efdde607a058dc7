"""`memlint measure` and `memlint confirm` as commands: words in, output and exit status out. No target runs."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from recordings import MIB, Run

from memlint.cli.main import memlint as command
from memlint.measure import launch
from memlint.measure.job import Job, Layer
from memlint.measure.outcome import Frame, Outcome, Status
from memlint.measure.recording import Place

APART: dict[str, Any] = {"mix_stderr": False} if "mix_stderr" in inspect.signature(CliRunner).parameters else {}

Invoke = Callable[..., Result]


def measured(peak: int = 10 * MIB) -> Outcome:
    run = Run()
    run.begin()
    for _ in range(6):
        run.free(run.allocate(peak))
        run.end_step()
    return Outcome(Status.OK, recording=run.recording)


class Launcher:
    """Stands for the worker: notes the jobs, and gives what the test wants."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.outputs: list[str] = []
        self.give: Callable[[Job], Outcome] = lambda _: measured()

    def run(self, job: Job, output: str = "inherit") -> Outcome:
        self.jobs.append(job)
        self.outputs.append(output)
        return self.give(job)


@pytest.fixture
def launcher(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Launcher:
    """In an empty project with a script, on a machine without a GPU."""
    launcher = Launcher()
    monkeypatch.setattr(launch, "run", launcher.run)
    monkeypatch.setattr(launch, "best_backend", lambda: "fake")
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".git").mkdir()
    (tmp_path / "train.py").write_text("x = 1\n", "utf-8")
    return launcher


def invoke(*words: str) -> Result:
    return CliRunner(**APART).invoke(command, list(words))


def configure(text: str) -> None:
    Path("pyproject.toml").write_text(f"[tool.memlint.measure]\n{text}", "utf-8")


@pytest.mark.parametrize("name", ["measure", "confirm"])
def test_every_option_stands_on_a_page(name: str) -> None:
    root = Path(__file__).resolve().parent.parent.parent
    pages = [root / "docs" / page for page in ("measure.md", "confirm.md")[: 1 if name == "measure" else 2]]
    text = "".join(page.read_text("utf-8") for page in pages)
    named = command.get_command(click.Context(command), name)
    assert named is not None
    options = [option for param in named.params for option in param.opts if option.startswith("--")]
    assert options and [option for option in options if option not in text] == []


# --- from words to a job ---


@pytest.mark.parametrize(
    ("words", "kind", "name", "arguments"),
    [
        (["train.py", "--", "--lr", "1"], "script", "train.py", ("--lr", "1")),
        (["train.py", "data"], "script", "train.py", ("data",)),
        (["-m", "pkg.train", "--", "--lr", "1"], "module", "pkg.train", ("--lr", "1")),
        (["pkg.mod:Trainer.step"], "function", "pkg.mod:Trainer.step", ()),
    ],
)
def test_what_a_target_may_be(
    launcher: Launcher, words: list[str], kind: str, name: str, arguments: tuple[str, ...]
) -> None:
    assert invoke("measure", *words).exit_code == 0
    target = launcher.jobs[0].target
    assert (target.kind, target.name, target.arguments) == (kind, name, arguments)


def test_options_become_the_job(launcher: Launcher, tmp_path: Path) -> None:
    options = (
        "--backend cpu --steps 3 --warmup 1 --device l4-24gb --timeout 7 --memory-limit 2GiB --seed 5 --allow-write"
    )
    assert invoke("measure", "train.py", *options.split()).exit_code == 0
    job = launcher.jobs[0]
    assert (job.backend, job.steps, job.warmup, job.device, job.timeout_seconds) == ("cpu", 3, 1, "l4-24gb", 7.0)
    assert (job.host_memory_limit_bytes, job.seed, job.allow_write, job.folder) == (2 * 2**30, 5, True, str(tmp_path))


def test_the_configuration_names_targets_and_options(launcher: Launcher) -> None:
    configure(
        'steps = 4\nbackend = "cpu"\nenv = {DATA = "small"}\n'
        "[tool.memlint.measure.targets]\n"
        'evaluate = "-m pkg.evaluate"\n'
        'small = {target = "train.py", args = ["--small"], steps = 9, env = {MODE = "x"}}\n'
    )
    assert invoke("measure", "small", "--", "--lr", "1").exit_code == 0
    assert invoke("measure", "evaluate", "--steps", "2").exit_code == 0
    small, evaluate = launcher.jobs
    assert (small.target.name, small.target.arguments, small.steps) == ("train.py", ("--small", "--lr", "1"), 9)
    assert (small.backend, small.environment) == ("cpu", {"DATA": "small", "MODE": "x"})
    assert (evaluate.target.kind, evaluate.target.name, evaluate.steps) == ("module", "pkg.evaluate", 2)


def test_a_named_target_runs_in_the_folder_of_its_configuration(
    launcher: Launcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure('targets = {small = "train.py"}\n')
    (tmp_path / "deep").mkdir()
    monkeypatch.chdir(tmp_path / "deep")
    assert invoke("measure", "small").exit_code == 0
    assert launcher.jobs[0].folder == str(tmp_path)


@pytest.mark.parametrize(
    ("configuration", "words", "message"),
    [
        ("", [], "name a target"),
        ("", ["trian.py"], "there is no file `trian.py`"),
        ('targets = {small = "train.py"}', ["smal"], 'did you mean "small"?'),
        ('targets = {small = "train.py"}', [], "the configuration has small"),
        ("", ["train.py", "--device", "a100"], 'no card "a100"; did you mean "a100-'),
        ("", ["train.py", "--memory-limit", "lots"], "memory-limit: `lots` is not a size"),
        ('budget = "lots"', ["train.py"], "budget: `lots` is not a size"),
        ("step = 3", ["train.py"], 'there is no option "step"; did you mean "steps"?'),
        ("steps = 0", ["train.py"], '"steps" must be a whole number, 1 or more, not the number 0'),
        ('backend = "gpu"', ["train.py"], '"backend" must be "auto" or "cuda" or "fake" or "cpu"'),
        ("targets = {small = {args = []}}", ["train.py"], '"targets.small" must be a table with a "target"'),
        ("targets = {small = 3}", ["train.py"], '"targets.small" must be a target such as "train.py"'),
        ('targets = {small = {target = "a", x = 1}}', ["train.py"], 'targets.small: there is no option "x"'),
        ("env = {A = 1}", ["train.py"], 'env: "A" must be a string, not the number 1'),
    ],
)
def test_what_cannot_be_meant_is_said_before_anything_runs(
    launcher: Launcher, configuration: str, words: list[str], message: str
) -> None:
    configure(configuration)
    result = invoke("measure", *words)
    assert result.exit_code == 2 and message in result.stderr
    assert launcher.jobs == []


def test_without_torch_the_extra_is_named(launcher: Launcher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    result = invoke("measure", "train.py")
    assert result.exit_code == 2 and "memlint-torch[measure]" in result.stderr


# --- from an outcome to output and exit status ---


def test_a_measurement_is_printed(launcher: Launcher) -> None:
    result = invoke("measure", "train.py")
    assert result.exit_code == 0
    assert "peak allocated" in result.stdout and "predicted" in result.stdout
    assert "placeholders" in result.stderr  # what the target prints on fake
    assert launcher.outputs == ["inherit"]


def test_saved_tensors_are_recorded_when_asked_for(launcher: Launcher) -> None:
    assert invoke("measure", "train.py").exit_code == invoke("measure", "train.py", "--saved-tensors").exit_code == 0
    assert [Layer.SAVED_TENSORS in job.layers for job in launcher.jobs] == [False, True]
    assert all({Layer.LINES, Layer.GROWTH} <= job.layers for job in launcher.jobs)


def test_as_json_standard_output_is_the_object_alone(launcher: Launcher) -> None:
    result = invoke("measure", "train.py", "--output-format", "json")
    assert json.loads(result.stdout)["peak_allocated_bytes"] == 10 * MIB
    assert launcher.outputs == ["stderr"]


def test_a_budget_is_a_question_of_the_exit_status(launcher: Launcher) -> None:
    assert invoke("measure", "train.py", "--budget", "10MiB").exit_code == 0
    over = invoke("measure", "train.py", "--budget", "9.9MiB")
    assert over.exit_code == 1 and "the peak of 10.0 MiB (predicted) passes the budget of 9.9 MiB" in over.stderr
    configure('budget = "1MiB"\n')
    assert invoke("measure", "train.py").exit_code == 1


def test_reports_are_written_to_files(launcher: Launcher) -> None:
    assert invoke("measure", "train.py", "--html", "a.html", "--snapshot", "b.pickle").exit_code == 0
    assert Path("a.html").read_text().startswith("<!") and Path("b.pickle").stat().st_size > 0
    failed = invoke("measure", "train.py", "--snapshot", "no/such/folder")
    assert failed.exit_code == 2 and "cannot be written" in failed.stderr


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        (
            Outcome(
                Status.USER_EXCEPTION,
                "ValueError: x",
                frames=(Frame(Place("/elsewhere/a.py", 3, "f"), "raise ValueError('x')"),),
            ),
            "error: ValueError: x\n  /elsewhere/a.py:3, in f\n    raise ValueError('x')\n",
        ),
        (
            Outcome(Status.NEVER_STEPPED, "no step was seen", "name a function"),
            "no step was seen\nhelp: name a function",
        ),
        (Outcome(Status.TIMEOUT, "stopped after 120 s", "allow more"), "stopped after 120 s\nhelp: allow more"),
        (Outcome(Status.KILLED, "ended by SIGSEGV"), "error: ended by SIGSEGV"),
        (Outcome(Status.OUT_OF_MEMORY, "out of host memory"), "error: out of host memory"),
    ],
)
def test_a_target_that_gave_no_measurement(launcher: Launcher, outcome: Outcome, words: str) -> None:
    launcher.give = lambda _: outcome
    for name in ("measure", "confirm"):
        result = invoke(name, "train.py", "--backend", "cpu")
        assert result.exit_code == 2 and words in result.stderr
        assert result.stdout == ""


def test_out_of_memory_says_what_held_it(launcher: Launcher) -> None:
    recording = measured().recording
    launcher.give = lambda _: Outcome(Status.OUT_OF_MEMORY, "out of device memory", recording=recording)
    result = invoke("measure", "train.py", "--backend", "cpu")
    assert result.exit_code == 2
    assert "Lines that hold the peak" in result.stdout and "out of device memory" in result.stderr


def test_what_fake_cannot_run_runs_on_cpu_unless_fake_was_asked_for(launcher: Launcher) -> None:
    unsupported = Outcome(Status.UNSUPPORTED, "a custom kernel", "try `--backend cpu`")
    launcher.give = lambda job: unsupported if job.backend == "fake" else measured()
    result = invoke("measure", "train.py")
    assert result.exit_code == 0 and "backend fake cannot run this: a custom kernel; running it on cpu" in result.stderr
    assert [job.backend for job in launcher.jobs] == ["fake", "cpu"]
    asked = invoke("measure", "train.py", "--backend", "fake")
    assert asked.exit_code == 2 and "a custom kernel\nhelp: try `--backend cpu`" in asked.stderr


# --- confirm ---


TRAINING = (
    "import torch\n"
    "from torch import nn\n\n\n"
    "def main(model: nn.Module, loader, criterion: nn.CrossEntropyLoss, optimizer):\n"
    "    total = 0.0\n"
    "    for images, labels in loader:\n"
    "        loss = criterion(model(images), labels)\n"
    "        loss.backward()\n"
    "        optimizer.step()\n"
    "        total += loss\n"
    "    return float(total)\n"
)


def test_confirm_prints_saves_and_tells_by_its_exit_status(launcher: Launcher, tmp_path: Path) -> None:
    path = tmp_path / "train.py"
    path.write_text(TRAINING, "utf-8")

    def give(job: Job) -> Outcome:
        outcome = measured(8 * MIB if job.overlay else 10 * MIB)
        assert outcome.recording is not None
        outcome.recording.ran_lines = {str(path): frozenset({11})}
        return outcome

    launcher.give = give
    saved = tmp_path / "prices.json"
    result = invoke("confirm", "train.py", "--no-verify", "--output", "prices.json")
    assert result.exit_code == 1, result.output
    assert "train.py:11: MEM101 [loss-accumulates-graph] confirmed" in result.stdout
    assert "peak 10.0 MiB -> 8.0 MiB (-2.0 MiB)" in result.stdout
    assert launcher.jobs[1].watched == {str(path): (11,)}
    assert "total += loss.detach()" in launcher.jobs[2].overlay[str(path)]
    assert all(Layer.GROWTH in job.layers for job in launcher.jobs) and set(launcher.outputs) == {"discard"}
    assert json.loads(saved.read_text())["findings"][0]["verdict"] == "confirmed"

    as_json = invoke("confirm", "train.py", "--no-verify", "--output-format", "json", "--exit-zero")
    assert as_json.exit_code == 0
    assert json.loads(as_json.stdout)["findings"][0]["after"]["peak_allocated_bytes"] == 8 * MIB
    assert invoke("confirm", "train.py", "--ignore", "MEM101").exit_code == 0

    checked = invoke("check", "train.py", "--measured", "prices.json", "--output-format", "concise")
    assert (
        "[confirmed: peak 10.0 MiB -> 8.0 MiB (-2.0 MiB); results not checked (predicted, 6 steps)]" in checked.stdout
    )
    path.write_text(path.read_text() + "\n", "utf-8")
    assert "has changed since it was measured" in invoke("check", "train.py", "--measured", "prices.json").stderr
    refused = invoke("fix", "train.py", "--apply", "--only-confirmed", "prices.json")
    assert "Nothing to fix." in refused.stdout and "its fixes are left out" in refused.stderr
    path.write_text(path.read_text()[:-1], "utf-8")
    fixed = invoke("fix", "train.py", "--apply", "--only-confirmed", "prices.json")
    assert fixed.exit_code == 0 and "total += loss.detach()" in path.read_text()


def test_only_the_confirmed_fixes_of_a_file_are_applied(launcher: Launcher, tmp_path: Path) -> None:
    path = tmp_path / "train.py"
    second = TRAINING.partition("\n\n\n")[2].replace("main", "other")
    text = f"{TRAINING}\n\n{second}"
    path.write_text(text, "utf-8")

    def give(job: Job) -> Outcome:
        second_is_fixed = job.overlay.get(str(path), text).endswith("total += loss.detach()\n    return float(total)\n")
        outcome = measured(8 * MIB if second_is_fixed else 10 * MIB)
        assert outcome.recording is not None
        outcome.recording.ran_lines = {str(path): frozenset({11, 21})}
        return outcome

    launcher.give = give
    result = invoke("confirm", "train.py", "--no-verify", "--output", "prices.json")
    assert result.exit_code == 1, result.output
    invoke("fix", "train.py", "--apply", "--only-confirmed", "prices.json")
    assert path.read_text() == f"{TRAINING}\n\n{second.replace('+= loss', '+= loss.detach()')}"


def test_a_file_that_is_no_confirmation_is_trouble(launcher: Launcher) -> None:
    Path("prices.json").write_text("{}", "utf-8")
    for words in (["check", "--measured"], ["fix", "--only-confirmed"]):
        result = invoke(*words, "prices.json", "train.py")
        assert result.exit_code == 2 and "no output of `memlint confirm --output`" in result.stderr
        assert invoke(*words, "missing.json", "train.py").exit_code == 2
