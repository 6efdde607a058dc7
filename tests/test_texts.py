"""Searching all text of a project."""

from __future__ import annotations

import pytest

from memlint.project import texts
from memlint.project.texts import Texts

FILES = [
    ("a.py", b"model.step()\ndef step_all(): pass"),
    ("b.py", b"step = 1\nrestep.step (x)"),
    ("c.py", "größe = step\n".encode()),
    ("d.py", b""),
    ("e.py", b"def step(x): pass\n\nstep"),
]


@pytest.fixture(params=["searched", "listed"])
def project(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Texts:
    """The text is searched for the first pieces, and has its words listed for those behind."""
    monkeypatch.setattr(texts, "SEARCHES_WITHOUT_INDEX", 0 if request.param == "listed" else 1000)
    return Texts(FILES)


@pytest.mark.parametrize(
    ("piece", "files"),
    [
        ("step", ["a.py", "b.py", "c.py", "e.py"]),
        ("step_all", ["a.py"]),
        ("restep", ["b.py"]),
        ("ste", []),
        (".step(", ["a.py"]),
        ("model.step", ["a.py"]),
        ("def step(", ["e.py"]),
        ("größe", ["c.py"]),
        ("= step", ["c.py"]),
        ("():", ["a.py"]),
        ("nowhere", []),
    ],
)
def test_a_piece_is_found_where_it_is_no_part_of_a_longer_word(project: Texts, piece: str, files: list[str]) -> None:
    assert project.files_with(piece) == files


def test_each_file_comes_with_what_it_says(project: Texts) -> None:
    assert list(project) == FILES
