"""The `memlint` command.

What the command line imports at its start stays cheap: LibCST and rich are imported by the functions that need
them, so that `memlint --version` and `--help` answer at once.
"""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from typing import Any, NoReturn

import click

from memlint import __version__
from memlint.cli.baseline import baseline
from memlint.cli.check import check
from memlint.cli.clean import clean
from memlint.cli.config import config
from memlint.cli.confirm import confirm
from memlint.cli.errors import Trouble, say_error
from memlint.cli.fix import fix
from memlint.cli.measure import measure
from memlint.cli.rule import rule
from memlint.cli.server import server
from memlint.cli.test import test
from memlint.config.errors import ConfigError

# What a shell reports for a process that Ctrl-C ended: 128 + SIGINT.
INTERRUPTED = 130


class _Commands(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ConfigError as error:
            raise Trouble(str(error)) from None


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="memlint", message="%(prog)s %(version)s")
def memlint() -> None:
    """Find the lines that waste GPU memory in PyTorch code, and fix them."""


memlint.add_command(check)
memlint.add_command(fix)
memlint.add_command(measure)
memlint.add_command(confirm)
memlint.add_command(rule)
memlint.add_command(config)
memlint.add_command(clean)
memlint.add_command(baseline)
memlint.add_command(server)
memlint.add_command(test)


def main() -> NoReturn:
    """Run the command line and end the process.

    Exit status: 0 nothing found, 1 findings, 2 trouble, 130 interrupted.
    """
    status = _run()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    # To free each object takes as long as a third of `--version`. (mypy ends in the same way.)
    os._exit(status)


def _run() -> int:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A path or a source line may hold what the terminal's encoding does not.
            stream.reconfigure(errors="backslashreplace")
    try:
        status = memlint.main(prog_name="memlint", standalone_mode=False)
        if not sys.stdout.closed:  # the language server closes it with its connection
            sys.stdout.flush()
    except (click.exceptions.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except BrokenPipeError:
        # Whoever read our output has seen enough (`memlint check | head`).
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception:  # noqa: BLE001 - whatever it is, it is not a finding: the exit status must not be 1
        import traceback

        traceback.print_exc()
        say_error("this is a bug in memlint; please report it with the lines above")
        return 2
    return status if isinstance(status, int) else 0
