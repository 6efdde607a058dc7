import { describe, expect, it } from "vitest";

import { findCommand, notFound, type Surroundings } from "../src/discovery";

function surroundings(given: Partial<Surroundings>, working: readonly string[] = []): Surroundings {
  return {
    setting: [],
    isTrusted: true,
    interpreter: () => Promise.resolve(undefined),
    succeeds: (program) => Promise.resolve(working.includes(program)),
    ...given,
  };
}

const venv = () => Promise.resolve("/venv/bin/python");

describe("findCommand", () => {
  it("takes the setting before all else", async () => {
    const command = await findCommand(surroundings({ setting: ["uvx", "memlint"], interpreter: venv }, ["/venv/bin/python"]));
    expect(command).toEqual({ program: "uvx", args: ["memlint"], source: "the setting memlint.path" });
  });

  it("takes the selected interpreter where it has memlint", async () => {
    const command = await findCommand(surroundings({ interpreter: venv }, ["/venv/bin/python", "memlint"]));
    expect(command).toEqual({
      program: "/venv/bin/python",
      args: ["-m", "memlint"],
      source: "the selected Python interpreter",
    });
  });

  it("takes the one on PATH where the interpreter has none", async () => {
    const command = await findCommand(surroundings({ interpreter: venv }, ["memlint"]));
    expect(command).toEqual({ program: "memlint", args: [], source: "PATH" });
  });

  it("runs no interpreter of a workspace that is not trusted", async () => {
    const asked: string[] = [];
    const untrusted = surroundings({
      isTrusted: false,
      interpreter: () => {
        throw new Error("asked for the interpreter");
      },
      succeeds: (program) => {
        asked.push(program);
        return Promise.resolve(true);
      },
    });
    expect((await findCommand(untrusted))?.source).toBe("PATH");
    expect(asked).toEqual(["memlint"]);
  });

  it("finds nothing where there is nothing", async () => {
    expect(await findCommand(surroundings({}))).toBeUndefined();
    expect(notFound(true)).toContain('pip install "memlint-torch[server]"');
  });
});
