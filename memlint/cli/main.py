"""The `memlint` command.

A command is imported when it is called, or when `--help` lists all, and what it imports at its start stays cheap:
LibCST and rich are imported by the functions that need them.
"""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from importlib import import_module
from typing import Any, NoReturn

import click

from memlint import __version__
from memlint.cli.errors import Trouble, say_error
from memlint.config.errors import ConfigError

# What a shell reports for a process that Ctrl-C ended: 128 + SIGINT.
INTERRUPTED = 130


# Each is a function of a module of the same name.
_COMMANDS = ("baseline", "check", "clean", "config", "confirm", "fix", "measure", "rule", "server", "test")


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - as in click
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"memlint.cli.{cmd_name}"), cmd_name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ConfigError as error:
            raise Trouble(str(error)) from None


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="memlint", message="%(prog)s %(version)s")
def memlint() -> None:
    """Find the lines that waste GPU memory in PyTorch code, and fix them."""


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
