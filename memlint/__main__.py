"""`python -m memlint`."""

import os
import sys

# `python -m` puts the current folder first on the path: a click.py that lies there would be imported, and so run.
if not (sys.flags.isolated or getattr(sys.flags, "safe_path", False)) and sys.path[0] in ("", os.getcwd()):
    del sys.path[0]

from memlint.cli.main import main  # noqa: E402

main()
