/** The JSON of `memlint check`, as docs/json-output.md describes it. */

export interface Finding {
  readonly code: string;
  readonly name: string;
  readonly message: string;
  readonly path: string;
  readonly cell: number | null;
  readonly line: number;
  readonly column: number;
  readonly end_line: number;
  readonly end_column: number;
  readonly confidence: "high" | "medium" | "low";
}

/** A range as editors count: from 0, in UTF-16 code units. */
export interface Span {
  readonly startLine: number;
  readonly startCharacter: number;
  readonly endLine: number;
  readonly endCharacter: number;
}

/** The findings of a run, by path. Throws an Error where the output is no list of findings. */
export function parseFindings(output: string): Map<string, Finding[]> {
  const parsed: unknown = JSON.parse(output);
  if (!Array.isArray(parsed) || !parsed.every(isFinding)) {
    throw new Error("memlint printed no list of findings");
  }
  const byPath = new Map<string, Finding[]>();
  for (const finding of parsed) {
    const found = byPath.get(finding.path);
    if (found === undefined) {
      byPath.set(finding.path, [finding]);
    } else {
      found.push(finding);
    }
  }
  return byPath;
}

function isFinding(value: unknown): value is Finding {
  if (typeof value !== "object" || value === null) {
    return false;
  }
  const { code, message, path, line, column } = value as Partial<Record<keyof Finding, unknown>>;
  return (
    [code, message, path].every((text) => typeof text === "string") &&
    [line, column].every((number) => typeof number === "number")
  );
}

/** Where a finding is. memlint counts code points; `lineText` gives a line of the file by its number from 0. */
export function spanOf(finding: Finding, lineText: (line: number) => string): Span {
  const startLine = finding.line - 1;
  const endLine = finding.end_line - 1;
  return {
    startLine,
    startCharacter: codeUnits(lineText(startLine), finding.column - 1),
    endLine,
    endCharacter: codeUnits(lineText(endLine), finding.end_column - 1),
  };
}

function codeUnits(text: string, codePoints: number): number {
  return Array.from(text).slice(0, codePoints).join("").length;
}
