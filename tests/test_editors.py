"""Real editors, without a window, open a file, show its diagnostics and apply a code action."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from test_server import FIXED, TRAIN

ROOT = Path(__file__).resolve().parent.parent

EDITORS = {
    "nvim": ["nvim", "--headless", "-u", "NONE", "-i", "NONE", "-c", "luafile {script}"],
    "emacs": ["emacs", "--batch", "-l", "{script}"],
}
SCRIPTS = {"nvim": "neovim.lua", "emacs": "emacs.el"}


def require(editor: str) -> None:
    """Skip where the editor is not there, and say so also to those who do not look at skips."""
    missing = shutil.which(editor) is None
    if editor == "emacs" and not missing:
        has_eglot = ["emacs", "--batch", "--eval", "(progn (package-initialize) (require 'eglot))"]
        missing = subprocess.run(has_eglot, capture_output=True, check=False).returncode != 0
    if missing:
        what = f"{editor}{' with eglot' if editor == 'emacs' else ''}"
        warnings.warn(f"{what} is not installed: memlint is not tested in it", stacklevel=2)
        pytest.skip(f"{what} is not installed")


@pytest.mark.parametrize("editor", sorted(EDITORS))
def test_an_editor_shows_diagnostics_and_applies_a_code_action(editor: str, tmp_path: Path) -> None:
    require(editor)
    (tmp_path / "train.py").write_text(TRAIN)
    command = [part.format(script=ROOT / "tests" / "editors" / SCRIPTS[editor]) for part in EDITORS[editor]]
    environment = {**os.environ, "MEMLINT_PYTHON": sys.executable, "MEMLINT_EDITORS": str(ROOT / "editors")}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=180, check=False
    )
    output = (done.stdout + done.stderr).decode(errors="replace")
    assert (tmp_path / "diagnostics.txt").exists(), output
    [diagnostic] = (tmp_path / "diagnostics.txt").read_text().splitlines()
    assert diagnostic.startswith("9:9 ")
    assert "`total` keeps the autograd graph" in diagnostic
    assert (tmp_path / "train.py").read_text() == FIXED, output
