"""`python -m memlint`."""

import os
import sys

# `python -m` puts the current folder first on the path: a click.py that lies there would be imported, and so run.
# So would a pathlib.py; `os` is loaded before.
_CURRENT = ("", os.getcwd())  # noqa: PTH109
if not (sys.flags.isolated or getattr(sys.flags, "safe_path", False)) and sys.path[0] in _CURRENT:
    del sys.path[0]

from memlint.cli.main import main  # noqa: E402

main()
