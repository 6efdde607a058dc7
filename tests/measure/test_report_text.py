"""The report for people, on a run made by hand."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from recordings import leaking_training
from rich.text import Text

from memlint.measure.recording import AllocatorPeaks, DeviceInfo, Keeper, OutOfMemory, Place, ProcessMemory, Recording
from memlint.measure.report import text
from memlint.measure.report.subject import Subject
from memlint.measure.report.wording import keeps

SOURCE = """\
model = Net().cuda()
outputs = []
for batch, target in loader:
    batch = batch.cuda()
    output = model(batch)
    loss = criterion(output, target)
    loss.backward()
    optimizer.step()
    outputs.append(output)
"""


@pytest.fixture
def subject(tmp_path: Path) -> Subject:
    (tmp_path / "train.py").write_text(SOURCE, encoding="utf-8")
    return Subject("train.py", leaking_training(str(tmp_path / "train.py")), tmp_path)


def test_the_whole_report(subject: Subject) -> None:
    assert text.render(subject) == (Path(__file__).parent / "report.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("width", [40, 80, 200])
def test_no_line_is_wider_than_the_terminal_but_for_sentences(subject: Subject, width: int) -> None:
    tables = [line for line in text.render(subject, width=width).splitlines() if "MiB  " in line]
    assert tables
    assert [line for line in tables if len(line) > max(width, 75)] == []


def test_colour_changes_no_character(subject: Subject) -> None:
    coloured = text.render(subject, colour=True)
    assert "\x1b[" in coloured
    plain = Text.from_ansi(coloured).plain
    assert [line.rstrip() for line in plain.splitlines()] == text.render(subject).splitlines()


@pytest.mark.parametrize(
    ("backend", "basis"), [("cuda", "measured on cuda"), ("fake", "predicted"), ("cpu", "measured on cpu")]
)
def test_every_size_that_heads_a_part_says_how_it_was_obtained(subject: Subject, backend: str, basis: str) -> None:
    subject.recording.backend = backend  # type: ignore[assignment]
    printed = text.render(subject)
    titles = ["Allocated over the run", "What holds the peak", "Lines that hold the peak", "Memory that grows"]
    assert [title for title in titles if f"{title} ({basis})" not in printed] == []
    numbers = re.findall(r"^(?:peak|growth|held).*$", printed, flags=re.MULTILINE)
    assert [number for number in numbers if basis not in number and "has no meaning here" not in number] == []
    assert not {"measured on cuda", "predicted", "measured on cpu"} - {basis} & set(
        re.findall(r"measured on \w+|predicted", printed)
    )


def test_reserved_memory_has_no_meaning_on_the_cpu(subject: Subject) -> None:
    subject.recording.backend = "cpu"
    assert re.search(r"^peak reserved +- +has no meaning here", text.render(subject), flags=re.MULTILINE)


def test_a_peak_that_the_card_cannot_hold(subject: Subject) -> None:
    subject.recording.device = DeviceInfo("a small card", 90 * 2**20, (8, 0))
    assert "predicted, in step 5; does not fit on a small card" in text.render(subject)


def test_what_only_the_allocator_and_nvml_know(subject: Subject) -> None:
    subject.recording.backend = "cuda"
    peaks = AllocatorPeaks(allocated=2**30, reserved=2**31, requested=2**29, active=2**30)
    subject.recording.steps[-1] = replace(subject.recording.steps[-1], allocator=peaks)
    subject.recording.process = ProcessMemory(None, 500 * 2**20, ((4711, "python", None),))
    printed = text.render(subject)
    assert re.search(r"^peak allocated +1\.0 GiB +measured on cuda", printed, flags=re.MULTILINE)
    assert re.search(r"^peak reserved +2\.0 GiB +measured on cuda$", printed, flags=re.MULTILINE)
    assert re.search(r"^of it untracked +9\d\d\.\d MiB +measured on cuda", printed, flags=re.MULTILINE)
    assert "this process: unknown, of it the CUDA context: 500.0 MiB" in printed
    assert "also on the card: python (pid 4711): unknown" in printed


def test_what_a_card_without_memory_was_asked_for(subject: Subject) -> None:
    subject.recording.backend = "cuda"
    subject.recording.out_of_memory = OutOfMemory(
        3 * 2**30, 2**20, 2**30, 2**31, AllocatorPeaks(2**30, 2**31, 2**30, 2**30)
    )
    subject.recording.process = ProcessMemory(2**31, None, by_difference=True)
    printed = text.render(subject)
    assert re.search(
        r"^out of memory +3\.0 GiB +asked for, of 1\.0 MiB that the card had left \(measured on cuda\)$",
        printed,
        flags=re.MULTILINE,
    )
    assert re.search(r"^peak allocated +1\.0 GiB", printed, flags=re.MULTILINE)
    assert "this process: 2.0 GiB (by how much the use of the whole card rose)" in printed


def test_a_run_without_steps_and_without_memory() -> None:
    empty = leaking_training("train.py")
    recording = Recording("cpu", "2.13.0", empty.device, 2, empty.layers)
    printed = text.render(Subject("train.py", recording, Path()))
    assert re.search(r"^peak allocated +0 B +measured on cpu, in the set-up$", printed, flags=re.MULTILINE)
    assert re.search(r"^growth per step +- +unknown: needs 5 steps, saw 0$", printed, flags=re.MULTILINE)


def test_lines_are_counted_and_decoded_as_python_does(tmp_path: Path) -> None:
    source = "# -*- coding: latin-1 -*-\n# a form feed: \x0c, no end of a line\r\n\r\nmodel = Net()\noutput = '\xe9'\n"
    (tmp_path / "train.py").write_bytes(source.encode("latin-1"))
    printed = text.render(Subject("train.py", leaking_training(str(tmp_path / "train.py")), tmp_path))
    assert re.search(r"train\.py:4 +model = Net\(\)$", printed, flags=re.MULTILINE)
    assert re.search(r"train\.py:5 +output = '\xe9'$", printed, flags=re.MULTILINE)


@pytest.mark.parametrize(
    ("keeper", "words"),
    [
        (None, "kept by something that could not be seen"),
        (
            Keeper(None, "cycle", "a reference cycle"),
            "kept by a reference cycle that only Python's cycle collector frees",
        ),
        (Keeper(Place("train.py", 3), "cycle", "ctx.x"), "kept by `ctx.x`, in a reference cycle at train.py:3"),
        (Keeper(Place("train.py", 3), "graph", "total"), "kept by the graph of `total` at train.py:3"),
        (Keeper(Place("train.py", 3), "graph", ""), "kept by the graph of something without a name at train.py:3"),
        (Keeper(Place("train.py", 3), "container", "outputs"), "kept by `outputs` at train.py:3"),
    ],
)
def test_who_keeps(subject: Subject, keeper: Keeper | None, words: str) -> None:
    assert keeps(subject, keeper) == words


def test_source_that_is_not_there_is_left_out(tmp_path: Path) -> None:
    printed = text.render(Subject("train.py", leaking_training("gone.py"), tmp_path))
    assert "gone.py:5" in printed


def test_what_ran_in_place_of_a_file_is_quoted(subject: Subject) -> None:
    path = str(subject.folder / "train.py")
    overlaid = Subject(
        "train.py", subject.recording, subject.folder, {path: "\n" * 8 + "outputs.append(output.detach())"}
    )
    assert "outputs.append(output.detach())" in text.render(overlaid)


def test_a_sparkline_reaches_from_nothing_to_the_highest() -> None:
    assert text.sparkline([0, 1, 4, 8]) == "▁▂▅█"
    assert text.sparkline([]) == ""
    assert text.sparkline([0, 0]) == "▁▁"
