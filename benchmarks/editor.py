"""From a keystroke to diagnostics, beside LibCST's parse of the same text.

    python benchmarks/editor.py [FILE] [--keys N]

A client types into a file that the language server has open, one character at a time, and waits for the diagnostics of
that version. The debounce, which waits for the typing to stop, is taken off. After each key the text is parsed by
`libcst.parse_module` in this process, so that a slower moment of the machine meets both. Wall clock. Without FILE, a
training script of 1,000 lines is made.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

import libcst
from lsprotocol import types
from pygls.lsp.client import LanguageClient

from memlint.editor.server import DEBOUNCE_SECONDS

LINES = 1_000
SERVER = [sys.executable, "-m", "memlint", "server"]

FUNCTION = '''

def train_{number}(model: nn.Module, loader: DataLoader, optimizer, criterion, device="cuda"):
    """One epoch; returns the mean loss."""
    model.train()
    total, seen = 0.0, 0
    for step, (inputs, targets) in enumerate(loader):
        inputs, targets = inputs.to(device), targets.to(device)
        outputs = model(inputs)
        loss = criterion(outputs, targets) + 0.{number} * outputs.pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        total += loss.item() * len(inputs)
        seen += len(inputs)
        if step % 100 == 0:
            print(f"step {{step}}: {{total / seen:.3f}}")
    return total / seen
'''


def script(lines: int) -> str:
    text = "import torch\nfrom torch import nn\nfrom torch.utils.data import DataLoader\n"
    number = 0
    while text.count("\n") < lines:
        text += FUNCTION.format(number=number)
        number += 1
    return text


class Typist:
    """A client with one document."""

    def __init__(self, path: Path, text: str) -> None:
        self.uri, self.text, self.version = path.as_uri(), text, 0
        self.client = LanguageClient("typist", "1")
        self._published: asyncio.Queue[int | None] = asyncio.Queue()

        def on_diagnostics(params: types.PublishDiagnosticsParams) -> None:
            self._published.put_nowait(params.version)

        self.client.feature(types.TEXT_DOCUMENT_PUBLISH_DIAGNOSTICS)(on_diagnostics)

    async def start(self, folder: Path) -> None:
        await self.client.start_io(*SERVER)
        folders = [types.WorkspaceFolder(folder.as_uri(), "project")]
        capabilities = types.ClientCapabilities()
        await self.client.initialize_async(types.InitializeParams(capabilities, workspace_folders=folders))
        self.client.initialized(types.InitializedParams())
        document = types.TextDocumentItem(self.uri, "python", self.version, self.text)
        self.client.text_document_did_open(types.DidOpenTextDocumentParams(document))
        await self._diagnostics()

    async def key(self, line: int) -> float:
        """Type one character at the end of a comment line; seconds until its diagnostics, less the debounce."""
        self.version += 1
        column = self.version - 1
        place = types.Position(line, 1 + column)
        change = types.TextDocumentContentChangePartial(types.Range(place, place), "x")
        document = types.VersionedTextDocumentIdentifier(self.version, self.uri)
        start = time.perf_counter()
        self.client.text_document_did_change(types.DidChangeTextDocumentParams(document, [change]))
        await self._diagnostics()
        return time.perf_counter() - start - DEBOUNCE_SECONDS

    async def _diagnostics(self) -> None:
        while await self._published.get() != self.version:
            pass

    async def end(self) -> None:
        await self.client.shutdown_async(None)
        self.client.exit(None)
        await self.client.stop()  # type: ignore[no-untyped-call,unused-ignore]


async def measure(folder: Path, text: str, keys: int) -> tuple[list[float], list[float]]:
    """Seconds of each answer and of each parse."""
    typist = Typist(folder / "train.py", f"#\n{text}")
    await typist.start(folder)
    answers, parses = [], []
    for number in range(keys):
        answers.append(await typist.key(0))
        typed = f"#{'x' * (number + 1)}\n{text}"
        start = time.perf_counter()
        libcst.parse_module(typed)
        parses.append(time.perf_counter() - start)
    await typist.end()
    return answers, parses


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("file", nargs="?", type=Path)
    parser.add_argument("--keys", type=int, default=40)
    given = parser.parse_args()
    text = given.file.read_text(encoding="utf-8") if given.file else script(LINES)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "pyproject.toml").touch()
        answers, parses = asyncio.run(measure(folder, text, given.keys))
    print(f"{text.count(chr(10))} lines, {given.keys} keys")
    for label, seconds in (("diagnostics", answers), ("parse alone", parses)):
        print(f"{label}: median {statistics.median(seconds) * 1e3:.0f} ms, p95 {_p95(seconds) * 1e3:.0f} ms")
    print(f"p95 of diagnostics / p95 of the parse: {_p95(answers) / _p95(parses):.2f}")
    ratios = [answer / parse for answer, parse in zip(answers, parses, strict=True)]
    print(f"median of diagnostics / parse, key by key: {statistics.median(ratios):.2f}")


def _p95(values: list[float]) -> float:
    return statistics.quantiles(values, n=20)[-1]


if __name__ == "__main__":
    main()
