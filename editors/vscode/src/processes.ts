/** Running memlint and looking for it. */

import { execFile } from "node:child_process";

export interface Ended {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

const LARGEST_OUTPUT = 256 * 1024 * 1024;
const LOOKING_TIMEOUT_MS = 20_000;

/** Run a program without a shell. Rejects where it cannot be started. */
export function run(program: string, args: readonly string[], folder?: string): Promise<Ended> {
  return new Promise((resolve, reject) => {
    const options = { cwd: folder, maxBuffer: LARGEST_OUTPUT };
    execFile(program, [...args], options, (error, stdout, stderr) => {
      if (error === null) {
        resolve({ status: 0, stdout, stderr });
      } else if (typeof error.code === "number") {
        resolve({ status: error.code, stdout, stderr });
      } else {
        reject(new Error(error.message));
      }
    });
  });
}

/** Whether a program can be started and ends with status 0. */
export function succeeds(program: string, args: readonly string[]): Promise<boolean> {
  return new Promise((resolve) => {
    execFile(program, [...args], { timeout: LOOKING_TIMEOUT_MS }, (error) => {
      resolve(error === null);
    });
  });
}
