"""memlint's work grows as the code does: its steps are counted, so that no clock is asked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import fuzz_growth as fuzz
import libcst as cst
import pytest
from steps import EVERY_RULE, steps, steps_of

from memlint.linting.lint import lint
from memlint.project.names import Names
from memlint.semantics import slices
from memlint.semantics.flow import Flow
from memlint.semantics.values import Value

SIZES = (2, 4, 8)
# What grows faster by the hundred, and why that is so: `benchmarks/optimisations.md`, "What the fuzzer still finds".
LEFT = {
    "shape: elif that assigns its own name",
    "shape: case that binds",
    "shape: except",
    "shape: break",
    "shape: continue",
    "shape: and",
    "shape: recurrent state",
    "shape: class of the one before",
    "shape: class derived without methods",
    "shape: class of two before",
    "project: evaluations of one name",
}


def every_form() -> Iterator[fuzz.Program]:
    """All statement forms one after the other, again and again: what one of them adds to another shows too."""
    for frame in fuzz.FRAMES:
        yield fuzz.repeated(fuzz.FORMS, frame, SIZES)
    for each in (fuzz.functions, fuzz.methods, fuzz.classes):
        yield each(fuzz.FORMS, SIZES)


def every_nesting() -> Iterator[fuzz.Program]:
    yield from (fuzz.expression((parts,)) for parts in fuzz.EXPRESSIONS)
    yield from (fuzz.nested((block,), form) for block in fuzz.BLOCKS for form in (fuzz.FORMS[0], fuzz.FORMS[3]))


def by_the_hundred() -> Iterator[fuzz.Program]:
    """What the fuzzer found to grow faster than the code, by the work of which module."""
    chain = "v{i} = model(v{p})"  # graph_ends
    loops = "for x in loader:\n    if flags[{i}]:\n        continue\n    losses.append(model(x))"  # retention, rollouts
    sums = "while flags[{i}]:\n    loss = loss + model(x)\n    if loss > 3:\n        break"  # summed_losses
    hooks = "model.register_forward_hook(lambda m, i, o: losses.append(o))"  # hooks
    yield from (fuzz.repeated((form,), fuzz.in_function) for form in (chain, loops, sums, hooks))
    branches = "if flags[{i}]:\n    loss = model(x)\nlosses.append(loss)"  # values that may be each of many definitions
    yield fuzz.repeated((branches,), fuzz.at_top)
    yield fuzz.repeated(("for x in loader:\n    total += model(x)", hooks), fuzz.in_function, (32, 64, 128))
    table = "losses.append(model(x))"  # containers
    yield fuzz.repeated((table,), fuzz.at_top, (256, 512, 1024))
    handles = "hook{i} = model.layer{i}.register_forward_hook(lambda m, i, o: losses.append(o))"  # reads
    helped = "y = helper(model, x)"  # graph_ends
    loads = "model.load_state_dict(torch.load(path))"  # checkpoints
    copies = "v{i} = x.clone().detach()"  # graph_signs
    some = (32, 64, 128)
    yield from (fuzz.repeated((form,), fuzz.in_function, some) for form in (handles, helped, loads, copies))
    returns = "self.a{i} = loss\nif flags[{i}]:\n    return loss"  # flow
    statistics = "self.mean += 0.1 * model(x)"  # running_stats
    yield from (fuzz.repeated((form,), fuzz.in_method, some) for form in (returns, statistics))
    suppressed = "total += criterion(model(x), y)  # noqa: MEM101", "# memlint: ignore[MEM101]\nv{i} = {i}"
    yield from (fuzz.repeated((form,), fuzz.in_loop, some) for form in suppressed)
    attribute = "self.a{i} = model(x)"  # classes
    yield fuzz.methods((attribute,), some)
    yield fuzz.classes(("y = model(x)",), some)  # analysis: methods of one name


def every_shape() -> Iterator[fuzz.Program | fuzz.Project]:
    """Whole files and projects as people and generators write them."""
    every: tuple[fuzz.Program | fuzz.Project, ...] = (*fuzz.shapes((32, 64, 128)), *fuzz.shapes_of_projects())
    assert {shape.name for shape in every} >= LEFT
    yield from (shape for shape in every if shape.name not in LEFT)


@pytest.mark.parametrize(
    "program",
    [*every_form(), *every_nesting(), *by_the_hundred(), *fuzz.PROJECTS, *every_shape()],
    ids=lambda program: program.name[:60],
)
def test_twice_the_code_is_twice_the_work(program: fuzz.Program | fuzz.Project) -> None:
    assert fuzz.growth(program) < fuzz.TOLERATED


def test_a_body_is_read_twice_however_many_loops_are_around_it(monkeypatch: pytest.MonkeyPatch) -> None:
    read = readings(monkeypatch)
    for depth in (1, 4, 16):
        read.clear()
        steps(fuzz.nested((fuzz.BLOCKS[0],), "innermost(x)").write(depth))
        assert read.count("innermost") == 2


def test_what_is_too_much_to_follow_may_be_differentiated() -> None:
    """The first hundred terms of a very long sum, like those of a short one, are no totals that keep a graph."""
    program = fuzz.repeated(("loss = loss + criterion(model(x), y)",), fuzz.in_loop)
    for size in (4, 400):
        assert lint("module.py", program.write(size).encode(), EVERY_RULE).findings == ()


def test_what_grows_faster_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def reads_again_for_each_call(text: str) -> int:
        files = [("module.py", text.encode(), EVERY_RULE)]
        return steps_of(files * text.count("model(x)"))

    monkeypatch.setattr(fuzz, "steps", reads_again_for_each_call)
    assert fuzz.growth(fuzz.repeated(("v{i} = model(x)",), fuzz.in_function, SIZES)) > fuzz.TOLERATED


def readings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names, from now on, whenever a flow reads one."""
    read: list[str] = []
    look_up = Flow.lookup

    def noting(flow: Flow, name: str, node: cst.CSTNode) -> Value:
        read.append(name)
        return look_up(flow, name, node)

    monkeypatch.setattr(Flow, "lookup", noting)
    return read


def test_of_the_files_that_slices_are_cut_from_only_the_last_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python's tree of a file takes a kilobyte a line: those of a large project would fill the memory."""
    monkeypatch.setattr(slices, "_LINES_KEPT", 1_000)
    cut = slices.Slices(Names(str(tmp_path)))
    for number in range(50):
        (tmp_path / f"m{number}.py").write_text("def f(x):\n    return x\n" + "y = 1\n" * 98)
        assert cut.tree(f"@m{number}.py:f") is not None
    assert len(cut._files) <= 12
