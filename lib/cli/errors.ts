// What ends a command early, and what the shell and the user are told then.

import { GpuMemoryError } from "../../mod.ts";

/** The command line itself is wrong: a flag, a value, or the lack of one. Ends with code 2. */
export class WrongCall extends Error {
  /** Always `WrongCall`. */
  override readonly name = "WrongCall";
}

/** Ctrl-C before there was anything to keep. Ends with code 130. */
export class Interrupted extends Error {
  /** Always `Interrupted`. */
  override readonly name = "Interrupted";
}

/** Exit codes, as shells know them. */
export const EXIT = { ok: 0, failure: 1, wrongCall: 2, interrupted: 130 } as const;

/** Turns an option or a prompt that the library refused into a wrong call; passes on everything else. */
export function refused(error: unknown): unknown {
  // Too little memory is a range error too, but another call would not be right where this one is wrong.
  const range = error instanceof RangeError && !(error instanceof GpuMemoryError);
  return range || error instanceof TypeError ? new WrongCall(error.message, { cause: error }) : error;
}

/** The code a command ends with after an error. */
export function exitCode(error: unknown): number {
  if (error instanceof WrongCall) return EXIT.wrongCall;
  if (error instanceof Interrupted) return EXIT.interrupted;
  // Nobody reads on: `cairn … | head` is no failure.
  if (error instanceof Deno.errors.BrokenPipe) return EXIT.ok;
  return EXIT.failure;
}

/** What the library calls its options, as flags: `maxTokens` is `--max-tokens` here. */
export function inFlags(message: string, flags: readonly string[]): string {
  let text = message.replace(/\bdtype (f16|f32)\b/g, "--dtype $1").replace(/\(memory\)/g, "(--memory)");
  for (const flag of flags) {
    const option = flag.replace(/-([a-z])/g, (_, letter: string) => letter.toUpperCase());
    // A name of one word may be a word of the sentence; at its beginning it is the option.
    const place = option === flag ? `^${option}(?= must | needs )` : `\\b${option}\\b`;
    text = text.replace(new RegExp(place, "g"), `--${flag}`);
  }
  return text;
}
