// What a command is.

import type { FlagName, Values } from "./flags.ts";
import type { Io } from "./io.ts";

/** A command of the command line. */
export interface Command {
  /** What is typed. */
  readonly name: string;
  /** What it does, in one line. */
  readonly summary: string;
  /** What a newcomer should know beyond its flags. */
  readonly notes?: readonly string[];
  /** Calls that work, with what they are for. */
  readonly examples: readonly (readonly [call: string, purpose: string])[];
  /** Flags it takes, beside `--debug` and `--help`. */
  readonly flags: readonly FlagName[];
  /** Runs it; gives the exit code. */
  run(io: Io, values: Values): Promise<number>;
}

/** Writes a line, or an object as one line of JSON, to stdout. */
export async function print(io: Io, content: string | object): Promise<void> {
  const text = typeof content === "string" ? content : `${JSON.stringify(content)}\n`;
  await io.stdout.write(new TextEncoder().encode(text));
}
