"""The leak zoo: programs whose memory grows, each with its fixed twin.

A line ends in `# leak; fixed: ...`: it is the line that keeps, and the twin has the other text in its place.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from measuring import measured

from memlint.measure.analysis import growth, host_growth
from memlint.measure.recording import Recording

ZOO = sorted((Path(__file__).parent / "leaks").glob("*.py"))
MARK = re.compile(r"^(?P<indent> *)(?P<code>.*?)  # leak; fixed: (?P<fixed>.*)$", re.MULTILINE)


def grows(recording: Recording) -> bool:
    return bool(growth(recording).bytes_per_step) or bool(host_growth(recording).nodes_per_step)


@pytest.mark.parametrize("path", ZOO, ids=lambda path: path.stem)
def test_the_line_that_keeps_is_named(path: Path) -> None:
    text = path.read_text()
    marked = MARK.search(text)
    assert marked is not None
    recording = measured(text, path)

    assert grows(recording)
    named = {keeper.place.line for keeper in recording.keepers if keeper.place is not None}
    assert named == {text[: marked.start()].count("\n") + 1}
    # All but what a loop's variables still have of the last batch.
    unseen = sum(line.bytes_per_step for line in growth(recording).lines if line.keeper is None)
    assert unseen <= (growth(recording).bytes_per_step or 0) / 100


def test_what_a_keeper_keeps_is_what_grows(tmp_path: Path) -> None:
    text = """
        import torch

        model = torch.nn.Linear(8, 8).to("cuda")
        kept = []
        for step in range(8):
            kept.append(model(torch.ones(4, 8, device="cuda")).relu().exp().square().detach())
    """
    (line,) = growth(measured(text, tmp_path / "leak.py")).lines
    assert line.keeper is not None and line.keeper.name == "kept"


def test_the_other_lines_that_fill_a_container_are_named_too(tmp_path: Path) -> None:
    text = """
        import torch

        model = torch.nn.Linear(8, 8).to("cuda")
        kept = []
        model.register_forward_hook(lambda module, inputs, output: kept.append(output))
        for step in range(8):
            out = model(torch.ones(4, 8, device="cuda"))
            if step < 0:
                kept.append(out)
    """
    (line,) = growth(measured(text, tmp_path / "leak.py")).lines
    assert line.keeper is not None and line.keeper.place is not None
    assert {line.keeper.place.line, *(place.line for place in line.keeper.other_places)} == {6, 10}


def test_what_only_some_steps_leave_is_not_called_no_growth(tmp_path: Path) -> None:
    text = """
        import torch

        model = torch.nn.Linear(8, 8).to("cuda")
        kept = []
        for step in range(20):
            out = model(torch.ones(4, 8, device="cuda")).detach()
            if step % 3 == 0:
                kept.append(out)
    """
    found = growth(measured(text, tmp_path / "leak.py", steps=11))
    assert (found.bytes_per_step, found.irregular_bytes, found.lines) == (None, 3 * 512, ())
    once = growth(measured(text.replace("% 3 == 0", "== 4"), tmp_path / "leak.py", steps=11))
    assert (once.bytes_per_step, once.irregular_bytes) == (None, 512)


def test_a_tensor_that_only_some_steps_make_larger_is_not_called_no_growth(tmp_path: Path) -> None:
    text = """
        import torch

        model = torch.nn.Linear(8, 8).to("cuda")
        seen = torch.zeros(128, 8, device="cuda")
        for step in range(20):
            out = model(torch.ones(128, 8, device="cuda")).detach()
            if step % 2 == 0:
                seen = torch.cat([seen, out])
    """
    found = growth(measured(text, tmp_path / "leak.py", steps=9))
    assert (found.bytes_per_step, found.irregular_bytes) == (None, 3 * 4096)


def test_batches_that_become_larger_are_no_growth(tmp_path: Path) -> None:
    text = """
        import torch

        model = torch.nn.Linear(8, 8).to("cuda")
        for step in range(1, 9):
            out = torch.cat([model(torch.ones(128 * step, 8, device="cuda"))] * 2)
    """
    recording = measured(text, tmp_path / "train.py")
    assert growth(recording).bytes_per_step == 0
    assert recording.keepers == []


@pytest.mark.parametrize("path", ZOO, ids=lambda path: path.stem)
def test_its_fixed_twin_is_not_flagged(path: Path) -> None:
    recording = measured(MARK.sub(r"\g<indent>\g<fixed>", path.read_text()), path)

    assert len(recording.steps) == 6
    assert not grows(recording)
    assert recording.keepers == []


def test_a_program_that_ends_by_itself_has_let_go_of_its_variables_but_grew() -> None:
    """Its last step ends with it, when its lists are gone: who kept them has been found before."""
    path = ZOO[0].parent / "outputs_in_a_list.py"
    text = path.read_text()
    recording = measured(text.replace("range(20)", "range(6)"), path)
    assert [step.kind for step in recording.steps] == ["evaluation"] * 6
    assert growth(recording).bytes_per_step
    assert [keeper.name for keeper in recording.keepers] == ["outputs"]
    fixed = measured(MARK.sub(r"\g<indent>\g<fixed>", text).replace("range(20)", "range(6)"), path)
    assert not grows(fixed)
