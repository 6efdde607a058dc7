"""The `memlint` command, and `python -m memlint`."""

import gc
import os
import sys

# `python -m` puts the current folder first on the path: a click.py that lies there would be imported, and so run.
# So would a pathlib.py; `os` is loaded before.
_CURRENT = ("", os.getcwd())  # noqa: PTH109
if not (sys.flags.isolated or getattr(sys.flags, "safe_path", False)) and sys.path[0] in _CURRENT:
    del sys.path[0]

from memlint.cli.late import compile_methods_late  # noqa: E402


def main() -> None:
    """Run the command line and end the process; see `memlint.cli.main`."""
    # A short run makes many objects and little garbage: a search of them every 700 is a tenth of it. (As in mypy.)
    gc.set_threshold(200_000, 30, 30)
    compile_methods_late()
    from memlint.cli.main import main as run

    run()


if __name__ == "__main__":
    main()
