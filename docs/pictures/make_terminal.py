"""Makes docs/pictures/terminal.svg and editor.svg: what a terminal, and Neovim in one, show of the demo.

    python docs/pictures/make_terminal.py

Both are real runs. tmux holds the terminal; needs tmux, Neovim, and memlint with its extra `server` in this Python's
environment.
"""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.text import Text

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
DEMO = ROOT / "fixtures" / "demo"
MEMLINT = f"{sys.executable} -m memlint"
WIDTH, HEIGHT = 120, 34


class Terminal:
    """A terminal of its own, of which a picture can be taken."""

    def __init__(self, folder: Path) -> None:
        self._socket = Path(tempfile.mkdtemp(dir=folder)) / "tmux"
        size = ("-x", str(WIDTH), "-y", str(HEIGHT))
        environment = "env PS1='$ ' TERM=tmux-256color COLORTERM=truecolor bash --norc --noprofile"
        self._tmux("-f", "/dev/null", "new-session", "-d", *size, "-c", str(folder), environment)
        self._tmux("set", "-g", "status", "off")

    def type(self, *keys: str) -> None:
        self._tmux("send-keys", *keys)

    def screen(self, *, colours: bool = True) -> str:
        return self._tmux("capture-pane", "-p", *(["-e"] if colours else []))

    def wait(self, until: Callable[[str], bool]) -> None:
        """Raises TimeoutError where the screen does not become so within a minute."""
        for _ in range(600):
            if until(self.screen(colours=False)):
                return
            time.sleep(0.1)
        raise TimeoutError(self.screen(colours=False))

    def end(self) -> None:
        self._tmux("kill-server")

    def _tmux(self, *arguments: str) -> str:
        command = ["tmux", "-u", "-S", str(self._socket), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file in DEMO.glob("*.py"):
            text = file.read_text(encoding="utf-8")
            (folder / file.name).write_text(
                "".join(f"{line.partition('  # error:')[0]}\n" for line in text.splitlines())
            )
        (folder / "memlint").write_text(f'#!/bin/sh\nexec {MEMLINT} "$@"\n')
        (folder / "memlint").chmod(0o755)
        picture(folder, terminal_session, "terminal.svg", "memlint check")
        picture(folder, editor_session, "editor.svg", "Neovim with memlint server")


def picture(folder: Path, session: Callable[[Terminal], None], name: str, title: str) -> None:
    terminal = Terminal(folder)
    try:
        session(terminal)
        console = Console(record=True, width=WIDTH, file=io.StringIO())
        console.print(Text.from_ansi(terminal.screen().rstrip()))
        # The fonts that rich names would come from the network.
        svg = re.sub(r"@font-face {.*?}", "", console.export_svg(title=title), flags=re.DOTALL)
        (HERE / name).write_text(svg, encoding="utf-8")
    finally:
        terminal.end()


def terminal_session(terminal: Terminal) -> None:
    terminal.type('PATH="$PWD:$PATH"; clear', "Enter")
    terminal.type("memlint check --select MEM101,MEM201 train.py evaluate.py", "Enter")
    terminal.wait(lambda screen: "Found " in screen)


def editor_session(terminal: Terminal) -> None:
    commands = [
        f"let g:memlint_command = ['{sys.executable}', '-m', 'memlint', 'server']",
        f"luafile {ROOT / 'editors' / 'neovim' / 'memlint.lua'}",
        "filetype on",
        "syntax on",
        "set number signcolumn=yes background=dark",
        "highlight NormalFloat ctermbg=237 ctermfg=252 | highlight SignColumn ctermbg=NONE",
        "highlight String ctermfg=108",
        "edit train.py",
    ]
    options = " ".join(f'-c "{command}"' for command in commands)
    terminal.type(f"nvim -u NONE -i NONE {options}", "Enter")
    terminal.wait(lambda screen: "keeps the autograd graph" in screen)
    terminal.type("30Gzz")
    terminal.type(":lua vim.diagnostic.open_float()", "Enter")
    terminal.wait(lambda screen: "Diagnostics" in screen)


if __name__ == "__main__":
    if shutil.which("tmux") is None or shutil.which("nvim") is None:
        sys.exit("this takes tmux and Neovim")
    main()
