"""`memlint server`."""

from __future__ import annotations

import sys

import click

from memlint.cli.errors import Trouble


@click.command()
def server() -> None:
    """Speak the Language Server Protocol on standard input and output: what editors start.

    docs/editors.md says how to set up each of them.
    """
    try:
        from memlint.editor.server import make_server
    except ModuleNotFoundError as error:
        if error.name not in {"pygls", "lsprotocol"}:
            raise
        raise Trouble("the language server needs the pygls package: pip install 'memlint-torch[server]'") from None
    make_server().start_io()
    sys.exit()  # the long way: it has threads, and a process
