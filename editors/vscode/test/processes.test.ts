import { describe, expect, it } from "vitest";

import { run, succeeds } from "../src/processes";

describe("run", () => {
  it("gives output and status", async () => {
    const script = "console.log('out'); console.error('err'); process.exit(1)";
    expect(await run(process.execPath, ["-e", script])).toEqual({ status: 1, stdout: "out\n", stderr: "err\n" });
  });

  it("rejects what cannot be started", async () => {
    await expect(run("/no/such/program", [])).rejects.toThrow("ENOENT");
  });
});

describe("succeeds", () => {
  it("is false for a failure and for what is not there", async () => {
    expect(await succeeds(process.execPath, ["-e", ""])).toBe(true);
    expect(await succeeds(process.execPath, ["-e", "process.exit(2)"])).toBe(false);
    expect(await succeeds("/no/such/program", [])).toBe(false);
  });
});
