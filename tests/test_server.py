"""The language server, spoken to by a real client over standard input and output."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest
import pytest_lsp
from lsprotocol import types
from pytest_lsp import ClientServerConfig, LanguageClient, client_capabilities
from pytest_lsp.client import default_feature

from memlint.editor.analyst import Analyst, Task
from memlint.linting.finding import FileResult
from memlint.linting.policy import Policy
from memlint.linting.pool import WorkerDidNotStart
from memlint.measure.confirm.as_json import SCHEMA_VERSION

COMMAND = [sys.executable, "-c", "from memlint.cli.main import main; main()", "server"]

TRAIN = """\
import torch


def train(model, loader, criterion):
    total = 0.0
    for x, y in loader:
        loss = criterion(model(x), y)
        loss.backward()
        total += loss
    return total.item()
"""
FIXED = TRAIN.replace("total += loss", "total += loss.detach()")


@pytest_lsp.fixture(config=ClientServerConfig(server_command=COMMAND))  # type: ignore[untyped-decorator,unused-ignore]
async def client(lsp_client: LanguageClient) -> AsyncIterator[None]:
    yield
    await lsp_client.shutdown_session()


async def start(
    client: LanguageClient, folder: Path, editor: str = "neovim@v0.7", encoding: str | None = None, **settings: object
) -> None:
    """Neovim 0.7 waits for what is published."""
    capabilities = client_capabilities(editor)
    if encoding is not None:
        kinds = [types.PositionEncodingKind(encoding)]
        capabilities.general = types.GeneralClientCapabilities(position_encodings=kinds)
    folders = [types.WorkspaceFolder(folder.as_uri(), folder.name)]
    await client.initialize_session(
        types.InitializeParams(
            capabilities=capabilities, workspace_folders=folders, initialization_options={"settings": settings}
        )
    )


def opened(client: LanguageClient, path: Path, text: str = TRAIN) -> str:
    document = types.TextDocumentItem(path.as_uri(), "python", 1, text)
    client.text_document_did_open(types.DidOpenTextDocumentParams(document))
    return document.uri


def changed(client: LanguageClient, uri: str, version: int, text: str) -> None:
    whole = types.TextDocumentContentChangeWholeDocument(text)
    document = types.VersionedTextDocumentIdentifier(version, uri)
    client.text_document_did_change(types.DidChangeTextDocumentParams(document, [whole]))


def saved(client: LanguageClient, uri: str) -> None:
    client.text_document_did_save(types.DidSaveTextDocumentParams(types.TextDocumentIdentifier(uri)))


def on_publication(client: LanguageClient, params: types.PublishDiagnosticsParams) -> None:
    inbox(client).put_nowait(params)


default_feature(types.TEXT_DOCUMENT_PUBLISH_DIAGNOSTICS)(on_publication)


def inbox(client: LanguageClient) -> asyncio.Queue[types.PublishDiagnosticsParams]:
    """What was published and not looked at yet."""
    found: asyncio.Queue[types.PublishDiagnosticsParams] = vars(client).setdefault("inbox", asyncio.Queue())
    return found


async def published(client: LanguageClient, uri: str, version: int | None = 1) -> list[types.Diagnostic]:
    """The next diagnostics of a version of the text."""
    while True:
        params = await asyncio.wait_for(inbox(client).get(), 60)
        if (params.uri, params.version) == (uri, version):
            return list(params.diagnostics)


def codes(diagnostics: Sequence[types.Diagnostic]) -> list[tuple[object, int]]:
    return [(diagnostic.code, diagnostic.range.start.line) for diagnostic in diagnostics]


def span(line: int, start: int, end: int) -> types.Range:
    return types.Range(types.Position(line, start), types.Position(line, end))


async def actions(client: LanguageClient, uri: str, at: types.Range, *only: str) -> list[types.CodeAction]:
    context = types.CodeActionContext(diagnostics=[], only=list(only) or None)
    document = types.TextDocumentIdentifier(uri)
    found = await client.text_document_code_action_async(types.CodeActionParams(document, at, context))
    return [action for action in found or [] if isinstance(action, types.CodeAction)]


def edits_of(action: types.CodeAction) -> list[types.TextEdit]:
    """The edits of an action on one document."""
    assert action.edit is not None
    [change] = action.edit.document_changes or []
    assert isinstance(change, types.TextDocumentEdit)
    return [edit for edit in change.edits if isinstance(edit, types.TextEdit)]


def applied(text: str, action: types.CodeAction) -> str:
    """What a client makes of ASCII text."""
    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    for edit in sorted(edits_of(action), key=lambda one: (-one.range.start.line, -one.range.start.character)):
        start, end = edit.range.start, edit.range.end
        text = text[: starts[start.line] + start.character] + edit.new_text + text[starts[end.line] + end.character :]
    return text


# --- diagnostics ---


@pytest.mark.asyncio
async def test_diagnostics_follow_the_unsaved_text(client: LanguageClient, tmp_path: Path) -> None:
    await start(client, tmp_path)
    uri = opened(client, tmp_path / "train.py")
    [found] = await published(client, uri)
    assert (found.code, found.source, found.severity) == ("MEM101", "memlint", types.DiagnosticSeverity.Warning)
    assert found.range == span(8, 8, 21)
    places = [place.location for place in found.related_information or []]
    assert [(place.uri, place.range.start.line) for place in places] == [(uri, 6), (uri, 6), (uri, 7)]
    changed(client, uri, 2, FIXED)
    assert await published(client, uri, 2) == []
    client.text_document_did_close(types.DidCloseTextDocumentParams(types.TextDocumentIdentifier(uri)))
    assert await published(client, uri, None) == []


@pytest.mark.asyncio
async def test_only_the_last_of_many_versions_is_published(client: LanguageClient, tmp_path: Path) -> None:
    await start(client, tmp_path)
    uri = opened(client, tmp_path / "train.py")
    await published(client, uri)
    for version in range(2, 12):
        changed(client, uri, version, TRAIN + f"x = {version}\n")
    next_one = await asyncio.wait_for(inbox(client).get(), 60)
    assert (next_one.version, codes(next_one.diagnostics)) == (11, [("MEM101", 8)])


@pytest.mark.asyncio
async def test_a_syntax_error_while_typing_does_not_lose_the_server(client: LanguageClient, tmp_path: Path) -> None:
    await start(client, tmp_path)
    uri = opened(client, tmp_path / "train.py", TRAIN + "def f(:\n")
    [error] = await published(client, uri)
    assert (error.code, error.severity) == ("MEM001", types.DiagnosticSeverity.Error)
    for version, text in enumerate(["", "(((", "\x00", "'''", "\\", "# coding: nowhere\n"], start=2):
        changed(client, uri, version, text)
        await published(client, uri, version)
    changed(client, uri, 99, TRAIN)
    assert codes(await published(client, uri, 99)) == [("MEM101", 8)]


@pytest.mark.asyncio
@pytest.mark.parametrize(("encoding", "start_of_total"), [("utf-8", 15), ("utf-16", 13), ("utf-32", 12)])
async def test_columns_are_in_the_units_of_the_client(
    client: LanguageClient, tmp_path: Path, encoding: str, start_of_total: int
) -> None:
    text = TRAIN.replace("        total += loss", "        '𝛼';total += loss")
    await start(client, tmp_path, encoding=encoding)
    uri = opened(client, tmp_path / "train.py", text)
    [diagnostic] = await published(client, uri)
    assert diagnostic.range.start == types.Position(8, start_of_total)
    [fix, *_] = await actions(client, uri, diagnostic.range, "quickfix")
    assert edits_of(fix)[0].range.start == types.Position(8, start_of_total + len("total += loss"))


@pytest.mark.asyncio
async def test_a_client_that_pulls_is_answered_and_not_pushed_to(client: LanguageClient, tmp_path: Path) -> None:
    await start(client, tmp_path, editor="neovim@v0.11")
    uri = opened(client, tmp_path / "train.py")
    document = types.TextDocumentIdentifier(uri)
    report = await client.text_document_diagnostic_async(types.DocumentDiagnosticParams(document))
    assert isinstance(report, types.RelatedFullDocumentDiagnosticReport)
    assert codes(report.items) == [("MEM101", 8)]
    again = types.DocumentDiagnosticParams(document, previous_result_id=report.result_id)
    unchanged = await client.text_document_diagnostic_async(again)
    assert isinstance(unchanged, types.RelatedUnchangedDocumentDiagnosticReport)
    changed(client, uri, 2, FIXED)
    after = await client.text_document_diagnostic_async(again)
    assert isinstance(after, types.RelatedFullDocumentDiagnosticReport)
    assert list(after.items) == []
    assert inbox(client).empty()


# --- the project around a text ---


@pytest.mark.asyncio
async def test_a_saved_file_changes_what_others_mean(client: LanguageClient, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "helpers.py").write_text("def value(loss):\n    return loss.item()\n")
    text = TRAIN.replace("import torch\n", "import torch\nfrom helpers import value\n").replace(
        "+= loss", "+= value(loss)"
    )
    text = text.replace("total.item()", "float(total)")
    (tmp_path / "train.py").write_text(text)
    await start(client, tmp_path)
    uri = opened(client, tmp_path / "train.py", text)
    assert await published(client, uri) == []
    (tmp_path / "helpers.py").write_text("def value(loss):\n    return loss * 1.0\n")
    saved(client, uri)
    assert codes(await published(client, uri)) == [("MEM101", 9)]


@pytest.mark.asyncio
async def test_configuration_is_read_again_and_each_root_has_its_own(client: LanguageClient, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    (one / "pyproject.toml").write_text("")
    (two / "pyproject.toml").write_text('[tool.memlint]\nignore = ["MEM101"]\n')
    await start(client, tmp_path)
    first = opened(client, one / "train.py")
    assert codes(await published(client, first)) == [("MEM101", 8)]
    assert await published(client, opened(client, two / "train.py")) == []
    (one / "pyproject.toml").write_text('[tool.memlint]\nignore = ["MEM1"]\n')
    event = types.FileEvent((one / "pyproject.toml").as_uri(), types.FileChangeType.Changed)
    client.workspace_did_change_watched_files(types.DidChangeWatchedFilesParams([event]))
    assert await published(client, first) == []


@pytest.mark.asyncio
async def test_the_editors_settings_count_and_a_bad_one_is_said(client: LanguageClient, tmp_path: Path) -> None:
    await start(client, tmp_path, select=["MEM2"])
    uri = opened(client, tmp_path / "train.py")
    assert await published(client, uri) == []
    client.workspace_did_change_configuration(types.DidChangeConfigurationParams({"memlint": {"select": ["MEM1"]}}))
    assert codes(await published(client, uri)) == [("MEM101", 8)]
    client.workspace_did_change_configuration(types.DidChangeConfigurationParams({"memlint": {"selekt": []}}))
    await published(client, uri)
    assert [message.message for message in client.messages] == [
        'memlint: the editor\'s settings: there is no option "selekt"; did you mean "select"?'
    ]


@pytest.mark.asyncio
async def test_excluded_files_are_silent(client: LanguageClient, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.memlint]\nextend-exclude = ["vendored"]\n')
    (tmp_path / "vendored").mkdir()
    await start(client, tmp_path)
    assert await published(client, opened(client, tmp_path / "vendored" / "train.py")) == []


@pytest.mark.asyncio
async def test_what_was_measured_is_said(client: LanguageClient, tmp_path: Path) -> None:
    finding = {
        "path": "train.py",
        "code": "MEM101",
        "line": 9,
        "code_line": "total += loss",
        "verdict": "confirmed",
        "summary": "30 MiB -> 20 MiB",
        "held_at_peak_bytes": None,
        "after": None,
        "results": {"grade": "bitwise"},
    }
    content = {
        "schema_version": SCHEMA_VERSION,
        "basis": "measured on cpu",
        "steps": 6,
        "findings": [finding],
        "files": [{"path": "train.py", "sha256": hashlib.sha256(TRAIN.encode()).hexdigest()}],
        "baseline": {"peak_allocated_bytes": 30 * 2**20, "growth_bytes_per_step": 0},
    }
    (tmp_path / "prices.json").write_text(json.dumps(content))
    await start(client, tmp_path, measured=str(tmp_path / "prices.json"))
    uri = opened(client, tmp_path / "train.py")
    [diagnostic] = await published(client, uri)
    assert "[30 MiB -> 20 MiB]" in diagnostic.message


# --- code actions ---


@pytest.mark.asyncio
async def test_fixes_come_first_and_suppressing_last(client: LanguageClient, tmp_path: Path) -> None:
    await start(client, tmp_path)
    uri = opened(client, tmp_path / "train.py")
    found = await actions(client, uri, span(8, 10, 10))
    assert [action.title for action in found] == [
        "memlint: detach it from its graph (safe fix of MEM101)",
        "memlint: apply all safe fixes",
        "memlint: suppress MEM101 on this line",
    ]
    assert [action.is_preferred for action in found] == [True, None, None]
    assert applied(TRAIN, found[0]) == applied(TRAIN, found[1]) == FIXED
    assert applied(TRAIN, found[2]) == TRAIN.replace("total += loss", "total += loss  # noqa: MEM101")
    assert await actions(client, uri, span(0, 0, 3), "quickfix") == []


@pytest.mark.asyncio
async def test_an_unsafe_fix_says_so_and_is_not_preferred(client: LanguageClient, tmp_path: Path) -> None:
    text = TRAIN.replace("total = 0.0", "losses = []").replace("criterion(model(x), y)", "criterion.run(model(x), y)")
    text = text.replace("total += loss", "losses.append(loss)").replace("total.item()", "losses")
    await start(client, tmp_path)
    uri = opened(client, tmp_path / "train.py", text)
    [diagnostic] = await published(client, uri)
    [fix, _] = await actions(client, uri, diagnostic.range, "quickfix")
    assert "(unsafe fix of MEM102)" in fix.title
    assert fix.is_preferred is None
    assert await actions(client, uri, diagnostic.range, "source.fixAll") == []


@pytest.mark.asyncio
async def test_fix_all_is_for_saving(client: LanguageClient, tmp_path: Path) -> None:
    await start(client, tmp_path)
    text = TRAIN + TRAIN.replace("import torch\n", "").replace("def train", "def again")
    uri = opened(client, tmp_path / "train.py", text)
    for kind in ("source.fixAll", "source.fixAll.memlint", "source"):
        [action] = await actions(client, uri, span(0, 0, 0), kind)
        assert action.kind == "source.fixAll.memlint"
        assert applied(text, action) == text.replace("+= loss", "+= loss.detach()")
    assert await actions(client, uri, span(0, 0, 0), "source.organizeImports") == []


# --- hover ---


@pytest.mark.asyncio
async def test_hovering_shows_the_rules_page(client: LanguageClient, tmp_path: Path) -> None:
    await start(client, tmp_path)
    suppressed = "x = 1  # noqa: MEM601"
    uri = opened(client, tmp_path / "train.py", f"{TRAIN}{suppressed}\n")

    async def page(line: int, character: int) -> str:
        place = types.HoverParams(types.TextDocumentIdentifier(uri), types.Position(line, character))
        hover = await client.text_document_hover_async(place)
        if hover is None:
            return ""
        assert isinstance(hover.contents, types.MarkupContent)
        return hover.contents.value

    on_finding = await page(8, 12)
    assert on_finding.startswith("**MEM101 loss-accumulates-graph**")
    assert "## What it costs" in on_finding
    assert "**MEM601 load-without-map-location**" in await page(10, len(suppressed) - 2)
    assert await page(0, 0) == ""


# --- notebooks ---


@pytest.mark.asyncio
async def test_a_notebooks_cells_are_one_program(client: LanguageClient, tmp_path: Path) -> None:
    await start(client, tmp_path)
    texts = ["%matplotlib inline\nimport torch", TRAIN.partition("\n\n\n")[2]]
    cells = [
        types.TextDocumentItem(f"vscode-notebook-cell:/book#{n}", "python", 1, text) for n, text in enumerate(texts)
    ]
    kinds = [types.NotebookCell(types.NotebookCellKind.Code, cell.uri) for cell in cells]
    notebook = types.NotebookDocument((tmp_path / "book.ipynb").as_uri(), "jupyter-notebook", 1, kinds)
    client.notebook_document_did_open(types.DidOpenNotebookDocumentParams(notebook, cells))
    assert codes(await published(client, cells[1].uri)) == [("MEM101", 5)]
    [fix, _] = await actions(client, cells[1].uri, span(5, 8, 8), "quickfix")
    assert applied(texts[1], fix) == texts[1].replace("+= loss", "+= loss.detach()")
    [fix_all] = await actions(client, cells[1].uri, span(0, 0, 0), "source.fixAll")
    assert applied(texts[1], fix_all) == texts[1].replace("+= loss", "+= loss.detach()")


# --- the process that analyses ---


@pytest.mark.asyncio
async def test_where_no_process_can_be_started_every_answer_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> Iterator[FileResult]:
        raise WorkerDidNotStart("no process")

    monkeypatch.setattr("memlint.editor.analyst.run_files", fails)
    analyst = Analyst(timeout_seconds=1)
    for _ in range(2):
        task = Task("check", "train.py", TRAIN.encode(), Policy(frozenset()), 0)
        result = await asyncio.wait_for(analyst.check(task), 10)
        assert result.trouble == "no process"
