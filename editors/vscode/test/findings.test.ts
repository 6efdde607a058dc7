import { describe, expect, it } from "vitest";

import { parseFindings, spanOf, type Finding } from "../src/findings";

const FINDING: Finding = {
  code: "MEM101",
  name: "loss-accumulates-graph",
  message: "`total` keeps the graph",
  path: "train.py",
  cell: null,
  line: 2,
  column: 3,
  end_line: 2,
  end_column: 5,
  confidence: "high",
};

describe("parseFindings", () => {
  it("groups by path", () => {
    const other = { ...FINDING, path: "other.py" };
    const found = parseFindings(JSON.stringify([FINDING, other, FINDING]));
    expect([...found].map(([path, findings]) => [path, findings.length])).toEqual([
      ["train.py", 2],
      ["other.py", 1],
    ]);
  });

  it.each(["{}", "[3]", '[{"code": 1}]'])("refuses %s", (output) => {
    expect(() => parseFindings(output)).toThrow("no list of findings");
  });

  it("refuses what is no JSON", () => {
    expect(() => parseFindings("Traceback ...")).toThrow(SyntaxError);
  });
});

describe("spanOf", () => {
  it("counts code units where memlint counts code points", () => {
    expect(spanOf(FINDING, () => "𝛼 = 1")).toEqual({ startLine: 1, startCharacter: 3, endLine: 1, endCharacter: 5 });
    expect(spanOf(FINDING, () => "abcdef")).toEqual({ startLine: 1, startCharacter: 2, endLine: 1, endCharacter: 4 });
  });
});
