/** The extension: starts the language server, shows its state, and has the commands that are more than the server's. */

import * as path from "node:path";
import * as vscode from "vscode";
import { LanguageClient, State, type LanguageClientOptions, type ServerOptions } from "vscode-languageclient/node";

import { findCommand, notFound, type Command } from "./discovery";
import { parseFindings, spanOf } from "./findings";
import { onInterpreterChange, selectedInterpreter } from "./interpreter";
import { run, succeeds } from "./processes";

const FIX_ALL = "source.fixAll.memlint";

let memlint: Memlint | undefined;

export async function activate(context: vscode.ExtensionContext): Promise<void> {
  memlint = new Memlint();
  context.subscriptions.push(
    memlint,
    vscode.commands.registerCommand("memlint.checkWorkspace", () => memlint?.checkWorkspace()),
    vscode.commands.registerCommand("memlint.fixAll", fixAll),
    vscode.commands.registerCommand("memlint.confirm", () => memlint?.confirm()),
    vscode.commands.registerCommand("memlint.restart", () => memlint?.restart()),
    vscode.commands.registerCommand("memlint.showLog", () => memlint?.log.show()),
    vscode.workspace.onDidGrantWorkspaceTrust(() => memlint?.restart()),
    vscode.workspace.onDidChangeConfiguration(async (event) => {
      if (event.affectsConfiguration("memlint")) {
        await memlint?.restart();
      }
    }),
  );
  const interpreterWatch = await onInterpreterChange(() => void memlint?.restart());
  if (interpreterWatch !== undefined) {
    context.subscriptions.push(interpreterWatch);
  }
  await memlint.start();
}

export async function deactivate(): Promise<void> {
  await memlint?.stop();
}

class Memlint implements vscode.Disposable {
  readonly log = vscode.window.createOutputChannel("memlint");
  private readonly status = vscode.window.createStatusBarItem("memlint", vscode.StatusBarAlignment.Right);
  private readonly workspaceFindings = vscode.languages.createDiagnosticCollection("memlint workspace");
  private client: LanguageClient | undefined;
  private command: Command | undefined;

  constructor() {
    this.status.name = "memlint";
    this.status.command = "memlint.showLog";
  }

  async start(): Promise<void> {
    const configuration = vscode.workspace.getConfiguration("memlint");
    if (!configuration.get<boolean>("enable", true)) {
      this.show("off", "memlint is switched off by the setting memlint.enable");
      return;
    }
    const isTrusted = vscode.workspace.isTrusted;
    this.command = await findCommand({
      setting: configuration.get<string[]>("path", []),
      isTrusted,
      interpreter: selectedInterpreter,
      succeeds,
    });
    if (this.command === undefined) {
      this.show("not found", notFound(isTrusted));
      void vscode.window.showWarningMessage(notFound(isTrusted));
      return;
    }
    const { program, args, source } = this.command;
    this.log.appendLine(`Starting ${[program, ...args, "server"].join(" ")} (from ${source})`);
    const server: ServerOptions = { command: program, args: [...args, "server"] };
    this.client = new LanguageClient("memlint", "memlint", server, this.clientOptions(configuration));
    this.client.onDidChangeState(({ newState }) => {
      this.show(newState === State.Running ? "" : newState === State.Starting ? "starting" : "stopped", `From ${source}`);
    });
    try {
      await this.client.start();
    } catch (error) {
      this.show("failed", String(error));
      this.log.appendLine(String(error));
    }
  }

  private clientOptions(configuration: vscode.WorkspaceConfiguration): LanguageClientOptions {
    return {
      documentSelector: [
        { language: "python", scheme: "file" },
        { language: "python", scheme: "untitled" },
        { language: "python", scheme: "vscode-notebook-cell" },
      ],
      outputChannel: this.log,
      initializationOptions: { settings: configuration.get<object>("settings", {}) },
    };
  }

  async stop(): Promise<void> {
    const client = this.client;
    this.client = undefined;
    await client?.dispose();
  }

  async restart(): Promise<void> {
    await this.stop();
    await this.start();
  }

  /** Check every file of every folder, open or not. What the server says of open files replaces it as it comes. */
  async checkWorkspace(): Promise<void> {
    const command = this.command;
    const folders = vscode.workspace.workspaceFolders ?? [];
    if (command === undefined || folders.length === 0) {
      void vscode.window.showWarningMessage(command === undefined ? notFound(vscode.workspace.isTrusted) : "No folder is open.");
      return;
    }
    this.workspaceFindings.clear();
    let count = 0;
    for (const folder of folders) {
      const options = { location: vscode.ProgressLocation.Window, title: `memlint: checking ${folder.name}` };
      count += await vscode.window.withProgress(options, () => this.checkFolder(command, folder.uri.fsPath));
    }
    void vscode.window.showInformationMessage(`memlint: ${count} finding${count === 1 ? "" : "s"} in the workspace.`);
  }

  private async checkFolder(command: Command, folder: string): Promise<number> {
    const ended = await run(command.program, [...command.args, "check", "--output-format", "json", "."], folder);
    if (ended.stderr !== "") {
      this.log.appendLine(ended.stderr);
    }
    let count = 0;
    for (const [file, findings] of parseFindings(ended.stdout)) {
      const uri = vscode.Uri.file(path.resolve(folder, file));
      const isOpen = vscode.workspace.textDocuments.some((document) => document.uri.toString() === uri.toString());
      count += findings.length;
      if (isOpen || file.endsWith(".ipynb")) {
        continue; // the server shows them, notebooks by cell
      }
      const document = await vscode.workspace.openTextDocument(uri);
      const diagnostics = findings.map((finding) => {
        const span = spanOf(finding, (line) => document.lineAt(Math.min(line, document.lineCount - 1)).text);
        const range = new vscode.Range(span.startLine, span.startCharacter, span.endLine, span.endCharacter);
        const text = `${finding.message} [${finding.name}]`;
        const diagnostic = new vscode.Diagnostic(range, text, vscode.DiagnosticSeverity.Warning);
        diagnostic.code = finding.code;
        diagnostic.source = "memlint";
        return diagnostic;
      });
      this.workspaceFindings.set(uri, diagnostics);
    }
    return count;
  }

  /** Run a target of the user's choice in a terminal: it runs their code, and prints at length. */
  async confirm(): Promise<void> {
    if (!vscode.workspace.isTrusted || this.command === undefined) {
      void vscode.window.showWarningMessage("Confirming runs the workspace's code: trust the workspace first.");
      return;
    }
    const active = vscode.window.activeTextEditor?.document;
    const target = await vscode.window.showInputBox({
      title: "memlint confirm",
      prompt: "What to run: a script with its arguments after --, `-m package.module`, or `package.module:function`",
      value: active?.languageId === "python" ? vscode.workspace.asRelativePath(active.uri) : "",
    });
    if (target === undefined || target.trim() === "") {
      return;
    }
    const terminal = vscode.window.createTerminal("memlint confirm");
    terminal.show();
    const quoted = [this.command.program, ...this.command.args].map((part) => (part.includes(" ") ? `"${part}"` : part));
    terminal.sendText(`${quoted.join(" ")} confirm ${target}`);
  }

  private show(state: string, tooltip: string): void {
    this.status.text = state === "" ? "memlint" : `memlint: ${state}`;
    this.status.tooltip = tooltip;
    this.status.show();
  }

  dispose(): void {
    this.status.dispose();
    this.workspaceFindings.dispose();
    this.log.dispose();
  }
}

async function fixAll(): Promise<void> {
  const editor = vscode.window.activeTextEditor;
  if (editor?.document.languageId !== "python") {
    return;
  }
  await vscode.commands.executeCommand("editor.action.codeAction", { kind: FIX_ALL, apply: "first" });
}
