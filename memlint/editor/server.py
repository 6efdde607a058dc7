"""The language server: what the client says, and what it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lsprotocol import types
from pygls.lsp.server import LanguageServer
from pygls.uris import to_fs_path

from memlint import __version__
from memlint.config.discovery import SUFFIXES, exclusion_of
from memlint.config.errors import ConfigError
from memlint.config.load import SettingsResolver
from memlint.config.options import MemlintTable, Options
from memlint.config.policies import PolicyMaker
from memlint.editor import answers
from memlint.editor.analyst import Analyst, Superseded, Task
from memlint.editor.texts import Part, Text
from memlint.linting.policy import Policy
from memlint.measure.confirm.saved import NotAConfirmation, SavedConfirmation
from memlint.project.files import forget_files
from memlint.reporting.report import Report
from memlint.source.file import SourceFile, UndecodableFile
from memlint.source.notebook import Notebook

# Long enough that a word is typed to its end, short enough to feel at once.
DEBOUNCE_SECONDS = 0.2
# A check takes a fraction of a second; what takes this long is pathological (see `timeout-per-file`).
TIMEOUT_SECONDS = 10.0

_EDITORS_SETTINGS = "the editor's settings"
_NOTEBOOKS = types.NotebookDocumentSyncOptions(
    notebook_selector=[
        types.NotebookDocumentFilterWithCells(
            cells=[types.NotebookCellLanguage("python")],
            notebook=types.NotebookDocumentFilterNotebookType(notebook_type="jupyter-notebook"),
        )
    ],
    save=True,
)
_WATCHED = ("**/*.py", "**/pyproject.toml", "**/memlint.toml", "**/.gitignore")


@dataclass(frozen=True)
class Checked:
    """A text and what is known of it. `epoch` says how new the rest of the project was."""

    text: Text
    epoch: int
    report: Report

    @property
    def result_id(self) -> str:
        return f"{self.epoch}:{':'.join(str(part.version) for part in self.text.parts)}"


class MemlintServer(LanguageServer):
    """One client's server."""

    def __init__(self) -> None:
        super().__init__(
            "memlint",
            __version__,
            text_document_sync_kind=types.TextDocumentSyncKind.Incremental,
            notebook_document_sync=_NOTEBOOKS,
        )
        self._epoch = 0
        self._options = Options(_EDITORS_SETTINGS)
        self._policies: PolicyMaker | None = None
        self._measured_file: object = None
        self._measured: SavedConfirmation | None = None
        self._analyst: Analyst | None = None
        self._checked: dict[str, Checked] = {}
        self._refreshing: dict[str, asyncio.Task[None]] = {}
        self._said: set[str] = set()

    # --- settings ---

    def configure(self, settings: Any) -> None:
        """Take the client's settings: the keys of `[tool.memlint]`, and `measured`: a saved confirmation's path."""
        values = settings if isinstance(settings, Mapping) else {}
        given = {key: value for key, value in values.items() if value is not None}
        self._measured_file = given.pop("measured", None)
        try:
            self._options = MemlintTable(_EDITORS_SETTINGS, given).options(_EDITORS_SETTINGS)
        except ConfigError as error:
            self._complain(str(error))
        self.forget()

    def forget(self) -> None:
        """Something on disk has changed: configuration and the project's other files are read anew."""
        self._epoch += 1
        self._policies = None
        self._measured = self._read_measured()
        forget_files()

    def _read_measured(self) -> SavedConfirmation | None:
        if not isinstance(self._measured_file, str):
            return None
        try:
            return SavedConfirmation.read(Path(self._measured_file))
        except (OSError, NotAConfirmation) as error:
            self._complain(f"{self._measured_file}: {error}")
            return None

    def policy(self, path: Path) -> Policy | None:
        """What is wanted of a file; None: it is excluded, or its configuration cannot be used."""
        try:
            if self._policies is None:
                self._policies = PolicyMaker(SettingsResolver(self._options))
            self._policies.validate(self._policies.resolver.for_folder(path.parent))
            if exclusion_of(path, self._policies.resolver) is not None:
                return None
            return self._policies.policy(path)
        except ConfigError as error:
            self._complain(str(error))
            return None

    def _complain(self, message: str) -> None:
        """Tell the user, once."""
        if message in self._said:
            return
        self._said.add(message)
        self.window_show_message(types.ShowMessageParams(types.MessageType.Error, f"memlint: {message}"))

    # --- texts ---

    def text(self, uri: str) -> Text | None:
        """The text that a document or cell belongs to, as it is now."""
        notebook = self.workspace.get_notebook_document(notebook_uri=uri) or self.workspace.get_notebook_document(
            cell_uri=uri
        )
        codec = self.workspace.position_codec
        if notebook is not None:
            parts = tuple(part for cell in notebook.cells if (part := self._cell(cell)) is not None)
            path = _path(notebook.uri)
            return Text(notebook.uri, path, parts, True, codec) if path and parts else None
        document = self.workspace.text_documents.get(uri)
        path = _path(uri)
        if document is None or path is None or not path.name.endswith(SUFFIXES[:2]):
            return None
        return Text(uri, path, (Part(uri, document.version, document.source),), False, codec)

    def _cell(self, cell: types.NotebookCell) -> Part | None:
        document = self.workspace.text_documents.get(cell.document)
        if cell.kind is not types.NotebookCellKind.Code or document is None:
            return None
        return Part(cell.document, document.version, document.source)

    # --- checking ---

    @property
    def analyst(self) -> Analyst:
        if self._analyst is None:
            self._analyst = Analyst(timeout_seconds=TIMEOUT_SECONDS)
        return self._analyst

    def end(self) -> None:
        if self._analyst is not None:
            self._analyst.end()

    async def checked(self, uri: str) -> Checked | None:
        """What is known of the text as it is now; None where there is nothing to check."""
        while (text := self.text(uri)) is not None:
            known = self._checked.get(text.uri)
            if known is not None and known.epoch == self._epoch and known.text.parts == text.parts:
                return known
            epoch = self._epoch
            try:
                report = await self._report(text)
            except Superseded:
                continue
            self._checked[text.uri] = Checked(text, epoch, report)
        return None

    async def _report(self, text: Text) -> Report:
        policy = self.policy(text.path)
        if policy is None:
            return Report(())
        task = self._task("check", text, policy)
        if task is None:
            return Report(())
        result = await self.analyst.check(task)
        if result.trouble is not None:
            self._complain(f"{text.path}: {result.trouble}")
        if self._measured is not None:
            result = self._measured.priced(result, text.path, task.content)
        return Report.of([result])

    def _task(self, kind: Any, text: Text, policy: Policy) -> Task | None:
        try:
            return Task(kind, text.analysed_path, text.content, policy, self._epoch)
        except UndecodableFile as error:
            self._complain(f"{text.path}: {error}")
            return None

    async def fixed(self, text: Text) -> list[str] | None:
        """The texts of the parts after all safe fixes."""
        policy = self.policy(text.path)
        task = None if policy is None else self._task("fix", text, policy)
        if task is None:
            return None
        try:
            after = (await self.analyst.fix(task)).after
        except Superseded:
            return None  # the client asks again for the newer text
        if not text.is_notebook:
            return [SourceFile.decode(task.path, after).text]
        return [source.text for source in Notebook.decode(task.path, after).sources]

    # --- diagnostics ---

    @property
    def client_pulls(self) -> bool:
        document = self.client_capabilities.text_document
        return document is not None and document.diagnostic is not None

    def refresh(self, uri: str, delay_seconds: float = 0.0) -> None:
        """Check a text, after a while in which it does not change, and publish what was found."""
        text = self.text(uri)
        if text is None or self.client_pulls:
            return
        waiting = self._refreshing.pop(text.uri, None)
        if waiting is not None:
            waiting.cancel()
        self._refreshing[text.uri] = asyncio.get_running_loop().create_task(self._refresh(text.uri, delay_seconds))

    async def _refresh(self, uri: str, delay_seconds: float) -> None:
        await asyncio.sleep(delay_seconds)
        checked = await self.checked(uri)
        if checked is None:
            return
        for part_uri, found in answers.diagnostics(checked.report.findings, checked.text).items():
            part = checked.text.part_of(part_uri)
            self.text_document_publish_diagnostics(
                types.PublishDiagnosticsParams(part_uri, found, part.version if part else None)
            )

    async def refresh_all(self) -> None:
        """What is open is checked anew: something else has changed."""
        if self.client_pulls:
            workspace = self.client_capabilities.workspace
            if workspace is not None and workspace.diagnostics is not None and workspace.diagnostics.refresh_support:
                await self.workspace_diagnostic_refresh_async(None)
            return
        for uri in list(self.workspace.text_documents):
            self.refresh(uri, DEBOUNCE_SECONDS)

    def close(self, uris: Sequence[str], key: str) -> None:
        self._checked.pop(key, None)
        waiting = self._refreshing.pop(key, None)
        if waiting is not None:
            waiting.cancel()
        if not self.client_pulls:
            for uri in uris:
                self.text_document_publish_diagnostics(types.PublishDiagnosticsParams(uri, []))


def _path(uri: str) -> Path | None:
    """The file; a document that was never saved is a file of the current folder."""
    if uri.startswith("untitled:"):
        return Path.cwd() / f"{uri.removeprefix('untitled:').replace('/', '_')}.py"
    name = to_fs_path(uri)
    return Path(name) if name else None


def _initialize(ls: MemlintServer, params: types.InitializeParams) -> None:
    options = params.initialization_options
    ls.configure(options.get("settings", options) if isinstance(options, Mapping) else None)


async def _initialized(ls: MemlintServer, _: types.InitializedParams) -> None:
    workspace = ls.client_capabilities.workspace
    watching = workspace.did_change_watched_files if workspace is not None else None
    if watching is None or not watching.dynamic_registration:
        return
    watchers = [types.FileSystemWatcher(pattern) for pattern in _WATCHED]
    registration = types.Registration(
        "memlint-files",
        types.WORKSPACE_DID_CHANGE_WATCHED_FILES,
        types.DidChangeWatchedFilesRegistrationOptions(watchers),
    )
    await ls.client_register_capability_async(types.RegistrationParams([registration]))


def _shutdown(ls: MemlintServer, _: None) -> None:
    ls.end()


async def _did_change_configuration(ls: MemlintServer, params: types.DidChangeConfigurationParams) -> None:
    settings = params.settings
    ls.configure(settings.get("memlint", settings) if isinstance(settings, Mapping) else None)
    await ls.refresh_all()


async def _did_change_watched_files(ls: MemlintServer, _: types.DidChangeWatchedFilesParams) -> None:
    ls.forget()
    await ls.refresh_all()


async def _did_open(ls: MemlintServer, params: types.DidOpenTextDocumentParams) -> None:
    ls.refresh(params.text_document.uri)


async def _did_change(ls: MemlintServer, params: types.DidChangeTextDocumentParams) -> None:
    ls.refresh(params.text_document.uri, DEBOUNCE_SECONDS)


async def _did_save(ls: MemlintServer, _: types.DidSaveTextDocumentParams) -> None:
    ls.forget()
    await ls.refresh_all()


def _did_close(ls: MemlintServer, params: types.DidCloseTextDocumentParams) -> None:
    ls.close([params.text_document.uri], params.text_document.uri)


async def _notebook_did_open(ls: MemlintServer, params: types.DidOpenNotebookDocumentParams) -> None:
    ls.refresh(params.notebook_document.uri)


async def _notebook_did_change(ls: MemlintServer, params: types.DidChangeNotebookDocumentParams) -> None:
    ls.refresh(params.notebook_document.uri, DEBOUNCE_SECONDS)


async def _notebook_did_save(ls: MemlintServer, _: types.DidSaveNotebookDocumentParams) -> None:
    ls.forget()
    await ls.refresh_all()


def _notebook_did_close(ls: MemlintServer, params: types.DidCloseNotebookDocumentParams) -> None:
    ls.close([cell.uri for cell in params.cell_text_documents], params.notebook_document.uri)


async def _diagnostic(ls: MemlintServer, params: types.DocumentDiagnosticParams) -> types.DocumentDiagnosticReport:
    checked = await ls.checked(params.text_document.uri)
    if checked is None:
        return types.RelatedFullDocumentDiagnosticReport(items=[])
    if params.previous_result_id == checked.result_id:
        return types.RelatedUnchangedDocumentDiagnosticReport(result_id=checked.result_id)
    found = answers.diagnostics(checked.report.findings, checked.text)
    items = found.get(params.text_document.uri, [])
    return types.RelatedFullDocumentDiagnosticReport(items=items, result_id=checked.result_id)


async def _code_action(ls: MemlintServer, params: types.CodeActionParams) -> list[types.CodeAction]:
    checked = await ls.checked(params.text_document.uri)
    part = checked.text.part_of(params.text_document.uri) if checked is not None else None
    if checked is None or part is None:
        return []
    findings, text = checked.report.findings, checked.text
    wants_quick_fixes = _wants(params.context, types.CodeActionKind.QuickFix.value)
    found = list(answers.fixes(findings, text, part, params.range)) if wants_quick_fixes else []
    if _wants(params.context, answers.FIX_ALL) and any(map(answers.is_safe, findings)):
        sources = await ls.fixed(text)
        action = answers.fix_all(sources, text) if sources is not None else None
        found += [action] if action is not None else []
    if wants_quick_fixes:
        found += answers.suppressions(findings, text, part, params.range)
    return found


async def _hover(ls: MemlintServer, params: types.HoverParams) -> types.Hover | None:
    checked = await ls.checked(params.text_document.uri)
    part = checked.text.part_of(params.text_document.uri) if checked is not None else None
    if checked is None or part is None:
        return None
    return answers.hover(checked.report.findings, checked.text, part, params.position)


def _wants(context: types.CodeActionContext, kind: str) -> bool:
    """Whether the client asks for this kind of action: for none in particular, for it, or for one that holds it."""
    only = [getattr(wanted, "value", wanted) for wanted in context.only or []]
    return not only or any(kind == wanted or kind.startswith(f"{wanted}.") for wanted in only)


_FEATURES: tuple[tuple[str, Callable[..., Any], Any], ...] = (
    (types.INITIALIZE, _initialize, None),
    (types.INITIALIZED, _initialized, None),
    (types.SHUTDOWN, _shutdown, None),
    (types.WORKSPACE_DID_CHANGE_CONFIGURATION, _did_change_configuration, None),
    (types.WORKSPACE_DID_CHANGE_WATCHED_FILES, _did_change_watched_files, None),
    (types.TEXT_DOCUMENT_DID_OPEN, _did_open, None),
    (types.TEXT_DOCUMENT_DID_CHANGE, _did_change, None),
    (types.TEXT_DOCUMENT_DID_SAVE, _did_save, None),
    (types.TEXT_DOCUMENT_DID_CLOSE, _did_close, None),
    (types.NOTEBOOK_DOCUMENT_DID_OPEN, _notebook_did_open, None),
    (types.NOTEBOOK_DOCUMENT_DID_CHANGE, _notebook_did_change, None),
    (types.NOTEBOOK_DOCUMENT_DID_SAVE, _notebook_did_save, None),
    (types.NOTEBOOK_DOCUMENT_DID_CLOSE, _notebook_did_close, None),
    (
        types.TEXT_DOCUMENT_DIAGNOSTIC,
        _diagnostic,
        types.DiagnosticOptions(inter_file_dependencies=True, workspace_diagnostics=False, identifier="memlint"),
    ),
    (
        types.TEXT_DOCUMENT_CODE_ACTION,
        _code_action,
        types.CodeActionOptions(code_action_kinds=[types.CodeActionKind.QuickFix, answers.FIX_ALL]),
    ),
    (types.TEXT_DOCUMENT_HOVER, _hover, None),
)


def make_server() -> MemlintServer:
    """A server with all its features."""
    server = MemlintServer()
    for name, handler, options in _FEATURES:
        server.feature(name, options)(handler)
    return server
