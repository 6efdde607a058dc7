"""The cache: what it gives is what a fresh check gives, and it does again only what it has to."""

from __future__ import annotations

import json
import os
import random
import sqlite3
import textwrap
import time
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memlint.cache import snapshot, store
from memlint.cache.encoding import result_from_text, result_to_text
from memlint.cache.results import Results
from memlint.cache.stores import Stores
from memlint.linting.earlier import Earlier, Examined
from memlint.linting.examine import examine
from memlint.linting.finding import (
    Applicability,
    Confidence,
    Cost,
    CostClass,
    Edit,
    FileResult,
    Finding,
    Fix,
    Related,
)
from memlint.linting.lint import forget_projects, lint
from memlint.linting.policy import Policy
from memlint.linting.registry import all_rules
from memlint.project.names import Names
from memlint.semantics import project as project_module
from memlint.semantics.answers import from_text
from memlint.semantics.callers import Literals, Site
from memlint.semantics.plain import STORABLE, SiteNumber, from_plain, to_plain
from memlint.semantics.project import View
from memlint.semantics.summaries import FunctionSummary, ParameterEffects, Result
from memlint.semantics.values import Grad, Kind, Mode
from memlint.source.cells import CellIndex
from memlint.source.lines import Position

CODES = frozenset(rule.code for rule in all_rules())

ENGINE = """
    import torch

    def evaluate(model, loader):
        model.eval()
        for x in loader:
            print(model(x).argmax(1))
"""
CALLS_WITH_GRAD_OFF = """
    import torch
    from engine import evaluate

    def main(model, loader):
        with torch.no_grad():
            evaluate(model, loader)
"""
CALLS_WITH_GRAD_ON = CALLS_WITH_GRAD_OFF.replace("with torch.no_grad():", "if model:")
HELPER = """
    import torch.nn.functional as F

    def loss_of(model, x, y):
        return F.cross_entropy(model(x), y)

    def unrelated():
        return 1
"""
TRAIN = """
    import torch
    from helper import loss_of

    def run(model, loader, optimizer):
        total = 0
        for x, y in loader:
            loss = loss_of(model, x, y)
            loss.backward()
            optimizer.step()
            total += loss
        return total
"""


@dataclass
class Run:
    """What one run found, and which files it did again."""

    found: dict[str, list[str]] = field(default_factory=dict)
    redone: list[str] = field(default_factory=list)
    asked_again: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)


@dataclass
class Project:
    root: Path
    confidence: Confidence = Confidence.LOW
    codes: frozenset[str] = CODES

    def write(self, files: Mapping[str, str | None] | None = None, **more: str | None) -> None:
        """`helper=text` writes helper.py; None takes the file away."""
        for name, text in {**(files or {}), **more}.items():
            path = self.root / f"{name}.py"
            if text is None:
                path.unlink(missing_ok=True)
                continue
            path.parent.mkdir(exist_ok=True)
            path.write_text(textwrap.dedent(text), "utf-8")

    said: list[str] = field(default_factory=list)

    def policy(self, file: str) -> Policy:
        return Policy(self.codes, self.confidence, None, str(self.root), self.root / file)

    @property
    def files(self) -> list[str]:
        return sorted(path.relative_to(self.root).as_posix() for path in self.root.rglob("*.py"))

    def fresh(self) -> dict[str, FileResult]:
        forget_projects()
        return {file: lint(file, (self.root / file).read_bytes(), self.policy(file)) for file in self.files}

    def told_anew(self, file: str) -> Examined:
        return examine(file, (self.root / file).read_bytes(), self.policy(file))

    def check(self, *only: str) -> Run:
        """Check with the cache, as the command line does, and compare with a fresh check."""
        expected = self.fresh()
        told = {file: self.told_anew(file) for file in self.files}
        forget_projects()
        run = Run()
        results = Results(Stores(run.said.append))
        files = only or self.files
        for file, known in zip(files, results.find([(file, self.policy(file)) for file in files]), strict=True):
            policy = self.policy(file)
            if isinstance(known, FileResult):
                result = known
            else:
                examined = examine(file, (self.root / file).read_bytes(), policy, known)
                results.keep(policy, examined)
                result = examined.result
                (run.redone if examined.is_new else run.asked_again).append(file)
                assert examined.is_new or isinstance(known, Earlier)
                assert_told_the_same(examined, told[file])
            assert result == expected[file]
            run.found[file] = [finding.code for finding in result.findings]
        results.save()
        return run


def assert_told_the_same(examined: Examined, anew: Examined) -> None:
    """Every answer that was taken from the store is the one that is worked out anew."""
    told, expected = from_text(examined.asked), from_text(anew.asked)
    assert {question: known.answer for question, known in told.answers.items()} == {
        question: known.answer for question, known in expected.answers.items()
    }
    assert told.sites.keys() == expected.sites.keys()
    for function, known in told.sites.items():
        sites = expected.sites[function].sites
        assert (known.sites is None) == (sites is None)
        assert known.sites is None or known.sites[: len(sites)] == sites  # earlier, more of them may have been read


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "pyproject.toml").write_text("")
    return Project(tmp_path)


def test_an_unchanged_project_is_not_checked_again(project: Project) -> None:
    project.write(engine=ENGINE, main=CALLS_WITH_GRAD_ON, train=TRAIN, helper=HELPER)
    first = project.check()
    assert first.redone == project.files
    assert first.found["engine.py"] == ["MEM201"]
    second = project.check()
    assert (second.redone, second.asked_again, second.found) == ([], [], first.found)


def test_a_changed_file_alone_is_checked_again(project: Project) -> None:
    project.write(engine=ENGINE, train=TRAIN, helper=HELPER, other="import torch\n")
    project.check()
    project.write(other="import torch\nx = 1\n")
    run = project.check()
    assert run.redone == ["other.py"]


def test_a_helper_that_means_something_else(project: Project) -> None:
    project.write(train=TRAIN, helper=HELPER)
    assert project.check().found["train.py"] == ["MEM101"]
    project.write(helper=HELPER.replace("model(x), y)", "model(x), y).item()"))
    run = project.check()
    assert run.redone == ["helper.py", "train.py"]
    assert run.found["train.py"] == []


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("import torch", "# A comment.\n    import torch"),
        ("return 1", "return 2"),
        ("def unrelated", "def unrelated_too"),
    ],
    ids=["a comment", "another function", "another function's name"],
)
def test_a_helper_that_means_the_same(project: Project, before: str, after: str) -> None:
    project.write(train=TRAIN, helper=HELPER)
    project.check()
    project.write(helper=HELPER.replace(before, after))
    run = project.check()
    assert (run.redone, run.asked_again) == (["helper.py"], ["train.py"])


def test_a_caller_that_switches_grad_off(project: Project) -> None:
    project.write(engine=ENGINE, main=CALLS_WITH_GRAD_ON)
    assert project.check().found["engine.py"] == ["MEM201"]
    project.write(main=CALLS_WITH_GRAD_OFF)
    run = project.check()
    assert run.redone == ["engine.py", "main.py"]
    assert run.found["engine.py"] == []


def test_a_caller_that_calls_it_as_before(project: Project) -> None:
    project.write(engine=ENGINE, main=CALLS_WITH_GRAD_OFF)
    project.check()
    project.write(main="# A line that moves the call.\n" + textwrap.dedent(CALLS_WITH_GRAD_OFF))
    run = project.check()
    assert (run.redone, run.asked_again) == (["main.py"], ["engine.py"])


def test_a_new_file_that_calls_it(project: Project) -> None:
    project.write(engine=ENGINE)
    assert project.check().found["engine.py"] == ["MEM201"]
    project.write(main=CALLS_WITH_GRAD_OFF)
    assert project.check().found["engine.py"] == []
    project.write(main=None)
    assert project.check().found["engine.py"] == ["MEM201"]


def test_a_name_that_could_not_be_followed_and_now_can(project: Project) -> None:
    project.write(train=TRAIN)
    project.check()
    project.write(helper=HELPER)
    assert project.check().redone == ["helper.py", "train.py"]


def test_a_file_that_has_nothing_to_do_with_it_asks_nothing(project: Project) -> None:
    project.write(engine=ENGINE, train=TRAIN, helper=HELPER, notes="import torch\n")
    project.check()
    project.write(notes="import torch\nanswer = 42\n")
    run = project.check()
    assert (run.redone, run.asked_again) == (["notes.py"], [])


def test_a_run_over_one_file_leaves_the_others_their_results(project: Project) -> None:
    project.write(engine=ENGINE, train=TRAIN, helper=HELPER)
    project.check()
    project.write(train=TRAIN + "\n    x = 1\n")
    assert project.check("train.py").redone == ["train.py"]
    run = project.check()
    assert (run.redone, run.asked_again) == ([], [])


ASKS = {"engine": ENGINE, "main": CALLS_WITH_GRAD_OFF, "train": TRAIN, "helper": HELPER}


@pytest.mark.parametrize("file", ["train", "engine"])
def test_of_a_file_that_changed_alone_no_other_is_read(
    project: Project, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    """Neither for what it imports, nor for who calls it."""
    project.write(ASKS)
    before = project.check()
    project.write({file: ASKS[file] + "\n    x = 1\n"})
    read: list[str] = []
    raw = Names.raw

    def noting(names: Names, file: str) -> bytes:
        read.append(file)
        return raw(names, file)

    monkeypatch.setattr(Names, "raw", noting)
    results, policy = Results(Stores(project.said.append)), project.policy(f"{file}.py")
    (known,) = results.find([(f"{file}.py", policy)])
    assert isinstance(known, Earlier)
    forget_projects()
    examined = examine(f"{file}.py", (project.root / f"{file}.py").read_bytes(), policy, known)
    assert [finding.code for finding in examined.result.findings] == before.found[f"{file}.py"]
    assert examined.is_new
    assert set(read) <= {f"{file}.py"}


def test_a_changed_file_and_a_changed_helper(project: Project) -> None:
    project.write(ASKS)
    assert project.check().found["train.py"] == ["MEM101"]
    project.write(train=TRAIN + "\n    x = 1\n", helper=HELPER.replace("model(x), y)", "model(x), y).item()"))
    assert project.check().found["train.py"] == []


def test_a_changed_file_and_a_new_caller(project: Project) -> None:
    project.write(engine=ENGINE)
    assert project.check().found["engine.py"] == ["MEM201"]
    project.write(engine=ENGINE + "\n    x = 1\n", main=CALLS_WITH_GRAD_OFF)
    assert project.check().found["engine.py"] == []


def runs_written(project: Project) -> list[str]:
    with sqlite3.connect(database_of(project)) as connection:
        rows = connection.execute("SELECT results FROM runs ORDER BY number").fetchall()
    connection.close()
    return [text for (text,) in rows]


def test_of_an_unchanged_project_no_result_is_looked_up_by_itself(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.write(ASKS)
    first = project.check()
    monkeypatch.setattr(store.Store, "_results", lambda *_: pytest.fail("looked up"))
    results = Results(Stores(project.said.append))
    known = results.find([(file, project.policy(file)) for file in project.files])
    codes = {one.path: [finding.code for finding in one.findings] for one in known if isinstance(one, FileResult)}
    assert codes == first.found


def test_what_a_run_was_not_certain_of_is_looked_up_by_itself(project: Project) -> None:
    """A file that imports from where nobody searches, beside files that do not."""
    outside = {"build/helper": HELPER, "build/__init__": ""}
    project.write({**ASKS, **outside}, far=TRAIN.replace("from helper", "from build.helper"))
    names = [f"{name}.py" for name in ("engine", "far", "helper", "main", "train")]
    assert project.check(*names).found["far.py"] == ["MEM101"]
    assert [json.loads(text)[1] for text in runs_written(project)] == [[1]]
    project.write({"build/helper": HELPER.replace("model(x), y)", "model(x), y).item()")})
    run = project.check(*names)
    assert (run.redone, run.asked_again, run.found["far.py"]) == (["far.py"], [], [])
    assert [json.loads(text)[1] for text in runs_written(project)] == [[1]]


def test_few_files_of_many_are_looked_up_by_themselves(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.write(ASKS, **{f"other_{number}": "import torch\n" for number in range(8)})
    project.check()
    monkeypatch.setattr(store.Store, "results", lambda *_: pytest.fail("read all"))
    assert (project.check("train.py").redone, project.check("train.py").found["train.py"]) == ([], ["MEM101"])


def test_other_demands_have_other_results(project: Project) -> None:
    project.write(train=TRAIN, helper=HELPER)
    project.check()
    project.codes = frozenset({"MEM201"})
    assert project.check().found["train.py"] == []
    project.codes = CODES
    run = project.check()
    assert (run.redone, run.found["train.py"]) == ([], ["MEM101"])


def test_what_another_version_has_found_is_forgotten(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.write(train=TRAIN, helper=HELPER)
    project.check()
    monkeypatch.setattr("memlint.__version__", "0.0.0")
    assert project.check().redone == project.files


def test_a_file_outside_of_what_is_searched(project: Project) -> None:
    """`build` holds no text of the project's own, but an import may lead there."""
    project.write(
        {"build/helper": HELPER, "build/__init__": ""}, train=TRAIN.replace("from helper", "from build.helper")
    )
    assert project.check("train.py").found["train.py"] == ["MEM101"]
    project.write({"build/helper": HELPER.replace("model(x), y)", "model(x), y).item()")})
    run = project.check("train.py")
    assert (run.redone, run.found["train.py"]) == (["train.py"], [])


# --- times ---


def test_an_unread_file_is_the_same_when_its_times_are(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.write(train=TRAIN, helper=HELPER)
    later = time.time_ns() + 10**10
    monkeypatch.setattr(time, "time_ns", lambda: later)
    project.check()
    known = snapshot.Digests._look

    def without_reading(self: snapshot.Digests, file: str, stat: os.stat_result | None) -> str:
        digest = known(self, file, stat)
        assert not self.have_changed, file
        return digest

    monkeypatch.setattr(snapshot.Digests, "_look", without_reading)
    assert project.check().redone == []


def test_a_file_written_twice_within_a_tick_is_seen_to_have_changed(project: Project) -> None:
    """Same size, same times: only because it was written just now is it read again."""
    project.write(a="import torch\nx = 1\n")
    path = project.root / "a.py"
    stat = path.stat()
    project.check()
    path.write_text("import torch\nx = 2\n")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert project.check().redone == ["a.py"]


# --- a store that is damaged, or cannot be written ---


def database_of(project: Project) -> Path:
    return project.root / store.FOLDER / "results.sqlite"


@pytest.mark.parametrize("content", [b"", b"no database", b"SQLite format 3\0" + b"\xff" * 5000], ids=repr)
def test_a_damaged_store_costs_time_and_says_so_once(project: Project, content: bytes) -> None:
    project.write(train=TRAIN, helper=HELPER)
    project.check()
    database_of(project).write_bytes(content)
    run = project.check()
    assert run.redone == project.files
    assert len(run.said) == (1 if content else 0)
    again = project.check()
    assert (again.redone, again.said) == ([], [])


def test_a_store_cut_short_costs_time_alone(project: Project) -> None:
    project.write(train=TRAIN, helper=HELPER)
    project.check()
    content = database_of(project).read_bytes()
    for length in range(0, len(content), 4096):
        database_of(project).write_bytes(content[: length + 100])
        assert len(project.check().said) <= 1


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"MEM201", b"MEM202"),  # in a result
        (b'"@helper.py:loss_of"', b'"@helper.py:loss_if"'),  # in an answer
        (b'"files":["helper.py"', b'"files":["helpen.py"'),  # in what a result rests on
    ],
)
def test_a_row_that_is_not_as_it_was_written_is_not_believed(project: Project, before: bytes, after: bytes) -> None:
    project.write(engine=ENGINE, main=CALLS_WITH_GRAD_ON, train=TRAIN, helper=HELPER)
    project.check()
    content = database_of(project).read_bytes()
    assert before in content
    database_of(project).write_bytes(content.replace(before, after))
    project.write(train=TRAIN + "\n    x = 1\n")
    run = project.check()  # compares
    assert "train.py" in run.redone
    assert len(run.said) == 1


@pytest.mark.parametrize("seed", range(8))
def test_bytes_that_are_not_as_they_were_written_cost_time_alone(project: Project, seed: int) -> None:
    """SQLite notices some of it."""
    project.write(engine=ENGINE, main=CALLS_WITH_GRAD_ON, train=TRAIN, helper=HELPER)
    project.check()
    content = bytearray(database_of(project).read_bytes())
    chance = random.Random(seed)
    texts = [index for index, byte in enumerate(content) if chr(byte).isalnum()]
    for index in chance.sample(texts, 40):
        content[index] ^= chance.choice([1, 2, 4])
    database_of(project).write_bytes(content)
    if seed % 2:
        project.write(train=TRAIN + "\n    x = 1\n")
    assert len(project.check().said) <= 1  # compares


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE results SET result = '[[[1'",
        "UPDATE results SET result = '[[[1]],[],null]'",
        "UPDATE grounds SET grounds = '{}', asked = 'x'",
        "UPDATE projects SET statuses = '{\"train.py\": [1]}'",
        "UPDATE snapshots SET content = x'00'",
        "UPDATE words SET words = x'00'",
        "DELETE FROM snapshots",
        "DELETE FROM words",
        "DELETE FROM grounds",
        "DROP TABLE grounds",
    ],
)
def test_rows_that_make_no_sense_cost_time_alone(project: Project, change: str) -> None:
    project.write(engine=ENGINE, main=CALLS_WITH_GRAD_ON, train=TRAIN, helper=HELPER)
    project.check()
    with sqlite3.connect(database_of(project)) as connection:
        connection.execute(change)
    connection.close()
    project.write(helper=HELPER.replace("model(x), y)", "model(x), y).item()"))
    run = project.check()
    assert run.found["train.py"] == []
    assert len(run.said) <= 1
    project.check()


@pytest.mark.skipif(os.name != "posix", reason="a file stands where the folder should")
def test_a_store_that_cannot_be_made_says_so_once(project: Project) -> None:
    project.write(train=TRAIN, helper=HELPER)
    (project.root / store.FOLDER).write_text("in the way")
    run = project.check()
    assert run.redone == project.files
    assert len(run.said) == 1


def test_the_store_marks_itself(project: Project) -> None:
    project.write(train=TRAIN)
    project.check()
    folder = project.root / store.FOLDER
    assert (folder / ".gitignore").read_text().splitlines()[-1] == "*"
    assert (folder / "CACHEDIR.TAG").read_text().startswith("Signature: 8a477f597d28d172789f06886806bc55")


# --- whatever is edited ---

VARIANTS: dict[str, list[str | None]] = {
    "engine": [ENGINE, ENGINE.replace("def evaluate", "def assess"), "# engine\n", None],
    "main": [CALLS_WITH_GRAD_OFF, CALLS_WITH_GRAD_ON, "from engine import evaluate\nlater(evaluate)\n", None],
    "helper": [
        HELPER,
        HELPER.replace("model(x), y)", "model(x), y).item()"),
        HELPER + "\n    # A comment.\n",
        "from other import loss_of\n",
        "from other import *\n",
        "def loss_of(:\n",
        None,
    ],
    "other": [HELPER, HELPER.replace("return F", "return 0 * F"), "import torch\n", "x = 1\n", None],
    "train": [TRAIN, TRAIN.replace("total += loss", "total += loss.item()"), TRAIN.replace("helper", "pkg.helper")],
    "pkg/helper": [None, HELPER, HELPER.replace("model(x), y)", "model(x).detach(), y)")],
    "pkg/__init__": [None, "", "from .helper import *\n"],
}
EDITS = st.sampled_from([(name, index) for name, variants in VARIANTS.items() for index in range(len(variants))])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(EDITS, min_size=1, max_size=3), min_size=1, max_size=5), st.booleans())
def test_whatever_is_edited_the_cache_gives_what_a_fresh_check_gives(
    tmp_path_factory: pytest.TempPathFactory, steps: list[list[tuple[str, int]]], some_only: bool
) -> None:
    root = tmp_path_factory.mktemp("edited")
    (root / "pyproject.toml").write_text("")
    project = Project(root)
    project.write({name: variants[0] for name, variants in VARIANTS.items()})
    project.check()
    for step in steps:
        project.write({name: VARIANTS[name][index] for name, index in step})
        project.check(*project.files[:2] if some_only else ())  # compares
    project.check()


# --- what is stored ---

NAMES = st.sampled_from(["", "x", "self.net", "@pkg/nets.py:Net", "\udcff"])
SETS = st.frozensets(NAMES)
CONSTANTS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.just(2**200),
    st.floats(allow_nan=False),
    st.text(),
    st.binary(),
    st.complex_numbers(allow_nan=False),
    st.just(...),
)
LITERALS = st.tuples() | st.tuples(CONSTANTS)
KINDS, GRADS, NUMBERS = st.sampled_from(Kind), st.sampled_from(Grad), st.integers()
RESULTS = st.recursive(
    st.builds(Result, KINDS, GRADS, st.none() | NAMES, needs=SETS, saved=st.frozensets(NUMBERS)),
    lambda inner: st.builds(
        Result,
        KINDS,
        GRADS,
        elements=st.none() | st.tuples(inner, inner),
        items=st.none() | st.tuples(st.tuples(NAMES, inner)),
    ),
    max_leaves=5,
)
PLACES = st.none() | st.tuples(NAMES, NUMBERS, NUMBERS)
EFFECTS = st.builds(ParameterEffects, *[st.booleans()] * 7)
ANSWERS = st.one_of(
    CONSTANTS,
    SETS,
    st.sampled_from(Mode),
    st.builds(FunctionSummary, st.dictionaries(NAMES, EFFECTS), RESULTS, forwards=st.tuples(NAMES)),
    st.builds(Literals, st.tuples(LITERALS, LITERALS), st.tuples(st.tuples(NAMES, LITERALS))),
    st.tuples(st.builds(Site, NAMES, st.sampled_from(Mode), st.booleans(), PLACES)),
    st.tuples(st.builds(SiteNumber, NAMES, NUMBERS), st.tuples(st.tuples(NAMES, KINDS))),
)


@given(ANSWERS)
def test_an_answer_comes_back_as_it_was(answer: object) -> None:
    text = json.dumps(to_plain(answer))
    back = from_plain(json.loads(text))
    assert back == answer
    assert json.dumps(to_plain(back)) == text  # 1 is not True


def classes_in(hint: object) -> Iterator[type]:
    if isinstance(hint, type) and typing.get_origin(hint) is None:  # `tuple[int]` is a type on Python 3.10
        yield hint
    for part in typing.get_args(hint):
        yield from classes_in(part)


def test_every_answer_of_a_view_can_be_stored() -> None:
    asked = [method for method in vars(View).values() if hasattr(method, "__wrapped__")]
    assert len(asked) > 20
    for method in asked:
        for cls in classes_in(typing.get_type_hints(method, vars(project_module))["return"]):
            assert cls in STORABLE, f"{cls.__name__}, an answer of View.{method.__name__}, is missing in plain.py"


def test_what_is_no_answer_is_not_stored() -> None:
    with pytest.raises(TypeError):
        to_plain(object())


def test_a_result_comes_back_as_it_was() -> None:
    start, end = Position(3, 5), Position(3, 9)
    finding = Finding(
        "MEM101",
        "loss-accumulates-graph",
        "`total` keeps 1 graph — “a” step",
        "a.py",
        start,
        end,
        Confidence.MEDIUM,
        Cost(CostClass.GROWS_ON_DEVICE, "A x N"),
        (Related("a.py", start, "here", 2), Related("a.py", end, "there")),
        Fix(Applicability.UNSAFE, "detach it", (Edit(start, end, "x\r\n\udcff"), Edit(end, end, "", 1))),
        4,
    )
    result = FileResult("a.py", (finding,), {3: "total += loss"}, cells=CellIndex((1, 4), (1, 9), (2, 3)))
    assert result_from_text("a.py", result_to_text(result)) == result
    assert result_from_text("b.py", result_to_text(FileResult("b.py"))) == FileResult("b.py")
