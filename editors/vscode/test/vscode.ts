/** What the tests need of the module that VS Code gives to extensions. */

import { vi } from "vitest";

export const extensions = { getExtension: vi.fn() };
export const workspace = { workspaceFolders: undefined };
