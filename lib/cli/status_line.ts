// A line on the terminal that is written over.

import type { Io } from "./io.ts";

/** A line that tells what is being done; silent where stderr is no terminal. */
export interface StatusLine {
  /** Replaces the line. */
  show(text: string): void;
  /** Takes it away, so that something else can be written. */
  clear(): void;
}

/** Begins without a line. */
export function statusLine(io: Io, quiet: boolean): StatusLine {
  let shown = "";
  const replace = (text: string) => {
    if (quiet || !io.stderr.isTerminal || text === shown) return;
    shown = text;
    // Back to the first column, and clear to the end of the line.
    io.stderr.write(`\r\x1b[K${text}`);
  };
  return { show: replace, clear: () => replace("") };
}
