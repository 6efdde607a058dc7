/** Which command starts memlint. */

/** What a command was taken from, in the order of preference. */
export type Source = "the setting memlint.path" | "the selected Python interpreter" | "PATH";

export interface Command {
  readonly program: string;
  readonly args: readonly string[];
  readonly source: Source;
}

export interface Surroundings {
  /** The setting `memlint.path`: a program and its first arguments, or empty. */
  readonly setting: readonly string[];
  /** Whether the user trusts the workspace: else nothing that it names is run. */
  readonly isTrusted: boolean;
  /** The selected interpreter, where the Python extension knows one. */
  interpreter(): Promise<string | undefined>;
  /** Whether `program ...args` ends with status 0. */
  succeeds(program: string, args: readonly string[]): Promise<boolean>;
}

/** The command that starts memlint, without the subcommand; undefined where there is none. */
export async function findCommand(surroundings: Surroundings): Promise<Command | undefined> {
  const [program, ...args] = surroundings.setting;
  if (program !== undefined) {
    return { program, args, source: "the setting memlint.path" };
  }
  if (surroundings.isTrusted) {
    const interpreter = await surroundings.interpreter();
    if (interpreter !== undefined && (await surroundings.succeeds(interpreter, ["-m", "memlint", "--version"]))) {
      return { program: interpreter, args: ["-m", "memlint"], source: "the selected Python interpreter" };
    }
  }
  if (await surroundings.succeeds("memlint", ["--version"])) {
    return { program: "memlint", args: [], source: "PATH" };
  }
  return undefined;
}

/** What to tell a user whose memlint was not found. */
export function notFound(isTrusted: boolean): string {
  const places = isTrusted ? "neither in the selected Python interpreter nor on PATH" : "not on PATH";
  return `memlint was found ${places}. Install it with: pip install "memlint-torch[server]"`;
}
