// Lines of a stream, one at a time.

import { orAbort } from "./interrupt.ts";

/** Hands out lines; undefined at the end. What was not asked for stays in the stream. */
export type ReadLine = (signal: AbortSignal) => Promise<string | undefined>;

/** Begins to read lines of UTF-8, ended by LF or CR LF; the last one may end with the stream. */
export function lineReader(stream: ReadableStream<Uint8Array>): ReadLine {
  const reader = stream.getReader();
  const decoder = new TextDecoder();
  let buffered = "";
  let ended = false;
  return async (signal) => {
    for (;;) {
      const end = buffered.indexOf("\n");
      if (end >= 0 || ended) {
        const line = end >= 0 ? buffered.slice(0, end) : buffered;
        if (end < 0 && line === "") return undefined;
        buffered = end >= 0 ? buffered.slice(end + 1) : "";
        return line.replace(/\r$/, "");
      }
      const { value, done } = await orAbort(reader.read(), signal);
      buffered += done ? decoder.decode() : decoder.decode(value, { stream: true });
      ended = done;
    }
  };
}
