import { describe, expect, it, vi } from "vitest";
import * as vscode from "vscode";

import { onInterpreterChange, selectedInterpreter } from "../src/interpreter";

describe("selectedInterpreter", () => {
  it("is unknown without the Python extension", async () => {
    expect(await selectedInterpreter()).toBeUndefined();
    expect(await onInterpreterChange(() => undefined)).toBeUndefined();
  });

  it("is the executable of the active environment", async () => {
    const environments = {
      getActiveEnvironmentPath: () => ({ path: "/venv" }),
      resolveEnvironment: ({ path }: { path: string }) =>
        Promise.resolve({ executable: { uri: { fsPath: `${path}/bin/python` } } }),
    };
    vi.mocked(vscode.extensions.getExtension).mockReturnValue({
      activate: () => Promise.resolve({ environments }),
    } as unknown as vscode.Extension<unknown>);
    expect(await selectedInterpreter()).toBe("/venv/bin/python");
  });
});
