"""Makes the pictures of docs/measure-reports.md: runs the program beside it, and has Chromium take them of the page.

`python docs/pictures/make.py`, with the extra `measure` installed and Debian's `chromium`, or another one, on the path.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
SIZE = "1240,1080"
# Blink's numbers of the schemes.
SCHEMES = {"light": 1, "dark": 0}


def main() -> None:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("there is no chromium on the path")
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        measure = [sys.executable, "-m", "memlint", "measure", "train.py", "--backend", "fake", "--html", str(page)]
        subprocess.run(measure, cwd=HERE, check=True)
        for scheme, number in SCHEMES.items():
            picture = HERE / f"measure-{scheme}.png"
            options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--window-size={SIZE}"]
            options += ["--virtual-time-budget=8000", f"--blink-settings=preferredColorScheme={number}"]
            options += [f"--user-data-dir={folder}/profile", f"--screenshot={picture}"]
            subprocess.run([chromium, *options, page.as_uri()], check=True, stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
